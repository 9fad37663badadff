//! The calendar of coming releases if nothing more is earned.

use std::{collections::BTreeMap, ops::Range};

use diesel::prelude::*;

use super::{
    CloseError,
    parties::Agreed,
    vest::{part, rest},
};
use crate::{
    ids::{ContractId, PoolId, UserId},
    ledger,
    store::{
        AnyConnection,
        schema::{contracts, pool_days},
    },
};

/// nanoFIL already locked that each coming day releases to an investor.
pub fn calendar(conn: &mut AnyConnection, user: UserId) -> Result<BTreeMap<i64, i64>, CloseError> {
    let mine: Vec<(ContractId, PoolId)> = contracts::table
        .filter(contracts::user_id.eq(user))
        .select((contracts::id, contracts::pool_id))
        .load(conn)?;
    let ids: Vec<ContractId> = mine.iter().map(|(contract, _)| *contract).collect();
    let agreed = Agreed::load(conn, &ids)?;
    let mut days = BTreeMap::new();
    for (contract, pool) in mine {
        let closed = pool_days::table.filter(pool_days::pool_id.eq(pool));
        let Some(last) = closed
            .select(diesel::dsl::max(pool_days::day))
            .first::<Option<i64>>(conn)?
        else {
            continue;
        };
        let n = agreed.vesting_days(contract);
        let lots = ledger::lots_of_contract(conn, contract, last - n + 1..last + 1, i64::MAX)?;
        let locked: Vec<(i64, i64)> = lots.iter().map(|lot| (lot.day, lot.locked_nano)).collect();
        add(&mut days, &locked, n, last + 1..last + n + 1);
    }
    Ok(days)
}

/// Adds the releases of `coming` days from amounts locked on earlier days, in one pass over the
/// days.
fn add(days: &mut BTreeMap<i64, i64>, locked: &[(i64, i64)], n: i64, coming: Range<i64>) {
    let mut rate: i64 = locked.iter().map(|(_, amount)| part(*amount, n)).sum();
    let mut ends: BTreeMap<i64, (i64, i64)> = BTreeMap::new();
    for (day, amount) in locked {
        let end = ends.entry(day + n).or_default();
        *end = (end.0 + part(*amount, n), end.1 + rest(*amount, n));
    }
    for day in coming {
        let (ending, left_over) = ends.get(&day).copied().unwrap_or_default();
        let released = rate + left_over;
        rate -= ending;
        if released > 0 {
            *days.entry(day).or_default() += released;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::yields::tranche;

    proptest! {
        #[test]
        fn the_calendar_releases_the_rest_of_every_lot(
            locked in prop::collection::vec(0..1i64 << 40, 1..30),
            n in 30..200i64,
        ) {
            let lots: Vec<(i64, i64)> = (100..).zip(locked).collect();
            let last = lots.last().unwrap().0;
            let mut days = BTreeMap::new();
            add(&mut days, &lots, n, last + 1..last + n + 1);
            for day in last + 1..=last + n {
                let tranches = lots.iter().map(|(lot, amount)| tranche(*amount, day - lot, n));
                let every: i64 = tranches.sum();
                prop_assert_eq!(days.get(&day).copied().unwrap_or(0), every, "day {}", day);
            }
        }
    }
}
