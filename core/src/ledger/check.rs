//! The auditor: recomputes every balance from the transfers and lots, and compares.

use std::collections::HashMap;

use diesel::prelude::*;

use super::{Account, lot::all_movements, post::Row};
use crate::{
    ids::AccountId,
    store::{
        AnyConnection, DbResult,
        schema::{ledger_accounts, ledger_transfers},
    },
};

/// A breach of a rule that must always hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub account: String,
    pub what: String,
}

#[derive(Default, PartialEq, Eq, Clone, Copy)]
struct Sums {
    posted_in: i64,
    posted_out: i64,
    pending_in: i64,
    pending_out: i64,
}

impl Sums {
    /// The sums that an account's row keeps.
    fn kept(account: &Account) -> Self {
        Self {
            posted_in: account.posted_in,
            posted_out: account.posted_out,
            pending_in: account.pending_in,
            pending_out: account.pending_out,
        }
    }
}

/// Sums by account.
type AllSums = HashMap<AccountId, Sums>;

/// Checks that the books balance, and returns nothing if they do. Every account must equal its
/// transfers and lots, no account may be negative that must not be, and every asset must sum to
/// zero over all accounts.
pub fn check(conn: &mut AnyConnection) -> DbResult<Vec<Finding>> {
    let accounts = ledger_accounts::table
        .order(ledger_accounts::code.asc())
        .load::<Account>(conn)?;
    let mut sums = transfer_sums(conn)?;
    let mut findings = add_lots(conn, &accounts, &mut sums)?;
    for account in &accounts {
        let recomputed = sums.get(&account.id).copied().unwrap_or_default();
        findings.extend(check_account(account, recomputed));
    }
    findings.extend(check_assets(&accounts));
    Ok(findings)
}

fn transfer_sums(conn: &mut AnyConnection) -> DbResult<AllSums> {
    let mut sums = AllSums::new();
    for row in ledger_transfers::table.load::<Row>(conn)? {
        let (posted, pending) = match row.phase.as_str() {
            "posted" => (row.amount, 0),
            "pending" => (0, row.amount),
            "completes" => (row.amount, -row.amount),
            _ => (0, -row.amount),
        };
        let from = sums.entry(row.from_account).or_default();
        from.posted_out += posted;
        from.pending_out += pending;
        let to = sums.entry(row.to_account).or_default();
        to.posted_in += posted;
        to.pending_in += pending;
    }
    Ok(sums)
}

/// Adds the movements of all lots. Finds those of accounts that do not exist.
fn add_lots(
    conn: &mut AnyConnection,
    accounts: &[Account],
    sums: &mut AllSums,
) -> DbResult<Vec<Finding>> {
    let ids: HashMap<&str, AccountId> = accounts
        .iter()
        .map(|account| (account.code.as_str(), account.id))
        .collect();
    let mut findings = Vec::new();
    for movement in all_movements(conn)? {
        let code = movement.account.code();
        match ids.get(code.as_str()) {
            Some(id) => {
                let sums = sums.entry(*id).or_default();
                sums.posted_in += movement.paid_in;
                sums.posted_out += movement.paid_out;
            }
            None if movement.paid_in == 0 && movement.paid_out == 0 => {}
            None => findings.push(Finding {
                account: code,
                what: "lots change this account, but it does not exist".into(),
            }),
        }
    }
    Ok(findings)
}

fn check_account(account: &Account, recomputed: Sums) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |what: String| {
        findings.push(Finding {
            account: account.code.clone(),
            what,
        });
    };
    if recomputed != Sums::kept(account) {
        found("its balance is not the sum of its transfers and lots".into());
    }
    let free = account.balance().free();
    if account.never_negative && free < 0 {
        found(format!("it is overdrawn by {}", -free));
    }
    findings
}

fn check_assets(accounts: &[Account]) -> Vec<Finding> {
    let mut totals: HashMap<&str, i128> = HashMap::new();
    for account in accounts {
        *totals.entry(&account.asset).or_default() += i128::from(account.balance().posted);
    }
    totals
        .into_iter()
        .filter(|(_, total)| *total != 0)
        .map(|(asset, total)| Finding {
            account: asset.to_owned(),
            what: format!("the asset does not sum to zero but to {total}"),
        })
        .collect()
}
