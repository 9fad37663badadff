//! Splitting a day: pure. Power times epochs is the weight; parts are exact and add up.

use crate::{
    ids::ContractId,
    money::{BasisPoints, split},
};

/// Epochs `[start, end)` in which a sector counted with `qa_power` quality-adjusted bytes; no end: it still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interval {
    pub start: i64,
    pub end: Option<i64>,
    pub qa_power: i64,
}

/// Byte-epochs of an interval within `[first, end)`.
#[must_use]
pub fn power_epochs(interval: &Interval, first: i64, end: i64) -> u128 {
    let from = interval.start.max(first);
    let to = interval.end.unwrap_or(end).min(end);
    let epochs = u128::try_from(to.saturating_sub(from)).unwrap_or(0);
    epochs * u128::try_from(interval.qa_power).unwrap_or(0)
}

/// Who takes part in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// The operator's own and unsold power.
    Operator,
    Contract {
        id: ContractId,
        fee: BasisPoints,
        available: BasisPoints,
    },
}

/// A party's part of a day, nanoFIL. `gross = fee + available + locked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    pub party: Party,
    pub power_epochs: u128,
    pub gross: i64,
    pub fee: i64,
    pub available: i64,
    pub locked: i64,
}

/// Splits `total` nanoFIL over the parties. Without any power the operator gets it all. The fee is rounded down, and so is the
/// part that is available at once: both in the investor's favour or only a day's delay.
#[must_use]
pub fn attribute(total: i64, parties: &[(Party, u128)]) -> Option<Vec<Share>> {
    let weights: Vec<u128> = parties.iter().map(|(_, weight)| *weight).collect();
    let Some(parts) = split(total, &weights) else {
        let nobody = weights.iter().all(|w| *w == 0) && total >= 0;
        let all = Share { party: Party::Operator, power_epochs: 0, gross: total, fee: 0, available: total, locked: 0 };
        return nobody.then(|| vec![all]);
    };
    parties.iter().zip(parts).map(|((party, weight), gross)| share(*party, *weight, gross)).collect()
}

fn share(party: Party, power_epochs: u128, gross: i64) -> Option<Share> {
    match party {
        Party::Operator => Some(Share { party, power_epochs, gross, fee: 0, available: gross, locked: 0 }),
        Party::Contract { fee, available, .. } => {
            let fee = fee.of(gross)?;
            let net = gross - fee;
            let available = available.of(net)?;
            Some(Share { party, power_epochs, gross, fee, available, locked: net - available })
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn contract(id: i64, fee: i64) -> Party {
        Party::Contract { id: ContractId(id), fee: BasisPoints(fee), available: BasisPoints(2500) }
    }

    #[test]
    fn an_interval_counts_only_within_the_day() {
        let interval = |start, end| Interval { start, end, qa_power: 2048 };
        assert_eq!(power_epochs(&interval(0, None), 100, 200), 100 * 2048);
        assert_eq!(power_epochs(&interval(150, None), 100, 200), 50 * 2048);
        assert_eq!(power_epochs(&interval(150, Some(160)), 100, 200), 10 * 2048);
        assert_eq!(power_epochs(&interval(300, None), 100, 200), 0);
        assert_eq!(power_epochs(&interval(0, Some(50)), 100, 200), 0);
    }

    /// Bitdeer's published plan: a fee of 20 %, a quarter at once, the rest over 180 days (`filecoin.md` 7).
    #[test]
    fn bitdeers_first_published_payout_is_reproduced() {
        let shares = attribute(28_157_070, &[(contract(1, 2000), 1)]).unwrap();
        let tranche = crate::yields::tranche(shares[0].locked, 1, 180);
        assert_eq!(shares[0].available, 5_631_414);
        // Their second day pays the first day's first tranche as well: 0.00572314 FIL.
        let second = attribute(28_146_440, &[(contract(1, 2000), 1)]).unwrap();
        assert_eq!((second[0].available + tranche) / 10, 572_314);
    }

    #[test]
    fn rewards_without_power_are_the_operators() {
        let shares = attribute(7, &[(contract(1, 0), 0)]).unwrap();
        assert_eq!((shares.len(), shares[0].party, shares[0].gross), (1, Party::Operator, 7));
    }

    proptest! {
        #[test]
        fn parts_of_parts_add_up(
            total in 0..1i64 << 60,
            weights in prop::collection::vec((0..1u128 << 55, 0..=10_000i64), 1..30),
        ) {
            let parties: Vec<_> = (0..).zip(&weights).map(|(id, (w, fee))| (contract(id, *fee), *w)).collect();
            let shares = attribute(total, &parties).unwrap();
            prop_assert_eq!(shares.iter().map(|s| i128::from(s.gross)).sum::<i128>(), i128::from(total));
            for share in &shares {
                prop_assert_eq!(share.gross, share.fee + share.available + share.locked);
                prop_assert!(share.fee >= 0 && share.available >= 0 && share.locked >= 0);
            }
        }
    }
}
