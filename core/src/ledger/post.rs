//! Posting: the only code that writes transfers. It runs inside the caller's transaction.

use diesel::prelude::*;

use super::{
    AccountSpec,
    account::{Account, find_or_create},
};
use crate::{
    clock::Micros,
    ids::AccountId,
    on_conn,
    store::{
        AnyConnection, DbFault, DbResult,
        schema::{ledger_accounts, ledger_transfers},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("{account} has only {free} left, which is less than {amount}")]
    Insufficient {
        account: String,
        free: i64,
        amount: i64,
    },
    #[error("a transfer must move more than zero, not {0}")]
    Amount(i64),
    #[error("{from} and {to} count different assets")]
    Assets { from: String, to: String },
    #[error("transfer {0} already exists with different contents")]
    Conflict(String),
    #[error("a sum does not fit into the books' integers")]
    Overflow,
    #[error("transfer {0} is not pending")]
    NotPending(String),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(LedgerError);

/// A movement between two accounts of one asset.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// Chosen by the caller. Posting the same transfer again does nothing.
    pub id: String,
    pub from: AccountSpec,
    pub to: AccountSpec,
    pub amount: i64,
    /// Its kind, for statements: `reward`, `fee`, `vesting`…
    pub kind: &'static str,
    /// The public id of its subject, such as a contract or an order.
    pub subject: String,
    /// UTC day, counted from 1970-01-01, in which it takes effect.
    pub effective_day: i64,
    pub booked_at: Micros,
}

/// The outcome of a pending transfer.
#[derive(Clone, Debug)]
pub struct Pending {
    pub id: String,
    pub effective_day: i64,
    pub booked_at: Micros,
}

#[derive(Clone, Debug, Queryable, Insertable)]
#[diesel(table_name = ledger_transfers)]
pub(super) struct Row {
    pub id: String,
    pub from_account: AccountId,
    pub to_account: AccountId,
    pub amount: i64,
    pub phase: String,
    pub pending_id: Option<String>,
    pub kind: String,
    pub subject: String,
    pub effective_day: i64,
    pub booked_at: Micros,
}

impl Row {
    fn moves_as(&self, other: &Self) -> bool {
        self.from_account == other.from_account
            && self.to_account == other.to_account
            && self.amount == other.amount
            && self.phase == other.phase
    }
}

/// Moves an amount at once.
pub fn post(conn: &mut AnyConnection, transfer: &Transfer) -> Result<(), LedgerError> {
    record(conn, transfer, "posted", Side::Posted)
}

/// Sets an amount aside: it can no longer be spent from `from`, and has not arrived at `to`.
pub fn hold(conn: &mut AnyConnection, transfer: &Transfer) -> Result<(), LedgerError> {
    record(conn, transfer, "pending", Side::Pending)
}

/// Delivers a held amount to `to`.
pub fn complete(conn: &mut AnyConnection, pending: &Pending) -> Result<(), LedgerError> {
    settle(conn, pending, "completes")
}

/// Returns a held amount to `from`.
pub fn void(conn: &mut AnyConnection, pending: &Pending) -> Result<(), LedgerError> {
    settle(conn, pending, "voids")
}

fn settle(conn: &mut AnyConnection, pending: &Pending, phase: &str) -> Result<(), LedgerError> {
    let held = ledger_transfers::table
        .find(&pending.id)
        .first::<Row>(conn)
        .optional()?;
    let held = held
        .filter(|row| row.phase == "pending")
        .ok_or_else(|| LedgerError::NotPending(pending.id.clone()))?;
    let row = Row {
        id: format!("{}:{phase}", pending.id),
        phase: phase.to_owned(),
        pending_id: Some(held.id.clone()),
        effective_day: pending.effective_day,
        booked_at: pending.booked_at,
        ..held.clone()
    };
    // A hold settles once: the unique pending_id decides between two concurrent attempts.
    if insert_row(conn, &row)? == 0 {
        let earlier = ledger_transfers::table
            .filter(ledger_transfers::pending_id.eq(&held.id))
            .first::<Row>(conn)?;
        return if earlier.phase == phase {
            Ok(())
        } else {
            Err(LedgerError::NotPending(held.id))
        };
    }
    let account = |conn: &mut AnyConnection, id: AccountId| {
        ledger_accounts::table.find(id).first::<Account>(conn)
    };
    let (from, to) = (
        account(conn, held.from_account)?,
        account(conn, held.to_account)?,
    );
    release(conn, &from, &to, held.amount)?;
    if phase == "completes" {
        take(conn, &from, held.amount, Side::Posted)?;
        give(conn, &to, held.amount, Side::Posted)?;
    }
    Ok(())
}

