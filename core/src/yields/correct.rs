//! Corrections never change an entry. A new entry, on a day that is still open, names the one it
//! corrects and the reason.

use diesel::prelude::*;

use crate::{
    accounts,
    clock::{DAY, Micros},
    contracts,
    ids::{AccountId, PoolId, UserId, digest},
    ledger::{self, AccountSpec, LedgerError, Transfer},
    on_conn,
    store::{
        AnyConnection, DbFault, DbResult,
        schema::{corrections, ledger_accounts, ledger_transfers, pool_days},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum CorrectionError {
    #[error(
        "the books have no entry {0:?} of an investor; \
         `sealyard books explain EMAIL DAY` names a day's entries"
    )]
    Unknown(String),
    #[error("give a reason; the investor will read it")]
    Reason,
    #[error(transparent)]
    Ledger(LedgerError),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_ledger_errors!(CorrectionError);

pub struct NewCorrection<'a> {
    /// An entry of an investor's accounts, as named by [`ledger::Entry::transfer`].
    pub corrects: &'a str,
    /// nanoFIL. Positive: to the investor, out of the operator's own pocket. Negative: back to the
    /// operator.
    pub nano: i64,
    pub reason: &'a str,
    pub made_by: UserId,
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = corrections)]
pub struct Correction {
    pub transfer_id: String,
    pub corrects: String,
    pub reason: String,
    pub made_by: UserId,
    pub made_at: Micros,
}

/// The owner, pool and subject of an entry.
struct Corrected {
    user: UserId,
    pool: PoolId,
    subject: String,
}

impl Corrected {
    /// Moves `nano` to the investor, or back to the operator if it is negative.
    fn transfer(self, id: &str, nano: i64, day: i64, now: Micros) -> Transfer {
        let available = AccountSpec::Available(self.user);
        let (from, to) = if nano > 0 {
            (AccountSpec::Compensation(self.pool), available)
        } else {
            (available, AccountSpec::OperatorYield(self.pool))
        };
        Transfer {
            id: id.to_owned(),
            from,
            to,
            amount: nano.saturating_abs(),
            kind: "correction",
            subject: self.subject,
            effective_day: day,
            booked_at: now,
        }
    }
}

/// The pool's first day that is not closed, or today if none was ever closed.
fn first_open_day(conn: &mut AnyConnection, pool: PoolId, now: Micros) -> DbResult<i64> {
    let closed: Option<i64> = pool_days::table
        .filter(pool_days::pool_id.eq(pool))
        .select(diesel::dsl::max(pool_days::day))
        .first(conn)?;
    Ok(closed.map_or(now.div_euclid(DAY), |day| day + 1))
}

/// Books a correction on the pool's first day that is not closed. Repeating it changes nothing.
pub fn correct(
    conn: &mut AnyConnection,
    new: &NewCorrection<'_>,
    now: Micros,
) -> Result<Correction, CorrectionError> {
    let reason = new.reason.trim();
    if reason.is_empty() {
        return Err(CorrectionError::Reason);
    }
    let Some(corrected) = find(conn, new.corrects)? else {
        return Err(CorrectionError::Unknown(new.corrects.to_owned()));
    };
    let id = format!(
        "correction:{}",
        digest(&format!("{}/{}/{reason}", new.corrects, new.nano))
    );
    if let Some(there) = correction(conn, &id)? {
        return Ok(there);
    }
    let day = first_open_day(conn, corrected.pool, now)?;
    ledger::post(conn, &corrected.transfer(&id, new.nano, day, now))?;
    let row = Correction {
        transfer_id: id,
        corrects: new.corrects.to_owned(),
        reason: reason.to_owned(),
        made_by: new.made_by,
        made_at: now,
    };
    on_conn!(&mut *conn, |c| diesel::insert_into(corrections::table)
        .values(&row)
        .on_conflict_do_nothing()
        .execute(c))?;
    accounts::record(
        conn,
        now,
        Some(new.made_by),
        "correction",
        &row.transfer_id,
        &row.corrects,
    )?;
    Ok(row)
}

/// The correction that a transfer made, with the entry it corrects. `None`: the transfer is not a
/// correction.
pub fn correction(conn: &mut AnyConnection, transfer: &str) -> DbResult<Option<Correction>> {
    corrections::table.find(transfer).first(conn).optional()
}

fn find(conn: &mut AnyConnection, entry: &str) -> DbResult<Option<Corrected>> {
    if let [_, pool, day, contract] = entry.split(':').collect::<Vec<_>>().as_slice()
        && let (Ok(pool), Ok(day)) = (pool.parse().map(PoolId), day.parse())
    {
        let Some(contract) = contracts::by_public_id(conn, contract)? else {
            return Ok(None);
        };
        let lot = ledger::lot(conn, pool, day, contract.id)?;
        return Ok(lot.map(|_| Corrected {
            user: contract.user_id,
            pool,
            subject: contract.public_id,
        }));
    }
    let row = ledger_transfers::table.find(entry);
    let row = row.select((
        ledger_transfers::from_account,
        ledger_transfers::to_account,
        ledger_transfers::subject,
    ));
    let Some((from, to, subject)) = row
        .first::<(AccountId, AccountId, String)>(conn)
        .optional()?
    else {
        return Ok(None);
    };
    let accounts: Vec<(Option<UserId>, Option<PoolId>)> = ledger_accounts::table
        .filter(ledger_accounts::id.eq_any([from, to]))
        .select((ledger_accounts::user_id, ledger_accounts::pool_id))
        .load(conn)?;
    let user = accounts.iter().find_map(|(user, _)| *user);
    let pool = match accounts.iter().find_map(|(_, pool)| *pool) {
        Some(pool) => Some(pool),
        None => contracts::by_public_id(conn, &subject)?.map(|contract| contract.pool_id),
    };
    Ok(user.zip(pool).map(|(user, pool)| Corrected {
        user,
        pool,
        subject,
    }))
}
