//! Splits a day; pure functions. The weight is power times epochs. Parts are exact and add up.

use crate::money::{BasisPoints, split};

/// Epochs `[start, end)` in which a sector counted with `qa_power` quality-adjusted bytes. Without
/// an end, it still counts.
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

/// As [`power_epochs`], for the raw bytes of a sector.
#[must_use]
pub fn raw_epochs(interval: &Interval, sector_bytes: u128, first: i64, end: i64) -> u128 {
    power_epochs(
        &Interval {
            qa_power: 1,
            ..*interval
        },
        first,
        end,
    ) * sector_bytes
}

impl Interval {
    /// Splits it at an epoch: the part before, and the part from there on.
    #[must_use]
    pub fn cut(self, at: i64) -> (Self, Self) {
        let before = Self {
            end: Some(self.end.map_or(at, |end| end.min(at))),
            ..self
        };
        (
            before,
            Self {
                start: self.start.max(at),
                ..self
            },
        )
    }
}

/// How missing power is made up for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MadeUp {
    Not,
    InFil,
    /// The term is extended; anything beyond its limit is paid in FIL.
    InTime,
}

/// A contract's terms for a day, in basis points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// The service fee, as a part of gross.
    pub fee: BasisPoints,
    /// The charge for the operator's pledge, as a part of gross.
    pub pledge_charge: BasisPoints,
    /// Parts that the contract bears of its share of the chain's daily fee, of fault fees, and of
    /// gas.
    pub daily_fee: BasisPoints,
    pub fault_fee: BasisPoints,
    pub gas: BasisPoints,
    /// The part of net that is available at once.
    pub available: BasisPoints,
    pub made_up: MadeUp,
}

/// A contract on a day. Powers are bytes times epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member {
    /// Quality-adjusted, as the chain counted it.
    pub power: u128,
    /// Raw power that was promised and did not count.
    pub missing: u128,
    /// The quality-adjusted power that the missing bytes would have had.
    pub missing_power: u128,
    /// Raw bytes that were bought.
    pub bytes: u128,
    /// Epochs by which the term may still be extended.
    pub epochs_left: i64,
    pub rates: Rates,
}

/// The costs of a pool's day, nanoFIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Costs {
    /// The chain's fees for the sectors (FIP-0100), and for faulty ones.
    pub daily_fee: i64,
    pub fault_fee: i64,
    /// Gas of the messages that landed.
    pub gas: i64,
}

/// A pool's day, nanoFIL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Day {
    pub total: i64,
    pub costs: Costs,
    /// The operator's own and unsold power, a party like any other.
    pub own_power: u128,
}

/// A contract's part of a day, nanoFIL. `gross = fee + cost + available + locked`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Share {
    pub gross: i64,
    pub fee: i64,
    pub cost: i64,
    pub available: i64,
    pub locked: i64,
    pub compensation: i64,
    /// Epochs by which the term is extended, rounded up.
    pub added_epochs: i64,
}

/// Splits a day over the contracts; the second value is the operator's part. Without any power the
/// operator gets everything. Fees, costs, lost earnings, and the part that is available at once are
/// rounded down. A contract never pays more than it earned. `None`: a number does not fit.
#[must_use]
pub fn attribute(day: &Day, members: &[Member]) -> Option<(Vec<Share>, i64)> {
    let mut weights: Vec<u128> = members.iter().map(|m| m.power).collect();
    weights.push(day.own_power);
    let power = weights
        .iter()
        .try_fold(0u128, |sum, w| sum.checked_add(*w))?;
    if power == 0 {
        // Without power, nothing is earned and nothing is paid for, but terms are still extended.
        let longer = |member| Share {
            added_epochs: added_epochs(member),
            ..Share::default()
        };
        return (day.total >= 0).then(|| (members.iter().map(longer).collect(), day.total));
    }
    let mut parts = split(day.total, &weights)?;
    let own = parts.pop()?;
    let shares = members
        .iter()
        .zip(parts)
        .map(|(member, gross)| share(day, member, power, gross))
        .collect::<Option<_>>()?;
    Some((shares, own))
}

