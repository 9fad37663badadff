//! An investor's own pledge: set aside with the order, put up with the contract. `yields` gives it back as the chain does.

use crate::{
    clock::{DAY, Micros},
    ids::UserId,
    ledger::{self, AccountSpec, LedgerError, Pending, Transfer},
    store::AnyConnection,
};

fn hold_id(order: &str) -> String {
    format!("pledge:{order}")
}

/// Sets an order's pledge aside, nanoFIL; nothing when there is none to put up.
pub fn hold_pledge(conn: &mut AnyConnection, user: UserId, order: &str, nano: i64, now: Micros) -> Result<(), LedgerError> {
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

/// The order became a contract.
pub fn put_up_pledge(conn: &mut AnyConnection, order: &str, nano: i64, now: Micros) -> Result<(), LedgerError> {
    if nano == 0 { Ok(()) } else { ledger::complete(conn, &pending(order, now)) }
}

/// The order came to nothing.
pub fn release_pledge(conn: &mut AnyConnection, order: &str, nano: i64, now: Micros) -> Result<(), LedgerError> {
    if nano == 0 { Ok(()) } else { ledger::void(conn, &pending(order, now)) }
}

fn pending(order: &str, now: Micros) -> Pending {
    Pending { id: hold_id(order), effective_day: now.div_euclid(DAY), booked_at: now }
}
