//! Dates given before the sale, and their outcomes. A promise never changes; the forecast beside it
//! does, with the reason.

use std::collections::BTreeMap;

use diesel::prelude::*;

use sealyard_planner::{Calibration, Rollouts, Waits, World, availability, forecast};

use super::{FleetModel, Snapshot, fleet_model::FIRST_POST, what_if::Outlook};
use crate::{
    clock::{DAY, Micros, Month, SECOND},
    ids::{OrderId, PoolId},
    on_conn,
    store::{
        AnyConnection, DbResult,
        schema::{contracts, promise_lessons, promises},
    },
};

/// Simulations of the fleet for one quote.
const ROUNDS: u32 = 64;
/// Outcomes that make a calibration trustworthy. With fewer, each lead time is half as long again.
const YOUNG: i64 = 50;

/// A date that can be given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promised {
    pub p50: Micros,
    /// Kept 95 times of 100.
    pub p95: Micros,
    /// Sectors of other orders that go first.
    pub ahead: i64,
    pub why: String,
}

#[derive(Clone, Debug, Queryable, Insertable)]
#[diesel(table_name = promises)]
pub struct Promise {
    pub order_id: OrderId,
    pub pool_id: PoolId,
    pub sectors: i64,
    pub ahead: i64,
    pub why: String,
    pub made_at: Micros,
    pub p50_at: Micros,
    pub promised_at: Micros,
    /// The date expected now, and the reason why it differs from the promise.
    pub forecast_at: Micros,
    pub forecast_why: String,
    pub met_at: Option<Micros>,
    pub kept: Option<bool>,
    /// The date that was given first, if it moved because the order was paid late.
    pub moved_from: Option<Micros>,
}

/// The date by which `sectors` more of a size would all count, behind everything that is owed
/// already. `None`: no machine here can seal them, or only by breaking a promise.
#[must_use]
pub fn promise(
    snapshot: &Snapshot,
    sector_bytes: i64,
    sectors: i64,
    (calibration, outcomes): (Calibration, i64),
) -> Option<Promised> {
    let fleet_model = FleetModel::for_dates(snapshot);
    let order = fleet_model.order(0, sector_bytes, sectors, snapshot.now)?;
    let found = forecast(&fleet_model.world().world, &order, &rollouts(snapshot, calibration))?;
    let young = outcomes < YOUNG;
    let mut p95 = careful(snapshot, fleet_model.moment(found.p95), young);
    if breaks_a_promise(&fleet_model, sector_bytes, sectors, p95) {
        // The earliest due date goes first, so the order is due no earlier than anything that is
        // promised.
        p95 = snapshot.commitments.iter().map(|o| o.promised_at).fold(p95, Micros::max);
        if breaks_a_promise(&fleet_model, sector_bytes, sectors, p95) {
            return None;
        }
    }
    // No two orders are due in the same second, so that nothing else decides which goes first.
    while is_given(snapshot, p95) {
        p95 += SECOND;
    }
    let ahead = i64::try_from(found.ahead).unwrap_or(i64::MAX);
    Some(Promised { p50: fleet_model.moment(found.p50) + FIRST_POST / 2, p95, ahead, why: reason(found.waits, ahead, young) })
}

/// Whether a date that was shown a moment ago can still be given: no older promise suffers, and
/// nothing else is due in that second.
#[must_use]
pub fn can_give(snapshot: &Snapshot, sector_bytes: i64, sectors: i64, date: Micros) -> bool {
    let fleet_model = FleetModel::for_dates(snapshot);
    !is_given(snapshot, date) && !breaks_a_promise(&fleet_model, sector_bytes, sectors, date)
}

fn is_given(snapshot: &Snapshot, date: Micros) -> bool {
    snapshot.commitments.iter().any(|o| o.promised_at / SECOND == date / SECOND)
}

/// The same state of the fleet gives the same dates.
fn rollouts(snapshot: &Snapshot, calibration: Calibration) -> Rollouts {
    let seed = u64::try_from(snapshot.commitments.iter().map(|o| o.id).max().unwrap_or(0)).unwrap_or(0);
    Rollouts { failure_model: snapshot.history.failure_model(), rounds: ROUNDS, seed, calibration }
}