/// Writes no transfer and no balance unless the balance allows it, so that a caller may continue
/// after `Insufficient` in the same transaction.
fn record(
    conn: &mut AnyConnection,
    transfer: &Transfer,
    phase: &str,
    side: Side,
) -> Result<(), LedgerError> {
    if transfer.amount <= 0 {
        return Err(LedgerError::Amount(transfer.amount));
    }
    let from = find_or_create(conn, &transfer.from, transfer.booked_at)?;
    let to = find_or_create(conn, &transfer.to, transfer.booked_at)?;
    if from.asset != to.asset || from.id == to.id {
        return Err(LedgerError::Assets {
            from: from.code,
            to: to.code,
        });
    }
    let row = Row {
        id: transfer.id.clone(),
        from_account: from.id,
        to_account: to.id,
        amount: transfer.amount,
        phase: phase.to_owned(),
        pending_id: None,
        kind: transfer.kind.to_owned(),
        subject: transfer.subject.clone(),
        effective_day: transfer.effective_day,
        booked_at: transfer.booked_at,
    };
    let there = ledger_transfers::table.find(&row.id).first::<Row>(conn);
    if let Some(there) = there.optional()? {
        return if there.moves_as(&row) {
            Ok(())
        } else {
            Err(LedgerError::Conflict(row.id))
        };
    }
    take(conn, &from, transfer.amount, side)?;
    give(conn, &to, transfer.amount, side)?;
    if insert_row(conn, &row)? == 1 {
        Ok(())
    } else {
        Err(raced().into())
    }
}

/// Another transaction wrote the same transfer between our lookup and our insert. A retry will find
/// it.
fn raced() -> diesel::result::Error {
    let said = Box::new("the same transfer was posted at the same moment".to_owned());
    diesel::result::Error::DatabaseError(
        diesel::result::DatabaseErrorKind::SerializationFailure,
        said,
    )
}

fn insert_row(conn: &mut AnyConnection, row: &Row) -> DbResult<usize> {
    on_conn!(&mut *conn, |c| diesel::insert_into(ledger_transfers::table)
        .values(row)
        .on_conflict_do_nothing()
        .execute(c))
}

#[derive(Clone, Copy)]
enum Side {
    Posted,
    Pending,
}

/// Books an amount out of an account. The condition keeps a never-negative account from being
/// overdrawn under any concurrency.
fn take(
    conn: &mut AnyConnection,
    from: &Account,
    amount: i64,
    side: Side,
) -> Result<(), LedgerError> {
    use ledger_accounts::{id, never_negative, pending_out, posted_in, posted_out};
    let enough = never_negative
        .eq(false)
        .or((posted_in - posted_out - pending_out).ge(amount));
    let row = ledger_accounts::table.filter(id.eq(from.id)).filter(enough);
    let changed = match side {
        Side::Posted => diesel::update(row)
            .set(posted_out.eq(posted_out + amount))
            .execute(conn)?,
        Side::Pending => diesel::update(row)
            .set(pending_out.eq(pending_out + amount))
            .execute(conn)?,
    };
    if changed == 1 {
        return Ok(());
    }
    let free = ledger_accounts::table
        .find(from.id)
        .first::<Account>(conn)?
        .balance()
        .free();
    Err(LedgerError::Insufficient {
        account: from.code.clone(),
        free,
        amount,
    })
}

fn give(conn: &mut AnyConnection, to: &Account, amount: i64, side: Side) -> DbResult<()> {
    use ledger_accounts::{id, pending_in, posted_in};
    let row = ledger_accounts::table.filter(id.eq(to.id));
    match side {
        Side::Posted => diesel::update(row)
            .set(posted_in.eq(posted_in + amount))
            .execute(conn),
        Side::Pending => diesel::update(row)
            .set(pending_in.eq(pending_in + amount))
            .execute(conn),
    }
    .map(drop)
}

fn release(conn: &mut AnyConnection, from: &Account, to: &Account, amount: i64) -> DbResult<()> {
    use ledger_accounts::{id, pending_in, pending_out};
    diesel::update(ledger_accounts::table.filter(id.eq(from.id)))
        .set(pending_out.eq(pending_out - amount))
        .execute(conn)?;
    diesel::update(ledger_accounts::table.filter(id.eq(to.id)))
        .set(pending_in.eq(pending_in - amount))
        .execute(conn)?;
    Ok(())
}
