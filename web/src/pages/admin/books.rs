//! The operator's books: capacity, accounts, closed days, the chain's record.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    capacity::Capacity,
    clock::day_text,
    ledger::Balance,
    money::NanoFil,
    units::Bytes,
    views::{self, ChainBooks},
    yields::PoolDay,
};

use crate::{
    app::{App, read},
    auth::Admin,
    error::WebError,
    pages::html,
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/admin/books", web::get().to(books_page));
}

struct AccountRow {
    code: String,
    posted: String,
    held: String,
}

struct DayRow {
    day: String,
    wins: i64,
    posted: String,
    carry: i64,
    power: String,
}

/// The chain's record of a miner's day, FIL.
struct ChainDayRow {
    day: String,
    rewards: String,
    daily_fee: String,
    faults: String,
    ended: String,
    other: String,
    bound_in: String,
    bound_back: String,
    gas: String,
    balance: String,
    locked_in: String,
    unlocked: String,
    locked: String,
    bonded: String,
    available: String,
}

struct PoolBooks {
    name: String,
    capacity: String,
    identity_holds: bool,
    accounts: Vec<AccountRow>,
    days: Vec<DayRow>,
    chain_days: Vec<ChainDayRow>,
}

impl ChainDayRow {
    fn new(row: &ChainBooks) -> Self {
        let day = &row.day;
        let atto = |text: &str| text.parse::<i128>().unwrap_or_default();
        let fil = |atto: i128| {
            NanoFil::from_atto(atto).map_or_else(|| "?".into(), |(nano, _)| nano.to_string())
        };
        let sum = |a: &str, b: &str| fil(atto(a).saturating_add(atto(b)));
        Self {
            day: day_text(day.day),
            rewards: fil(atto(&day.reward_atto)),
            daily_fee: fil(atto(&day.daily_fee_atto)),
            faults: fil(atto(&day.fault_fee_atto)),
            ended: sum(&day.termination_fee_atto, &day.deposits_lost_atto),
            other: fil(atto(&day.other_atto)),
            bound_in: sum(&day.deposits_in_atto, &day.pledge_in_atto),
            bound_back: sum(&day.deposits_back_atto, &day.pledge_back_atto),
            gas: fil(row.gas_atto),
            balance: fil(atto(&day.balance_atto)),
            locked_in: fil(atto(&day.locked_in_atto)),
            unlocked: fil(atto(&day.unlocked_atto)),
            locked: fil(atto(&day.locked_atto)),
            bonded: sum(&day.deposits_atto, &day.pledge_atto),
            available: fil(atto(&day.available_atto)),
        }
    }
}

impl AccountRow {
    fn new(code: String, balance: Balance) -> Self {
        let shown = |amount: i64| {
            if code.starts_with("capacity:") {
                Bytes(amount).to_string()
            } else {
                NanoFil(amount).to_string()
            }
        };
        Self {
            posted: shown(balance.posted),
            held: shown(balance.held),
            code,
        }
    }
}

impl DayRow {
    fn new(day: PoolDay) -> Self {
        Self {
            day: day_text(day.day),
            wins: day.wins,
            posted: NanoFil(day.posted_nano).to_string(),
            carry: day.carry_atto,
            power: day.power_epochs,
        }
    }
}

fn capacity_text(c: &Capacity) -> String {
    format!(
        "owned {} = free {} + held {} + sold {} + own use {} + down {}",
        Bytes(c.owned),
        Bytes(c.free),
        Bytes(c.held),
        Bytes(c.sold),
        Bytes(c.own_use),
        Bytes(c.down)
    )
}

impl PoolBooks {
    fn new(books: views::PoolBooks) -> Self {
        let accounts = books.accounts.into_iter();
        Self {
            name: books.pool.name,
            capacity: capacity_text(&books.capacity),
            identity_holds: books.capacity.holds(),
            accounts: accounts
                .map(|(code, balance)| AccountRow::new(code, balance))
                .collect(),
            days: books.days.into_iter().map(DayRow::new).collect(),
            chain_days: books.chain_days.iter().map(ChainDayRow::new).collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "admin/books.html")]
struct BooksPage {
    user: Option<Visitor>,
    pools: Vec<PoolBooks>,
    findings: Vec<String>,
}

async fn books_page(app: web::Data<App>, Admin(user): Admin) -> Result<HttpResponse, WebError> {
    let (pools, findings) = read(&app.into_inner(), views::books).await?;
    html(&BooksPage {
        user: Some((&user).into()),
        pools: pools.into_iter().map(PoolBooks::new).collect(),
        findings: findings
            .into_iter()
            .map(|f| format!("{}: {}", f.account, f.what))
            .collect(),
    })
}
