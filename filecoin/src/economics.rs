//! Protocol money: projected reward, pledge, deposits and fees of a sector under the network's present estimates.
//!
//! All formulas are the protocol's own crate (`fil_actor_miner_state::v18`, builtin-actors v18.0.0); this module only names
//! their inputs and checks them against golden vectors. Amounts are attoFIL, power is quality-adjusted bytes.

use fil_actor_miner_state::v18 as miner;
use fil_actors_shared::v18::{reward::FilterEstimate, runtime::Policy};
use fvm_shared::{bigint::BigInt, clock::ChainEpoch, econ::TokenAmount};

pub const EPOCHS_PER_DAY: ChainEpoch = 2880;

/// What a projection needs to know of the network at one epoch.
#[derive(Clone, Debug)]
pub struct NetworkEstimate {
    /// attoFIL per epoch, Q.128.
    pub reward: FilterEstimate,
    /// Quality-adjusted bytes, Q.128.
    pub power: FilterEstimate,
    /// Raw bytes.
    pub baseline: BigInt,
    /// `FilCirculating` of `StateVMCirculatingSupplyInternal`.
    pub circulating: TokenAmount,
    pub ramp_start: ChainEpoch,
    pub ramp_epochs: u64,
    pub epoch: ChainEpoch,
}

impl NetworkEstimate {
    /// BR(t): the reward that `power` can expect over `epochs`.
    #[must_use]
    pub fn expected_reward(&self, power: &BigInt, epochs: ChainEpoch) -> TokenAmount {
        miner::expected_reward_for_power(&self.reward, &self.power, power, epochs)
    }

    /// Initial pledge of a new sector (FIP-0081).
    #[must_use]
    pub fn initial_pledge(&self, power: &BigInt) -> TokenAmount {
        let since_ramp = self.epoch - self.ramp_start;
        miner::initial_pledge_for_power(
            power,
            &self.baseline,
            &self.reward,
            &self.power,
            &self.circulating,
            since_ramp,
            self.ramp_epochs,
        )
    }

    /// PreCommit deposit; `power` is the sector's greatest possible quality-adjusted power (FIP-0034).
    #[must_use]
    pub fn pre_commit_deposit(&self, power: &BigInt) -> TokenAmount {
        miner::pre_commit_deposit_for_power(&self.reward, &self.power, power)
    }

    /// What one more day of being faulty costs (3.51 days' reward).
    #[must_use]
    pub fn fault_fee(&self, power: &BigInt) -> TokenAmount {
        miner::pledge_penalty_for_continued_fault(&self.reward, &self.power, power)
    }

    /// Daily fee of a sector, fixed at its activation (FIP-0100).
    #[must_use]
    pub fn daily_fee(&self, power: &BigInt) -> TokenAmount {
        miner::daily_proof_fee(&Policy::default(), &self.circulating, power)
    }
}

/// Termination fee of a sector of `age` epochs (FIP-0098).
#[must_use]
pub fn termination_fee(pledge: &TokenAmount, age: ChainEpoch, fault_fee: &TokenAmount) -> TokenAmount {
    miner::pledge_penalty_for_termination(pledge, age, fault_fee)
}

/// The part of a block reward that the chain locks for 180 days: three quarters, rounded down.
#[must_use]
pub fn locked_part(reward: &TokenAmount) -> TokenAmount {
    miner::locked_reward_from_reward(reward.clone()).0
}

#[cfg(test)]
mod tests {
    use fvm_shared::sector::SectorSize;

    use super::*;

    fn atto(digits: &str) -> TokenAmount {
        TokenAmount::from_atto(digits.parse::<BigInt>().unwrap())
    }

    fn estimate(position: BigInt) -> FilterEstimate {
        FilterEstimate { position: position << 128, velocity: BigInt::from(0) }
    }

