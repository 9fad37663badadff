//! Read models of the books for pages and statements.

use diesel::{prelude::*, sql_types::BigInt};

use super::{Account, AccountSpec, Balance, account::find, lot::entries_of_user, post::Row};
use crate::{
    clock::Micros,
    ids::{AccountId, PoolId},
    store::{
        AnyConnection, DbResult,
        schema::{ledger_accounts, ledger_transfers},
    },
};

/// The balance of an account; zero when the account was never used.
pub fn balance(conn: &mut AnyConnection, spec: &AccountSpec) -> DbResult<Balance> {
    Ok(find(conn, &spec.code())?
        .map(|account| account.balance())
        .unwrap_or_default())
}

/// One posted movement, seen from one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub transfer: String,
    /// Positive: into the account.
    pub amount: i64,
    pub kind: String,
    pub subject: String,
    pub effective_day: i64,
    pub booked_at: Micros,
}

/// Posted movements of an account that take effect in `days`, oldest first, at most `limit`. An
/// investor's account includes the movements of lots.
pub fn entries(
    conn: &mut AnyConnection,
    spec: &AccountSpec,
    days: std::ops::Range<i64>,
    limit: i64,
) -> DbResult<Vec<Entry>> {
    use ledger_transfers::{booked_at, effective_day, from_account, id, phase, to_account};
    let Some(account) = find(conn, &spec.code())? else {
        return Ok(Vec::new());
    };
    let rows = ledger_transfers::table
        .filter(from_account.eq(account.id).or(to_account.eq(account.id)))
        .filter(effective_day.ge(days.start).and(effective_day.lt(days.end)))
        .filter(phase.eq("posted").or(phase.eq("completes")))
        .order((effective_day.asc(), booked_at.asc(), id.asc()))
        .limit(limit)
        .load::<Row>(conn)?;
    let mut entries: Vec<Entry> = rows.into_iter().map(|row| entry(account.id, row)).collect();
    entries.extend(entries_of_user(conn, spec, &days)?);
    entries.sort_by(|a, b| {
        (a.effective_day, a.booked_at, &a.transfer).cmp(&(
            b.effective_day,
            b.booked_at,
            &b.transfer,
        ))
    });
    entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(entries)
}

fn entry(account: AccountId, row: Row) -> Entry {
    let amount = if row.to_account == account {
        row.amount
    } else {
        -row.amount
    };
    let Row {
        id: transfer,
        kind,
        subject,
        effective_day,
        booked_at,
        ..
    } = row;
    Entry {
        transfer,
        amount,
        kind,
        subject,
        effective_day,
        booked_at,
    }
}

/// Net movement of an account before `day`.
pub fn movements(conn: &mut AnyConnection, spec: &AccountSpec, before_day: i64) -> DbResult<i64> {
    let entries = entries(conn, spec, i64::MIN..before_day, i64::MAX)?;
    Ok(entries.iter().map(|e| e.amount).sum())
}

/// nanoFIL that all investors together can withdraw.
pub fn owed_to_investors(conn: &mut AnyConnection) -> DbResult<i64> {
    #[derive(QueryableByName)]
    struct Owed {
        #[diesel(sql_type = BigInt)]
        owed: i64,
    }
    const SUM: &str = "SELECT CAST(COALESCE(SUM(posted_in - posted_out), 0) AS BIGINT) AS owed \
         FROM ledger_accounts \
         WHERE user_id IS NOT NULL AND asset = 'FIL' AND code LIKE '%:available'";
    diesel::sql_query(SUM)
        .get_result::<Owed>(conn)
        .map(|sum| sum.owed)
}

/// The amount that a posted transfer moved.
pub fn posted_amount(conn: &mut AnyConnection, id: &str) -> DbResult<Option<i64>> {
    let posted = ledger_transfers::table
        .find(id)
        .filter(ledger_transfers::phase.eq("posted"));
    posted
        .select(ledger_transfers::amount)
        .first(conn)
        .optional()
}

/// The balances of a pool's accounts, ordered by code.
pub fn pool_balances(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Vec<(String, Balance)>> {
    let accounts = ledger_accounts::table
        .filter(ledger_accounts::pool_id.eq(pool))
        .order(ledger_accounts::code.asc())
        .load::<Account>(conn)?;
    Ok(accounts
        .into_iter()
        .map(|a| (a.code.clone(), a.balance()))
        .collect())
}
