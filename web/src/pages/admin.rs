//! The operator's console: pipeline, orders, books.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    accounts, capacity,
    clock::{day_text, minute_text},
    fleet,
    ids::{PoolId, SectorId},
    jobs::{self, AlertKind},
    ledger,
    money::NanoFil,
    orders, payments,
    sealing::{self, SectorState},
    store::{AnyConnection, DbResult},
    units::Bytes,
    yields::{self, ChainDay},
};
use serde::Deserialize;

use super::{html, redirect};
use crate::{
    app::{App, Shared, read, write},
    auth::{Admin, Visitor},
    error::WebError,
    form::Form,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/admin", web::get().to(|_: Admin| async { redirect("/admin/fleet") }))
        .route("/admin/pipeline", web::get().to(pipeline_page))
        .route("/admin/payments/settle", web::post().to(settle))
        .route("/admin/sectors/{sector}/release", web::post().to(release))
        .route("/admin/orders", web::get().to(orders_page))
        .route("/admin/books", web::get().to(books_page));
}

struct SectorRow {
    id: i64,
    number: i64,
    is_quarantined: bool,
    state: String,
    machine: String,
    due: String,
    failures: i64,
    reason: String,
}

struct TaskRow {
    kind: String,
    subject: String,
    state: String,
    machine: String,
    fence: i64,
    took: String,
    memory: String,
    note: String,
}

/// A worker's loop that makes no progress.
struct FailingRow {
    name: String,
    since: String,
    error: String,
}

/// An event of a rail that a person has to see to.
struct EventRow {
    id: String,
    kind: String,
    at: String,
    note: String,
}

#[derive(Template)]
#[template(path = "admin/pipeline.html")]
struct PipelinePage {
    user: Option<Visitor>,
    failing: Vec<FailingRow>,
    /// Orders that were paid when there was no room any more.
    refunds: i64,
    events: Vec<EventRow>,
    sectors: Vec<SectorRow>,
    tasks: Vec<TaskRow>,
}

/// Everything that a person has to look at: alerts, loops whose turns fail, jobs that have failed often.
fn failing(conn: &mut AnyConnection) -> DbResult<Vec<FailingRow>> {
    let loops = jobs::failing(conn)?.into_iter().map(|f| (f.name, f.since, f.error));
    let jobs =
        jobs::struggling(conn)?.into_iter().map(|job| (job.unique_key, job.created_at, job.last_error.unwrap_or_default()));
    // Payments have a list of their own.
    let alerts = jobs::alerts(conn)?.into_iter().filter(|alert| alert.kind != AlertKind::Payment);
    let alerts = alerts.map(|alert| (alert.kind.words(), alert.since, alert.text));
    let rows = alerts.chain(loops).chain(jobs);
    Ok(rows.map(|(name, since, error)| FailingRow { name, since: minute_text(since), error }).collect())
}

async fn pipeline_page(app: web::Data<App>, Admin(user): Admin) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (failing, events, refunds, sectors, tasks) = read(&app, |conn| {
        let failing = failing(conn)?;
        let events = payments::waiting(conn)?.into_iter().map(|e| EventRow {
            at: minute_text(e.received_at),
            id: e.id,
            kind: e.kind,
            note: e.note,
        });
        let events: Vec<EventRow> = events.collect();
        let refunds = orders::refunds_due(conn)?;
        let machines = fleet::machines(conn)?;
        let name = |id| machines.iter().find(|m| Some(m.id) == id).map(|m| m.name.clone()).unwrap_or_default();
        let sectors = sealing::all_sectors(conn, 200)?;
        let number = |id| sectors.iter().find(|s| Some(s.id) == id).map(|s| format!("sector {}", s.number));
        let tasks = sealing::recent_tasks(conn, 60)?.into_iter().map(|t| TaskRow {
            subject: number(t.sector_id).unwrap_or_else(|| "WindowPoSt".into()),
            machine: name(t.machine_id),
            took: t.wall_ms.map(|ms| format!("{}.{:03} s", ms / 1000, ms % 1000)).unwrap_or_default(),
            memory: t.peak_bytes.map(|b| Bytes(b).to_string()).unwrap_or_default(),
            note: t.failure.or(t.progress).unwrap_or_default(),
            kind: t.kind.words(),
            state: t.state.words(),
            fence: t.fence,
        });
        let tasks: Vec<TaskRow> = tasks.collect();
        let rows = sectors.iter().map(|s| SectorRow {
            id: s.id.0,
            is_quarantined: s.state == SectorState::Quarantined,
            number: s.number,
            state: s.state.words(),
            machine: name(s.machine_id),
            due: minute_text(s.due_at),
            failures: s.failures,
            reason: s.reason.clone().unwrap_or_default(),
        });
        Ok((failing, events, refunds, rows.collect(), tasks))
    })
    .await?;
    html(&PipelinePage { user: Some((&user).into()), failing, refunds, events, sectors, tasks })
}

#[derive(Deserialize)]
struct SettleForm {
    event: String,
}

async fn settle(app: web::Data<App>, Admin(user): Admin, form: Form<SettleForm>) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (event, now, admin) = (form.into_inner().event, app.now(), user.id);
    if write(&app, move |conn| payments::settle(conn, &event, admin, now)).await? {
        Ok(redirect("/admin/pipeline"))
    } else {
        Err(WebError::BadInput("This event has already been dealt with.".into()))
    }
}

