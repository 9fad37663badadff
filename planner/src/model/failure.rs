//! Chance: how long steps really take, and when machines break down. Everything is drawn from a
//! seed.

use std::sync::{Arc, LazyLock};

use crate::{DAY, HOUR, Secs, model::fleet::Steps};

/// A small generator (SplitMix64) with the same output on every platform.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// 0 up to, not including, `n`.
    pub fn below(&mut self, n: usize) -> usize {
        let n = u64::try_from(n).unwrap_or(1).max(1);
        usize::try_from(self.roll() % n).unwrap_or(0)
    }
}

/// How often steps fail and machines break down, and how durations vary.
#[derive(Clone, Debug)]
pub struct FailureModel {
    /// Real duration over usual, per mille, at equally likely quantiles.
    pub spread: Vec<i32>,
    /// Mean seconds between breakdowns of one machine; 0: none.
    pub between_failures: Secs,
    /// Mean seconds that a repair takes.
    pub repair: Secs,
    /// Mean seconds between periods in which messages cost too much to send (0: none), and mean
    /// length of such a period.
    pub between_gas: Secs,
    pub gas: Secs,
    /// How many steps of each kind fail, per mille. A step fails at its end.
    pub step_failures: StepFailures,
}

/// Per mille.
pub type StepFailures = Steps<i32>;

impl Default for FailureModel {
    /// Published experience, used until a fleet has its own: step durations vary by 12 %, and a
    /// machine fails every 45 days, for six hours.
    fn default() -> Self {
        let (between_failures, repair) = (45 * DAY, 6 * HOUR);
        let (between_gas, gas) = (30 * HOUR, 4320);
        Self {
            spread: log_normal(120),
            between_failures,
            repair,
            between_gas,
            gas,
            step_failures: StepFailures::default(),
        }
    }
}

/// Draws durations and failures.
#[derive(Clone, Debug)]
pub struct Sampler {
    pub rng: Rng,
    pub failure_model: Arc<FailureModel>,
}

/// Standard normal quantiles at (2k − 1) / 128, in thousandths; the lower half mirrors the upper.
const NORMAL: [i64; 32] = [
    20, 59, 98, 138, 177, 217, 257, 298, 339, 381, 424, 467, 511, 556, 602, 650, 699, 750, 803,
    858, 917, 978, 1043, 1113, 1189, 1273, 1366, 1473, 1601, 1762, 1987, 2418,
];

/// Log-normal factors around 1000 at 64 equally likely quantiles; `sigma` per mille.
#[must_use]
pub fn log_normal(sigma: i64) -> Vec<i32> {
    let all = NORMAL.iter().rev().map(|z| -z).chain(NORMAL);
    all.map(|z| i32::try_from(exp_permille(sigma * z / 1000)).unwrap_or(i32::MAX))
        .collect()
}

/// `1000 · exp(x / 1000)`: the exponential series of a sixteenth of it, squared four times.
fn exp_permille(x: i64) -> i64 {
    const ONE: i128 = 1 << 40;
    let part = i128::from(x) * ONE / 16_000;
    let (mut sum, mut term) = (ONE, ONE);
    for k in 1..12 {
        term = term * part / ONE / k;
        sum += term;
    }
    let power = (0..4).fold(sum, |value, _| value * value / ONE);
    i64::try_from(power * 1000 / ONE).unwrap_or(i64::MAX)
}

/// Number of equally likely slices of an exponential distribution.
const SLICES: i64 = 64;
/// Where the slices begin, in millionths of the mean: `ln(64 / (64 − k))`, by the series of each
/// factor's logarithm, `ln(m / (m − 1)) = 2 (x + x³/3 + …)` with `x = 1 / (2m − 1)`.
static WAITS: LazyLock<Vec<i64>> = LazyLock::new(|| {
    const TRILLION: i64 = 1_000_000_000_000;
    let of_factor = |m: i64| {
        let odd = 2 * m - 1;
        let powers = std::iter::successors(Some(TRILLION / odd), |power| Some(power / odd / odd));
        powers
            .zip((1..).step_by(2))
            .take(16)
            .map(|(power, n)| 2 * power / n)
            .sum::<i64>()
    };
    let sums = (2..=SLICES).rev().scan(0, |sum, m| {
        *sum += of_factor(m);
        Some(*sum / 1_000_000)
    });
    std::iter::once(0).chain(sums).collect()
});

impl Rng {
    /// `seconds` times one of these equally likely factors, per mille.
    pub fn spread(&mut self, seconds: Secs, factors: &[i32]) -> Secs {
        let at = self.below(factors.len());
        let permille = factors.get(at).copied().unwrap_or(1000);
        Secs::try_from(i64::from(seconds) * i64::from(permille) / 1000)
            .unwrap_or(Secs::MAX)
            .max(1)
    }

    /// An exponentially distributed wait, however short. Within a slice it is uniform. The last
    /// slice has no end, so from its start another wait is drawn: the distribution has no memory.
    pub fn wait(&mut self, mean: Secs) -> Secs {
        const MILLION: i64 = 1_000_000;
        let mut millionths = 0;
        loop {
            let at = self.below(WAITS.len());
            let from = WAITS.get(at).copied().unwrap_or(0);
            millionths += from;
            if let Some(to) = WAITS.get(at + 1) {
                millionths += i64::try_from(self.roll() % MILLION.unsigned_abs()).unwrap_or(0)
                    * (to - from)
                    / MILLION;
                return Secs::try_from(i64::from(mean).saturating_mul(millionths) / MILLION)
                    .unwrap_or(Secs::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sampled_factors_have_the_requested_spread() {
        let factors = log_normal(250);
        assert!(factors.is_sorted() && factors.len() == 64);
        assert_eq!(
            (factors[31], factors[32]),
            (995, 1005),
            "half are below the usual duration"
        );
        assert!(
            (factors[53]..factors[54]).contains(&1285),
            "one sigma is exp(0.25): {factors:?}"
        );
    }

    #[test]
    fn waits_are_exponential_with_the_requested_mean() {
        assert_eq!(
            (WAITS.len(), WAITS[0], WAITS[32], WAITS[63]),
            (64, 0, 693_147, 4_158_883),
            "ln 1, ln 2, ln 64"
        );
        let mut rng = Rng::new(1);
        let waits: Vec<i64> = (0..200_000)
            .map(|_| i64::from(rng.wait(1_000_000)))
            .collect();
        let share_below =
            |limit: i64| waits.iter().filter(|w| **w < limit).count() * 1000 / waits.len();
        let mean = waits.iter().sum::<i64>() / 200_000;
        assert!(
            (990_000..1_010_000).contains(&mean),
            "the mean wait is the mean: {mean}"
        );
        assert!(
            (8..=12).contains(&share_below(10_000)),
            "1 − exp(−0.01): {}",
            share_below(10_000)
        );
        assert!(
            (628..=636).contains(&share_below(1_000_000)),
            "1 − exp(−1): {}",
            share_below(1_000_000)
        );
        assert!(
            (992..=995).contains(&share_below(5_000_000)),
            "1 − exp(−5): {}",
            share_below(5_000_000)
        );
    }
}
