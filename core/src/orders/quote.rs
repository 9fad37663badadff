//! What a purchase costs and when it would be live.

use crate::{
    capacity::{capacity, pool_by_id},
    catalog::{Plan, Terms},
    clock::Micros,
    money::Fiat,
    scheduler::{self, Promised},
    store::{AnyConnection, DbResult},
    units::Bytes,
};

#[derive(Clone, Debug)]
pub struct Quote {
    pub bytes: Bytes,
    pub sectors: i64,
    pub price: Fiat,
    pub terms: Terms,
    /// Whether so much is free now.
    pub in_stock: bool,
    /// When the power should count. `None`: no machine here can seal it at present.
    pub promised: Option<Promised>,
}

/// `None` when the plan does not sell so many units.
pub fn quote(conn: &mut AnyConnection, plan: &Plan, units: i64, now: Micros) -> DbResult<Option<Quote>> {
    let Some((bytes, price)) = plan.priced(units) else { return Ok(None) };
    let pool = pool_by_id(conn, plan.pool_id)?;
    let free = capacity(conn, plan.pool_id)?.free;
    let sectors = bytes.0 / pool.sector_bytes;
    let snapshot = scheduler::load(conn, now)?;
    let lessons = scheduler::lessons(conn, pool.id)?;
    let promised = scheduler::promise(&snapshot, pool.sector_bytes, sectors, lessons);
    Ok(Some(Quote { bytes, sectors, price, terms: Terms::standard(plan.fee_bp), in_stock: free >= bytes.0, promised }))
}
