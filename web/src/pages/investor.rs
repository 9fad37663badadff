//! An investor's pages: dashboard, contract with live progress, ledger, statements.

use std::collections::{BTreeMap, BTreeSet};

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    accounts::User,
    capacity, catalog,
    clock::{DAY, Month, day_text, minute_text, parse_day},
    contracts::{self, Contract, ContractState},
    fleet::{self, Machine},
    ledger::{self, AccountSpec},
    money::NanoFil,
    orders,
    orders::OrderState,
    scheduler,
    sealing::{self, SectorState, TaskHead, TaskState},
    statements,
    store::{AnyConnection, DbFault, DbResult},
    units::Bytes,
    yields,
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;
use serde::Deserialize;

use super::{
    html,
    terms::{TermRow, term_rows},
};
use crate::{
    app::{App, Shared, read},
    auth::{SignedIn, Visitor},
    error::WebError,
    render::{StatementView, statement_pdf, statement_view},
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/dashboard", web::get().to(dashboard))
        .route("/contracts/{id}", web::get().to(contract_page))
        .route("/contracts/{id}/progress", web::get().to(contract_progress))
        .route("/ledger", web::get().to(ledger_page))
        .route("/statements", web::get().to(statements_page))
        .route("/statements/{id}", web::get().to(statement_page))
        .route("/statements/{id}/pdf", web::get().to(statement_file));
}

pub struct Balances {
    pub available: String,
    pub vesting: String,
    pub pledged: String,
}

pub struct ContractRow {
    pub id: String,
    pub size: String,
    pub state: String,
    pub sectors: String,
    pub earned: String,
}

struct OrderRow {
    id: String,
    state: String,
    price: String,
    at: String,
}

#[derive(Template)]
#[template(path = "invest/dashboard.html")]
struct Dashboard {
    user: Option<Visitor>,
    balances: Balances,
    contracts: Vec<ContractRow>,
    orders: Vec<OrderRow>,
}

fn balances(conn: &mut AnyConnection, user: &User) -> DbResult<Balances> {
    let mut of = |spec: AccountSpec| ledger::balance(conn, &spec).map(|b| NanoFil(b.free()).to_string());
    Ok(Balances {
        available: of(AccountSpec::Available(user.id))?,
        vesting: of(AccountSpec::Vesting(user.id))?,
        pledged: of(AccountSpec::Pledged(user.id))?,
    })
}

fn contract_row(conn: &mut AnyConnection, contract: &Contract) -> DbResult<ContractRow> {
    let sectors = sealing::of_contract(conn, contract.id)?;
    let active = sectors.iter().filter(|s| s.state == SectorState::Active).count();
    let lots = ledger::lots_of_contract(conn, contract.id, 0..i64::MAX, i64::MAX)?;
    let earned: i64 = lots.iter().map(|lot| lot.available_nano + lot.locked_nano + lot.compensation_nano).sum();
    Ok(ContractRow {
        id: contract.public_id.clone(),
        size: Bytes(contract.bytes).to_string(),
        state: contract.state.words(),
        sectors: format!("{active} of {}", sectors.len()),
        earned: NanoFil(earned).to_string(),
    })
}

async fn dashboard(app: web::Data<App>, SignedIn(user): SignedIn) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let visitor = Some((&user).into());
    let (balances, contracts, orders) = read(&app, move |conn| {
        let rows: DbResult<Vec<_>> = contracts::of_user(conn, user.id)?.iter().map(|c| contract_row(conn, c)).collect();
        let orders = orders::of_user(conn, user.id)?
            .into_iter()
            .filter(|o| o.state != OrderState::Fulfilled)
            .map(|o| OrderRow {
                price: o.price().to_string(),
                id: o.public_id,
                state: o.state.words(),
                at: minute_text(o.created_at),
            })
            .collect();
        Ok((balances(conn, &user)?, rows?, orders))
    })
    .await?;
    html(&Dashboard { user: visitor, balances, contracts, orders })
}

pub struct Stage {
    pub name: &'static str,
    /// `done`, `now` or `todo`.
    pub mark: &'static str,
}