    /// The illustrative network of `filecoin.md` 4.9.
    fn network() -> NetworkEstimate {
        NetworkEstimate {
            reward: estimate(BigInt::from(19) * BigInt::from(10u64.pow(18))),
            power: estimate(BigInt::from(14_760u64) << 50),
            baseline: BigInt::from(131u64) << 60,
            circulating: TokenAmount::from_whole(680_000_000),
            ramp_start: 0,
            ramp_epochs: 1_051_200,
            epoch: 1_600_000,
        }
    }

    #[test]
    fn golden_vectors_of_a_sector_and_of_whole_contracts() {
        let rows = [
            // size, BR 1 d, BR 20 d, fault fee, pledge, daily fee
            (
                BigInt::from(32u64 << 30),
                "113138338414634",
                "2262766768292682",
                "397084140519139",
                "161285872700005307",
                "3780793052776",
            ),
            (
                BigInt::from(320u64 << 30),
                "1131383384146341",
                "22627667682926829",
                "3970841405191395",
                "1612858727000053091",
                "37807930527763",
            ),
            (
                BigInt::from(1u64 << 40),
                "3620426829268292",
                "72408536585365853",
                "12706692496612466",
                "5161147926400169892",
                "120985377688843",
            ),
            (
                BigInt::from(10u64 << 40),
                "36204268292682926",
                "724085365853658536",
                "127066924966124661",
                "51611479264001698937",
                "1209853776888437",
            ),
        ];
        let network = network();
        for (power, day, twenty, fault, pledge, fee) in rows {
            assert_eq!(network.expected_reward(&power, EPOCHS_PER_DAY), atto(day));
            assert_eq!(network.expected_reward(&power, 20 * EPOCHS_PER_DAY), atto(twenty));
            assert_eq!(network.pre_commit_deposit(&power), atto(twenty));
            assert_eq!(network.fault_fee(&power), atto(fault));
            assert_eq!(network.initial_pledge(&power), atto(pledge));
            assert_eq!(network.daily_fee(&power), atto(fee));
        }
    }

    #[test]
    fn golden_vectors_of_moving_estimates() {
        let mut network = network();
        network.reward.velocity = BigInt::from(-2_000_000_000_000i64) << 128;
        network.power.velocity = BigInt::from(-3_909_374_857_500i64) << 128;
        let power = BigInt::from(32u64 << 30);
        assert_eq!(network.expected_reward(&power, EPOCHS_PER_DAY), atto("113159524591288"));
        assert_eq!(network.expected_reward(&power, 20 * EPOCHS_PER_DAY), atto("2271314716129487"));
    }

    #[test]
    fn golden_vectors_of_the_termination_fee() {
        let network = network();
        let power = BigInt::from(32u64 << 30);
        let (pledge, fault) = (network.initial_pledge(&power), network.fault_fee(&power));
        for (days, fee) in
            [(0, "3225717454000106"), (30, "3225717454000106"), (70, "6854649589750225"), (140, "13709299179500451")]
        {
            assert_eq!(termination_fee(&pledge, days * EPOCHS_PER_DAY, &fault), atto(fee), "day {days}");
        }
        let ip = TokenAmount::from_atto(1024);
        for (days, fault, fee) in [(141, 0, 87), (70, 0, 43), (141, 1024, 1075), (0, 0, 20)] {
            let got = termination_fee(&ip, days * EPOCHS_PER_DAY, &TokenAmount::from_atto(fault));
            assert_eq!(got, TokenAmount::from_atto(fee), "day {days} fault fee {fault}");
        }
    }

    #[test]
    fn three_quarters_of_a_reward_are_locked() {
        assert_eq!(locked_part(&TokenAmount::from_atto(1_000_000)), TokenAmount::from_atto(750_000));
        assert_eq!(locked_part(&atto("20000000000000000003")), atto("15000000000000000002"));
    }

    #[test]
    fn quality_of_a_committed_capacity_sector_is_one() {
        let power = miner::qa_power_for_weight(SectorSize::_32GiB, 540 * EPOCHS_PER_DAY, &BigInt::from(0));
        assert_eq!(power, BigInt::from(32u64 << 30));
        assert_eq!(miner::qa_power_max(SectorSize::_32GiB), BigInt::from(320u64 << 30));
    }
}
