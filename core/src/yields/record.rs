//! What the chain said, as rows: how far it was read, blocks won, when sectors counted.

use diesel::prelude::*;

use super::Interval;
use crate::{
    clock::Micros,
    ids::{ContractId, PoolId, SectorId},
    on_conn,
    store::{
        AnyConnection, DbResult,
        schema::{block_wins, chain_cursors, pool_days, sector_intervals, yield_lots},
    },
    units::ChainTime,
};

#[derive(Clone, Debug, Queryable)]
pub struct Cursor {
    pub pool_id: PoolId,
    genesis_at: i64,
    epoch_seconds: i64,
    /// Everything before it is recorded.
    pub next_epoch: i64,
    pub head_epoch: i64,
    /// The tipset before `next_epoch`, to notice a chain that rolled back.
    pub last_cid: String,
}

impl Cursor {
    #[must_use]
    pub fn time(&self) -> ChainTime {
        ChainTime { genesis_at: self.genesis_at, epoch_seconds: self.epoch_seconds }
    }
}

/// Starts reading at `next_epoch`; does nothing when reading has started.
pub fn init_cursor(conn: &mut AnyConnection, pool: PoolId, time: ChainTime, next_epoch: i64) -> DbResult<()> {
    let values = (
        chain_cursors::pool_id.eq(pool),
        chain_cursors::genesis_at.eq(time.genesis_at),
        chain_cursors::epoch_seconds.eq(time.epoch_seconds),
        chain_cursors::next_epoch.eq(next_epoch),
        chain_cursors::head_epoch.eq(next_epoch),
        chain_cursors::last_cid.eq(""),
    );
    on_conn!(&mut *conn, |c| diesel::insert_into(chain_cursors::table).values(values).on_conflict_do_nothing().execute(c))
        .map(drop)
}

pub fn cursor(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Option<Cursor>> {
    chain_cursors::table.find(pool).first(conn).optional()
}

/// Moves the cursor from `from`; false when somebody else moved it.
pub fn advance_cursor(conn: &mut AnyConnection, from: &Cursor, next_epoch: i64, head: i64, last_cid: &str) -> DbResult<bool> {
    let same =
        chain_cursors::table.filter(chain_cursors::pool_id.eq(from.pool_id).and(chain_cursors::next_epoch.eq(from.next_epoch)));
    let moved = diesel::update(same)
        .set((chain_cursors::next_epoch.eq(next_epoch), chain_cursors::head_epoch.eq(head), chain_cursors::last_cid.eq(last_cid)))
        .execute(conn)?;
    Ok(moved == 1)
}

/// A block that the pool's miner won.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = block_wins)]
pub struct Win {
    pub pool_id: PoolId,
    pub epoch: i64,
    pub cid: String,
    pub win_count: i64,
    /// attoFIL, decimal.
    pub reward_atto: String,
}

pub fn record_win(conn: &mut AnyConnection, win: &Win) -> DbResult<()> {
    on_conn!(&mut *conn, |c| diesel::insert_into(block_wins::table).values(win).on_conflict_do_nothing().execute(c)).map(drop)
}

/// Wins of `[first, end)`.
pub fn wins(conn: &mut AnyConnection, pool: PoolId, first: i64, end: i64) -> DbResult<Vec<Win>> {
    block_wins::table
        .filter(block_wins::pool_id.eq(pool).and(block_wins::epoch.ge(first)).and(block_wins::epoch.lt(end)))
        .order(block_wins::epoch.asc())
        .load(conn)
}

#[derive(Clone, Debug, Queryable)]
pub struct SectorInterval {
    pub id: i64,
    pub pool_id: PoolId,
    pub sector_id: SectorId,
    pub start_epoch: i64,
    pub end_epoch: Option<i64>,
    pub qa_power: i64,
}

impl SectorInterval {
    #[must_use]
    pub fn interval(&self) -> Interval {
        Interval { start: self.start_epoch, end: self.end_epoch, qa_power: self.qa_power }
    }
}

/// Sectors that count at the cursor.
pub fn open_intervals(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Vec<SectorInterval>> {
    sector_intervals::table
        .filter(sector_intervals::pool_id.eq(pool).and(sector_intervals::end_epoch.is_null()))
        .order(sector_intervals::sector_id.asc())
        .load(conn)
}

pub fn intervals_of(conn: &mut AnyConnection, sector: SectorId) -> DbResult<Vec<SectorInterval>> {
    sector_intervals::table.filter(sector_intervals::sector_id.eq(sector)).order(sector_intervals::start_epoch.asc()).load(conn)
}

/// Intervals that touch `[first, end)`.
pub(super) fn intervals_in(conn: &mut AnyConnection, pool: PoolId, first: i64, end: i64) -> DbResult<Vec<SectorInterval>> {
    let not_before = sector_intervals::end_epoch.is_null().or(sector_intervals::end_epoch.gt(first));
    sector_intervals::table
        .filter(sector_intervals::pool_id.eq(pool).and(sector_intervals::start_epoch.lt(end)).and(not_before))
        .order(sector_intervals::id.asc())
        .load(conn)
}

pub fn power_on(conn: &mut AnyConnection, pool: PoolId, sector: SectorId, epoch: i64, qa_power: i64) -> DbResult<()> {
    let values = (
        sector_intervals::pool_id.eq(pool),
        sector_intervals::sector_id.eq(sector),
        sector_intervals::start_epoch.eq(epoch),
        sector_intervals::qa_power.eq(qa_power),
    );
    on_conn!(&mut *conn, |c| diesel::insert_into(sector_intervals::table).values(values).on_conflict_do_nothing().execute(c))
        .map(drop)
}

pub fn power_off(conn: &mut AnyConnection, sector: SectorId, epoch: i64) -> DbResult<()> {
    diesel::update(
        sector_intervals::table.filter(sector_intervals::sector_id.eq(sector).and(sector_intervals::end_epoch.is_null())),
    )
    .set(sector_intervals::end_epoch.eq(epoch))
    .execute(conn)
    .map(drop)
}

/// A closed day of a pool.
#[derive(Clone, Debug, Queryable, Insertable)]
#[diesel(table_name = pool_days)]
pub struct PoolDay {
    pub pool_id: PoolId,
    pub day: i64,
    pub first_epoch: i64,
    pub end_epoch: i64,
    pub wins: i64,
    pub reward_atto: String,
    pub posted_nano: i64,
    pub carry_atto: i64,
    pub power_epochs: String,
    pub closed_at: Micros,
}

/// Newest first.
pub fn days(conn: &mut AnyConnection, pool: PoolId, limit: i64) -> DbResult<Vec<PoolDay>> {
    pool_days::table.filter(pool_days::pool_id.eq(pool)).order(pool_days::day.desc()).limit(limit).load(conn)
}

/// A contract's part of a day.
#[derive(Clone, Debug, Queryable, Insertable)]
#[diesel(table_name = yield_lots)]
pub struct Lot {
    pub contract_id: ContractId,
    pub day: i64,
    pub pool_id: PoolId,
    pub power_epochs: String,
    pub gross_nano: i64,
    pub fee_nano: i64,
    pub available_nano: i64,
    pub locked_nano: i64,
}

/// Newest first.
pub fn lots_of_contract(conn: &mut AnyConnection, contract: ContractId, limit: i64) -> DbResult<Vec<Lot>> {
    yield_lots::table.filter(yield_lots::contract_id.eq(contract)).order(yield_lots::day.desc()).limit(limit).load(conn)
}
