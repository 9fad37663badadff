//! Placing an order: the row and its hold in one transaction.

use diesel::prelude::*;

use super::{Order, OrderState, Quote, Stock, quote::quote};
use crate::{
    capacity::{CapacityError, hold_for_order},
    catalog::Plan,
    clock::{DAY, MINUTE, Micros, minute_text},
    contracts::hold_pledge,
    ids::{PlanId, PoolId, UserId, public_id},
    ledger::LedgerError,
    money::NanoFil,
    scheduler::{self, Promised},
    store::{
        AnyConnection, DbFault, DbResult,
        dialect::{Turn, lock},
        schema::orders,
    },
};

/// The time allowed for a checkout. Payment sessions end a little earlier.
pub const HOLD: Micros = 65 * MINUTE;

/// A date that the buyer was shown is kept if the new one is later by no more than this and the
/// fleet can still meet the shown one.
const KEPT_SHOWN: Micros = 60 * MINUTE;

/// The longest lead time. A sale with a later date is refused.
pub const LONGEST_LEAD: Micros = 60 * DAY;

#[derive(Debug, thiserror::Error)]
pub enum PlaceError {
    #[error("this plan is no longer on sale")]
    NotOnSale,
    #[error("this plan sells 1 to {max} units")]
    Units { max: i64 },
    #[error(
        "there is not enough collateral for this order right now; order less, or come back later"
    )]
    Collateral,
    #[error("no date can be promised for this order at present; order less, or come back later")]
    NoDate,
    #[error("this order could only be promised for {0}; order less, or come back later")]
    TooLate(String),
    #[error("other orders came first; the new date is {0}. Open the plan again for a new quote")]
    DateMoved(String),
    #[error(
        "you have {most} unpaid orders, the most that an account may have at a time; \
         pay for one or cancel it first"
    )]
    TooManyUnpaid { most: i64 },
    #[error(
        "this order is more than you can reserve before paying; order at most {left} now, \
         pay for it, then order more"
    )]
    TooMuchHeld { left: crate::units::Bytes },
    #[error(
        "you have reserved as much as you can before paying; pay for it first, then order more"
    )]
    AllHeld,
    #[error(transparent)]
    Capacity(CapacityError),
    #[error(
        "this needs a pledge of {needed} FIL of your own; you have {available} FIL available. \
         Choose fewer units, or another plan"
    )]
    Pledge { needed: NanoFil, available: NanoFil },
    #[error(transparent)]
    Ledger(LedgerError),
    #[error("the terms cannot be stored: {0}")]
    Terms(String),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_ledger_errors!(PlaceError);

pub struct PlaceOrder<'a> {
    pub user: UserId,
    pub plan: &'a Plan,
    pub units: i64,
    /// From the form. Sending the same form twice places one order.
    pub request_key: &'a str,
    /// The date that the buyer was shown, if any.
    pub shown: Option<Micros>,
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
    state: OrderState,
    request_key: &'a str,
    promised_at: Micros,
    created_at: Micros,
    expires_at: Micros,
    pledge_each_nano: i64,
    computed_at: Micros,
}

pub fn place(
    conn: &mut AnyConnection,
    request: &PlaceOrder<'_>,
    now: Micros,
) -> Result<Order, PlaceError> {
    // Lock first, so that of two forms sent at once the second finds the first one's order.
    lock(conn, Turn::Promise)?;
    if let Some(order) = placed_before(conn, request)? {
        return Ok(order);
    }
    if !request.plan.on_sale {
        return Err(PlaceError::NotOnSale);
    }
    let quote = quote(conn, request.plan, request.units, now)?.ok_or(PlaceError::Units {
        max: request.plan.max_units,
    })?;
    if quote.stock == Stock::NoCollateral {
        return Err(PlaceError::Collateral);
    }
    let promised = promised(conn, &quote, request.shown, now)?;
    let row = row(request, &quote, promised.p95, now)?;
    let order: Order = diesel::insert_into(orders::table)
        .values(row)
        .returning(orders::all_columns)
        .get_result(conn)?;
    scheduler::record(conn, order.id, order.pool_id, quote.sectors, &promised, now)?;
    hold_for_order(conn, order.pool_id, &order.public_id, order.bytes, now).map_err(|error| {
        error
            .into_fault()
            .map_or_else(PlaceError::Capacity, PlaceError::Db)
    })?;
    let needed = quote.pledge_each_nano.saturating_mul(quote.sectors);
    hold_pledge(conn, order.user_id, &order.public_id, needed, now).map_err(
        |error| match error {
            LedgerError::Insufficient { free, .. } => PlaceError::Pledge {
                needed: NanoFil(needed),
                available: NanoFil(free.max(0)),
            },
            other => other.into(),
        },
    )?;
    Ok(order)
}

/// The order that the same form has already placed.
fn placed_before(conn: &mut AnyConnection, request: &PlaceOrder<'_>) -> DbResult<Option<Order>> {
    orders::table
        .filter(
            orders::user_id
                .eq(request.user)
                .and(orders::request_key.eq(request.request_key)),
        )
        .first(conn)
        .optional()
}

/// The date to promise: the one that the buyer was shown, as long as it can be kept.
fn promised(
    conn: &mut AnyConnection,
    quote: &Quote,
    shown: Option<Micros>,
    now: Micros,
) -> Result<Promised, PlaceError> {
    let mut promised = quote.promised.clone().ok_or(PlaceError::NoDate)?;
    if let Some(shown) = shown.filter(|shown| *shown < promised.p95) {
        let sector_bytes = quote.bytes.0 / quote.sectors.max(1);
        let near = promised.p95 <= shown.saturating_add(KEPT_SHOWN);
        if !near
            || !scheduler::can_give(
                &scheduler::load(conn, now)?,
                sector_bytes,
                quote.sectors,
                shown,
            )
        {
            return Err(PlaceError::DateMoved(minute_text(promised.p95)));
        }
        promised.p95 = shown;
    }
    if promised.p95 > now.saturating_add(LONGEST_LEAD) {
        return Err(PlaceError::TooLate(minute_text(promised.p95)));
    }
    Ok(promised)
}

fn row<'a>(
    request: &PlaceOrder<'a>,
    quote: &'a Quote,
    promised_at: Micros,
    now: Micros,
) -> Result<Row<'a>, PlaceError> {
    let computed = quote.promised.as_ref().ok_or(PlaceError::NoDate)?;
    Ok(Row {
        public_id: public_id("ord"),
        user_id: request.user,
        plan_id: request.plan.id,
        pool_id: request.plan.pool_id,
        units: request.units,
        bytes: quote.bytes.0,
        amount_minor: quote.price.minor,
        currency: &quote.price.currency,
        terms: serde_json::to_string(&quote.terms)
            .map_err(|error| PlaceError::Terms(error.to_string()))?,
        state: OrderState::Placed,
        request_key: request.request_key,
        promised_at,
        created_at: now,
        expires_at: now.saturating_add(HOLD),
        pledge_each_nano: quote.pledge_each_nano,
        computed_at: computed.p95,
    })
}
