//! Payments: the payment pages requested from rails, and the one function that takes every rail's
//! report of money received.

use diesel::prelude::*;

use super::{Order, OrderState, Payment, PaymentState};
use crate::{
    capacity::{CapacityError, confirm_sale, hold_for_order, pool_by_id, release_hold},
    clock::{DAY, HOUR, Micros},
    contracts::{self, Contract},
    ids::OrderId,
    ledger::{self, AccountSpec, LedgerError, Transfer},
    on_conn, scheduler,
    store::{
        AnyConnection, DbFault, DbResult,
        dialect::{Turn, lock},
        schema::{orders, payments},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum PayError {
    #[error("payment {rail_ref} was never requested on rail {rail}")]
    Unknown { rail: String, rail_ref: String },
    #[error("order {order} was paid a second time")]
    Twice { order: String },
    #[error("{paid_minor} {paid_currency} were paid, but the order costs {due}")]
    WrongAmount {
        paid_minor: i64,
        paid_currency: String,
        due: crate::money::Fiat,
    },
    #[error(transparent)]
    Ledger(LedgerError),
    #[error(transparent)]
    Contract(contracts::ContractError),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_ledger_errors!(PayError);

impl From<contracts::ContractError> for PayError {
    fn from(error: contracts::ContractError) -> Self {
        match error {
            contracts::ContractError::Db(fault) => Self::Db(fault),
            other => Self::Contract(other),
        }
    }
}

#[derive(Insertable)]
#[diesel(table_name = payments)]
struct NewPayment<'a> {
    order_id: OrderId,
    rail: &'a str,
    rail_ref: &'a str,
    pay_url: &'a str,
    state: PaymentState,
    created_at: Micros,
}

/// Records an order's payment page. Repeating is harmless: the rail's own idempotency returns the
/// same reference.
pub fn open_payment(
    conn: &mut AnyConnection,
    order: OrderId,
    rail: &str,
    rail_ref: &str,
    pay_url: &str,
    now: Micros,
) -> DbResult<()> {
    let row = NewPayment {
        order_id: order,
        rail,
        rail_ref,
        pay_url,
        state: PaymentState::Open,
        created_at: now,
    };
    on_conn!(&mut *conn, |c| diesel::insert_into(payments::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))
    .map(drop)
}

pub fn payment_by_ref(
    conn: &mut AnyConnection,
    rail: &str,
    rail_ref: &str,
) -> DbResult<Option<Payment>> {
    payments::table
        .filter(payments::rail.eq(rail).and(payments::rail_ref.eq(rail_ref)))
        .first(conn)
        .optional()
}

/// A payment that a rail received.
#[derive(Clone, Debug)]
pub struct Paid<'a> {
    pub rail: &'a str,
    pub rail_ref: &'a str,
    pub minor: i64,
    pub currency: &'a str,
}

/// Books the money, turns the hold into a sale and creates the contract. Any number of reports of
/// one payment have one effect. `None`: the payment came too late, and the order awaits its refund.
pub fn fulfil(
    conn: &mut AnyConnection,
    paid: &Paid<'_>,
    now: Micros,
) -> Result<Option<Contract>, PayError> {
    let unknown = || PayError::Unknown {
        rail: paid.rail.to_owned(),
        rail_ref: paid.rail_ref.to_owned(),
    };
    let found = payment_by_ref(conn, paid.rail, paid.rail_ref)?.ok_or_else(unknown)?;
    lock(conn, Turn::Order(found.order_id))?;
    let payment = payment_by_ref(conn, paid.rail, paid.rail_ref)?.ok_or_else(unknown)?;
    let mut order: Order = orders::table.find(payment.order_id).first(conn)?;
    if order.is(OrderState::Fulfilled) || order.is(OrderState::RefundDue) {
        if payment.state == PaymentState::Open {
            return Err(PayError::Twice {
                order: order.public_id,
            });
        }
        return Ok(contracts::of_order(conn, order.id)?);
    }
    check_amount(&order, paid)?;
    if !mark_paid(conn, &payment, now)? {
        return Ok(contracts::of_order(conn, order.id)?);
    }
    ledger::post(conn, &receipt(&order, paid, now))?;
    let sold = if order.is(OrderState::Placed)
        && (now < order.expires_at || order.paying_since.is_some())
    {
        sell(conn, &order, now)?
    } else {
        sell_late(conn, &mut order, now)?
    };
    let state = if sold {
        OrderState::Fulfilled
    } else {
        OrderState::RefundDue
    };
    diesel::update(orders::table.find(order.id))
        .set((orders::state.eq(state), orders::paid_at.eq(now)))
        .execute(conn)?;
    if sold {
        Ok(Some(contracts::create(conn, &order, now)?))
    } else {
        Ok(None)
    }
}

fn check_amount(order: &Order, paid: &Paid<'_>) -> Result<(), PayError> {
    if paid.minor == order.amount_minor && paid.currency.eq_ignore_ascii_case(&order.currency) {
        return Ok(());
    }
    Err(PayError::WrongAmount {
        paid_minor: paid.minor,
        paid_currency: paid.currency.to_owned(),
        due: order.price(),
    })
}

/// Of two concurrent reports, one changes the payment's row; the other finds it changed and gets
/// false.
fn mark_paid(conn: &mut AnyConnection, payment: &Payment, now: Micros) -> DbResult<bool> {
    let open = payments::table.filter(
        payments::id
            .eq(payment.id)
            .and(payments::state.eq(PaymentState::Open)),
    );
    diesel::update(open)
        .set((
            payments::state.eq(PaymentState::Paid),
            payments::paid_at.eq(now),
        ))
        .execute(conn)
        .map(|changed| changed > 0)
}

/// Sampling may move two computations of one date this far apart.
const DRAWN_WITHIN: Micros = HOUR;

fn receipt(order: &Order, paid: &Paid<'_>, now: Micros) -> Transfer {
    Transfer {
        id: format!("pay:{}", order.public_id),
        from: AccountSpec::Rail {
            rail: paid.rail.to_owned(),
            currency: order.currency.clone(),
        },
        to: AccountSpec::Sales {
            currency: order.currency.clone(),
        },
        amount: order.amount_minor,
        kind: "sale",
        subject: order.public_id.clone(),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    }
}

fn sell(conn: &mut AnyConnection, order: &Order, now: Micros) -> Result<bool, PayError> {
    confirm_sale(conn, &order.public_id, now)?;
    let nano = pledge(conn, order)?;
    contracts::put_up_pledge(conn, &order.public_id, nano, now)?;
    Ok(true)
}

fn pledge(conn: &mut AnyConnection, order: &Order) -> DbResult<i64> {
    Ok(order.pledge_nano(pool_by_id(conn, order.pool_id)?.sector_bytes))
}

/// Handles money that came after the time to pay had run out. Sells if there is still capacity, and
/// if the order, queued behind all later promises, is delayed by no more than the time since it was
/// placed.
fn sell_late(conn: &mut AnyConnection, order: &mut Order, now: Micros) -> Result<bool, PayError> {
    let held = order.is(OrderState::Placed);
    let holds = move_date(conn, order, now)?;
    match (held, holds) {
        (true, true) => sell(conn, order, now),
        (true, false) => {
            release_hold(conn, &order.public_id, now)?;
            let nano = pledge(conn, order)?;
            contracts::release_pledge(conn, &order.public_id, nano, now)?;
            Ok(false)
        }
        (false, true) => sell_again(conn, order, now),
        (false, false) => Ok(false),
    }
}

/// Gives a late order its new date. False: no date is near enough.
fn move_date(conn: &mut AnyConnection, order: &mut Order, now: Micros) -> DbResult<bool> {
    lock(conn, Turn::Promise)?;
    let sector_bytes = pool_by_id(conn, order.pool_id)?.sector_bytes;
    let snapshot = scheduler::load(conn, now)?;
    let calibration = scheduler::calibration(conn, order.pool_id)?;
    let promised = scheduler::promise(
        &snapshot,
        sector_bytes,
        order.bytes / sector_bytes,
        calibration,
    );
    // Compare with the date computed then, not with the earlier date that the buyer may have been
    // shown. Sampling moves dates a little.
    let latest = order
        .computed_at
        .saturating_add(now - order.created_at)
        .saturating_add(DRAWN_WITHIN);
    let Some(date) = promised.filter(|date| date.p95 <= latest) else {
        return Ok(false);
    };
    if date.p95 > order.promised_at {
        order.promised_at = date.p95;
        diesel::update(orders::table.find(order.id))
            .set(orders::promised_at.eq(date.p95))
            .execute(conn)?;
        scheduler::paid_late(conn, order.id, &date)?;
    }
    Ok(true)
}

fn sell_again(conn: &mut AnyConnection, order: &Order, now: Micros) -> Result<bool, PayError> {
    let again = format!("{}:late", order.public_id);
    match hold_for_order(conn, order.pool_id, &again, order.bytes, now) {
        Ok(()) => {}
        Err(CapacityError::SoldOut { .. }) => return Ok(false),
        Err(CapacityError::Ledger(error)) => return Err(error.into()),
    }
    let nano = pledge(conn, order)?;
    match contracts::hold_pledge(conn, order.user_id, &again, nano, now) {
        Ok(()) => {}
        Err(LedgerError::Insufficient { .. }) => {
            release_hold(conn, &again, now)?;
            return Ok(false);
        }
        Err(error) => return Err(error.into()),
    }
    contracts::put_up_pledge(conn, &again, nano, now)?;
    confirm_sale(conn, &again, now)?;
    Ok(true)
}