pub struct SectorCard {
    pub number: i64,
    pub state: String,
    pub stages: Vec<Stage>,
    pub machine: String,
    pub note: String,
    pub comm_r: String,
}

struct LotRow {
    day: String,
    gross: String,
    fee: String,
    available: String,
    locked: String,
    released: String,
    /// Compensation for missing power, with the share that was missing; empty when none was.
    made_up: String,
    missing: String,
}

impl LotRow {
    fn new(lot: &ledger::Lot, bytes: i64) -> Self {
        let fil = |nano| NanoFil(nano).to_string();
        let missing: u128 = lot.missing_epochs.parse().unwrap_or_default();
        let owed = u128::try_from(bytes).unwrap_or(0) * u128::from(EPOCHS_PER_DAY.unsigned_abs());
        let permille = (missing * 1000).checked_div(owed).unwrap_or_default();
        Self {
            day: day_text(lot.day),
            gross: fil(lot.gross_nano),
            fee: fil(lot.fee_nano + lot.cost_nano),
            available: fil(lot.available_nano),
            locked: fil(lot.locked_nano),
            released: fil(lot.released_nano),
            made_up: match (missing, lot.added_epochs) {
                (0, _) => String::new(),
                (_, 0) => fil(lot.compensation_nano),
                (_, epochs) if lot.compensation_nano == 0 => format!("{epochs} epochs added"),
                (_, epochs) => format!("{} and {epochs} epochs added", fil(lot.compensation_nano)),
            },
            missing: if missing == 0 {
                String::new()
            } else {
                format!("{}.{} % of the power did not count", permille / 10, permille % 10)
            },
        }
    }
}

#[derive(Template)]
#[template(path = "invest/contract.html", blocks = ["progress"])]
struct ContractPage {
    user: Option<Visitor>,
    id: String,
    state: String,
    size: String,
    days: i64,
    /// The end of the term as it stands, and what put it off; empty: nothing did.
    ends: String,
    put_off: String,
    terms: Vec<TermRow>,
    promised: String,
    /// The first date; empty: it never moved.
    moved_from: String,
    /// The date expected now, and the reason why it differs from the promise.
    expected: String,
    expected_why: String,
    active_since: String,
    miner: String,
    sectors: Vec<SectorCard>,
    /// Sectors that do not earn now.
    not_counting: usize,
    live: bool,
    ended: bool,
    lots: Vec<LotRow>,
    /// The first day that is shown, if there are lots before it.
    older: Option<String>,
}

/// Days of a contract on one page.
const LOTS_SHOWN: usize = 60;

const STAGES: [(&str, &[SectorState]); 7] = [
    ("Queued", &[SectorState::Planned]),
    ("Sealing", &[SectorState::PreCommit1, SectorState::PreCommit2]),
    ("Committed", &[SectorState::PreCommitting, SectorState::WaitSeed]),
    ("Proof", &[SectorState::Commit1, SectorState::Commit2, SectorState::Verifying]),
    ("On chain", &[SectorState::ProveCommitting, SectorState::Finalizing]),
    ("First proof", &[SectorState::Proving]),
    ("Earning", &[SectorState::Active]),
];

/// Where a sector stands among the stages that a customer sees; empty: it is out of them.
fn stages(state: SectorState) -> Vec<Stage> {
    let Some(at) = STAGES.iter().position(|(_, states)| states.contains(&state)) else { return Vec::new() };
    STAGES
        .iter()
        .enumerate()
        .map(|(index, (name, _))| Stage {
            name,
            mark: match index.cmp(&at) {
                std::cmp::Ordering::Less => "done",
                std::cmp::Ordering::Equal if state == SectorState::Active => "done",
                std::cmp::Ordering::Equal => "now",
                std::cmp::Ordering::Greater => "todo",
            },
        })
        .collect()
}

