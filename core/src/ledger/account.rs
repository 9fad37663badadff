//! Account rows: found by code, created on first use.

use diesel::prelude::*;

use super::AccountSpec;
use crate::{
    clock::Micros,
    ids::{AccountId, PoolId, UserId},
    on_conn,
    store::{AnyConnection, DbResult, schema::ledger_accounts},
};

#[derive(Clone, Debug, Queryable)]
pub struct Account {
    pub id: AccountId,
    pub code: String,
    pub asset: String,
    pub user_id: Option<UserId>,
    pub pool_id: Option<PoolId>,
    pub never_negative: bool,
    pub posted_in: i64,
    pub posted_out: i64,
    pub pending_in: i64,
    pub pending_out: i64,
    pub created_at: Micros,
}

/// The balance of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Balance {
    pub posted: i64,
    /// Held back by pending transfers.
    pub held: i64,
}

impl Balance {
    /// The amount that can still leave the account.
    #[must_use]
    pub fn free(self) -> i64 {
        self.posted - self.held
    }
}

impl Account {
    #[must_use]
    pub fn balance(&self) -> Balance {
        Balance {
            posted: self.posted_in - self.posted_out,
            held: self.pending_out,
        }
    }
}

#[derive(Insertable)]
#[diesel(table_name = ledger_accounts)]
struct NewAccount {
    code: String,
    asset: String,
    user_id: Option<UserId>,
    pool_id: Option<PoolId>,
    never_negative: bool,
    posted_in: i64,
    posted_out: i64,
    pending_in: i64,
    pending_out: i64,
    created_at: Micros,
}

pub(super) fn find(conn: &mut AnyConnection, code: &str) -> DbResult<Option<Account>> {
    ledger_accounts::table
        .filter(ledger_accounts::code.eq(code))
        .first::<Account>(conn)
        .optional()
}

pub(super) fn find_or_create(
    conn: &mut AnyConnection,
    spec: &AccountSpec,
    now: Micros,
) -> DbResult<Account> {
    let code = spec.code();
    if let Some(account) = find(conn, &code)? {
        return Ok(account);
    }
    let new = NewAccount {
        code: code.clone(),
        asset: spec.asset().code(),
        user_id: spec.user(),
        pool_id: spec.pool(),
        never_negative: spec.never_negative(),
        posted_in: 0,
        posted_out: 0,
        pending_in: 0,
        pending_out: 0,
        created_at: now,
    };
    on_conn!(&mut *conn, |c| diesel::insert_into(ledger_accounts::table)
        .values(&new)
        .on_conflict(ledger_accounts::code)
        .do_nothing()
        .execute(c))?;
    ledger_accounts::table
        .filter(ledger_accounts::code.eq(code))
        .first(conn)
}
