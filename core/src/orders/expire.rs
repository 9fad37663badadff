//! Orders that were not paid in time give their capacity back.

use diesel::prelude::*;

use super::{Order, OrderState, PayError};
use crate::{
    capacity::{pool_by_id, release_hold},
    clock::Micros,
    contracts::release_pledge,
    store::{AnyConnection, schema::orders},
};

/// Expires what is due; returns how many.
pub fn expire_due(conn: &mut AnyConnection, now: Micros) -> Result<usize, PayError> {
    let due: Vec<Order> = orders::table
        .filter(orders::state.eq(OrderState::Placed.name()).and(orders::expires_at.le(now)))
        .order(orders::id.asc())
        .limit(200)
        .load(conn)?;
    let mut expired = 0;
    for order in due {
        let won = diesel::update(orders::table.filter(orders::id.eq(order.id).and(orders::state.eq(OrderState::Placed.name()))))
            .set(orders::state.eq(OrderState::Expired.name()))
            .execute(conn)?;
        if won == 1 {
            release_hold(conn, &order.public_id, now)?;
            let sector_bytes = pool_by_id(conn, order.pool_id)?.sector_bytes;
            release_pledge(conn, &order.public_id, order.pledge_nano(sector_bytes), now)?;
            expired += 1;
        }
    }
    Ok(expired)
}
