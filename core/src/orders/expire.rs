//! Orders that end without a payment give their capacity back: the time to pay ran out, the buyer cancelled, the payment failed.

use diesel::prelude::*;

use super::{Order, OrderState, PayError, Payment, latest_payment, place::HOLD};
use crate::{
    capacity::{pool_by_id, release_hold},
    clock::{DAY, Micros},
    contracts::release_pledge,
    ids::OrderId,
    store::{
        AnyConnection, DbResult,
        dialect::{Turn, lock},
        schema::orders,
    },
};

/// Orders of one look.
const AT_ONCE: i64 = 200;
/// A hold is renewed for a buyer who waits for a payment page for so long at most.
const LONGEST_HOLD: Micros = DAY;

/// Orders whose time to pay has run out, each with its latest payment page.
pub fn due(conn: &mut AnyConnection, now: Micros) -> DbResult<Vec<(Order, Option<Payment>)>> {
    let over = orders::state.eq(OrderState::Placed).and(orders::expires_at.le(now)).and(orders::paying_since.is_null());
    let due: Vec<Order> = orders::table.filter(over).order(orders::id.asc()).limit(AT_ONCE).load(conn)?;
    let mut with_pages = Vec::new();
    for order in due {
        let payment = latest_payment(conn, order.id)?;
        with_pages.push((order, payment));
    }
    Ok(with_pages)
}

/// Expires what is due; returns how many. Whoever has a rail asks it about each order first.
pub fn expire_due(conn: &mut AnyConnection, now: Micros) -> Result<usize, PayError> {
    let mut expired = 0;
    for (order, _) in due(conn, now)? {
        expired += usize::from(expire(conn, order.id, now)?);
    }
    Ok(expired)
}

/// Expires an order whose time has run out. False: it was paid, renewed or ended meanwhile.
pub fn expire(conn: &mut AnyConnection, id: OrderId, now: Micros) -> Result<bool, PayError> {
    end(conn, id, now, |order| order.paying_since.is_none() && order.expires_at <= now)
}

/// The buyer does not want it any more. False: it is paid, being paid, or over.
pub fn cancel(conn: &mut AnyConnection, id: OrderId, now: Micros) -> Result<bool, PayError> {
    let ended = end(conn, id, now, |order| order.paying_since.is_none())?;
    if ended {
        diesel::update(orders::table.find(id)).set(orders::cancelled_at.eq(now)).execute(conn)?;
    }
    Ok(ended)
}

/// The rail says that a payment under way has failed. False: there was none.
pub fn payment_failed(conn: &mut AnyConnection, id: OrderId, now: Micros) -> Result<bool, PayError> {
    end(conn, id, now, |order| order.paying_since.is_some())
}

fn end(conn: &mut AnyConnection, id: OrderId, now: Micros, ends: impl Fn(&Order) -> bool) -> Result<bool, PayError> {
    lock(conn, Turn::Order(id))?;
    let order: Order = orders::table.find(id).first(conn)?;
    if !order.is(OrderState::Placed) || !ends(&order) {
        return Ok(false);
    }
    diesel::update(orders::table.find(id))
        .set((orders::state.eq(OrderState::Expired), orders::paying_since.eq(None::<Micros>)))
        .execute(conn)?;
    release_hold(conn, &order.public_id, now)?;
    let sector_bytes = pool_by_id(conn, order.pool_id)?.sector_bytes;
    release_pledge(conn, &order.public_id, order.pledge_nano(sector_bytes), now)?;
    Ok(true)
}

/// The rail says that the money is on its way: the capacity is held until it says what came of it. False: the order is over.
pub fn payment_under_way(conn: &mut AnyConnection, id: OrderId, now: Micros) -> DbResult<bool> {
    lock(conn, Turn::Order(id))?;
    let placed = orders::table.filter(orders::id.eq(id).and(orders::state.eq(OrderState::Placed)));
    diesel::update(placed.filter(orders::paying_since.is_null())).set(orders::paying_since.eq(now)).execute(conn)?;
    placed.count().get_result::<i64>(conn).map(|placed| placed == 1)
}

/// Gives a buyer who has no payment page yet the whole time to pay again. Returns the order as it is now.
pub fn renew_hold(conn: &mut AnyConnection, id: OrderId, now: Micros) -> DbResult<Order> {
    lock(conn, Turn::Order(id))?;
    let placed = orders::id.eq(id).and(orders::state.eq(OrderState::Placed)).and(orders::created_at.gt(now - LONGEST_HOLD));
    diesel::update(orders::table.filter(placed)).set(orders::expires_at.eq(now.saturating_add(HOLD))).execute(conn)?;
    orders::table.find(id).first(conn)
}

/// The rail has answered a request for a payment page with an error: it would repeat it under the same key.
pub fn checkout_failed(conn: &mut AnyConnection, order: &Order) -> DbResult<()> {
    let same = orders::table.filter(orders::id.eq(order.id).and(orders::checkout_attempts.eq(order.checkout_attempts)));
    diesel::update(same).set(orders::checkout_attempts.eq(order.checkout_attempts + 1)).execute(conn).map(drop)
}
