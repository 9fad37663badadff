//! Orders that end without a payment release their capacity: the time to pay ran out, the buyer
//! cancelled, or the payment failed.

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

/// The most orders that one call of [`due`] returns.
const AT_ONCE: i64 = 200;
/// A hold can be renewed until its order is this old.
const LONGEST_HOLD: Micros = DAY;

/// Orders whose time to pay has run out, each with its latest payment page.
pub fn due(conn: &mut AnyConnection, now: Micros) -> DbResult<Vec<(Order, Option<Payment>)>> {
    let over = orders::state
        .eq(OrderState::Placed)
        .and(orders::expires_at.le(now))
        .and(orders::paying_since.is_null());
    let due: Vec<Order> = orders::table
        .filter(over)
        .order(orders::id.asc())
        .limit(AT_ONCE)
        .load(conn)?;
    let mut with_pages = Vec::new();
    for order in due {
        let payment = latest_payment(conn, order.id)?;
        with_pages.push((order, payment));
    }
    Ok(with_pages)
}

/// Expires the orders that are due; returns how many. Callers with a payment rail ask it about each
/// order first.
pub fn expire_due(conn: &mut AnyConnection, now: Micros) -> Result<usize, PayError> {
    let mut expired = 0;
    for (order, _) in due(conn, now)? {
        expired += usize::from(expire(conn, order.id, now)?);
    }
    Ok(expired)
}

/// Expires an order whose time has run out. False: it was paid, renewed or ended meanwhile.
pub fn expire(conn: &mut AnyConnection, id: OrderId, now: Micros) -> Result<bool, PayError> {
    end(conn, id, now, |order| {
        order.paying_since.is_none() && order.expires_at <= now
    })
}

/// Cancels an order for its buyer. False: it is paid, being paid, or over.
pub fn cancel(conn: &mut AnyConnection, id: OrderId, now: Micros) -> Result<bool, PayError> {
    let ended = end(conn, id, now, |order| order.paying_since.is_none())?;
    if ended {
        diesel::update(orders::table.find(id))
            .set(orders::cancelled_at.eq(now))
            .execute(conn)?;
    }
    Ok(ended)
}

/// Ends an order whose payment under way has failed, as the rail reports. False: no payment was
/// under way.
pub fn payment_failed(
    conn: &mut AnyConnection,
    id: OrderId,
    now: Micros,
) -> Result<bool, PayError> {
    end(conn, id, now, |order| order.paying_since.is_some())
}

fn end(
    conn: &mut AnyConnection,
    id: OrderId,
    now: Micros,
    ends: impl Fn(&Order) -> bool,
) -> Result<bool, PayError> {
    lock(conn, Turn::Order(id))?;
    let order: Order = orders::table.find(id).first(conn)?;
    if !order.is(OrderState::Placed) || !ends(&order) {
        return Ok(false);
    }
    diesel::update(orders::table.find(id))
        .set((
            orders::state.eq(OrderState::Expired),
            orders::paying_since.eq(None::<Micros>),
        ))
        .execute(conn)?;
    release_hold(conn, &order.public_id, now)?;
    let sector_bytes = pool_by_id(conn, order.pool_id)?.sector_bytes;
    release_pledge(conn, &order.public_id, order.pledge_nano(sector_bytes), now)?;
    Ok(true)
}

/// Notes that the rail reports money on its way. The capacity is held until the rail reports the
/// outcome. False: the order is over.
pub fn payment_under_way(conn: &mut AnyConnection, id: OrderId, now: Micros) -> DbResult<bool> {
    lock(conn, Turn::Order(id))?;
    let placed = orders::table.filter(orders::id.eq(id).and(orders::state.eq(OrderState::Placed)));
    diesel::update(placed.filter(orders::paying_since.is_null()))
        .set(orders::paying_since.eq(now))
        .execute(conn)?;
    placed
        .count()
        .get_result::<i64>(conn)
        .map(|placed| placed == 1)
}

/// Restarts the time to pay, for a buyer who has no payment page yet. Returns the order as it is
/// now.
pub fn renew_hold(conn: &mut AnyConnection, id: OrderId, now: Micros) -> DbResult<Order> {
    lock(conn, Turn::Order(id))?;
    let placed = orders::id
        .eq(id)
        .and(orders::state.eq(OrderState::Placed))
        .and(orders::created_at.gt(now - LONGEST_HOLD));
    diesel::update(orders::table.filter(placed))
        .set(orders::expires_at.eq(now.saturating_add(HOLD)))
        .execute(conn)?;
    orders::table.find(id).first(conn)
}

/// Counts an error that the rail gave for a payment page. The next request then uses a new
/// idempotency key: under the same key, the rail would repeat the error.
pub fn checkout_failed(conn: &mut AnyConnection, order: &Order) -> DbResult<()> {
    let same = orders::table.filter(
        orders::id
            .eq(order.id)
            .and(orders::checkout_attempts.eq(order.checkout_attempts)),
    );
    diesel::update(same)
        .set(orders::checkout_attempts.eq(order.checkout_attempts + 1))
        .execute(conn)
        .map(drop)
}
