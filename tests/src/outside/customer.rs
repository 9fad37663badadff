//! A customer who uses the site's real forms, and helpers that change the shop meanwhile.

use std::{io::Write, path::Path, time::Duration};

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    capacity, catalog,
    clock::{Clock, SystemClock},
    orders::{self, Order},
    store::{AnyConnection, Database, DbFault, schema},
};

use super::read;
use crate::{
    fixture::{Part, Shop, database_url},
    support::{machine, program},
};

/// A shop with a machine that has just been heard, ten sectors and one plan.
pub fn shop(dir: &Path, more: &str) -> (Shop, Database) {
    let shop = Shop::open(
        dir,
        &format!(
            "parameters_dir = \"{}\"\npoll_ms = 50\n{more}",
            dir.join("params").display()
        ),
    );
    add_pool(&shop);
    let db = Database::open(&database_url(dir), 4).unwrap();
    machine(&db, "yard");
    db.transact(make_pledgeable).unwrap();
    (shop, db)
}

fn add_pool(shop: &Shop) {
    let added = std::process::Command::new(program("sealyard"))
        .arg("--config")
        .arg(&shop.config)
        .args(["pool", "--name", "Test", "--miner-id", "1000"])
        .args(["--sector-bytes", "2048", "--capacity-bytes", "20480"])
        .args(["--price-minor", "2500"])
        .status()
        .unwrap();
    assert!(added.success());
}

/// No agent runs here, so the machine is marked as just heard.
fn make_pledgeable(conn: &mut AnyConnection) -> Result<(), DbFault> {
    diesel::update(schema::machines::table)
        .set(schema::machines::seen_at.eq(SystemClock.now()))
        .execute(conn)?;
    let pool = capacity::pools(conn)?.remove(0);
    capacity::set_collateral(conn, pool.id, 10, 0)?;
    Ok(())
}

/// Starts a worker. Only its loops that need no node work: orders and jobs.
pub fn worker(dir: &Path, shop: &Shop) -> Part {
    Part::new(
        dir,
        "work",
        &[
            "sealyard",
            "--config",
            &shop.config.display().to_string(),
            "work",
        ],
    )
    .started()
}

pub struct Customer {
    http: reqwest::Client,
    pub url: String,
    pub stripe: String,
    cookie: String,
}

/// The parts of an answer that tests look at.
pub struct Page {
    pub status: u16,
    pub location: String,
    pub text: String,
}

impl Customer {
    pub fn visitor(shop: &Shop) -> Self {
        sealyard_filecoin::http::client(Duration::from_secs(1)).unwrap();
        let http = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap();
        let config = std::fs::read_to_string(&shop.config).unwrap();
        let stripe = config
            .lines()
            .find_map(|line| line.strip_prefix("stripe_api = "))
            .unwrap()
            .trim_matches('"')
            .to_owned();
        Self {
            http,
            url: shop.url.clone(),
            stripe,
            cookie: String::new(),
        }
    }

    pub async fn signed_up(shop: &Shop, email: &str) -> Self {
        let mut customer = Self::visitor(shop);
        customer
            .enter(
                "/signup",
                &[
                    ("email", email),
                    ("name", "Ada"),
                    ("password", "long enough"),
                ],
            )
            .await;
        customer
    }

    /// An administrator who is created on the command line and signed in on the site.
    pub async fn operator(shop: &Shop) -> Self {
        let mut command = std::process::Command::new(program("sealyard"));
        command.arg("--config").arg(&shop.config).args([
            "admin",
            "operator@example.org",
            "Operator",
        ]);
        let mut child = command.stdin(std::process::Stdio::piped()).spawn().unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(b"long enough\n")
            .unwrap();
        assert!(child.wait().unwrap().success());
        let mut operator = Self::visitor(shop);
        operator
            .enter(
                "/login",
                &[
                    ("email", "operator@example.org"),
                    ("password", "long enough"),
                ],
            )
            .await;
        operator
    }

    async fn enter(&mut self, path: &str, form: &[(&str, &str)]) {
        let answer = self
            .http
            .post(format!("{}{path}", self.url))
            .form(form)
            .send()
            .await
            .unwrap();
        assert_eq!(
            answer.status().as_u16(),
            303,
            "{}",
            answer.text().await.unwrap()
        );
        let cookie = answer
            .headers()
            .get("set-cookie")
            .unwrap()
            .to_str()
            .unwrap();
        self.cookie = cookie.split(';').next().unwrap().to_owned();
    }

