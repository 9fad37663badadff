//! Bulk writes of a day's lots and the balances they move, the fastest way for each database.

use std::collections::HashSet;

use diesel::{
    prelude::*,
    sql_types::{Array, BigInt, Text},
};

use super::{
    AccountSpec, LedgerError, Lot,
    account::{find, find_or_create},
};
use crate::{
    clock::Micros,
    store::{
        AnyConnection, DbResult,
        schema::{ledger_accounts, yield_lots},
    },
};

/// Rows per insert statement on SQLite.
const LOTS_AT_ONCE: usize = 64;

/// Amounts into and out of one account.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Movement {
    pub account: AccountSpec,
    pub paid_in: i64,
    pub paid_out: i64,
}

/// Inserts lots. None of them may exist yet.
pub fn insert_lots(conn: &mut AnyConnection, lots: &[Lot]) -> DbResult<()> {
    match conn {
        AnyConnection::Postgres(c) => {
            if !lots.is_empty() {
                diesel::copy_from(yield_lots::table)
                    .from_insertable(lots)
                    .execute(c)?;
            }
        }
        AnyConnection::Sqlite(c) => {
            // Full chunks reuse one prepared statement.
            let (whole, rest) = lots.as_chunks::<LOTS_AT_ONCE>();
            for rows in whole {
                diesel::insert_into(yield_lots::table)
                    .values(rows)
                    .execute(c)?;
            }
            diesel::insert_into(yield_lots::table)
                .values(rest)
                .execute(c)?;
        }
    }
    Ok(())
}

/// Adds movements to balances; each account occurs at most once. Fails if an account that must not
/// be negative would be; the caller's transaction must then roll back.
pub fn apply(
    conn: &mut AnyConnection,
    movements: &[Movement],
    now: Micros,
) -> Result<(), LedgerError> {
    let moving: Vec<&Movement> = movements
        .iter()
        .filter(|m| m.paid_in != 0 || m.paid_out != 0)
        .collect();
    // PostgreSQL scans all accounts for each statement; SQLite allows few variables.
    let at_once = if matches!(conn, AnyConnection::Postgres(_)) {
        200_000
    } else {
        5000
    };
    for some in moving.chunks(at_once) {
        let codes: Vec<String> = some.iter().map(|m| m.account.code()).collect();
        let changed = add(conn, &codes, some)?;
        if changed == some.len() {
            continue;
        }
        // New accounts have not been changed. Any other unchanged account would be overdrawn.
        let known: HashSet<String> = ledger_accounts::table
            .filter(ledger_accounts::code.eq_any(&codes))
            .select(ledger_accounts::code)
            .load(conn)?
            .into_iter()
            .collect();
        let new: Vec<&Movement> = some
            .iter()
            .copied()
            .filter(|m| !known.contains(&m.account.code()))
            .collect();
        for movement in &new {
            find_or_create(conn, &movement.account, now)?;
        }
        let new_codes: Vec<String> = new.iter().map(|m| m.account.code()).collect();
        if changed != known.len() || add(conn, &new_codes, &new)? != new.len() {
            return Err(overdrawn(conn, some)?);
        }
    }
    Ok(())
}

/// Updates the accounts that exist and would not be overdrawn; returns how many.
fn add(conn: &mut AnyConnection, codes: &[String], movements: &[&Movement]) -> DbResult<usize> {
    const CHANGE: &str = "UPDATE ledger_accounts \
         SET posted_in = posted_in + v.paid_in, posted_out = posted_out + v.paid_out FROM ";
    const WHERE: &str = " WHERE ledger_accounts.code = v.code AND (NOT never_negative \
         OR posted_in + v.paid_in - posted_out - v.paid_out - pending_out >= 0)";
    const JSON_ROWS: &str = "(SELECT value ->> 0 AS code, value ->> 1 AS paid_in, \
         value ->> 2 AS paid_out FROM json_each($1)) AS v";
    match conn {
        AnyConnection::Postgres(c) => {
            let paid_in: Vec<i64> = movements.iter().map(|m| m.paid_in).collect();
            let paid_out: Vec<i64> = movements.iter().map(|m| m.paid_out).collect();
            diesel::sql_query(format!(
                "{CHANGE} unnest($1, $2, $3) AS v (code, paid_in, paid_out) {WHERE}"
            ))
            .bind::<Array<Text>, _>(codes)
            .bind::<Array<BigInt>, _>(paid_in)
            .bind::<Array<BigInt>, _>(paid_out)
            .execute(c)
        }
        AnyConnection::Sqlite(c) => {
            let rows: Vec<(&str, i64, i64)> = codes
                .iter()
                .zip(movements)
                .map(|(code, m)| (code.as_str(), m.paid_in, m.paid_out))
                .collect();
            let rows = serde_json::to_string(&rows)
                .map_err(|error| diesel::result::Error::SerializationError(error.into()))?;
            diesel::sql_query(format!("{CHANGE} {JSON_ROWS} {WHERE}"))
                .bind::<Text, _>(rows)
                .execute(c)
        }
    }
}

fn overdrawn(conn: &mut AnyConnection, movements: &[&Movement]) -> DbResult<LedgerError> {
    for movement in movements.iter().filter(|m| m.account.never_negative()) {
        let free =
            find(conn, &movement.account.code())?.map_or(0, |account| account.balance().free());
        if free + movement.paid_in - movement.paid_out < 0 {
            return Ok(LedgerError::Insufficient {
                account: movement.account.code(),
                free,
                amount: movement.paid_out,
            });
        }
    }
    Ok(LedgerError::Overflow)
}