/// The date to give for sectors that are expected to be active at `expected`.
const fn careful(snapshot: &Snapshot, expected: Micros, young: bool) -> Micros {
    let lead = expected - snapshot.now;
    snapshot.now + if young { lead + lead / 2 } else { lead } + FIRST_POST
}

/// Whether an order that is due at `promised_at` would make an older one late, or delay one that is
/// already late by more than a step that cannot be interrupted.
fn breaks_a_promise(fleet_model: &FleetModel<'_>, sector_bytes: i64, sectors: i64, promised_at: Micros) -> bool {
    let mut before = fleet_model.world();
    let mut after = fleet_model.world();
    let Some(order) = fleet_model.order(0, sector_bytes, sectors, promised_at) else { return true };
    after.world.add_order(order);
    if !before.world.run() || !after.world.run() {
        return true;
    }
    before.orders.iter().any(|(order, commitment)| {
        let counts = |world: &World<'_>| world.done_at(*order).map_or(Micros::MAX, |at| fleet_model.moment(at) + FIRST_POST);
        let (was, is) = (counts(&before.world), counts(&after.world));
        is > commitment.promised_at && (was <= commitment.promised_at || is > was.saturating_add(fleet_model.longest_step()))
    })
}

/// Sectors that can be promised for one date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promisable {
    pub by: Micros,
    pub sectors: i64,
}

/// How many sectors of a size can be promised for each of `dates`, behind everything that is owed:
/// at most `room`, the number that storage and collateral allow.
#[must_use]
pub fn available_to_promise(
    snapshot: &Snapshot,
    sector_bytes: i64,
    room: i64,
    (calibration, outcomes): (Calibration, i64),
    dates: &[Micros],
) -> Vec<Promisable> {
    let fleet_model = FleetModel::for_dates(snapshot);
    let order = fleet_model.order(0, sector_bytes, room, snapshot.now);
    let ends =
        order.map(|order| availability(&fleet_model.world().world, &order, &rollouts(snapshot, calibration))).unwrap_or_default();
    let given: Vec<Micros> = ends.iter().map(|at| careful(snapshot, fleet_model.moment(*at), outcomes < YOUNG)).collect();
    let until = |by: Micros| i64::try_from(given.iter().filter(|at| **at <= by).count()).unwrap_or(0);
    dates.iter().map(|by| Promisable { by: *by, sectors: until(*by) }).collect()
}

fn reason(waits: Waits, ahead: i64, young: bool) -> String {
    let (queue, place) = match (waits.pc1, waits.gpu) {
        (pc1, gpu) if pc1 > gpu => (pc1, "for a sealing slot"),
        (_, gpu) => (gpu, "for a GPU"),
    };
    let mut text = if queue < 60 {
        String::from("The machines can start at once; the time is what sealing and the chain take.")
    } else {
        let go = if ahead == 1 { "sector goes" } else { "sectors go" };
        format!("{ahead} {go} first: a sector waits {} {place}, then takes {}.", hours(queue), hours(waits.work))
    };
    if young {
        text.push_str(" There is little history yet, so we allow half as much time again.");
    }
    text
}

fn hours(seconds: i64) -> String {
    if seconds < 7200 { format!("{} min", seconds / 60) } else { format!("{} h", seconds / 3600) }
}

/// Stores the promise that was made with an order.
pub fn record(
    conn: &mut AnyConnection,
    order: OrderId,
    pool: PoolId,
    sectors: i64,
    given: &Promised,
    now: Micros,
) -> DbResult<()> {
    let row = Promise {
        order_id: order,
        pool_id: pool,
        sectors,
        ahead: given.ahead,
        why: given.why.clone(),
        made_at: now,
        p50_at: given.p50,
        promised_at: given.p95,
        forecast_at: given.p50,
        forecast_why: "as promised".into(),
        met_at: None,
        kept: None,
        moved_from: None,
    };
    diesel::insert_into(promises::table).values(row).execute(conn).map(drop)
}

/// Moves the promised date because the buyer paid late, which is the only reason for which it
/// moves. The first date stays on record.
pub fn paid_late(conn: &mut AnyConnection, order: OrderId, date: &Promised) -> DbResult<()> {
    let Some(given) = of_order(conn, order)? else { return Ok(()) };
    diesel::update(promises::table.find(order.0))
        .set((
            promises::moved_from.eq(given.moved_from.unwrap_or(given.promised_at)),
            promises::promised_at.eq(date.p95),
            promises::p50_at.eq(date.p50),
            promises::forecast_at.eq(date.p50),
            promises::forecast_why.eq("it was paid late"),
        ))
        .execute(conn)
        .map(drop)
}

