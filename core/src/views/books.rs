//! The operator's books: capacity, accounts, closed days, the chain's record of each day.

use crate::{
    capacity::{self, Capacity, Pool},
    ids::PoolId,
    ledger::{self, Balance, Finding},
    sealing,
    store::{AnyConnection, DbResult},
    units::ChainTime,
    yields::{self, ChainDay, PoolDay},
};

/// Days that one view holds.
const DAYS_SHOWN: i64 = 40;

/// The chain's record of a miner's day, with the gas of the same epochs.
pub struct ChainBooks {
    pub day: ChainDay,
    pub gas_atto: i128,
}

pub struct PoolBooks {
    pub pool: Pool,
    pub capacity: Capacity,
    /// Account codes with their balances.
    pub accounts: Vec<(String, Balance)>,
    pub days: Vec<PoolDay>,
    /// Newest first.
    pub chain_days: Vec<ChainBooks>,
}

fn chain_days(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Vec<ChainBooks>> {
    let time = yields::cursor(conn, pool)?.map(|cursor| cursor.time());
    let shown = usize::try_from(DAYS_SHOWN).unwrap_or_default();
    let days = yields::chain_days(conn, pool)?
        .into_iter()
        .rev()
        .take(shown);
    let with_gas = days.map(|day| {
        let epochs = |time: ChainTime| (time.first_epoch(day.day), time.first_epoch(day.day + 1));
        let (first, end) = time.map_or((0, 0), epochs);
        Ok(ChainBooks {
            gas_atto: sealing::gas_cost(conn, pool, first, end)?,
            day,
        })
    });
    with_gas.collect()
}

/// Every pool's books, and what the ledger's own check finds wrong.
pub fn books(conn: &mut AnyConnection) -> DbResult<(Vec<PoolBooks>, Vec<Finding>)> {
    let mut pools = Vec::new();
    for pool in capacity::pools(conn)? {
        pools.push(PoolBooks {
            capacity: capacity::capacity(conn, pool.id)?,
            accounts: ledger::pool_balances(conn, pool.id)?,
            days: yields::days(conn, pool.id, DAYS_SHOWN)?,
            chain_days: chain_days(conn, pool.id)?,
            pool,
        });
    }
    Ok((pools, ledger::check(conn)?))
}
