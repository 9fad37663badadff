//! The storefront: plans on sale, and the capacity behind them.

use crate::{
    capacity::{self, Capacity, Pool},
    catalog::{self, Plan},
    sealing,
    store::{AnyConnection, DbResult},
};

pub struct PoolSupply {
    pub pool: Pool,
    pub capacity: Capacity,
    /// Sectors that the chain holds now.
    pub on_chain: i64,
}

pub struct Storefront {
    pub plans: Vec<Plan>,
    pub pools: Vec<PoolSupply>,
}

pub fn storefront(conn: &mut AnyConnection) -> DbResult<Storefront> {
    let plans = catalog::plans_on_sale(conn)?;
    let counts = sealing::count_sectors(conn)?;
    let mut pools = Vec::new();
    for pool in capacity::pools(conn)? {
        let on_chain = counts
            .iter()
            .filter(|c| c.pool == pool.id && c.state.is_on_chain());
        pools.push(PoolSupply {
            capacity: capacity::capacity(conn, pool.id)?,
            on_chain: on_chain.map(|c| c.sectors).sum(),
            pool,
        });
    }
    Ok(Storefront { plans, pools })
}