fn sector_card(sector: &sealing::Sector, open: &[TaskHead], machines: &[Machine]) -> SectorCard {
    let open = open.iter().rev().find(|t| t.sector_id == Some(sector.id));
    let machine = sector.machine_id.and_then(|id| machines.iter().find(|m| m.id == id));
    let note = match open {
        Some(task) if task.state == TaskState::Leased => "a machine is working on it".into(),
        Some(_) => "waiting for a machine".into(),
        None if sector.state == SectorState::Quarantined => {
            "sealing failed several times; our operators are looking into it".into()
        }
        None if sector.state == SectorState::Faulty => {
            "on chain, but not proven in its last window: it does not count until it is proven again".into()
        }
        None if sector.state == SectorState::Expired => "its time on chain is over".into(),
        _ => String::new(),
    };
    SectorCard {
        number: sector.number,
        state: sector.state.words(),
        stages: stages(sector.state),
        machine: machine.map(|m| m.name.clone()).unwrap_or_default(),
        note,
        comm_r: sector.comm_r.clone().unwrap_or_default(),
    }
}

/// By how much missing power has put off a contract's end.
fn put_off(contract: &Contract) -> String {
    let minutes = contract.added_epochs.saturating_mul(24 * 60) / EPOCHS_PER_DAY;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => String::new(),
        (0, hours, minutes) => format!("extended by {hours} h {minutes} min for missing power"),
        (days, hours, _) => format!("extended by {days} d {hours} h for missing power"),
    }
}

async fn load_contract(app: &Shared, user: User, id: String, before: Option<i64>) -> Result<ContractPage, WebError> {
    let page = read(app, move |conn| {
        let found = contracts::by_public_id(conn, &id)?.filter(|c| c.user_id == user.id || user.is_admin());
        let Some(contract) = found else { return Ok(None) };
        let pool = capacity::pool_by_id(conn, contract.pool_id)?;
        let (open, machines) = (sealing::open_tasks_of_contract(conn, contract.id)?, fleet::machines(conn)?);
        let sectors = sealing::of_contract(conn, contract.id)?;
        let counting = sectors.iter().filter(|s| s.state == SectorState::Active).count();
        let most = i64::try_from(LOTS_SHOWN + 1).unwrap_or(i64::MAX);
        let mut lots = ledger::lots_of_contract(conn, contract.id, 0..before.unwrap_or(i64::MAX), most)?;
        let is_older = lots.len() > LOTS_SHOWN;
        lots.truncate(LOTS_SHOWN);
        let terms = catalog::terms_by_id(conn, contract.terms_id)?;
        let promise = scheduler::promise_of_order(conn, contract.order_id)?;
        Ok(Some(ContractPage {
            user: Some((&user).into()),
            id: contract.public_id.clone(),
            live: contract.state == ContractState::Sealing,
            ended: contract.state == ContractState::Ended,
            state: contract.state.words(),
            size: Bytes(contract.bytes).to_string(),
            days: contract.days,
            ends: contract.ends_at.map(minute_text).unwrap_or_default(),
            put_off: put_off(&contract),
            terms: term_rows(&terms),
            promised: minute_text(contract.promised_at),
            moved_from: promise.as_ref().and_then(|p| p.moved_from).map(minute_text).unwrap_or_default(),
            expected: promise.as_ref().map(|p| minute_text(p.forecast_at)).unwrap_or_default(),
            expected_why: promise.map(|p| p.forecast_why).unwrap_or_default(),
            active_since: contract.active_at.map(minute_text).unwrap_or_default(),
            miner: pool.miner,
            not_counting: sectors.len() - counting,
            sectors: sectors.iter().map(|sector| sector_card(sector, &open, &machines)).collect(),
            older: lots.last().filter(|_| is_older).map(|lot| day_text(lot.day)),
            lots: lots.iter().map(|lot| LotRow::new(lot, contract.bytes)).collect(),
        }))
    })
    .await?;
    page.ok_or(WebError::NotFound)
}

async fn contract_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
    asked: web::Query<Before>,
) -> Result<HttpResponse, WebError> {
    html(&load_contract(&app.into_inner(), user, id.into_inner(), asked.day()?).await?)
}

/// The part of the page that changes while sealing.
async fn contract_progress(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    html(&load_contract(&app.into_inner(), user, id.into_inner(), None).await?.as_progress())
}

struct EntryRow {
    day: String,
    account: &'static str,
    what: String,
    subject: String,
    amount: String,
    is_out: bool,
}