async fn release(app: web::Data<App>, Admin(user): Admin, id: web::Path<i64>) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (id, now, admin) = (SectorId(id.into_inner()), app.now(), user.id);
    let released = write(&app, move |conn| {
        accounts::record(conn, now, Some(admin), "release from quarantine", &format!("sector row {id}"), "")?;
        sealing::release(conn, id, now)
    })
    .await?;
    if released {
        Ok(redirect("/admin/pipeline"))
    } else {
        Err(WebError::BadInput("This sector is no longer in quarantine.".into()))
    }
}

struct AdminOrder {
    id: String,
    state: String,
    bytes: String,
    price: String,
    at: String,
}

#[derive(Template)]
#[template(path = "admin/orders.html")]
struct OrdersPage {
    user: Option<Visitor>,
    orders: Vec<AdminOrder>,
}

async fn orders_page(app: web::Data<App>, Admin(user): Admin) -> Result<HttpResponse, WebError> {
    let orders = read(&app.into_inner(), |conn| orders::recent(conn, 200)).await?;
    let orders = orders
        .into_iter()
        .map(|o| AdminOrder {
            price: o.price().to_string(),
            id: o.public_id,
            state: if o.refunded_at.is_some() { "refunded".into() } else { o.state.words() },
            bytes: Bytes(o.bytes).to_string(),
            at: minute_text(o.created_at),
        })
        .collect();
    html(&OrdersPage { user: Some((&user).into()), orders })
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

/// The newest first.
fn chain_days(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Vec<ChainDayRow>> {
    let days = yields::chain_days(conn, pool)?;
    let time = yields::cursor(conn, pool)?.map(|cursor| cursor.time());
    let atto = |text: &str| text.parse::<i128>().unwrap_or_default();
    let fil = |atto: i128| NanoFil::from_atto(atto).map_or_else(|| "?".into(), |(nano, _)| nano.to_string());
    let bonded = |day: &ChainDay| atto(&day.deposits_atto) + atto(&day.pledge_atto);
    let mut rows = Vec::new();
    for day in days.iter().rev().take(40) {
        let epochs = time.map_or((0, 0), |time| (time.first_epoch(day.day), time.first_epoch(day.day + 1)));
        rows.push(ChainDayRow {
            day: day_text(day.day),
            rewards: fil(atto(&day.reward_atto)),
            daily_fee: fil(atto(&day.daily_fee_atto)),
            faults: fil(atto(&day.fault_fee_atto)),
            ended: fil(atto(&day.termination_fee_atto) + atto(&day.deposits_lost_atto)),
            other: fil(atto(&day.other_atto)),
            bound_in: fil(atto(&day.deposits_in_atto) + atto(&day.pledge_in_atto)),
            bound_back: fil(atto(&day.deposits_back_atto) + atto(&day.pledge_back_atto)),
            gas: fil(sealing::gas_cost(conn, pool, epochs.0, epochs.1)?),
            balance: fil(atto(&day.balance_atto)),
            locked_in: fil(atto(&day.locked_in_atto)),
            unlocked: fil(atto(&day.unlocked_atto)),
            locked: fil(atto(&day.locked_atto)),
            bonded: fil(bonded(day)),
            available: fil(atto(&day.available_atto)),
        });
    }
    Ok(rows)
}

#[derive(Template)]
#[template(path = "admin/books.html")]
struct BooksPage {
    user: Option<Visitor>,
    pools: Vec<PoolBooks>,
    findings: Vec<String>,
}

async fn books_page(app: web::Data<App>, Admin(user): Admin) -> Result<HttpResponse, WebError> {
    let (pools, findings) = read(&app.into_inner(), |conn| {
        let mut pools = Vec::new();
        for pool in capacity::pools(conn)? {
            let c = capacity::capacity(conn, pool.id)?;
            let shown = |code: &str, amount: i64| {
                if code.starts_with("capacity:") { Bytes(amount).to_string() } else { NanoFil(amount).to_string() }
            };
            let accounts = ledger::pool_balances(conn, pool.id)?
                .into_iter()
                .map(|(code, balance)| AccountRow {
                    posted: shown(&code, balance.posted),
                    held: shown(&code, balance.held),
                    code,
                })
                .collect();
            let days = yields::days(conn, pool.id, 40)?.into_iter().map(|d| DayRow {
                day: day_text(d.day),
                wins: d.wins,
                posted: NanoFil(d.posted_nano).to_string(),
                carry: d.carry_atto,
                power: d.power_epochs,
            });
            pools.push(PoolBooks {
                chain_days: chain_days(conn, pool.id)?,
                name: pool.name,
                capacity: format!(
                    "owned {} = free {} + held {} + sold {} + own use {} + down {}",
                    Bytes(c.owned),
                    Bytes(c.free),
                    Bytes(c.held),
                    Bytes(c.sold),
                    Bytes(c.own_use),
                    Bytes(c.down)
                ),
                identity_holds: c.holds(),
                accounts,
                days: days.collect(),
            });
        }
        let findings = ledger::check(conn)?.into_iter().map(|f| format!("{}: {}", f.account, f.what)).collect();
        Ok((pools, findings))
    })
    .await?;
    html(&BooksPage { user: Some((&user).into()), pools, findings })
}
