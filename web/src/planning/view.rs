//! The plan in words and tables, with every figure written out.

use std::collections::HashMap;

use sealyard_core::{
    capacity,
    clock::{DAY, HOUR, MINUTE, Micros, SECOND, SECONDS_A_DAY, minute_text},
    contracts,
    ids::OrderId,
    scheduler::{self, Bottleneck, Effect, FIRST_POST, Outlook, Snapshot},
    store::{AnyConnection, DbResult},
    units::Bytes,
};

use super::Gantt;

/// Days ahead for which the page shows how much can be promised.
const HORIZONS: [i64; 5] = [2, 7, 14, 30, 60];
/// The most sectors that are tried for one pool.
const MOST_ASKED: i64 = 5000;

pub struct GainRow {
    pub machine: String,
    pub sooner: String,
    pub lateness: String,
}

pub struct DateRow {
    pub contract: String,
    pub sectors: usize,
    pub promised: String,
    pub expected: String,
    pub is_late: bool,
    pub why: String,
}

pub struct PromisableRow {
    pub pool: String,
    /// Sectors by each of [`HORIZONS`].
    pub sectors: Vec<i64>,
    /// The limit set by storage, and that set by collateral if it is known.
    pub storage: i64,
    pub collateral: String,
}

/// A pool's capacity in the books.
pub struct CapacityRow {
    pub pool: String,
    /// Owned, free, held, sold, own use, down.
    pub parts: [String; 6],
}

pub struct PlanView {
    pub summary: String,
    pub done: String,
    pub lateness: String,
    pub gains: Vec<GainRow>,
    pub dates: Vec<DateRow>,
    pub horizons: Vec<String>,
    pub promisable: Vec<PromisableRow>,
    pub capacity: Vec<CapacityRow>,
    pub gantt: Gantt,
}

/// The contracts' public ids, which the tables show.
struct Names {
    contracts: HashMap<i64, (String, OrderId)>,
}

impl Names {
    fn load(conn: &mut AnyConnection) -> DbResult<Self> {
        let all = contracts::recent(conn, i64::MAX)?;
        Ok(Self {
            contracts: all
                .into_iter()
                .map(|c| (c.id.0, (c.public_id, c.order_id)))
                .collect(),
        })
    }

    fn of(&self, contract: i64) -> String {
        self.contracts
            .get(&contract)
            .map_or_else(|| format!("contract {contract}"), |(name, _)| name.clone())
    }
}

pub fn plan_view(conn: &mut AnyConnection, snapshot: &Snapshot) -> DbResult<PlanView> {
    let outlook = scheduler::outlook(snapshot);
    let gains = scheduler::gains(snapshot).into_iter().map(|gain| GainRow {
        machine: format!(
            "{} ({}, {}, {})",
            gain.like,
            counted(gain.cores, "core"),
            Bytes(gain.memory_bytes),
            counted(gain.gpus, "GPU")
        ),
        sooner: duration(gain.sooner),
        lateness: duration(gain.lateness),
    });
    Ok(PlanView {
        summary: summary(&outlook),
        done: minute_text(outlook.done),
        lateness: duration(outlook.lateness),
        gains: gains.collect(),
        dates: dates(conn, snapshot, &outlook)?,
        horizons: HORIZONS
            .iter()
            .map(|days| format!("in {days} days"))
            .collect(),
        promisable: promisable(conn, snapshot)?,
        capacity: capacity_rows(conn)?,
        gantt: Gantt::of(snapshot, &outlook),
    })
}

