//! Bytes and epochs.

use std::fmt;

use crate::clock::{Micros, SECOND, SECONDS_A_DAY};

/// Raw bytes of power or disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub i64);

impl fmt::Display for Bytes {
    /// In the largest binary unit that fits, with two decimals unless it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 6] = ["PiB", "TiB", "GiB", "MiB", "KiB", "B"];
        let shift = |index: usize| u32::try_from(UNITS.len() - 1 - index).unwrap_or_default() * 10;
        let (index, name) = UNITS
            .iter()
            .enumerate()
            .find(|&(index, _)| self.0.unsigned_abs() >= 1 << shift(index))
            .unwrap_or((5, &"B"));
        let unit = 1i64 << shift(index);
        let (whole, rest) = (self.0 / unit, (self.0 % unit).unsigned_abs());
        let hundredths = u128::from(rest) * 100 / u128::from(unit.unsigned_abs());
        if rest == 0 {
            write!(f, "{whole} {name}")
        } else {
            write!(f, "{whole}.{hundredths:02} {name}")
        }
    }
}

/// Maps epochs to time: the start of epoch 0 and the length of one epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChainTime {
    /// Unix seconds of epoch 0.
    pub genesis_at: i64,
    pub epoch_seconds: i64,
}

impl ChainTime {
    /// Unix seconds at which `epoch` starts.
    #[must_use]
    pub fn seconds(&self, epoch: i64) -> i64 {
        self.genesis_at
            .saturating_add(epoch.saturating_mul(self.epoch_seconds))
    }

    /// The UTC day, counted from 1970-01-01, in which `epoch` starts.
    #[must_use]
    pub fn day(&self, epoch: i64) -> i64 {
        self.seconds(epoch).div_euclid(SECONDS_A_DAY)
    }

    /// The first epoch that starts in `day`; never below 0.
    #[must_use]
    pub fn first_epoch(&self, day: i64) -> i64 {
        let from_genesis = day
            .saturating_mul(SECONDS_A_DAY)
            .saturating_sub(self.genesis_at);
        let rounded_up = from_genesis
            .saturating_add(self.epoch_seconds - 1)
            .div_euclid(self.epoch_seconds);
        rounded_up.max(0)
    }

    /// UTC microseconds at which `epoch` starts.
    #[must_use]
    pub fn micros(&self, epoch: i64) -> Micros {
        self.seconds(epoch).saturating_mul(SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_in_binary_units() {
        for (bytes, text) in [
            (2048, "2 KiB"),
            (32 << 30, "32 GiB"),
            (1 << 40, "1 TiB"),
            (1536, "1.50 KiB"),
            (0, "0 B"),
            (11 << 49, "5.50 PiB"),
        ] {
            assert_eq!(Bytes(bytes).to_string(), text);
        }
    }

    #[test]
    fn mainnet_epochs_match_the_documented_dates() {
        let chain = ChainTime {
            genesis_at: 1_598_306_400,
            epoch_seconds: 30,
        };
        // 2026-11-22T00:00Z is epoch 6,566,640.
        let day = chain.day(6_566_640);
        assert_eq!(crate::clock::day_text(day), "2026-11-22");
        assert_eq!(chain.first_epoch(day), 6_566_640);
        assert_eq!(chain.day(6_566_639), day - 1);
        assert_eq!(chain.first_epoch(0), 0);
    }
}
