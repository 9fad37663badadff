//! The cost of a message's gas and where it goes, as in the FVM's `GasOutputs::compute`.

use fvm_shared::{bigint::BigInt, econ::TokenAmount};

/// A sender's offer for a message's gas; amounts per gas unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GasOffer {
    pub limit: i64,
    pub fee_cap: TokenAmount,
    pub premium: TokenAmount,
}

/// The sender's payment for the gas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GasCost {
    /// The base fee of the gas that was used, and a penalty for a limit that was far too high.
    pub burnt: TokenAmount,
    /// Goes to the miner of the block that includes the message.
    pub tip: TokenAmount,
}

impl GasOffer {
    /// The miner's share at `base_fee`: the premium, as far as the fee cap allows, on the whole
    /// limit.
    #[must_use]
    pub fn tip(&self, base_fee: &TokenAmount) -> TokenAmount {
        let rest = (&self.fee_cap - base_fee).max(TokenAmount::default());
        self.premium.clone().min(rest) * self.limit
    }

    /// The cost of a message that used `used` gas units.
    #[must_use]
    pub fn cost(&self, used: i64, base_fee: &TokenAmount) -> GasCost {
        let paid_base_fee = base_fee.min(&self.fee_cap).clone();
        let burnt = paid_base_fee * (BigInt::from(used) + self.overestimation(used));
        GasCost {
            burnt,
            tip: self.tip(base_fee),
        }
    }

    /// Unused gas units that are burnt: none if the limit is at most a tenth too high, all if no
    /// gas was used.
    fn overestimation(&self, used: i64) -> BigInt {
        let (limit, used) = (BigInt::from(self.limit), BigInt::from(used));
        if used == BigInt::from(0) {
            return limit;
        }
        let over: BigInt = &limit - &used * 11 / 10;
        let over = over.clamp(BigInt::from(0), used.clone());
        (limit - &used) * over / used
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer(limit: i64, fee_cap: i64, premium: i64) -> GasOffer {
        GasOffer {
            limit,
            fee_cap: TokenAmount::from_atto(fee_cap),
            premium: TokenAmount::from_atto(premium),
        }
    }

    /// Gas used, limit, and unused gas burnt: the table of the reference VM's tests.
    #[test]
    fn an_overestimated_gas_limit_burns_gas() {
        for (used, limit, burnt) in [
            (100, 200, 90),
            (100, 150, 20),
            (1000, 1300, 60),
            (500, 700, 60),
            (200, 200, 0),
            (20_000, 21_000, 0),
            (0, 2000, 2000),
        ] {
            assert_eq!(
                offer(limit, 1, 0).overestimation(used),
                BigInt::from(burnt),
                "{used} of {limit}"
            );
        }
    }

    /// At base fee 10: fee cap, premium, the amount burnt for 100 gas units, and the tip on a limit
    /// of 110.
    #[test]
    fn the_base_fee_is_paid_before_the_tip() {
        let base_fee = TokenAmount::from_atto(10);
        for (fee_cap, premium, burnt, tip) in [
            (30, 5, 1000, 550),
            (12, 5, 1000, 220),
            (10, 5, 1000, 0),
            (8, 5, 800, 0),
        ] {
            let cost = offer(110, fee_cap, premium).cost(100, &base_fee);
            assert_eq!(
                (cost.burnt, cost.tip),
                (TokenAmount::from_atto(burnt), TokenAmount::from_atto(tip)),
                "fee cap {fee_cap}"
            );
        }
    }
}
