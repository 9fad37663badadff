//! The network's minting: the arithmetic of the reward actor, which its crate does not export.
//! Amounts are attoFIL, `theta` (effective network time) and rates are Q.128. Source:
//! builtin-actors, actors/reward (`filecoin.md` 4.1).

use std::sync::LazyLock;

use fil_actors_shared::v19::reward::math::{PRECISION, poly_parse, poly_val};
use fvm_shared::{
    bigint::{BigInt, Integer},
    clock::ChainEpoch,
    econ::TokenAmount,
};

/// The final allocations of the two parts of minting.
#[derive(Clone, Debug)]
pub struct Totals {
    pub simple: TokenAmount,
    pub baseline: TokenAmount,
}

impl Default for Totals {
    fn default() -> Self {
        Self {
            simple: TokenAmount::from_whole(330_000_000),
            baseline: TokenAmount::from_whole(770_000_000),
        }
    }
}

/// λ = ln 2 / (6 years of epochs), and e^λ − 1.
static LAMBDA: LazyLock<BigInt> =
    LazyLock::new(|| BigInt::from(37_396_271_439_864_487_274_534_522_888_786_u128));
static EXP_LAMBDA_LESS_ONE: LazyLock<BigInt> =
    LazyLock::new(|| BigInt::from(37_396_273_494_747_879_394_193_016_954_629_u128));
/// Growth per epoch that doubles the baseline in a year.
static BASELINE_GROWTH: LazyLock<BigInt> = LazyLock::new(|| {
    (BigInt::from(1) << 128) + BigInt::from(224_377_702_615_002_589_582_494_545_262_197_u128)
});

/// Numerator and denominator of the protocol's rational approximation of e^-x.
static NUMERATOR: LazyLock<Vec<BigInt>> = LazyLock::new(|| {
    coefficients(&[
        "-648770010757830093818553637600",
        "67469480939593786226847644286976",
        "-3197587544499098424029388939001856",
        "89244641121992890118377641805348864",
        "-1579656163641440567800982336819953664",
        "17685496037279256458459817590917169152",
        "-115682590513835356866803355398940131328",
        "340282366920938463463374607431768211456",
    ])
});
static DENOMINATOR: LazyLock<Vec<BigInt>> = LazyLock::new(|| {
    coefficients(&[
        "1225524182432722209606361",
        "114095592300906098243859450",
        "5665570424063336070530214243",
        "194450132448609991765137938448",
        "5068267641632683791026134915072",
        "104716890604972796896895427629056",
        "1748338658439454459487681798864896",
        "23704654329841312470660182937960448",
        "259380097567996910282699886670381056",
        "2250336698853390384720606936038375424",
        "14978272436876548034486263159246028800",
        "72144088983913131323343765784380833792",
        "224599776407103106596571252037123047424",
        "340282366920938463463374607431768211456",
    ])
});

fn coefficients(digits: &[&str]) -> Vec<BigInt> {
    poly_parse(digits).unwrap_or_default()
}

/// e^-x, Q.128.
fn exp_of_negative(x: &BigInt) -> BigInt {
    (poly_val(&NUMERATOR, x) << PRECISION).div_floor(&poly_val(&DENOMINATOR, x))
}

/// The baseline power of the next epoch, bytes.
#[must_use]
pub fn next_baseline(power: &BigInt) -> BigInt {
    (power * &*BASELINE_GROWTH) >> PRECISION
}

/// Effective network time, interpolated in the epoch whose end is `time`.
#[must_use]
pub fn theta(
    time: ChainEpoch,
    baseline: &BigInt,
    realised: &BigInt,
    cumulated_baseline: &BigInt,
) -> BigInt {
    if time == 0 {
        return BigInt::from(0);
    }
    (BigInt::from(time) << PRECISION)
        - ((cumulated_baseline - realised) << PRECISION).div_floor(baseline)
}

/// The amount that `epoch` mints for all winners together. Effective network time passes from
/// `before` to `after`.
#[must_use]
pub fn epoch_reward(
    epoch: ChainEpoch,
    before: &BigInt,
    after: &BigInt,
    totals: &Totals,
) -> TokenAmount {
    let simple =
        (totals.simple.atto() * &*EXP_LAMBDA_LESS_ONE * exp_of_negative(&(&*LAMBDA * epoch)))
            >> PRECISION;
    let baseline = baseline_supply(after, totals) - baseline_supply(before, totals);
    TokenAmount::from_atto((simple + baseline) >> PRECISION)
}

fn baseline_supply(theta: &BigInt, totals: &Totals) -> BigInt {
    let one = BigInt::from(1) << PRECISION;
    (one - exp_of_negative(&((theta * &*LAMBDA) >> PRECISION))) * totals.baseline.atto()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn big(digits: &str) -> BigInt {
        digits.parse().unwrap()
    }

    #[test]
    fn the_simple_reward_matches_golden_rows() {
        let none = BigInt::from(0);
        for (epoch, reward) in [
            (0, "36266264293777134739"),
            (5000, "36246341860983438171"),
            (10_000, "36226430372336764970"),
            (15_000, "36206529821825080595"),
            (2_545_000, "27417956352278167539"),
            (2_555_000, "27387841182142501307"),
        ] {
            assert_eq!(
                epoch_reward(epoch, &none, &none, &Totals::default()).atto(),
                &big(reward),
                "epoch {epoch}"
            );
        }
    }

    #[test]
    fn the_baseline_reward_matches_golden_rows() {
        let none = BigInt::from(0);
        let simple = epoch_reward(0, &none, &none, &Totals::default());
        for (before, after, reward) in [
            (
                "0",
                "340282366920938463463374607398434878123",
                "84621274052457285111",
            ),
            (
                "1701411834604692317316873037158763279502223",
                "1701752116971613255780336411766161714380346",
                "84574788381047331439",
            ),
        ] {
            let both = epoch_reward(0, &big(before), &big(after), &Totals::default());
            assert_eq!((both - &simple).atto(), &big(reward));
        }
    }

    #[test]
    fn effective_time_is_interpolated() {
        let half = BigInt::from(1) << 127;
        let at = |time, baseline: i64, realised: i64, cumulated: i64| {
            theta(
                time,
                &BigInt::from(baseline),
                &BigInt::from(realised),
                &BigInt::from(cumulated),
            )
        };
        assert_eq!(at(1, 4096, 4096, 6144), half);
        assert_eq!(at(1, 4096, 3072, 6144), &half / 2);
        assert_eq!(at(0, 4096, 3072, 6144), BigInt::from(0));
    }

    #[test]
    fn the_baseline_doubles_in_a_year() {
        let start = BigInt::from(2_888_888_880_000_000_000_u128);
        let mut power = start.clone();
        for _ in 0..1_051_200 {
            power = next_baseline(&power);
        }
        let error: BigInt = &power - &start * 2;
        let allowed: BigInt = start / 50_000_000;
        assert!(error.magnitude() < allowed.magnitude(), "{error}");
    }
}
