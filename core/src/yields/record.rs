//! Records from the chain: how far it was read, blocks won, and when sectors counted.

use std::collections::{BTreeMap, HashMap, HashSet};

use diesel::prelude::*;

use super::{Interval, attribute::Costs};
use crate::{
    clock::Micros,
    ids::{ContractId, PoolId},
    insert_new, on_conn,
    store::{
        AnyConnection, DbResult, ROWS_AT_ONCE,
        schema::{block_wins, chain_cursors, chain_days, pool_days, sector_intervals},
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
    /// The tipset before `next_epoch`, to detect that the chain rolled back.
    pub last_cid: String,
    /// The network's name; empty until it is read.
    pub network: String,
    /// The last epoch in which a new sector counted its bytes once (FIP-0118). `None`: the chain
    /// has not passed it.
    pub full_quality_after: Option<i64>,
}

impl Cursor {
    #[must_use]
    pub fn time(&self) -> ChainTime {
        ChainTime {
            genesis_at: self.genesis_at,
            epoch_seconds: self.epoch_seconds,
        }
    }

    /// How many times its bytes a sector counts that becomes active at an epoch.
    #[must_use]
    pub fn new_quality(&self, epoch: i64) -> u128 {
        match self.full_quality_after {
            Some(last) if epoch > last => 10,
            _ => 1,
        }
    }
}

/// Starts reading at `next_epoch`. Does nothing when reading has already started.
pub fn init_cursor(
    conn: &mut AnyConnection,
    pool: PoolId,
    time: ChainTime,
    next_epoch: i64,
) -> DbResult<()> {
    let values = (
        chain_cursors::pool_id.eq(pool),
        chain_cursors::genesis_at.eq(time.genesis_at),
        chain_cursors::epoch_seconds.eq(time.epoch_seconds),
        chain_cursors::next_epoch.eq(next_epoch),
        chain_cursors::head_epoch.eq(next_epoch),
        chain_cursors::last_cid.eq(""),
    );
    on_conn!(&mut *conn, |c| diesel::insert_into(chain_cursors::table)
        .values(values)
        .on_conflict_do_nothing()
        .execute(c))
    .map(drop)
}

pub fn cursor(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Option<Cursor>> {
    chain_cursors::table.find(pool).first(conn).optional()
}

/// Moves the cursor from `from`; false when somebody else moved it.
pub fn advance_cursor(
    conn: &mut AnyConnection,
    from: &Cursor,
    next_epoch: i64,
    head: i64,
    last_cid: &str,
) -> DbResult<bool> {
    let same = chain_cursors::table.filter(
        chain_cursors::pool_id
            .eq(from.pool_id)
            .and(chain_cursors::next_epoch.eq(from.next_epoch)),
    );
    let moved = diesel::update(same)
        .set((
            chain_cursors::next_epoch.eq(next_epoch),
            chain_cursors::head_epoch.eq(head),
            chain_cursors::last_cid.eq(last_cid),
        ))
        .execute(conn)?;
    Ok(moved == 1)
}

/// Stores the name of the network. An earlier name stays.
pub fn name_network(conn: &mut AnyConnection, pool: PoolId, network: &str) -> DbResult<()> {
    let unnamed = chain_cursors::table.filter(
        chain_cursors::pool_id
            .eq(pool)
            .and(chain_cursors::network.eq("")),
    );
    diesel::update(unnamed)
        .set(chain_cursors::network.eq(network))
        .execute(conn)
        .map(drop)
}

/// Stores the last epoch in which a new sector counted once. An earlier answer stays.
pub fn full_quality_after(conn: &mut AnyConnection, pool: PoolId, epoch: i64) -> DbResult<()> {
    let unknown = chain_cursors::table.filter(
        chain_cursors::pool_id
            .eq(pool)
            .and(chain_cursors::full_quality_after.is_null()),
    );
    diesel::update(unknown)
        .set(chain_cursors::full_quality_after.eq(epoch))
        .execute(conn)
        .map(drop)
}

/// The chain's record of a pool's miner: the flows of a day, and the actor's state at its end.
/// Amounts are attoFIL or bytes, in decimal.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = chain_days)]
pub struct ChainDay {
    pub pool_id: PoolId,
    pub day: i64,
    /// The state precedes the messages of this epoch's tipset.
    pub at_epoch: i64,
    pub network_version: i64,
    pub reward_atto: String,
    pub daily_fee_atto: String,
    /// Other changes of the balance less fee debt, such as deposits and withdrawals.
    pub other_atto: String,
    pub balance_atto: String,
    pub locked_atto: String,
    pub deposits_atto: String,
    pub pledge_atto: String,
    pub fee_debt_atto: String,
    pub available_atto: String,
    pub raw_power: String,
    pub qa_power: String,
    pub fault_fee_atto: String,
    pub termination_fee_atto: String,
    pub deposits_in_atto: String,
    pub deposits_back_atto: String,
    pub deposits_lost_atto: String,
    pub pledge_in_atto: String,
    pub pledge_back_atto: String,
    /// The part of the day's rewards and tips that the chain locked.
    pub locked_in_atto: String,
    /// The part of earlier rewards that vested, or was taken for fees.
    pub unlocked_atto: String,
}

pub fn record_chain_day(conn: &mut AnyConnection, day: &ChainDay) -> DbResult<()> {
    on_conn!(&mut *conn, |c| diesel::insert_into(chain_days::table)
        .values(day)
        .on_conflict_do_nothing()
        .execute(c))
    .map(drop)
}

pub fn chain_day(conn: &mut AnyConnection, pool: PoolId, day: i64) -> DbResult<Option<ChainDay>> {
    chain_days::table.find((pool, day)).first(conn).optional()
}

/// Oldest first.
pub fn chain_days(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Vec<ChainDay>> {
    chain_days::table
        .filter(chain_days::pool_id.eq(pool))
        .order(chain_days::day.asc())
        .load(conn)
}

/// A block that the pool's miner won.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = block_wins)]
pub struct Win {
    pub pool_id: PoolId,
    pub epoch: i64,
    pub cid: String,
    pub win_count: i64,
    /// attoFIL, decimal: the reward, and the tips of the messages that the block included.
    pub reward_atto: String,
    pub tips_atto: String,
}

pub fn record_win(conn: &mut AnyConnection, win: &Win) -> DbResult<()> {
    on_conn!(&mut *conn, |c| diesel::insert_into(block_wins::table)
        .values(win)
        .on_conflict_do_nothing()
        .execute(c))
    .map(drop)
}

/// Wins in epochs `[first, end)`.
pub fn wins(conn: &mut AnyConnection, pool: PoolId, first: i64, end: i64) -> DbResult<Vec<Win>> {
    block_wins::table
        .filter(
            block_wins::pool_id
                .eq(pool)
                .and(block_wins::epoch.ge(first))
                .and(block_wins::epoch.lt(end)),
        )
        .order(block_wins::epoch.asc())
        .load(conn)
}

/// Those of the given sectors that count at the cursor, by pool and number.
pub fn counting(
    conn: &mut AnyConnection,
    pools: &[PoolId],
    numbers: &[i64],
) -> DbResult<HashSet<(PoolId, i64)>> {
    let open = sector_intervals::pool_id
        .eq_any(pools)
        .and(sector_intervals::number.eq_any(numbers))
        .and(sector_intervals::end_epoch.is_null());
    let rows = sector_intervals::table
        .filter(open)
        .select((sector_intervals::pool_id, sector_intervals::number));
    Ok(rows.load(conn)?.into_iter().collect())
}

/// Numbers of the sectors that count at the cursor, and their quality-adjusted bytes.
pub fn counting_now(conn: &mut AnyConnection, pool: PoolId) -> DbResult<(Vec<i64>, i128)> {
    let open = sector_intervals::pool_id
        .eq(pool)
        .and(sector_intervals::end_epoch.is_null());
    let numbers = sector_intervals::table
        .filter(open)
        .select(sector_intervals::number)
        .load(conn)?;
    // Grouped, because few distinct powers occur and their total may not fit into 64 bits.
    let powers: Vec<(i64, i64)> = sector_intervals::table
        .filter(open)
        .group_by(sector_intervals::qa_power)
        .select((sector_intervals::qa_power, diesel::dsl::count_star()))
        .load(conn)?;
    Ok((
        numbers,
        powers
            .into_iter()
            .map(|(power, count)| i128::from(power) * i128::from(count))
            .sum(),
    ))
}

/// Quality-adjusted bytes of those of the given sectors that count at the cursor.
pub fn power_counting(conn: &mut AnyConnection, pool: PoolId, numbers: &[i64]) -> DbResult<i128> {
    let mut power = 0;
    for some in numbers.chunks(ROWS_AT_ONCE) {
        let open = sector_intervals::pool_id
            .eq(pool)
            .and(sector_intervals::end_epoch.is_null());
        let powers: Vec<i64> = sector_intervals::table
            .filter(open.and(sector_intervals::number.eq_any(some)))
            .select(sector_intervals::qa_power)
            .load(conn)?;
        power += powers.into_iter().map(i128::from).sum::<i128>();
    }
    Ok(power)
}

/// An interval in which a sector counted. `contract` is `None` for the operator's own sectors.
#[derive(Queryable)]
pub(super) struct Counted {
    pub number: i64,
    pub contract: Option<ContractId>,
    start: i64,
    end: Option<i64>,
    qa_power: i64,
}

impl Counted {
    pub fn interval(&self) -> Interval {
        Interval {
            start: self.start,
            end: self.end,
            qa_power: self.qa_power,
        }
    }
}

/// All intervals that overlap epochs `[first, end)`, in no particular order.
pub(super) fn counted_in(
    conn: &mut AnyConnection,
    pool: PoolId,
    first: i64,
    end: i64,
) -> DbResult<Vec<Counted>> {
    let not_before = sector_intervals::end_epoch
        .is_null()
        .or(sector_intervals::end_epoch.gt(first));
    sector_intervals::table
        .filter(
            sector_intervals::pool_id
                .eq(pool)
                .and(sector_intervals::start_epoch.lt(end))
                .and(not_before),
        )
        .select((
            sector_intervals::number,
            sector_intervals::contract_id,
            sector_intervals::start_epoch,
            sector_intervals::end_epoch,
            sector_intervals::qa_power,
        ))
        .load(conn)
}

/// The quality-adjusted bytes that each sector of some contracts had when it last counted before
/// the epoch `end`, by contract and number.
pub(super) fn last_powers(
    conn: &mut AnyConnection,
    pool: PoolId,
    end: i64,
    contracts: &[ContractId],
) -> DbResult<HashMap<ContractId, BTreeMap<i64, i64>>> {
    let mut powers: HashMap<ContractId, BTreeMap<i64, i64>> = HashMap::new();
    for some in contracts.chunks(ROWS_AT_ONCE) {
        let theirs = sector_intervals::pool_id
            .eq(pool)
            .and(sector_intervals::contract_id.eq_any(some))
            .and(sector_intervals::start_epoch.lt(end));
        let rows: Vec<(Option<ContractId>, i64, i64)> = sector_intervals::table
            .filter(theirs)
            .order(sector_intervals::start_epoch.asc())
            .select((
                sector_intervals::contract_id,
                sector_intervals::number,
                sector_intervals::qa_power,
            ))
            .load(conn)?;
        for (contract, number, power) in rows {
            if let Some(contract) = contract {
                powers.entry(contract).or_default().insert(number, power);
            }
        }
    }
    Ok(powers)
}

/// A sector that began to count.
#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = sector_intervals)]
pub struct PowerOn {
    pub pool_id: PoolId,
    pub number: i64,
    pub contract_id: Option<ContractId>,
    pub start_epoch: i64,
    pub qa_power: i64,
    pub pledge_atto: String,
    pub daily_fee_atto: String,
}

/// Records sectors that began to count. Those already recorded stay as they are.
pub fn power_on(conn: &mut AnyConnection, rows: &[PowerOn]) -> DbResult<()> {
    insert_new!(conn, sector_intervals::table, rows)
}

/// Records that a sector ceased to count at `epoch`.
pub fn power_off(conn: &mut AnyConnection, pool: PoolId, number: i64, epoch: i64) -> DbResult<()> {
    let open = sector_intervals::table.filter(
        sector_intervals::pool_id
            .eq(pool)
            .and(sector_intervals::number.eq(number))
            .and(sector_intervals::end_epoch.is_null()),
    );
    diesel::update(open)
        .set(sector_intervals::end_epoch.eq(epoch))
        .execute(conn)
        .map(drop)
}

/// A UTC day, and the epochs `[first, end)` that start in it.
#[derive(Clone, Copy)]
pub(super) struct DayEpochs {
    pub day: i64,
    pub first: i64,
    pub end: i64,
}

impl DayEpochs {
    pub fn of(time: ChainTime, day: i64) -> Self {
        Self {
            day,
            first: time.first_epoch(day),
            end: time.first_epoch(day + 1),
        }
    }
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
    /// The day's costs as known at its close. The parts that contracts bear are computed from
    /// these.
    pub daily_fee_nano: i64,
    pub fault_fee_nano: i64,
    pub gas_nano: i64,
}

impl PoolDay {
    pub(super) fn epochs(&self) -> DayEpochs {
        DayEpochs {
            day: self.day,
            first: self.first_epoch,
            end: self.end_epoch,
        }
    }

    #[must_use]
    pub fn costs(&self) -> Costs {
        Costs {
            daily_fee: self.daily_fee_nano,
            fault_fee: self.fault_fee_nano,
            gas: self.gas_nano,
        }
    }
}

/// Newest first.
pub fn days(conn: &mut AnyConnection, pool: PoolId, limit: i64) -> DbResult<Vec<PoolDay>> {
    pool_days::table
        .filter(pool_days::pool_id.eq(pool))
        .order(pool_days::day.desc())
        .limit(limit)
        .load(conn)
}
