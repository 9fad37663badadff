//! An investor's ledger: balances, coming releases, entries day by day.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ops::Range,
};

use super::Balances;
use crate::{
    accounts::User,
    catalog,
    clock::{DAY, Micros},
    contracts::{self, Contract},
    ledger::{self, AccountSpec, Entry},
    store::{AnyConnection, DbFault, DbResult},
    yields::{self, CloseError, Correction},
};

/// Entries of one view, or those of a day if that has more.
const ENTRIES_SHOWN: i64 = 1500;
const DAYS_SHOWN: i64 = 31;

/// The three parts of an investor's balance.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Wallet {
    Available,
    Vesting,
    Pledged,
}

pub struct LedgerEntry {
    pub wallet: Wallet,
    pub entry: Entry,
    /// For an entry that corrects another.
    pub correction: Option<Correction>,
    /// Days over which the contract's terms release a locked reward; for entries of a contract.
    pub vesting_days: Option<i64>,
}

pub struct LedgerView {
    pub balances: Balances,
    /// nanoFIL already locked that each coming day releases.
    pub releases: BTreeMap<i64, i64>,
    /// When the last of the pledge comes back. `None`: nothing is pledged.
    pub pledge_back_by: Option<Micros>,
    /// Newest day first.
    pub entries: Vec<LedgerEntry>,
    /// The first day of this view.
    pub first_day: i64,
    pub has_older: bool,
}

/// Entries before the day `before`; without it, the newest.
pub fn ledger(
    conn: &mut AnyConnection,
    user: &User,
    before: Option<i64>,
    today: i64,
) -> DbResult<LedgerView> {
    let contracts = contracts::of_user(conn, user.id)?;
    let first_day = first_day(conn, &contracts, before, today)?;
    let began = contracts
        .iter()
        .map(|contract| contract.active_at.unwrap_or(contract.created_at));
    let earliest = began.fold(user.created_at, i64::min);
    let days = first_day..before.unwrap_or(i64::MAX);
    Ok(LedgerView {
        balances: Balances::of(conn, user.id)?,
        releases: yields::calendar(conn, user.id).map_err(unreadable)?,
        pledge_back_by: contracts::pledge_back_by(conn, user.id)?,
        entries: entries(conn, user, &contracts, &days)?,
        first_day,
        has_older: earliest.div_euclid(DAY) < first_day,
    })
}

/// A lot that cannot be read is a row that cannot be read.
fn unreadable(error: CloseError) -> diesel::result::Error {
    match error {
        CloseError::Db(DbFault::Query(error)) => error,
        other => diesel::result::Error::DeserializationError(other.into()),
    }
}

/// The newest view begins some days before the last day that every pool has closed.
fn first_day(
    conn: &mut AnyConnection,
    contracts: &[Contract],
    before: Option<i64>,
    today: i64,
) -> DbResult<i64> {
    let mut closed = today;
    for pool in contracts
        .iter()
        .map(|contract| contract.pool_id)
        .collect::<BTreeSet<_>>()
    {
        closed = closed.min(
            yields::days(conn, pool, 1)?
                .first()
                .map_or(today, |day| day.day),
        );
    }
    // A contract has about four entries a day.
    let a_day = i64::try_from(contracts.len())
        .unwrap_or(i64::MAX)
        .saturating_mul(4)
        .max(1);
    let days = (ENTRIES_SHOWN / a_day).clamp(1, DAYS_SHOWN);
    Ok(before.unwrap_or(closed + 1) - days)
}

fn entries(
    conn: &mut AnyConnection,
    user: &User,
    contracts: &[Contract],
    days: &Range<i64>,
) -> DbResult<Vec<LedgerEntry>> {
    let mut vesting_days = HashMap::new();
    for contract in contracts {
        let terms = catalog::terms_by_id(conn, contract.terms_id)?;
        vesting_days.insert(contract.public_id.as_str(), terms.vesting_days);
    }
    let mut rows = Vec::new();
    for (wallet, spec) in [
        (Wallet::Available, AccountSpec::Available(user.id)),
        (Wallet::Vesting, AccountSpec::Vesting(user.id)),
        (Wallet::Pledged, AccountSpec::Pledged(user.id)),
    ] {
        for entry in ledger::entries(conn, &spec, days.clone(), i64::MAX)? {
            let is_correction = entry.kind == "correction";
            let correction = is_correction
                .then(|| yields::correction(conn, &entry.transfer))
                .transpose()?;
            let vesting_days = vesting_days.get(entry.subject.as_str()).copied();
            rows.push(LedgerEntry {
                wallet,
                entry,
                correction: correction.flatten(),
                vesting_days,
            });
        }
    }
    rows.sort_by_key(|row| std::cmp::Reverse(row.entry.effective_day));
    Ok(rows)
}
