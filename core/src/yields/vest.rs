//! The vesting rule: each of the next `n` days releases the `n`-th part of an amount locked on one
//! day, rounded down, and the last day also releases the remainder. A contract's daily release is
//! therefore a running sum of whole parts. Only the amounts that begin and end change it, so a day
//! costs the same however many lots are vesting.

/// The whole part that each day releases.
#[must_use]
pub fn part(locked: i64, n: i64) -> i64 {
    if n > 0 { locked / n } else { 0 }
}

/// The remainder, released on the last day.
#[must_use]
pub fn rest(locked: i64, n: i64) -> i64 {
    if n > 0 { locked % n } else { locked }
}

/// The release of the `k`-th day, counted from 1.
#[must_use]
pub fn tranche(locked: i64, k: i64, n: i64) -> i64 {
    if (1..n).contains(&k) {
        part(locked, n)
    } else if k == n {
        part(locked, n) + rest(locked, n)
    } else {
        0
    }
}

/// The vesting amounts of a contract, from its latest lot.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Vesting {
    /// The whole parts that the next day releases.
    pub rate: i64,
    /// The amount still to be released.
    pub left: i64,
}

impl Vesting {
    /// Advances by a day that locks `locked`, `n` days after one that locked `ending`. Returns the
    /// day's release, and the amounts that vest after it.
    #[must_use]
    pub fn day(self, locked: i64, ending: i64, n: i64) -> (i64, Self) {
        let released = self.rate + rest(ending, n);
        let next = Self {
            rate: self.rate + part(locked, n) - part(ending, n),
            left: self.left + locked - released,
        };
        (released, next)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tranches_add_up_and_are_even(locked in 0..i64::MAX, n in 1..400i64) {
            let parts: Vec<i64> = (1..=n).map(|k| tranche(locked, k, n)).collect();
            prop_assert_eq!(parts.iter().map(|p| i128::from(*p)).sum::<i128>(), i128::from(locked));
            prop_assert!(parts.iter().take(parts.len() - 1).all(|p| *p == locked / n));
            prop_assert!(parts.last().is_some_and(|last| *last - locked / n < n));
            prop_assert_eq!((tranche(locked, 0, n), tranche(locked, n + 1, n)), (0, 0));
        }

        /// The running rate gives the same releases as a look at every lot.
        #[test]
        fn the_running_rate_releases_the_sum_of_all_tranches(
            locked in prop::collection::vec(0..1i64 << 40, 1..60),
            n in 1..20i64,
        ) {
            let at = |day: i64| usize::try_from(day).ok();
            let on = |day: i64| at(day).and_then(|day| locked.get(day)).copied().unwrap_or(0);
            let mut vesting = Vesting::default();
            for day in 0..i64::try_from(locked.len()).unwrap() + n {
                let released;
                (released, vesting) = vesting.day(on(day), on(day - n), n);
                let every: i64 = (0..day).map(|lot| tranche(on(lot), day - lot, n)).sum();
                prop_assert_eq!(released, every, "day {}", day);
            }
            prop_assert_eq!(vesting, Vesting::default(), "nothing is left to release");
        }
    }
}