pub fn of_order(conn: &mut AnyConnection, order: OrderId) -> DbResult<Option<Promise>> {
    promises::table.find(order.0).first(conn).optional()
}

/// The calibration from a pool's earlier promises, and how many outcomes it is based on.
pub fn calibration(conn: &mut AnyConnection, pool: PoolId) -> DbResult<(Calibration, i64)> {
    let row: Option<(i64, i64, i64, i64)> = promise_lessons::table.find(pool.0).first(conn).optional()?;
    Ok(row.map_or((Calibration::default(), 0), |(_, shift, stretch, outcomes)| {
        let of = |value: i64| i32::try_from(value).unwrap_or(1_000_000);
        (Calibration { shift: of(shift), stretch: of(stretch) }, outcomes)
    }))
}

/// Records the outcomes of promises whose contract counts or whose date has passed, and learns from
/// each once. Returns how many there were.
pub fn settle(conn: &mut AnyConnection, now: Micros) -> DbResult<usize> {
    let open: Vec<(Promise, Option<Micros>)> = promises::table
        .inner_join(contracts::table.on(contracts::order_id.eq(promises::order_id)))
        .filter(promises::kept.is_null().and(contracts::active_at.is_not_null().or(promises::promised_at.lt(now))))
        .order(promises::order_id.asc())
        .select((promises::all_columns, contracts::active_at))
        .load(conn)?;
    for (promise, active_at) in &open {
        let later_than = |date: Micros| active_at.is_none_or(|at| at > date);
        let kept = !later_than(promise.promised_at);
        let row = promises::table.filter(promises::order_id.eq(promise.order_id).and(promises::kept.is_null()));
        let won = diesel::update(row).set((promises::met_at.eq(*active_at), promises::kept.eq(kept))).execute(conn)?;
        if won == 1 {
            let (before, outcomes) = calibration(conn, promise.pool_id)?;
            let learnt = before.learn(later_than(promise.p50_at), !kept);
            keep_calibration(conn, promise.pool_id, learnt, outcomes + 1)?;
        }
    }
    // A promise that was broken by its date is still met some time later.
    for (order, active_at) in broken_but_met(conn)? {
        diesel::update(promises::table.filter(promises::order_id.eq(order))).set(promises::met_at.eq(active_at)).execute(conn)?;
    }
    Ok(open.len())
}

fn broken_but_met(conn: &mut AnyConnection) -> DbResult<Vec<(OrderId, Option<Micros>)>> {
    promises::table
        .inner_join(contracts::table.on(contracts::order_id.eq(promises::order_id)))
        .filter(promises::kept.eq(false).and(promises::met_at.is_null()).and(contracts::active_at.is_not_null()))
        .select((promises::order_id, contracts::active_at))
        .load(conn)
}

fn keep_calibration(conn: &mut AnyConnection, pool: PoolId, calibration: Calibration, outcomes: i64) -> DbResult<()> {
    let values = (
        promise_lessons::shift.eq(i64::from(calibration.shift)),
        promise_lessons::stretch.eq(i64::from(calibration.stretch)),
        promise_lessons::outcomes.eq(outcomes),
    );
    on_conn!(conn, |c| diesel::insert_into(promise_lessons::table)
        .values((promise_lessons::pool_id.eq(pool.0), values))
        .on_conflict(promise_lessons::pool_id)
        .do_update()
        .set(values)
        .execute(c))
    .map(drop)
}

/// Stores the dates that are expected now for open promises. A date moves only with its reason.
pub fn forecast_again(conn: &mut AnyConnection, snapshot: &Snapshot, outlook: &Outlook) -> DbResult<()> {
    for (contract, expected) in &outlook.contracts {
        let order: Option<(OrderId, Micros)> = promises::table
            .inner_join(contracts::table.on(contracts::order_id.eq(promises::order_id)))
            .filter(contracts::id.eq(contract).and(promises::kept.is_null()))
            .select((promises::order_id, promises::forecast_at))
            .first(conn)
            .optional()?;
        let Some((order, before)) = order else { continue };
        let expected = expected.saturating_add(FIRST_POST / 2);
        // Smaller changes are not news.
        if (expected - before).abs() > DAY / 4 {
            let why = why_moved(snapshot, *contract, expected > before);
            diesel::update(promises::table.filter(promises::order_id.eq(order)))
                .set((promises::forecast_at.eq(expected), promises::forecast_why.eq(why)))
                .execute(conn)?;
        }
    }
    Ok(())
}

