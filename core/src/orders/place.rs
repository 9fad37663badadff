//! Placing an order: the row and its hold in one transaction.

use diesel::prelude::*;

use super::{Order, OrderState, quote::quote};
use crate::{
    capacity::{CapacityError, hold_for_order},
    catalog::Plan,
    clock::{MINUTE, Micros},
    ids::{PlanId, PoolId, UserId, public_id},
    store::{AnyConnection, DbFault, schema::orders},
};

/// How long a checkout may take; payment sessions end a little earlier.
pub const HOLD: Micros = 35 * MINUTE;

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("this plan is not on sale any more")]
    NotOnSale,
    #[error("this plan sells 1 to {max} units")]
    Units { max: i64 },
    #[error(transparent)]
    Capacity(CapacityError),
    #[error("the terms cannot be stored: {0}")]
    Terms(String),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(PlaceError);

pub struct PlaceOrder<'a> {
    pub user: UserId,
    pub plan: &'a Plan,
    pub units: i64,
    /// From the form; sending the same form twice places one order.
    pub request_key: &'a str,
}

#[derive(Insertable)]
#[diesel(table_name = orders)]
struct Row<'a> {
    public_id: String,
    user_id: UserId,
    plan_id: PlanId,
    pool_id: PoolId,
    units: i64,
    bytes: i64,
    amount_minor: i64,
    currency: &'a str,
    terms: String,
    state: &'static str,
    request_key: &'a str,
    promised_at: Micros,
    created_at: Micros,
    expires_at: Micros,
}

pub fn place(conn: &mut AnyConnection, request: &PlaceOrder<'_>, now: Micros) -> Result<Order, PlaceError> {
    let same = orders::table
        .filter(orders::user_id.eq(request.user).and(orders::request_key.eq(request.request_key)))
        .first::<Order>(conn)
        .optional()?;
    if let Some(order) = same {
        return Ok(order);
    }
    if !request.plan.on_sale {
        return Err(PlaceError::NotOnSale);
    }
    let quote = quote(conn, request.plan, request.units, now)?.ok_or(PlaceError::Units { max: request.plan.max_units })?;
    let row = Row {
        public_id: public_id("ord"),
        user_id: request.user,
        plan_id: request.plan.id,
        pool_id: request.plan.pool_id,
        units: request.units,
        bytes: quote.bytes.0,
        amount_minor: quote.price.minor,
        currency: &quote.price.currency,
        terms: serde_json::to_string(&quote.terms).map_err(|error| PlaceError::Terms(error.to_string()))?,
        state: OrderState::Placed.name(),
        request_key: request.request_key,
        promised_at: quote.promised_at,
        created_at: now,
        expires_at: now.saturating_add(HOLD),
    };
    let order: Order = diesel::insert_into(orders::table).values(row).returning(orders::all_columns).get_result(conn)?;
    hold_for_order(conn, order.pool_id, &order.public_id, order.bytes, now)
        .map_err(|error| error.into_fault().map_or_else(PlaceError::Capacity, PlaceError::Db))?;
    Ok(order)
}
