//! A contract with live progress.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    accounts::User,
    clock::{MINUTE, Micros, day_text, minute_text, parse_day},
    contracts::ContractState,
    money::NanoFil,
    sealing::{SectorState, TaskState},
    units::Bytes,
    views::{self, ContractView, DayOfContract, SectorView},
};
use serde::Deserialize;

use crate::{
    app::{App, Shared, read},
    auth::SignedIn,
    error::WebError,
    pages::{
        html,
        shop::terms::{TermRow, term_rows},
    },
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/contracts/{id}", web::get().to(contract_page))
        .route("/contracts/{id}/progress", web::get().to(contract_progress));
}

/// `?before=2026-11-02`: what lies before that day.
#[derive(Deserialize)]
pub struct Before {
    before: Option<String>,
}

impl Before {
    pub fn day(&self) -> Result<Option<i64>, WebError> {
        let bad = || WebError::BadInput("The day must be written as 2026-11-02.".into());
        self.before
            .as_deref()
            .map(|text| parse_day(text).ok_or_else(bad))
            .transpose()
    }
}

struct Stage {
    name: &'static str,
    /// `done`, `now` or `todo`.
    mark: &'static str,
}

struct SectorCard {
    number: i64,
    state: String,
    stages: Vec<Stage>,
    machine: String,
    note: &'static str,
    comm_r: String,
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
    fn new(day: &DayOfContract) -> Self {
        let fil = |nano| NanoFil(nano).to_string();
        let lot = &day.lot;
        let made_up = match lot.added_epochs {
            _ if day.is_whole() => String::new(),
            0 => fil(lot.compensation_nano),
            epochs if lot.compensation_nano == 0 => format!("{epochs} epochs added"),
            epochs => format!("{} and {epochs} epochs added", fil(lot.compensation_nano)),
        };
        let permille = day.missing_permille;
        let missing = format!(
            "{}.{} % of the power did not count",
            permille / 10,
            permille % 10
        );
        Self {
            day: day_text(lot.day),
            gross: fil(lot.gross_nano),
            fee: fil(lot.fee_nano + lot.cost_nano),
            available: fil(lot.available_nano),
            locked: fil(lot.locked_nano),
            released: fil(lot.released_nano),
            made_up,
            missing: if day.is_whole() {
                String::new()
            } else {
                missing
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
    /// Quality-adjusted power that the chain counts; empty: none.
    counts: String,
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

const STAGES: [(&str, &[SectorState]); 7] = [
    ("Queued", &[SectorState::Planned]),
    (
        "Sealing",
        &[SectorState::PreCommit1, SectorState::PreCommit2],
    ),
    (
        "Committed",
        &[SectorState::PreCommitting, SectorState::WaitSeed],
    ),
    (
        "Proof",
        &[
            SectorState::Commit1,
            SectorState::Commit2,
            SectorState::Verifying,
        ],
    ),
    (
        "On chain",
        &[SectorState::ProveCommitting, SectorState::Finalizing],
    ),
    ("First proof", &[SectorState::Proving]),
    ("Earning", &[SectorState::Active]),
];

/// Where a sector stands among the stages that a customer sees; empty: it is out of them.
fn stages(state: SectorState) -> Vec<Stage> {
    let Some(at) = STAGES
        .iter()
        .position(|(_, states)| states.contains(&state))
    else {
        return Vec::new();
    };
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

fn sector_note(state: SectorState, step: Option<TaskState>) -> &'static str {
    match (step, state) {
        (Some(TaskState::Leased), _) => "a machine is working on it",
        (Some(_), _) => "waiting for a machine",
        (None, SectorState::Quarantined) => {
            "sealing failed several times; our operators are looking into it"
        }
        (None, SectorState::Faulty) => {
            "on chain, but not proven in its last window: it does not count until it is proven \
             again"
        }
        (None, SectorState::Expired) => "its time on chain is over",
        (None, _) => "",
    }
}

impl SectorCard {
    fn new(view: SectorView) -> Self {
        Self {
            number: view.sector.number,
            state: view.sector.state.words(),
            stages: stages(view.sector.state),
            note: sector_note(view.sector.state, view.step),
            machine: view.machine,
            comm_r: view.sector.comm_r.unwrap_or_default(),
        }
    }
}

/// How far missing power has postponed a contract's end.
fn postponed(by: Micros) -> String {
    let minutes = by / MINUTE;
    match (minutes / (24 * 60), minutes / 60 % 24, minutes % 60) {
        (0, 0, 0) => String::new(),
        (0, hours, minutes) => format!("extended by {hours} h {minutes} min for missing power"),
        (days, hours, _) => format!("extended by {days} d {hours} h for missing power"),
    }
}

impl ContractPage {
    fn new(view: ContractView, user: &User) -> Self {
        let oldest = view.days.last().filter(|_| view.has_older);
        let (contract, promise) = (&view.contract, view.promise.as_ref());
        Self {
            user: Some(user.into()),
            live: contract.state == ContractState::Sealing,
            ended: contract.state == ContractState::Ended,
            state: contract.state.words(),
            size: Bytes(contract.bytes).to_string(),
            counts: match i64::try_from(view.counting_power) {
                Ok(0) | Err(_) => String::new(),
                Ok(power) => Bytes(power).to_string(),
            },
            days: contract.days,
            ends: contract.ends_at.map(minute_text).unwrap_or_default(),
            put_off: postponed(view.postponed_by),
            terms: term_rows(&view.terms),
            promised: minute_text(contract.promised_at),
            moved_from: promise
                .and_then(|p| p.moved_from)
                .map(minute_text)
                .unwrap_or_default(),
            expected: promise
                .map(|p| minute_text(p.forecast_at))
                .unwrap_or_default(),
            expected_why: promise.map(|p| p.forecast_why.clone()).unwrap_or_default(),
            active_since: contract.active_at.map(minute_text).unwrap_or_default(),
            not_counting: view.not_earning(),
            older: oldest.map(|day| day_text(day.lot.day)),
            lots: view.days.iter().map(LotRow::new).collect(),
            miner: view.pool.miner,
            id: view.contract.public_id,
            sectors: view.sectors.into_iter().map(SectorCard::new).collect(),
        }
    }
}

async fn find(
    app: &Shared,
    user: User,
    id: String,
    before: Option<i64>,
) -> Result<ContractPage, WebError> {
    let viewer = user.clone();
    let found = read(app, move |conn| views::contract(conn, &id, &viewer, before)).await?;
    found
        .map(|view| ContractPage::new(view, &user))
        .ok_or(WebError::NotFound)
}

async fn contract_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
    asked: web::Query<Before>,
) -> Result<HttpResponse, WebError> {
    html(&find(&app.into_inner(), user, id.into_inner(), asked.day()?).await?)
}

/// The part of the page that changes while sealing.
async fn contract_progress(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    html(
        &find(&app.into_inner(), user, id.into_inner(), None)
            .await?
            .as_progress(),
    )
}