#[derive(Template)]
#[template(path = "invest/ledger.html")]
struct LedgerPage {
    user: Option<Visitor>,
    balances: Balances,
    stop: Option<IfStopped>,
    /// When the last of what is pledged comes back; empty: nothing is pledged.
    pledge_back: String,
    entries: Vec<EntryRow>,
    /// The first day that is shown, whether there is something before it, and whether this is the first page.
    from: String,
    is_older: bool,
    is_newest: bool,
}

/// Releases to come if the investor stops today.
struct IfStopped {
    vesting: String,
    tomorrow: String,
    last: String,
    months: Vec<MonthOfRelease>,
}

struct MonthOfRelease {
    name: String,
    nano: i64,
    sum: String,
    /// Day and amount.
    days: Vec<(String, String)>,
}

fn if_stopped(calendar: &BTreeMap<i64, i64>) -> Option<IfStopped> {
    let (first, last) = (calendar.first_key_value()?, calendar.last_key_value()?);
    let mut months: Vec<MonthOfRelease> = Vec::new();
    for (day, amount) in calendar {
        let name = Month::of_day(*day).map(Month::long_text).unwrap_or_default();
        if months.last().is_none_or(|last| last.name != name) {
            months.push(MonthOfRelease { name, nano: 0, sum: String::new(), days: Vec::new() });
        }
        if let Some(month) = months.last_mut() {
            month.nano += amount;
            month.sum = NanoFil(month.nano).to_string();
            month.days.push((day_text(*day), NanoFil(*amount).to_string()));
        }
    }
    Some(IfStopped {
        vesting: NanoFil(calendar.values().sum()).to_string(),
        tomorrow: NanoFil(*first.1).to_string(),
        last: day_text(*last.0),
        months,
    })
}

fn what(kind: &str) -> String {
    match kind {
        "reward" => "Reward, available at once".into(),
        "locked" => "Reward, vesting over 180 days".into(),
        "vested" => "Released from vesting".into(),
        "compensation" => "Compensation for missing power".into(),
        "pledge" => "Pledge put up".into(),
        "pledge_not_needed" => "Pledge not needed by the network".into(),
        "pledge_returned" => "Pledge returned".into(),
        "pledge_kept" => "Pledge kept for a sector that ended early".into(),
        other => other.to_owned(),
    }
}

/// `?before=2026-11-02`: what lies before that day.
#[derive(Deserialize)]
struct Before {
    before: Option<String>,
}

impl Before {
    fn day(&self) -> Result<Option<i64>, WebError> {
        let bad = || WebError::BadInput("The day must be written as 2026-11-02.".into());
        self.before.as_deref().map(|text| parse_day(text).ok_or_else(bad)).transpose()
    }
}

/// A page of the ledger has so many entries, or a day's.
const ENTRIES_SHOWN: i64 = 1500;
const DAYS_SHOWN: i64 = 31;

/// Days `[first, end)` of a page of the ledger, and whether there may be something before them. The first page ends with whatever is
/// newest, and begins some days before the last one that is closed.
fn ledger_days(conn: &mut AnyConnection, user: &User, before: Option<i64>, today: i64) -> DbResult<(i64, i64, bool)> {
    let contracts = contracts::of_user(conn, user.id)?;
    let began = contracts.iter().map(|contract| contract.active_at.unwrap_or(contract.created_at));
    let earliest = began.fold(user.created_at, i64::min);
    let mut closed = today;
    for pool in contracts.iter().map(|contract| contract.pool_id).collect::<BTreeSet<_>>() {
        closed = closed.min(yields::days(conn, pool, 1)?.first().map_or(today, |day| day.day));
    }
    // A contract has about four entries a day.
    let count = i64::try_from(contracts.len()).unwrap_or(i64::MAX).saturating_mul(4).max(1);
    let days = (ENTRIES_SHOWN / count).clamp(1, DAYS_SHOWN);
    let first = before.unwrap_or(closed + 1) - days;
    Ok((first, before.unwrap_or(i64::MAX), earliest.div_euclid(DAY) < first))
}

