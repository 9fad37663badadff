//! What a purchase costs and when it would be live.

use crate::{
    capacity::{capacity, pool_by_id},
    catalog::{Plan, Terms},
    clock::Micros,
    money::Fiat,
    scheduler::{self, Backlog},
    store::{AnyConnection, DbResult},
    units::Bytes,
};

#[derive(Clone, Debug)]
pub struct Quote {
    pub bytes: Bytes,
    pub price: Fiat,
    pub terms: Terms,
    /// Whether so much is free now.
    pub in_stock: bool,
    /// When the power should count at the latest, as promised on sale.
    pub promised_at: Micros,
}

/// `None` when the plan does not sell so many units.
pub fn quote(conn: &mut AnyConnection, plan: &Plan, units: i64, now: Micros) -> DbResult<Option<Quote>> {
    let Some((bytes, price)) = plan.priced(units) else { return Ok(None) };
    let pool = pool_by_id(conn, plan.pool_id)?;
    let free = capacity(conn, plan.pool_id)?.free;
    let ahead = crate::sealing::unsealed_count(conn, plan.pool_id)?;
    let machines = crate::fleet::machines(conn)?.iter().filter(|m| m.state == "active").count();
    let backlog =
        Backlog { sectors_ahead: ahead, sectors: bytes.0 / pool.sector_bytes, machines, sector_bytes: pool.sector_bytes };
    let promised_at = now.saturating_add(scheduler::promise(&backlog));
    Ok(Some(Quote { bytes, price, terms: Terms::standard(plan.fee_bp), in_stock: free >= bytes.0, promised_at }))
}
