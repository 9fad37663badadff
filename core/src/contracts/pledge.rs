//! An investor's own pledge: set aside with the order, put up with the contract. `yields` returns
//! it when the chain does.

use crate::{
    clock::{DAY, Micros},
    ids::UserId,
    ledger::{self, AccountSpec, LedgerError, Pending, Transfer},
    store::AnyConnection,
};

fn hold_id(order: &str) -> String {
    format!("pledge:{order}")
}

/// Sets an order's pledge of `nano` nanoFIL aside; does nothing when it is zero.
pub fn hold_pledge(
    conn: &mut AnyConnection,
    user: UserId,
    order: &str,
    nano: i64,
    now: Micros,
) -> Result<(), LedgerError> {
    if nano == 0 {
        return Ok(());
    }
    let transfer = Transfer {
        id: hold_id(order),
        from: AccountSpec::Available(user),
        to: AccountSpec::Pledged(user),
        amount: nano,
        kind: "pledge",
        subject: order.to_owned(),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    };
    ledger::hold(conn, &transfer)
}

/// Puts up the pledge: the order became a contract.
pub fn put_up_pledge(
    conn: &mut AnyConnection,
    order: &str,
    nano: i64,
    now: Micros,
) -> Result<(), LedgerError> {
    if nano == 0 {
        Ok(())
    } else {
        ledger::complete(conn, &pending(order, now))
    }
}

/// Releases the pledge: the order ended without a contract.
pub fn release_pledge(
    conn: &mut AnyConnection,
    order: &str,
    nano: i64,
    now: Micros,
) -> Result<(), LedgerError> {
    if nano == 0 {
        Ok(())
    } else {
        ledger::void(conn, &pending(order, now))
    }
}

fn pending(order: &str, now: Micros) -> Pending {
    Pending {
        id: hold_id(order),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    }
}
