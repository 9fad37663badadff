//! Dates given before the sale, and their outcomes. A promise never changes; the forecast beside it
//! does, with the reason.

use std::collections::BTreeMap;

use diesel::prelude::*;

use sealyard_planner::Calibration;

use super::{FIRST_POST, Outlook, Promised, Snapshot};
use crate::{
    clock::{DAY, Micros, Month},
    ids::{OrderId, PoolId},
    on_conn,
    store::{
        AnyConnection, DbResult,
        schema::{contracts, promise_lessons, promises},
    },
};

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
    diesel::insert_into(promises::table)
        .values(row)
        .execute(conn)
        .map(drop)
}

/// Moves the promised date because the buyer paid late, which is the only reason for which it
/// moves. The first date stays on record.
pub fn paid_late(conn: &mut AnyConnection, order: OrderId, date: &Promised) -> DbResult<()> {
    let Some(given) = of_order(conn, order)? else {
        return Ok(());
    };
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
    let row: Option<(i64, i64, i64, i64)> =
        promise_lessons::table.find(pool.0).first(conn).optional()?;
    Ok(row.map_or(
        (Calibration::default(), 0),
        |(_, shift, stretch, outcomes)| {
            let of = |value: i64| i32::try_from(value).unwrap_or(1_000_000);
            (
                Calibration {
                    shift: of(shift),
                    stretch: of(stretch),
                },
                outcomes,
            )
        },
    ))
}

/// Records the outcomes of promises whose contract counts or whose date has passed, and learns from
/// each once. Returns how many there were.
pub fn settle(conn: &mut AnyConnection, now: Micros) -> DbResult<usize> {
    let open: Vec<(Promise, Option<Micros>)> = promises::table
        .inner_join(contracts::table.on(contracts::order_id.eq(promises::order_id)))
        .filter(
            promises::kept.is_null().and(
                contracts::active_at
                    .is_not_null()
                    .or(promises::promised_at.lt(now)),
            ),
        )
        .order(promises::order_id.asc())
        .select((promises::all_columns, contracts::active_at))
        .load(conn)?;
    for (promise, active_at) in &open {
        let later_than = |date: Micros| active_at.is_none_or(|at| at > date);
        let kept = !later_than(promise.promised_at);
        let row = promises::table.filter(
            promises::order_id
                .eq(promise.order_id)
                .and(promises::kept.is_null()),
        );
        let won = diesel::update(row)
            .set((promises::met_at.eq(*active_at), promises::kept.eq(kept)))
            .execute(conn)?;
        if won == 1 {
            let (before, outcomes) = calibration(conn, promise.pool_id)?;
            let learnt = before.learn(later_than(promise.p50_at), !kept);
            keep_calibration(conn, promise.pool_id, learnt, outcomes + 1)?;
        }
    }
    // A promise that was broken by its date is still met some time later.
    for (order, active_at) in broken_but_met(conn)? {
        diesel::update(promises::table.filter(promises::order_id.eq(order)))
            .set(promises::met_at.eq(active_at))
            .execute(conn)?;
    }
    Ok(open.len())
}

fn broken_but_met(conn: &mut AnyConnection) -> DbResult<Vec<(OrderId, Option<Micros>)>> {
    promises::table
        .inner_join(contracts::table.on(contracts::order_id.eq(promises::order_id)))
        .filter(
            promises::kept
                .eq(false)
                .and(promises::met_at.is_null())
                .and(contracts::active_at.is_not_null()),
        )
        .select((promises::order_id, contracts::active_at))
        .load(conn)
}

fn keep_calibration(
    conn: &mut AnyConnection,
    pool: PoolId,
    calibration: Calibration,
    outcomes: i64,
) -> DbResult<()> {
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
pub fn forecast_again(
    conn: &mut AnyConnection,
    snapshot: &Snapshot,
    outlook: &Outlook,
) -> DbResult<()> {
    for (contract, expected) in &outlook.contracts {
        let order: Option<(OrderId, Micros)> = promises::table
            .inner_join(contracts::table.on(contracts::order_id.eq(promises::order_id)))
            .filter(contracts::id.eq(contract).and(promises::kept.is_null()))
            .select((promises::order_id, promises::forecast_at))
            .first(conn)
            .optional()?;
        let Some((order, before)) = order else {
            continue;
        };
        let expected = expected.saturating_add(FIRST_POST / 2);
        // Smaller changes are not news.
        if (expected - before).abs() > DAY / 4 {
            let why = why_moved(snapshot, *contract, expected > before);
            diesel::update(promises::table.filter(promises::order_id.eq(order)))
                .set((
                    promises::forecast_at.eq(expected),
                    promises::forecast_why.eq(why),
                ))
                .execute(conn)?;
        }
    }
    Ok(())
}

fn why_moved(snapshot: &Snapshot, contract: i64, later: bool) -> String {
    let commitment = snapshot
        .commitments
        .iter()
        .find(|o| o.held == 0 && o.id == contract);
    let setback = commitment.and_then(|o| {
        o.sectors
            .iter()
            .find_map(|s| s.setback.as_ref().map(|why| (s.number, why)))
    });
    match (setback, later) {
        (Some((number, why)), true) => format!("sector {number} had a setback: {why}"),
        (None, true) if !snapshot.away.is_empty() => {
            format!(
                "fewer machines are working: {} lost or draining",
                snapshot.away.join(", ")
            )
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
        if decided == 0 {
            None
        } else {
            Some(self.kept * 1000 / decided)
        }
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
        let Some(month) = Month::of_day(promised_at.div_euclid(DAY)) else {
            continue;
        };
        let record = months.entry(month).or_insert(MonthRecord {
            month,
            made: 0,
            kept: 0,
            broken: 0,
            moved: 0,
        });
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
