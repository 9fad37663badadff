//! The price of a purchase, and the date when its power would be live.

use crate::{
    capacity::{capacity, pool_by_id},
    catalog::{Plan, Pledge, Terms},
    clock::Micros,
    money::Fiat,
    scheduler::{self, Promised},
    store::{AnyConnection, DbResult},
    units::Bytes,
};

/// Whether there is enough for an order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Stock {
    Enough,
    /// Too few bytes are free.
    NoCapacity,
    /// The miner's funds cannot pledge this many sectors on top of those already owed.
    NoCollateral,
}

#[derive(Clone, Debug)]
pub struct Quote {
    pub bytes: Bytes,
    pub sectors: i64,
    pub price: Fiat,
    pub terms: Terms,
    /// nanoFIL that the buyer puts up for each sector; 0 if the operator pledges.
    pub pledge_each_nano: i64,
    pub stock: Stock,
    /// When the power should count. `None`: no machine here can seal it at present.
    pub promised: Option<Promised>,
}

/// `None` when the plan does not sell this many units.
pub fn quote(
    conn: &mut AnyConnection,
    plan: &Plan,
    units: i64,
    now: Micros,
) -> DbResult<Option<Quote>> {
    let Some((bytes, price)) = plan.priced(units) else {
        return Ok(None);
    };
    let pool = pool_by_id(conn, plan.pool_id)?;
    let free = capacity(conn, plan.pool_id)?.free;
    let sectors = bytes.0 / pool.sector_bytes;
    let snapshot = scheduler::load(conn, now)?;
    let calibration = scheduler::calibration(conn, pool.id)?;
    let promised = scheduler::promise(&snapshot, pool.sector_bytes, sectors, calibration);
    let pledgeable = pool
        .collateral_sectors
        .map(|all| all - snapshot.committed_sectors(pool.id));
    let terms = plan.terms.clone();
    let pledge_each = match terms.pledge {
        Pledge::Investor { .. } => pool.pledge_nano,
        Pledge::Operator | Pledge::OperatorFor { .. } => Some(0),
    };
    let stock = match pledgeable {
        _ if free < bytes.0 => Stock::NoCapacity,
        // The pledge for each sector is not known yet.
        _ if pledge_each.is_none() => Stock::NoCollateral,
        // The miner's funds have not been read yet.
        None => Stock::NoCollateral,
        Some(left) if left < sectors => Stock::NoCollateral,
        Some(_) => Stock::Enough,
    };
    Ok(Some(Quote {
        bytes,
        sectors,
        price,
        terms,
        pledge_each_nano: pledge_each.unwrap_or_default(),
        stock,
        promised,
    }))
}
