//! Pages as customers and operators get them, from a small fixture at a fixed moment. A change
//! shows as a difference to read.

use std::sync::Arc;

use actix_web::{cookie::Cookie, test, web};
use sealyard_core::{
    accounts::{self, NewUser, Registration, Role, User},
    capacity, catalog,
    clock::{Clock, DAY, Micros},
    fleet::{self, protocol::Hardware},
    jobs,
    orders::{self, Paid, PlaceOrder},
    store::DbFault,
};

use crate::{
    app::{App, Shared},
    auth,
    config::Config,
    demo,
};

struct Still;

impl Clock for Still {
    fn now(&self) -> Micros {
        1_790_000_000_000_000
    }
}

/// An operator, an investor with one contract of two sectors and one unpaid order.
struct Fixture {
    app: Shared,
    order: String,
    contract: String,
    plan: String,
    _dir: tempfile::TempDir,
}

fn fixture() -> Fixture {
    let dir = tempfile::tempdir().unwrap();
    let config = Config {
        database_url: format!("sqlite://{}/house.db", dir.path().display()),
        session_secret: "0123456789abcdef0123456789abcdef".into(),
        ..Config::default()
    };
    let app = App::new(config, Arc::new(Still)).unwrap();
    app.db.migrate().unwrap();
    demo::seed(&app).unwrap();
    let now = app.now();
    let (order, contract, plan) = app
        .db
        .write(|conn| {
            let ada = NewUser {
                email: "ada@example.org",
                name: "Ada",
                password: "long enough",
                role: Role::Investor,
            };
            let user = accounts::register(conn, &Registration::of(&ada).unwrap(), now).unwrap();
            let token = fleet::new_token(conn, "yard-1", now, now + DAY)?;
            let hardware = Hardware {
                cores: 8,
                memory_bytes: 32 << 30,
                disk_bytes: 1 << 40,
                disk_free_bytes: 1 << 39,
                gpus: Vec::new(),
                description: "8 cores".into(),
            };
            fleet::enrol(conn, &token, &hardware, now).unwrap();
            let plan = catalog::plans_on_sale(conn)?.remove(0);
            capacity::set_collateral(conn, plan.pool_id, 500, 100_000_000)?;
            let mut place = |units, key| {
                orders::place(
                    conn,
                    &PlaceOrder {
                        user: user.id,
                        plan: &plan,
                        units,
                        request_key: key,
                        shown: None,
                    },
                    now,
                )
                .unwrap()
            };
            let (paid, unpaid) = (place(2, "paid"), place(1, "unpaid"));
            orders::open_payment(conn, paid.id, "stripe", "cs_1", "http://pay", now)?;
            orders::open_payment(conn, unpaid.id, "stripe", "cs_2", "http://pay", now)?;
            let payment = Paid {
                rail: "stripe",
                rail_ref: "cs_1",
                minor: paid.amount_minor,
                currency: "usd",
            };
            let contract = orders::fulfil(conn, &payment, now).unwrap().unwrap();
            jobs::claim(conn, "chain", "worker", now + DAY, now)?;
            jobs::note_turn(conn, "chain", Some("the node cannot be reached"), now)?;
            Ok((unpaid.public_id, contract.public_id, plan.public_id))
        })
        .unwrap();
    Fixture {
        app,
        order,
        contract,
        plan,
        _dir: dir,
    }
}

impl Fixture {
    fn user(&self, email: &str) -> User {
        self.app
            .db
            .read(|conn| accounts::by_email(conn, email).map_err(DbFault::from))
            .unwrap()
            .unwrap()
    }

    /// The page's text, without what is drawn by lot.
    async fn page(&self, path: &str, cookie: Option<Cookie<'static>>) -> String {
        let server = test::init_service(
            actix_web::App::new()
                .app_data(web::Data::from(self.app.clone()))
                .configure(super::routes),
        )
        .await;
        let mut request = test::TestRequest::get().uri(path);
        if let Some(cookie) = cookie {
            request = request.cookie(cookie);
        }
        let answer = test::call_service(&server, request.to_request()).await;
        let status = answer.status();
        let body = String::from_utf8(test::read_body(answer).await.to_vec()).unwrap();
        let lines = body
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty());
        format!("{status}\n{}\n", lines.collect::<Vec<_>>().join("\n"))
    }
}

macro_rules! assert_page {
    ($name:expr, $page:expr) => {
        let page = $page;
        insta::with_settings!({
            filters => vec![
                (r"\b(ord|ctr|pln|req|usr|mch|pool)_[a-z0-9]{8,}", "${1}_ID"),
                (r#"(request_key" value=")[^"]+"#, "${1}KEY"),
                (r#"(shown" value="\d+\.)[^"]+"#, "${1}CODE"),
            ],
            snapshot_path => "snapshots",
            prepend_module_to_snapshot => false,
        }, { insta::assert_snapshot!($name, page) })
    };
}

#[actix_web::test]
async fn pages_that_anybody_sees() {
    let fixture = fixture();
    for (name, path) in [
        ("home", "/"),
        ("login", "/login"),
        ("signup", "/signup"),
        ("promises", "/promises"),
        ("nowhere", "/nowhere"),
    ] {
        assert_page!(name, fixture.page(path, None).await);
    }
}

#[actix_web::test]
async fn an_investors_pages() {
    let fixture = fixture();
    let cookie = auth::start(&fixture.app, &fixture.user("ada@example.org"))
        .await
        .unwrap();
    for (name, path) in [
        ("plan", format!("/plans/{}?units=3", fixture.plan)),
        ("order", format!("/orders/{}", fixture.order)),
        ("dashboard", "/dashboard".into()),
        ("contract", format!("/contracts/{}", fixture.contract)),
        ("ledger", "/ledger".into()),
        ("statements", "/statements".into()),
        ("admin_refused", "/admin/books".into()),
    ] {
        assert_page!(name, fixture.page(&path, Some(cookie.clone())).await);
    }
}

#[actix_web::test]
async fn an_operators_pages() {
    let fixture = fixture();
    let cookie = auth::start(&fixture.app, &fixture.user(demo::ADMIN))
        .await
        .unwrap();
    for page in ["fleet", "plan", "pipeline", "orders", "books"] {
        assert_page!(
            format!("admin_{page}"),
            fixture
                .page(&format!("/admin/{page}"), Some(cookie.clone()))
                .await
        );
    }
}