fn share(day: &Day, member: &Member, power: u128, gross: i64) -> Option<Share> {
    let rates = &member.rates;
    let fee = rates.fee.of(gross)?;
    let mut cost = rates.pledge_charge.of(gross)?;
    let Costs {
        daily_fee,
        fault_fee,
        gas,
    } = day.costs;
    for (whole, borne) in [
        (daily_fee, rates.daily_fee),
        (fault_fee, rates.fault_fee),
        (gas, rates.gas),
    ] {
        cost = cost.checked_add(borne.of(scaled(whole, member.power, power)?)?)?;
    }
    let cost = cost.min(gross - fee);
    let net = gross - fee - cost;
    let available = rates.available.of(net)?;
    let added_epochs = added_epochs(member);
    let in_time = u128::try_from(added_epochs)
        .ok()?
        .checked_mul(member.bytes)?;
    let unpaid = if rates.made_up == MadeUp::Not {
        0
    } else {
        member.missing.saturating_sub(in_time)
    };
    let compensation = if unpaid > 0 {
        // By what the missing bytes would have weighed: old and new sectors differ (FIP-0118).
        let unpaid_power = proportion(member.missing_power, unpaid, member.missing)?;
        let lost = scaled(day.total, unpaid_power, power)?;
        lost - rates.fee.of(lost)?
    } else {
        0
    };
    Some(Share {
        gross,
        fee,
        cost,
        available,
        locked: net - available,
        compensation,
        added_epochs,
    })
}

fn added_epochs(member: &Member) -> i64 {
    if member.rates.made_up != MadeUp::InTime || member.bytes == 0 {
        return 0;
    }
    let epochs = member.missing.div_ceil(member.bytes);
    i64::try_from(epochs)
        .unwrap_or(i64::MAX)
        .min(member.epochs_left.max(0))
}

/// `power · part / whole`, rounded down. The fraction is reduced first: both are multiples of a
/// sector's bytes, and their product with a power can exceed 128 bits.
fn proportion(power: u128, part: u128, whole: u128) -> Option<u128> {
    let (mut divisor, mut rest) = (whole, part);
    while rest > 0 {
        (divisor, rest) = (rest, divisor % rest);
    }
    let (part, whole) = (part.checked_div(divisor)?, whole.checked_div(divisor)?);
    power.checked_mul(part)?.checked_div(whole)
}