fn entry_rows(conn: &mut AnyConnection, user: &User, days: &std::ops::Range<i64>) -> DbResult<Vec<EntryRow>> {
    let mut rows = Vec::new();
    for (account, spec) in [
        ("Available", AccountSpec::Available(user.id)),
        ("Vesting", AccountSpec::Vesting(user.id)),
        ("Pledged", AccountSpec::Pledged(user.id)),
    ] {
        for entry in ledger::entries(conn, &spec, days.clone(), i64::MAX)? {
            rows.push((entry.effective_day, account, entry));
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.0));
    let mut entries = Vec::new();
    for (day, account, entry) in rows {
        let correction = if entry.kind == "correction" { yields::correction(conn, &entry.transfer)? } else { None };
        entries.push(EntryRow {
            day: day_text(day),
            account,
            what: match correction {
                Some(correction) => format!("Correction of {}: {}", correction.corrects, correction.reason),
                None => what(&entry.kind),
            },
            subject: entry.subject,
            amount: NanoFil(entry.amount).to_string(),
            is_out: entry.amount < 0,
        });
    }
    Ok(entries)
}

async fn ledger_page(app: web::Data<App>, SignedIn(user): SignedIn, asked: web::Query<Before>) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (before, today) = (asked.day()?, app.now().div_euclid(DAY));
    let page = read(&app, move |conn| {
        let calendar = yields::calendar(conn, user.id).map_err(|error| match error {
            yields::CloseError::Db(DbFault::Query(error)) => error,
            other => diesel::result::Error::DeserializationError(other.into()),
        })?;
        let (first, end, is_older) = ledger_days(conn, &user, before, today)?;
        Ok(LedgerPage {
            user: Some((&user).into()),
            balances: balances(conn, &user)?,
            stop: if_stopped(&calendar),
            pledge_back: contracts::pledge_back_by(conn, user.id)?.map(minute_text).unwrap_or_default(),
            entries: entry_rows(conn, &user, &(first..end))?,
            from: day_text(first),
            is_older,
            is_newest: before.is_none(),
        })
    })
    .await?;
    html(&page)
}

struct StatementRow {
    id: String,
    month: String,
    sent: String,
}

#[derive(Template)]
#[template(path = "invest/statements.html")]
struct StatementsPage {
    user: Option<Visitor>,
    statements: Vec<StatementRow>,
}

async fn statements_page(app: web::Data<App>, SignedIn(user): SignedIn) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let id = user.id;
    let list = read(&app, move |conn| statements::of_user(conn, id)).await?;
    let statements = list
        .into_iter()
        .map(|s| StatementRow {
            id: s.public_id,
            month: s.month,
            sent: match (s.sent_at, s.refused_at) {
                (Some(at), _) => minute_text(at),
                (None, Some(_)) => "not delivered: your mail server refused it. Read it here, and give us another address".into(),
                (None, None) => "being sent".into(),
            },
        })
        .collect();
    html(&StatementsPage { user: Some((&user).into()), statements })
}

#[derive(Template)]
#[template(path = "invest/statement.html")]
struct StatementPage {
    user: Option<Visitor>,
    id: String,
    view: StatementView,
}

async fn find_statement(app: &Shared, user: &User, id: String) -> Result<(String, StatementView), WebError> {
    let found = read(app, move |conn| statements::by_public_id(conn, &id)).await?;
    let statement = found.filter(|s| s.user_id == user.id || user.is_admin()).ok_or(WebError::NotFound)?;
    let model = statement.parsed().map_err(|error| WebError::Internal(error.into()))?;
    Ok((statement.public_id, statement_view(&model, String::new())))
}

async fn statement_page(app: web::Data<App>, SignedIn(user): SignedIn, id: web::Path<String>) -> Result<HttpResponse, WebError> {
    let (id, view) = find_statement(&app.into_inner(), &user, id.into_inner()).await?;
    html(&StatementPage { user: Some((&user).into()), id, view })
}

async fn statement_file(app: web::Data<App>, SignedIn(user): SignedIn, id: web::Path<String>) -> Result<HttpResponse, WebError> {
    let (_, view) = find_statement(&app.into_inner(), &user, id.into_inner()).await?;
    let pdf = web::block(move || statement_pdf(&view)).await.map_err(|error| WebError::Internal(error.into()))??;
    Ok(HttpResponse::Ok().content_type("application/pdf").body(pdf))
}
