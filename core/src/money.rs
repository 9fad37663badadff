//! Money: integers with a unit in their type, checked arithmetic, and a split whose parts add up.

use std::fmt;

/// nanoFIL, 10^-9 FIL: the unit of every FIL account.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Default,
    serde::Serialize,
    serde::Deserialize,
)]
#[serde(transparent)]
pub struct NanoFil(pub i64);

/// attoFIL in one nanoFIL.
pub const ATTO_PER_NANO: i128 = 1_000_000_000;

impl NanoFil {
    /// Whole nanoFIL, and the attoFIL left over (0 to 10^9 - 1).
    #[must_use]
    pub fn from_atto(atto: i128) -> Option<(Self, i64)> {
        let nano = i64::try_from(atto.div_euclid(ATTO_PER_NANO)).ok()?;
        let rest = i64::try_from(atto.rem_euclid(ATTO_PER_NANO)).ok()?;
        Some((Self(nano), rest))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write an amount of FIL like 1.25 or -0.000000001, with no more than nine decimals")]
pub struct NotFil;

impl std::str::FromStr for NanoFil {
    type Err = NotFil;

    /// FIL with up to nine decimals.
    fn from_str(text: &str) -> Result<Self, NotFil> {
        let (sign, digits) = match text.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, text),
        };
        let (whole, part) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !plain(whole) || !plain(part) || part.len() > 9 {
            return Err(NotFil);
        }
        let nano: i64 = format!("{whole}{part:0<9}").parse().map_err(|_| NotFil)?;
        Ok(Self(sign * nano))
    }
}

impl fmt::Display for NanoFil {
    /// FIL with all nine decimals, so that amounts line up in a column and rounding hides nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let amount = self.0.unsigned_abs();
        write!(
            f,
            "{sign}{}.{:09}",
            grouped(amount / 1_000_000_000),
            amount % 1_000_000_000
        )
    }
}

/// Digits in groups of three.
fn grouped(amount: u64) -> String {
    let digits = amount.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// Minor units of an ISO currency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fiat {
    pub minor: i64,
    pub currency: String,
}

impl fmt::Display for Fiat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.minor < 0 { "-" } else { "" };
        let amount = self.minor.unsigned_abs();
        write!(
            f,
            "{sign}{}.{:02} {}",
            grouped(amount / 100),
            amount % 100,
            self.currency
        )
    }
}

/// Hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BasisPoints(pub i64);

impl BasisPoints {
    /// This part of a non-negative `amount`, rounded down: in favour of whoever keeps the rest.
    #[must_use]
    pub fn of(self, amount: i64) -> Option<i64> {
        i64::try_from(i128::from(amount).checked_mul(i128::from(self.0))? / 10_000).ok()
    }
}

impl fmt::Display for BasisPoints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 % 100 == 0 {
            write!(f, "{} %", self.0 / 100)
        } else {
            write!(f, "{}.{:02} %", self.0 / 100, self.0 % 100)
        }
    }
}

/// Splits `total` in proportion to `weights` so that the parts add up to it. Each part gets its
/// floor, and the units left over go to the largest remainders, earlier parts first on ties. `None`
/// when the weights sum to 0, `total` is negative or a number overflows.
#[must_use]
pub fn split(total: i64, weights: &[u128]) -> Option<Vec<i64>> {
    let sum = weights
        .iter()
        .try_fold(0u128, |sum, w| sum.checked_add(*w))?;
    let whole = u128::try_from(total).ok()?;
    if sum == 0 {
        return None;
    }
    let mut parts = Vec::with_capacity(weights.len());
    let mut remainders = Vec::with_capacity(weights.len());
    let mut given = 0u128;
    for (at, weight) in weights.iter().enumerate() {
        let scaled = whole.checked_mul(*weight)?;
        parts.push(i64::try_from(scaled / sum).ok()?);
        given += scaled / sum;
        remainders.push((std::cmp::Reverse(scaled % sum), at));
    }
    remainders.sort_unstable();
    let left = usize::try_from(whole - given).ok()?;
    for (_, at) in remainders.into_iter().take(left) {
        if let Some(part) = parts.get_mut(at) {
            *part += 1;
        }
    }
    Some(parts)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fil_is_parsed_to_the_last_nanofil_or_refused() {
        let read = |text: &str| text.parse::<NanoFil>().map(|nano| nano.0);
        assert_eq!(
            (read("1.25"), read("-0.000000001"), read("3")),
            (Ok(1_250_000_000), Ok(-1), Ok(3_000_000_000))
        );
        for wrong in [
            "",
            "-",
            ".5",
            "1.",
            "1.0000000001",
            "1e3",
            "+1",
            "1,000",
            "99999999999",
        ] {
            assert_eq!(read(wrong), Err(NotFil), "{wrong}");
        }
    }

    #[test]
    fn amounts_show_every_digit() {
        assert_eq!(
            NanoFil(1_234_567_000_000_001).to_string(),
            "1,234,567.000000001"
        );
        assert_eq!(NanoFil(-5).to_string(), "-0.000000005");
        assert_eq!(
            Fiat {
                minor: 123_456,
                currency: "USD".into()
            }
            .to_string(),
            "1,234.56 USD"
        );
        assert_eq!(BasisPoints(1850).to_string(), "18.50 %");
    }

    #[test]
    fn the_remainder_goes_to_the_largest_fraction() {
        assert_eq!(split(10, &[1, 1, 1]), Some(vec![4, 3, 3]));
        assert_eq!(split(100, &[2, 1]), Some(vec![67, 33]));
        assert_eq!(split(7, &[0, 3]), Some(vec![0, 7]));
        assert_eq!(split(7, &[]), None);
        assert_eq!(split(-1, &[1]), None);
    }

    #[test]
    fn attofil_below_one_nanofil_are_kept_as_the_rest() {
        assert_eq!(
            NanoFil::from_atto(1_999_999_999),
            Some((NanoFil(1), 999_999_999))
        );
        assert_eq!(NanoFil::from_atto(0), Some((NanoFil(0), 0)));
    }

    proptest! {
        #[test]
        fn parts_add_up_and_stay_within_one_unit(
            total in 0..i64::MAX / 2,
            weights in prop::collection::vec(0..1u128 << 50, 1..40),
        ) {
            prop_assume!(weights.iter().any(|w| *w > 0));
            let parts = split(total, &weights).unwrap();
            prop_assert_eq!(parts.iter().map(|p| i128::from(*p)).sum::<i128>(), i128::from(total));
            let sum: u128 = weights.iter().sum();
            for (part, weight) in parts.iter().zip(&weights) {
                let floor = i64::try_from(u128::try_from(total).unwrap() * weight / sum).unwrap();
                prop_assert!(*part == floor || *part == floor + 1);
                prop_assert!(*weight > 0 || *part == 0);
            }
        }
    }
}