fn why_moved(snapshot: &Snapshot, contract: i64, later: bool) -> String {
    let commitment = snapshot.commitments.iter().find(|o| o.held == 0 && o.id == contract);
    let setback = commitment.and_then(|o| o.sectors.iter().find_map(|s| s.setback.as_ref().map(|why| (s.number, why))));
    match (setback, later) {
        (Some((number, why)), true) => format!("sector {number} had a setback: {why}"),
        (None, true) if !snapshot.away.is_empty() => {
            format!("fewer machines are working: {} lost or draining", snapshot.away.join(", "))
        }
        (None, true) => "sealing takes longer than usual".into(),
        (_, false) => "sealing is faster than expected".into(),
    }
}

/// Promises of one month, by promised date.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct MonthRecord {
    pub month: Month,
    pub made: i64,
    pub kept: i64,
    pub broken: i64,
    /// How many of those made were moved to this date because the order was paid late.
    pub moved: i64,
}

impl MonthRecord {
    /// Kept promises among those decided, per mille; `None`: none is decided yet.
    #[must_use]
    pub const fn kept_permille(&self) -> Option<i64> {
        let decided = self.kept + self.broken;
        if decided == 0 { None } else { Some(self.kept * 1000 / decided) }
    }
}

/// The public record, latest month first. Orders that were never paid do not count.
pub fn months(conn: &mut AnyConnection) -> DbResult<Vec<MonthRecord>> {
    let rows: Vec<(Micros, Option<bool>, Option<Micros>)> = promises::table
        .inner_join(contracts::table.on(contracts::order_id.eq(promises::order_id)))
        .select((promises::promised_at, promises::kept, promises::moved_from))
        .load(conn)?;
    let mut months: BTreeMap<Month, MonthRecord> = BTreeMap::new();
    for (promised_at, kept, moved_from) in rows {
        let Some(month) = Month::of_day(promised_at.div_euclid(DAY)) else { continue };
        let record = months.entry(month).or_insert(MonthRecord { month, made: 0, kept: 0, broken: 0, moved: 0 });
        record.made += 1;
        record.moved += i64::from(moved_from.is_some());
        match kept {
            Some(true) => record.kept += 1,
            Some(false) => record.broken += 1,
            None => {}
        }
    }
    Ok(months.into_values().rev().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HOUR,
        ids::MachineId,
        scheduler::{
            FileMoves, History, disk_left,
            fixture::{GIB, NOW, commitment, machine, snapshot},
        },
        sealing::{Cost, TaskKind},
    };

    /// A machine whose disk holds the PC1 of one 32 GiB sector beside `sectors` sealed ones.
    fn fleet_model(sectors: i64, gib_stored: i64) -> Snapshot {
        let mut fleet_model = snapshot(vec![machine(1, 64)], Vec::new(), Vec::new());
        let scratch = Cost::of(TaskKind::PreCommit1, 32 * GIB).scratch_bytes;
        let machine = &mut fleet_model.machines[0];
        (machine.memory_bytes, machine.disk_bytes) = (1 << 40, scratch + sectors * 32 * GIB);
        machine.stored_bytes = gib_stored * GIB;
        machine.disk_free_bytes = machine.disk_bytes - machine.stored_bytes;
        fleet_model.sizes = vec![32 * GIB];
        fleet_model
    }

    #[test]
    fn a_disk_counts_only_for_sectors_that_its_machine_can_seal() {
        let mut fleet_model = fleet_model(10, 0);
        assert_eq!(disk_left(&fleet_model), 11 * 32 * GIB);
        fleet_model.sizes.push(64 * GIB);
        assert_eq!(disk_left(&fleet_model), 11 * 32 * GIB, "too small for PC1 of 64 GiB, not for 32");
        let (mut contract, _) = commitment(1, 90);
        contract.sector_bytes = 32 * GIB;
        fleet_model.commitments.push(contract);
        assert_eq!(disk_left(&fleet_model), 10 * 32 * GIB);
        fleet_model.machines[0].takes_new = false;
        assert_eq!(disk_left(&fleet_model), 0);
    }

    /// One machine for PC1, one with a GPU and a disk for 3 sectors, and a storage machine for 100.
    fn split() -> Snapshot {
        let mut fleet_model = fleet_model(3, 0);
        for id in 2..=3 {
            fleet_model.machines.push(crate::scheduler::MachineView { id: MachineId(id), ..fleet_model.machines[0].clone() });
        }
        fleet_model.machines.iter_mut().for_each(|m| m.moves = FileMoves::Now);
        (fleet_model.machines[1].gpus, fleet_model.machines[2].keeps) = (1, true);
        fleet_model.machines[2].disk_bytes = 100 * 32 * GIB;
        fleet_model.machines[2].disk_free_bytes = 100 * 32 * GIB;
        fleet_model
    }

    #[test]
    fn sealed_sectors_are_kept_where_there_is_free_space() {
        let can =
            |fleet_model: &Snapshot, sectors| promise(fleet_model, 32 * GIB, sectors, (Calibration::default(), 0)).is_some();
        let mut fleet_model = split();
        assert_eq!(disk_left(&fleet_model), 104 * 32 * GIB, "and the last ones where they are sealed");
        assert!(can(&fleet_model, 104) && !can(&fleet_model, 105));
        let second = &mut fleet_model.machines[1];
        (second.stored_bytes, second.disk_bytes) = (10 * 32 * GIB, second.disk_bytes + 10 * 32 * GIB);
        assert_eq!(disk_left(&fleet_model), 104 * 32 * GIB, "what leaves makes room");
        assert!(can(&fleet_model, 94), "what is sealed already comes first");
        fleet_model.machines[2].moves = FileMoves::NotNow;
        assert!(can(&fleet_model, 94), "a transfer that has just failed says nothing of the days to come");
        fleet_model.machines[1].moves = FileMoves::Never;
        assert!(can(&fleet_model, 4), "with nobody to get at it, it stays where PC2 was done");
        let mut alone = split();
        alone.machines.pop();
        assert_eq!(disk_left(&alone), 4 * 32 * GIB);
        alone.machines[0].moves = FileMoves::NotNow;
        assert!(can(&alone, 4) && !can(&alone, 5));
        alone.machines[1].leftover_bytes = 2 * 32 * GIB;
        assert!(
            disk_left(&alone) == 2 * 32 * GIB && can(&alone, 2) && !can(&alone, 3),
            "what is about to be deleted is still there"
        );
    }

    #[test]
    fn frequent_step_failures_make_promises_later() {
        let date = |failed: i64| {
            let mut fleet_model = fleet_model(50, 0);
            fleet_model.history = History::with_failures(TaskKind::PreCommit1, (300, failed));
            promise(&fleet_model, 32 * GIB, 20, (Calibration::default(), 0)).unwrap()
        };
        let (sound, frail) = (date(0), date(100));
        assert!(frail.p50 > sound.p50 + 2 * HOUR && frail.p95 > sound.p95 + 6 * HOUR, "{sound:?} {frail:?}");
    }

    #[test]
    fn sectors_that_no_disk_can_keep_are_not_promised() {
        let can =
            |fleet_model: &Snapshot, sectors| promise(fleet_model, 32 * GIB, sectors, (Calibration::default(), 0)).is_some();
        let empty = fleet_model(10, 0);
        assert!(can(&empty, 11) && !can(&empty, 12), "the last one's scratch becomes its place");
        let fuller = fleet_model(10, 4 * 32);
        assert!(can(&fuller, 7) && !can(&fuller, 8));
        let later = [NOW + 100 * DAY];
        let most = |fleet_model: &Snapshot, room| {
            available_to_promise(fleet_model, 32 * GIB, room, (Calibration::default(), 0), &later)[0].sectors
        };
        assert_eq!((most(&empty, 100), most(&empty, 3), most(&fuller, 100)), (11, 3, 7));
        let mut promised = fleet_model(10, 0);
        let (mut contract, _) = commitment(1, 90);
        (contract.sector_bytes, contract.held) = (32 * GIB, 9);
        contract.sectors.clear();
        promised.commitments.push(contract);
        assert!(can(&promised, 2) && !can(&promised, 3), "a disk is promised once");
    }
}
