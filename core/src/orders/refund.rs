//! Refunds of orders that were paid too late to be sold.

use diesel::prelude::*;

use super::{Order, OrderState, latest_payment};
use crate::{
    accounts,
    clock::{DAY, Micros},
    ids::UserId,
    ledger::{self, AccountSpec, LedgerError, Transfer},
    store::{AnyConnection, schema::orders},
};

/// Books a refund that an administrator has made at the rail that the money came from. False: the
/// order awaits no refund.
pub fn refunded(
    conn: &mut AnyConnection,
    order: &Order,
    by: UserId,
    now: Micros,
) -> Result<bool, LedgerError> {
    let Some(payment) = latest_payment(conn, order.id)? else {
        return Ok(false);
    };
    let waits = orders::state
        .eq(OrderState::RefundDue)
        .and(orders::refunded_at.is_null());
    let due = orders::table.filter(orders::id.eq(order.id).and(waits));
    if diesel::update(due)
        .set(orders::refunded_at.eq(now))
        .execute(conn)?
        == 0
    {
        return Ok(false);
    }
    let back = Transfer {
        id: format!("refund:{}", order.public_id),
        from: AccountSpec::Sales {
            currency: order.currency.clone(),
        },
        to: AccountSpec::Rail {
            rail: payment.rail,
            currency: order.currency.clone(),
        },
        amount: order.amount_minor,
        kind: "refund",
        subject: order.public_id.clone(),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    };
    ledger::post(conn, &back)?;
    accounts::record(
        conn,
        now,
        Some(by),
        "refund",
        &order.public_id,
        &order.price().to_string(),
    )?;
    Ok(true)
}