/// `1 core`, `2 cores`.
fn counted(n: i64, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

fn summary(outlook: &Outlook) -> String {
    let (pc1, gpu) = outlook.waits;
    match scheduler::bottleneck(outlook) {
        Bottleneck::None => {
            "There is no bottleneck: the time goes into the steps and the chain's own delays."
                .into()
        }
        Bottleneck::SealingSlots => {
            format!(
                "Sealing slots (cores, memory, scratch) are the bottleneck: \
                 a sector waits {} for one.",
                duration(pc1)
            )
        }
        Bottleneck::Gpus => format!(
            "GPUs are the bottleneck: a sector waits {} for PC2 and C2.",
            duration(gpu)
        ),
        Bottleneck::NoMachine => {
            format!(
                "No machine here can seal {} of the committed sectors. \
                 Enrol a machine that is large enough.",
                outlook.stuck
            )
        }
    }
}

fn dates(
    conn: &mut AnyConnection,
    snapshot: &Snapshot,
    outlook: &Outlook,
) -> DbResult<Vec<DateRow>> {
    let names = Names::load(conn)?;
    let mut rows = Vec::new();
    for owed in snapshot.commitments.iter().filter(|o| o.held == 0) {
        let promise = match names.contracts.get(&owed.id) {
            Some((_, order)) => scheduler::promise_of_order(conn, *order)?,
            None => None,
        };
        let expected = outlook
            .contracts
            .get(&owed.id)
            .map(|active| active + FIRST_POST);
        rows.push(DateRow {
            contract: names.of(owed.id),
            sectors: owed.sectors.len(),
            promised: minute_text(owed.promised_at),
            expected: expected
                .map_or_else(|| "never, with the present machines".into(), minute_text),
            is_late: expected.is_none_or(|at| at > owed.promised_at),
            why: promise.map(|p| p.forecast_why).unwrap_or_default(),
        });
    }
    Ok(rows)
}

fn promisable(conn: &mut AnyConnection, snapshot: &Snapshot) -> DbResult<Vec<PromisableRow>> {
    let mut rows = Vec::new();
    for pool in capacity::pools(conn)? {
        let storage = capacity::capacity(conn, pool.id)?.free / pool.sector_bytes.max(1);
        let collateral = pool
            .collateral_sectors
            .map(|all| (all - snapshot.committed_sectors(pool.id)).max(0));
        let room = storage.min(collateral.unwrap_or(i64::MAX)).min(MOST_ASKED);
        let calibration = scheduler::calibration(conn, pool.id)?;
        let by: Vec<Micros> = HORIZONS
            .iter()
            .map(|days| snapshot.now + days * DAY)
            .collect();
        let found =
            scheduler::available_to_promise(snapshot, pool.sector_bytes, room, calibration, &by);
        rows.push(PromisableRow {
            pool: pool.name,
            sectors: found.iter().map(|p| p.sectors).collect(),
            storage,
            collateral: collateral
                .map_or_else(|| "not known yet".into(), |sectors| sectors.to_string()),
        });
    }
    Ok(rows)
}

fn capacity_rows(conn: &mut AnyConnection) -> DbResult<Vec<CapacityRow>> {
    let mut rows = Vec::new();
    for pool in capacity::pools(conn)? {
        let c = capacity::capacity(conn, pool.id)?;
        let parts = [c.owned, c.free, c.held, c.sold, c.own_use, c.down]
            .map(|bytes| Bytes(bytes).to_string());
        rows.push(CapacityRow {
            pool: pool.name,
            parts,
        });
    }
    Ok(rows)
}

pub struct MovedRow {
    pub contract: String,
    pub promised: String,
    pub before: String,
    pub after: String,
    pub breaks: bool,
}

pub struct EffectView {
    pub title: String,
    pub summary: String,
    pub moved: Vec<MovedRow>,
}

/// The effect of a change. `title`: the change in words.
pub fn effect_view(
    conn: &mut AnyConnection,
    snapshot: &Snapshot,
    effect: &Effect,
    title: String,
) -> DbResult<EffectView> {
    let names = Names::load(conn)?;
    let promised: HashMap<i64, Micros> = snapshot
        .commitments
        .iter()
        .filter(|o| o.held == 0)
        .map(|o| (o.id, o.promised_at))
        .collect();
    let moved: Vec<MovedRow> = effect
        .moved()
        .map(|(contract, before, after)| {
            let promise = promised.get(&contract).copied().unwrap_or(before);
            let (before, after) = (before + FIRST_POST, after.map(|at| at + FIRST_POST));
            MovedRow {
                contract: names.of(contract),
                promised: minute_text(promise),
                before: minute_text(before),
                after: after.map_or_else(|| "never".into(), minute_text),
                breaks: before <= promise && after.is_none_or(|at| at > promise),
            }
        })
        .collect();
    let broken = moved.iter().filter(|m| m.breaks).count();
    let summary = format!(
        "All commitments are completed by {} instead of {}; lateness is {} instead of {}; \
         {} of {} dates move; {broken} promises would be broken.",
        minute_text(effect.after.done),
        minute_text(effect.before.done),
        duration(effect.after.lateness),
        duration(effect.before.lateness),
        moved.len(),
        promised.len(),
    );
    Ok(EffectView {
        title,
        summary,
        moved,
    })
}

const MINUTE_S: i64 = MINUTE / SECOND;
const HOUR_S: i64 = HOUR / SECOND;

/// `3 d 4 h`, `4 h 10 min`, `10 min`.
pub fn duration(seconds: i64) -> String {
    let (sign, s) = if seconds < 0 {
        ("−", -seconds)
    } else {
        ("", seconds)
    };
    match s {
        0 => "none".into(),
        1..MINUTE_S => format!("{sign}{s} s"),
        MINUTE_S..HOUR_S => format!("{sign}{} min", s / MINUTE_S),
        HOUR_S..SECONDS_A_DAY => {
            format!("{sign}{} h {} min", s / HOUR_S, s % HOUR_S / MINUTE_S)
        }
        _ => format!(
            "{sign}{} d {} h",
            s / SECONDS_A_DAY,
            s % SECONDS_A_DAY / HOUR_S
        ),
    }
}
