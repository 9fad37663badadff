//! Capacity that would be free if all machines worked. It is not sold until they do.

use super::{capacity, hold::moved, pools};
use crate::{
    clock::Micros,
    ids::PoolId,
    ledger::{self, AccountSpec, LedgerError},
    store::AnyConnection,
};

/// Books free bytes that working machines cannot hold as down, and back again once they can.
/// Working machines hold `backed` bytes. The pools share the shortfall in proportion, each in whole
/// sectors. Returns the change of each pool's down bytes.
pub fn book_down(
    conn: &mut AnyConnection,
    backed: i64,
    now: Micros,
) -> Result<Vec<(PoolId, i64)>, LedgerError> {
    let pools = pools(conn)?;
    let mut books = Vec::new();
    for pool in &pools {
        books.push(capacity(conn, pool.id)?);
    }
    let would_be_free: Vec<(i64, i64)> = pools
        .iter()
        .zip(&books)
        .map(|(p, c)| (c.free + c.down, p.sector_bytes))
        .collect();
    let mut changes = Vec::new();
    for ((pool, books), target) in pools.iter().zip(&books).zip(shares(&would_be_free, backed)) {
        let change = (target - books.down).min(books.free);
        if change == 0 {
            continue;
        }
        let (free, down) = (AccountSpec::Free(pool.id), AccountSpec::Down(pool.id));
        let (from, to) = if change > 0 {
            (free, down)
        } else {
            (down, free)
        };
        let id = format!("down:{}:{now}", pool.id);
        match ledger::post(
            conn,
            &moved(id, from, to, (&pool.public_id, change.abs()), now),
        ) {
            Ok(()) => changes.push((pool.id, change)),
            // Somebody bought it meanwhile; the next run tries again.
            Err(LedgerError::Insufficient { .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(changes)
}

/// Bytes of each pool to book as down, so that at most `backed` bytes remain. The pools share them
/// in proportion, in whole sectors.
fn shares(pools: &[(i64, i64)], backed: i64) -> Vec<i64> {
    let all: i128 = pools
        .iter()
        .map(|(bytes, _)| i128::from((*bytes).max(0)))
        .sum();
    let short = (all - i128::from(backed.max(0))).max(0);
    let share = |(bytes, sector): &(i64, i64)| {
        let (bytes, sector) = (i128::from((*bytes).max(0)), i128::from((*sector).max(1)));
        let exact = (bytes * short + all.max(1) - 1) / all.max(1);
        i64::try_from(((exact + sector - 1) / sector * sector).min(bytes)).unwrap_or(i64::MAX)
    };
    pools.iter().map(share).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn capacity_is_booked_down_in_whole_sectors() {
        assert_eq!(shares(&[(100, 10), (50, 10)], 150), [0, 0]);
        assert_eq!(
            shares(&[(100, 10), (50, 10)], 200),
            [0, 0],
            "more room than capacity is no capacity"
        );
        assert_eq!(shares(&[(100, 10), (50, 10)], 90), [40, 20]);
        assert_eq!(
            shares(&[(100, 10), (50, 10)], 149),
            [10, 10],
            "a part of a sector cannot be sold"
        );
        assert_eq!(shares(&[(100, 10), (0, 10)], 0), [100, 0]);
        assert!(shares(&[], 5).is_empty());
    }

    proptest! {
        #[test]
        fn no_more_capacity_is_left_than_machines_can_hold(
            pools in prop::collection::vec((0..1_000_i64, 1..9_i64), 0..6),
            backed in 0..6000_i64,
        ) {
            let down = shares(&pools, backed);
            let booked = || pools.iter().map(|(bytes, _)| *bytes).zip(&down);
            let left: i64 = booked().map(|(bytes, down)| bytes - down).sum();
            prop_assert!(left <= backed);
            prop_assert!(booked().all(|(bytes, down)| (0..=bytes).contains(down)));
        }
    }
}
