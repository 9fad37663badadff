//! The vesting rule: after `k` of `n` days, floor(locked * k / n) of a day's locked amount has been released.

/// Released in total `k` days after the day of the reward; all of it from day `n` on.
#[must_use]
pub fn released(locked: i64, k: i64, n: i64) -> i64 {
    if k <= 0 || n <= 0 {
        return if n <= 0 { locked } else { 0 };
    }
    if k >= n {
        return locked;
    }
    let scaled = i128::from(locked) * i128::from(k) / i128::from(n);
    i64::try_from(scaled).unwrap_or(locked)
}

/// What the `k`-th day releases.
#[must_use]
pub fn tranche(locked: i64, k: i64, n: i64) -> i64 {
    released(locked, k, n) - released(locked, k - 1, n)
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
            prop_assert!(parts.iter().all(|p| *p == locked / n || *p == locked / n + 1));
            prop_assert_eq!(tranche(locked, 0, n), 0);
            prop_assert_eq!(tranche(locked, n + 1, n), 0);
        }
    }
}
