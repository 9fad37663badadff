//! Limits on the capacity that one account may reserve without paying: a hold keeps it from
//! everybody else.

use diesel::prelude::*;

use super::{OrderState, PlaceError};
use crate::{
    capacity::capacity,
    catalog::Plan,
    ids::UserId,
    store::{
        AnyConnection, DbResult,
        dialect::{Turn, lock},
        schema::orders,
    },
    units::Bytes,
};

/// The most unpaid orders at a time, and the most they may hold together: percent of the pool's
/// free and held capacity.
#[derive(Clone, Copy, Debug)]
pub struct Caps {
    pub orders: i64,
    pub percent: i64,
    /// The same, for accounts that have never paid for an order.
    pub new_orders: i64,
    pub new_percent: i64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            orders: 5,
            percent: 50,
            new_orders: 2,
            new_percent: 20,
        }
    }
}

/// Refuses an order that would hold too much, before it takes any lock that other accounts wait
/// for. Sending the same form again does not count as another order.
pub fn check(
    conn: &mut AnyConnection,
    user: UserId,
    (plan, units): (&Plan, i64),
    request_key: &str,
    caps: Caps,
) -> Result<(), PlaceError> {
    lock(conn, Turn::Account(user))?;
    let same = orders::table.filter(
        orders::user_id
            .eq(user)
            .and(orders::request_key.eq(request_key)),
    );
    if same.count().get_result::<i64>(conn)? > 0 {
        return Ok(());
    }
    let Some((bytes, _)) = plan.priced(units) else {
        return Ok(());
    };
    let has_paid = orders::user_id
        .eq(user)
        .and(orders::state.eq(OrderState::Fulfilled));
    let is_new = orders::table
        .filter(has_paid)
        .count()
        .get_result::<i64>(conn)?
        == 0;
    let (most, percent) = if is_new {
        (caps.new_orders, caps.new_percent)
    } else {
        (caps.orders, caps.percent)
    };
    let (count, held) = reserved(conn, user, plan)?;
    if count >= most {
        return Err(PlaceError::TooManyUnpaid { most });
    }
    let pool = capacity(conn, plan.pool_id)?;
    let share = i128::from(pool.free.saturating_add(pool.held)) * i128::from(percent) / 100;
    // One unit can always be ordered.
    let allowed = i64::try_from(share)
        .unwrap_or(i64::MAX)
        .max(plan.unit_bytes);
    if held.saturating_add(bytes.0) > allowed && bytes.0 <= pool.free {
        let left = (allowed - held).max(0);
        let whole = left - left % plan.unit_bytes.max(1);
        return Err(if whole == 0 {
            PlaceError::AllHeld
        } else {
            PlaceError::TooMuchHeld { left: Bytes(whole) }
        });
    }
    Ok(())
}

/// The number of an account's unpaid orders in all pools, and the bytes they hold in the plan's
/// pool. Orders whose payment is under way do not count.
fn reserved(conn: &mut AnyConnection, user: UserId, plan: &Plan) -> DbResult<(i64, i64)> {
    let unpaid = orders::user_id
        .eq(user)
        .and(orders::state.eq(OrderState::Placed))
        .and(orders::paying_since.is_null());
    let count = orders::table.filter(unpaid).count().get_result(conn)?;
    let here: Vec<i64> = orders::table
        .filter(unpaid.and(orders::pool_id.eq(plan.pool_id)))
        .select(orders::bytes)
        .load(conn)?;
    Ok((count, here.iter().sum()))
}