    pub fn cookie(&self) -> &str {
        &self.cookie
    }

    async fn page(request: reqwest::RequestBuilder) -> Page {
        let answer = request.send().await.unwrap();
        let header = answer
            .headers()
            .get("location")
            .and_then(|l| l.to_str().ok())
            .unwrap_or_default();
        Page {
            status: answer.status().as_u16(),
            location: header.to_owned(),
            text: answer.text().await.unwrap(),
        }
    }

    pub async fn get(&self, path: &str) -> Page {
        Self::page(
            self.http
                .get(format!("{}{path}", self.url))
                .header("cookie", &self.cookie),
        )
        .await
    }

    pub async fn post(&self, path: &str, form: &[(&str, &str)]) -> Page {
        Self::page(
            self.http
                .post(format!("{}{path}", self.url))
                .header("cookie", &self.cookie)
                .form(form),
        )
        .await
    }

    /// Posts as if through a proxy that reports this address of the visitor.
    pub async fn post_from(&self, address: &str, path: &str, form: &[(&str, &str)]) -> Page {
        let request = self
            .http
            .post(format!("{}{path}", self.url))
            .header("x-forwarded-for", address);
        Self::page(request.form(form)).await
    }

    pub async fn outside(&self, path: &str) -> Page {
        Self::page(self.http.post(format!("{}{path}", self.stripe))).await
    }

    pub async fn announce(&self, event: &serde_json::Value) {
        let sent = self
            .http
            .post(format!("{}/control/event", self.stripe))
            .json(event)
            .send()
            .await
            .unwrap();
        assert!(sent.status().is_success());
    }

    /// The path, request key and shown date of the order form on a quote.
    pub async fn quote(&self, db: &Database, units: i64) -> (String, String, String) {
        let plan = read(db, catalog::plans_on_sale).remove(0);
        let path = format!("/plans/{}", plan.public_id);
        let page = self.get(&format!("{path}?units={units}")).await;
        let field = |name: &str| {
            between(&page.text, &format!("name=\"{name}\" value=\""), "\"").unwrap_or_default()
        };
        (path, field("request_key"), field("shown"))
    }

    /// Orders through the real form and returns the order.
    pub async fn order(&self, db: &Database, units: i64) -> Order {
        let (path, key, shown) = self.quote(db, units).await;
        assert!(!shown.is_empty(), "the quote shows a date");
        let units = units.to_string();
        let placed = self
            .post(
                &path,
                &[("units", &units), ("request_key", &key), ("shown", &shown)],
            )
            .await;
        let id = placed
            .location
            .strip_prefix("/orders/")
            .unwrap_or_else(|| panic!("{} {}", placed.status, placed.text))
            .to_owned();
        order(db, &id)
    }

    /// The id of the payment session of an order.
    pub async fn session(&self, order: &Order) -> String {
        let page = self.get(&format!("/orders/{}", order.public_id)).await;
        let url = between(&page.text, "id=\"pay\" href=\"", "\"")
            .unwrap_or_else(|| panic!("no page to pay on: {}", page.text));
        url.rsplit('/').next().unwrap().to_owned()
    }

    /// Waits until the page of the order contains these words.
    pub async fn until(&self, order: &Order, words: &str) {
        let started = std::time::Instant::now();
        loop {
            let page = self.get(&format!("/orders/{}", order.public_id)).await;
            if page.text.contains(words) {
                return;
            }
            assert!(
                started.elapsed() < Duration::from_secs(20),
                "the page never said {words:?}: {}",
                page.text
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

pub fn between(text: &str, before: &str, after: &str) -> Option<String> {
    let (_, rest) = text.split_once(before)?;
    rest.split_once(after).map(|(found, _)| found.to_owned())
}

pub fn order(db: &Database, id: &str) -> Order {
    read(db, |conn| orders::by_public_id(conn, id)).unwrap()
}

/// Lets this much time pass for an order by moving all its times back.
pub fn later(db: &Database, order: &Order, by: i64) {
    use schema::orders as o;
    db.write(|conn| {
        let row = diesel::update(o::table.find(order.id));
        row.set((
            o::created_at.eq(o::created_at - by),
            o::expires_at.eq(o::expires_at - by),
            o::promised_at.eq(o::promised_at - by),
            o::computed_at.eq(o::computed_at - by),
        ))
        .execute(conn)?;
        Ok(())
    })
    .unwrap();
}
