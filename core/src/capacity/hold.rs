//! Capacity set aside at checkout, sold on payment, returned otherwise.

use crate::{
    clock::{DAY, Micros},
    ids::PoolId,
    ledger::{self, AccountSpec, LedgerError, Pending, Transfer},
    store::{AnyConnection, DbFault},
};

#[derive(Debug, thiserror::Error)]
pub enum CapacityError {
    #[error("only {left} are left; order less")]
    SoldOut { left: crate::units::Bytes },
    #[error(transparent)]
    Ledger(LedgerError),
}

impl From<LedgerError> for CapacityError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Insufficient { free, .. } => Self::SoldOut {
                left: crate::units::Bytes(free.max(0)),
            },
            other => Self::Ledger(other),
        }
    }
}

impl CapacityError {
    /// The database fault in it, if there is one, for retrying.
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
    Pending {
        id: transfer_id(order),
        effective_day: now.div_euclid(DAY),
        booked_at: now,
    }
}

/// Sets `bytes` aside for an order (its public id).
pub fn hold_for_order(
    conn: &mut AnyConnection,
    pool: PoolId,
    order: &str,
    bytes: i64,
    now: Micros,
) -> Result<(), CapacityError> {
    let (free, sold) = (AccountSpec::Free(pool), AccountSpec::Sold(pool));
    Ok(ledger::hold(
        conn,
        &moved(transfer_id(order), free, sold, (order, bytes), now),
    )?)
}

pub fn confirm_sale(conn: &mut AnyConnection, order: &str, now: Micros) -> Result<(), LedgerError> {
    ledger::complete(conn, &pending(order, now))
}

pub fn release_hold(conn: &mut AnyConnection, order: &str, now: Micros) -> Result<(), LedgerError> {
    ledger::void(conn, &pending(order, now))
}

/// Frees the bytes of a contract whose sectors are gone, out of `from`.
fn free(
    conn: &mut AnyConnection,
    from: AccountSpec,
    (pool, contract, bytes): Part<'_>,
    now: Micros,
) -> Result<(), LedgerError> {
    ledger::post(
        conn,
        &moved(
            format!("end:{contract}"),
            from,
            AccountSpec::Free(pool),
            (contract, bytes),
            now,
        ),
    )
}

/// Pool, contract (its public id) and bytes.
type Part<'a> = (PoolId, &'a str, i64);

/// A transfer of bytes between two capacity accounts.
pub(super) fn moved(
    id: String,
    from: AccountSpec,
    to: AccountSpec,
    (subject, amount): (&str, i64),
    now: Micros,
) -> Transfer {
    let (kind, subject, effective_day) = ("capacity", subject.to_owned(), now.div_euclid(DAY));
    Transfer {
        id,
        from,
        to,
        amount,
        kind,
        subject,
        effective_day,
        booked_at: now,
    }
}

/// The term is over but the sectors live on. Until they end, their bytes count as the operator's
/// own use.
pub fn keep_sold(conn: &mut AnyConnection, part: Part<'_>, now: Micros) -> Result<(), LedgerError> {
    let (pool, contract, bytes) = part;
    let (from, to) = (AccountSpec::Sold(pool), AccountSpec::OwnUse(pool));
    ledger::post(
        conn,
        &moved(format!("over:{contract}"), from, to, (contract, bytes), now),
    )
}

/// Frees sold bytes whose sectors are gone.
pub fn return_sold(
    conn: &mut AnyConnection,
    part: Part<'_>,
    now: Micros,
) -> Result<(), LedgerError> {
    free(conn, AccountSpec::Sold(part.0), part, now)
}

/// As [`return_sold`], for bytes that [`keep_sold`] moved to own use.
pub fn return_kept(
    conn: &mut AnyConnection,
    part: Part<'_>,
    now: Micros,
) -> Result<(), LedgerError> {
    free(conn, AccountSpec::OwnUse(part.0), part, now)
}
