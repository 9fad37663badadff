//! Capacity set aside at checkout, sold on payment, returned otherwise.

use crate::{
    clock::{DAY, Micros},
    ids::PoolId,
    ledger::{self, AccountSpec, LedgerError, Pending, Transfer},
    store::{AnyConnection, DbFault},
};

#[derive(Debug, thiserror::Error)]
pub enum CapacityError {
    #[error("only {left} are left; choose less")]
    SoldOut { left: crate::units::Bytes },
    #[error(transparent)]
    Ledger(LedgerError),
}

impl From<LedgerError> for CapacityError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Insufficient { free, .. } => Self::SoldOut { left: crate::units::Bytes(free.max(0)) },
            other => Self::Ledger(other),
        }
    }
}

impl CapacityError {
    /// The database's part of it, for retry.
    pub fn into_fault(self) -> Result<DbFault, Self> {
        match self {
            Self::Ledger(LedgerError::Db(fault)) => Ok(fault),
            other => Err(other),
        }
    }
}

fn transfer_id(order: &str) -> String {
    format!("hold:{order}")
}

fn pending(order: &str, now: Micros) -> Pending {
    Pending { id: transfer_id(order), effective_day: now.div_euclid(DAY), booked_at: now }
}

/// Sets `bytes` aside for an order (its public id).
pub fn hold_for_order(conn: &mut AnyConnection, pool: PoolId, order: &str, bytes: i64, now: Micros) -> Result<(), CapacityError> {
    let transfer = Transfer {
        id: transfer_id(order),
        from: AccountSpec::Free(pool),
        to: AccountSpec::Sold(pool),
        amount: bytes,
        kind: "capacity",
        subject: order.to_owned(),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    };
    Ok(ledger::hold(conn, &transfer)?)
}

pub fn confirm_sale(conn: &mut AnyConnection, order: &str, now: Micros) -> Result<(), LedgerError> {
    ledger::complete(conn, &pending(order, now))
}

pub fn release_hold(conn: &mut AnyConnection, order: &str, now: Micros) -> Result<(), LedgerError> {
    ledger::void(conn, &pending(order, now))
}

/// A contract ended: its bytes are free again.
pub fn return_sold(conn: &mut AnyConnection, pool: PoolId, contract: &str, bytes: i64, now: Micros) -> Result<(), LedgerError> {
    ledger::post(
        conn,
        &Transfer {
            id: format!("end:{contract}"),
            from: AccountSpec::Sold(pool),
            to: AccountSpec::Free(pool),
            amount: bytes,
            kind: "capacity",
            subject: contract.to_owned(),
            effective_day: now.div_euclid(DAY),
            booked_at: now,
        },
    )
}