/// `amount · part / whole`, rounded down.
fn scaled(amount: i64, part: u128, whole: u128) -> Option<i64> {
    i64::try_from(
        u128::try_from(amount)
            .ok()?
            .checked_mul(part)?
            .checked_div(whole)?,
    )
    .ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rates(fee: i64) -> Rates {
        let none = BasisPoints(0);
        Rates {
            fee: BasisPoints(fee),
            pledge_charge: none,
            daily_fee: none,
            fault_fee: none,
            gas: none,
            available: BasisPoints(2500),
            made_up: MadeUp::Not,
        }
    }

    fn member(power: u128, fee: i64) -> Member {
        Member {
            power,
            missing: 0,
            missing_power: 0,
            bytes: 10,
            epochs_left: 0,
            rates: rates(fee),
        }
    }

    fn day(total: i64) -> Day {
        Day {
            total,
            ..Day::default()
        }
    }

    #[test]
    fn an_interval_counts_only_within_the_day() {
        let interval = |start, end| Interval {
            start,
            end,
            qa_power: 2048,
        };
        assert_eq!(power_epochs(&interval(0, None), 100, 200), 100 * 2048);
        assert_eq!(power_epochs(&interval(150, None), 100, 200), 50 * 2048);
        assert_eq!(power_epochs(&interval(150, Some(160)), 100, 200), 10 * 2048);
        assert_eq!(power_epochs(&interval(300, None), 100, 200), 0);
        assert_eq!(power_epochs(&interval(0, Some(50)), 100, 200), 0);
    }

    /// Bitdeer's published plan: a 20 % fee, a quarter at once, the rest over 180 days
    /// (`filecoin.md` 7).
    #[test]
    fn bitdeers_two_published_payouts_are_reproduced() {
        let (first, _) = attribute(&day(28_157_070), &[member(1, 2000)]).unwrap();
        assert_eq!(first[0].available / 10, 563_141, "0.00563141 FIL");
        // The second day pays the first day's first part as well.
        let (second, _) = attribute(&day(28_146_440), &[member(1, 2000)]).unwrap();
        assert_eq!(
            (second[0].available + crate::yields::tranche(first[0].locked, 1, 180)) / 10,
            572_314,
            "0.00572314 FIL"
        );
    }

    #[test]
    fn rewards_without_power_go_to_the_operator() {
        let (shares, own) = attribute(&day(7), &[member(0, 0)]).unwrap();
        assert_eq!((shares, own), (vec![Share::default()], 7));
    }

    #[test]
    fn unsold_power_earns_like_sold_power() {
        let (shares, own) = attribute(
            &Day {
                own_power: 3,
                ..day(1000)
            },
            &[member(1, 0)],
        )
        .unwrap();
        assert_eq!((shares[0].gross, own), (250, 750));
    }

    #[test]
    fn costs_follow_the_terms_and_never_exceed_the_earnings() {
        let costs = Costs {
            daily_fee: 40,
            fault_fee: 30,
            gas: 20,
        };
        let half = Day {
            costs,
            own_power: 1,
            ..day(2000)
        };
        let mut bearing = member(1, 1000);
        (bearing.rates.daily_fee, bearing.rates.pledge_charge) =
            (BasisPoints(8000), BasisPoints(500));
        let (shares, _) = attribute(&half, &[bearing]).unwrap();
        // Half of 40 at 80 %, 5 % of 1000.
        assert_eq!(
            (shares[0].gross, shares[0].fee, shares[0].cost),
            (1000, 100, 16 + 50)
        );
        (bearing.rates.fault_fee, bearing.rates.gas) = (BasisPoints(10_000), BasisPoints(5000));
        assert_eq!(
            attribute(&half, &[bearing]).unwrap().0[0].cost,
            16 + 50 + 15 + 5,
            "its half of the fault fee, a quarter of the gas"
        );
        let poor = Day {
            costs: Costs {
                daily_fee: 9000,
                ..costs
            },
            ..half
        };
        let (shares, _) = attribute(&poor, &[bearing]).unwrap();
        assert_eq!(
            (
                shares[0].fee,
                shares[0].cost,
                shares[0].available,
                shares[0].locked
            ),
            (100, 900, 0, 0)
        );
    }

    #[test]
    fn missing_power_is_compensated_at_the_rate_of_its_day() {
        let mut faulty = member(300, 2000);
        (faulty.missing, faulty.missing_power) = (100, 100);
        faulty.rates.made_up = MadeUp::InFil;
        let faulty_day = Day {
            own_power: 700,
            ..day(5000)
        };
        let (shares, _) = attribute(&faulty_day, &[faulty]).unwrap();
        assert_eq!(
            shares[0].compensation, 400,
            "100 of 1000 of 5000, less 20 %"
        );
        faulty.rates.made_up = MadeUp::Not;
        assert_eq!(
            attribute(&faulty_day, &[faulty]).unwrap().0[0].compensation,
            0
        );
    }

    /// FIP-0118: of two contracts of the same size that miss a whole day, the one with old sectors
    /// gets a tenth of the other.
    #[test]
    fn missing_power_is_compensated_by_the_quality_of_its_sectors() {
        let missing = |power| {
            let mut faulty = member(0, 0);
            (faulty.missing, faulty.missing_power) = (100, power);
            faulty.rates.made_up = MadeUp::InFil;
            faulty
        };
        let split = Day {
            own_power: 10_000,
            ..day(5000)
        };
        let (shares, own) = attribute(&split, &[missing(100), missing(1000)]).unwrap();
        assert_eq!((shares[0].compensation, shares[1].compensation), (50, 500));
        assert_eq!(
            own, 5000,
            "nothing of it comes from those whose power counted"
        );
        // An extension by one epoch covers 10 of the 100 byte-epochs, whatever they would count.
        let mut longer = missing(1000);
        (longer.epochs_left, longer.rates.made_up) = (1, MadeUp::InTime);
        let (shares, _) = attribute(&split, &[longer]).unwrap();
        assert_eq!((shares[0].added_epochs, shares[0].compensation), (1, 450));
    }

    #[test]
    fn a_proportion_of_an_exbibyte_does_not_overflow() {
        let (sector, day) = (1u128 << 35, 2880);
        let missing = (1u128 << 60) * day;
        let unpaid = missing - sector * 12_345;
        assert_eq!(proportion(missing * 10, unpaid, missing), Some(unpaid * 10));
        assert_eq!(proportion(7, 1, 2), Some(3));
        assert_eq!(proportion(7, 0, 0), None);
    }

    #[test]
    fn missing_power_extends_the_term_up_to_its_limit_and_is_paid_beyond() {
        let mut faulty = member(300, 2000);
        (faulty.missing, faulty.missing_power) = (101, 101);
        (faulty.epochs_left, faulty.rates.made_up) = (20, MadeUp::InTime);
        let faulty_day = Day {
            own_power: 700,
            ..day(5000)
        };
        let made_up = |member| {
            attribute(&faulty_day, &[member])
                .map(|(s, _)| (s[0].added_epochs, s[0].compensation))
                .unwrap()
        };
        assert_eq!(
            made_up(faulty),
            (11, 0),
            "10 bytes of which 101 byte-epochs are missing"
        );
        faulty.epochs_left = 4;
        assert_eq!(made_up(faulty), (4, 244), "61 of 1000 of 5000, less 20 %");
        faulty.epochs_left = 0;
        assert_eq!(made_up(faulty), (0, 404));
        // On a day without any power, nothing is paid but the term is extended.
        (faulty.power, faulty.epochs_left) = (0, 20);
        let (shares, _) = attribute(&day(0), &[faulty]).unwrap();
        assert_eq!((shares[0].added_epochs, shares[0].compensation), (11, 0));
    }

    #[test]
    fn an_interval_is_cut_at_the_end_of_a_term() {
        let interval = Interval {
            start: 100,
            end: None,
            qa_power: 1,
        };
        let of = |at| {
            let (mine, after) = interval.cut(at);
            (power_epochs(&mine, 90, 200), power_epochs(&after, 90, 200))
        };
        assert_eq!(
            (of(50), of(150), of(300), of(i64::MAX)),
            ((0, 100), (50, 50), (100, 0), (100, 0))
        );
    }

    proptest! {
        #[test]
        fn shares_and_their_parts_add_up_to_the_total(
            total in 0..1i64 << 60,
            weights in prop::collection::vec(
                (0..1u128 << 55, 0..=10_000i64, 0..=10_000i64, 0..1u128 << 50),
                1..30,
            ),
            own in 0..1u128 << 55,
            daily_fee in 0..1i64 << 40,
        ) {
            let members: Vec<_> = weights.iter().map(|(power, fee, bears, missing)| {
                let mut member = member(*power, *fee);
                member.rates.daily_fee = BasisPoints(*bears);
                member.rates.gas = BasisPoints(10_000 - bears);
                (member.missing, member.missing_power) = (*missing, *missing);
                member.rates.made_up = MadeUp::InFil;
                member
            }).collect();
            let costs = Costs { daily_fee, fault_fee: 0, gas: daily_fee / 3 };
            let day = Day { total, costs, own_power: own };
            let (shares, operator) = attribute(&day, &members).unwrap();
            let gross: i128 = shares.iter().map(|s| i128::from(s.gross)).sum();
            prop_assert_eq!(gross + i128::from(operator), i128::from(total));
            for share in &shares {
                let Share { fee, cost, available, locked, .. } = *share;
                prop_assert_eq!(share.gross, fee + cost + available + locked);
                prop_assert!(fee >= 0 && cost >= 0 && available >= 0 && locked >= 0);
                prop_assert!(share.compensation >= 0);
            }
        }
    }
}
