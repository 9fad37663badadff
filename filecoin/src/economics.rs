//! Protocol money: projected reward, pledge, deposits and fees of a sector under the network's
//! current estimates.
//!
//! All formulas come from the protocol's own crate (`fil_actor_miner_state::v19`), whose money is
//! that of v18. This module only names their inputs and checks them against golden vectors.
//! Amounts are attoFIL, power is quality-adjusted bytes.

use fil_actor_miner_state::v19 as miner;
use fil_actor_miner_state::v19::VestingFunds;
pub use fil_actors_shared::v19::reward::FilterEstimate;
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_blockstore::MemoryBlockstore;
use fvm_shared::{bigint::BigInt, clock::ChainEpoch, econ::TokenAmount};

/// Seconds of an epoch on the main network.
pub const EPOCH_SECONDS: i64 = 30;
pub const EPOCHS_PER_DAY: ChainEpoch = 2880;
/// Winners that the network expects per epoch; each win gets this fraction of the reward.
pub const EXPECTED_WINS: i64 = 5;

/// Inputs of a projection: the network at one epoch.
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

    /// PreCommit deposit; `power` is the sector's greatest possible quality-adjusted power
    /// (FIP-0034).
    #[must_use]
    pub fn pre_commit_deposit(&self, power: &BigInt) -> TokenAmount {
        miner::pre_commit_deposit_for_power(&self.reward, &self.power, power)
    }

    /// The fee for one more faulty day (3.51 days' reward).
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

/// The daily fee that a deadline's sectors pay: at most half of their expected reward of that day.
#[must_use]
pub fn daily_fee_payable(daily_fee: &TokenAmount, day_reward: &TokenAmount) -> TokenAmount {
    miner::daily_proof_fee_payable(&Policy::default(), daily_fee, day_reward)
}

/// Flag of sectors that count ten times whatever they contain (FIP-0118).
const FULL_QUALITY: u64 = 0x2;

/// The network version with FIP-0118: new sectors have full quality, and the winner of a block gets
/// a part of its reward only.
pub const SOLSTICE: u32 = 29;

/// The quality-adjusted bytes of a committed-capacity sector that becomes active under a network
/// version: ten times its bytes since [`SOLSTICE`].
#[must_use]
pub fn new_sector_power(bytes: u64, network_version: u32) -> BigInt {
    let flags = if network_version < SOLSTICE {
        0
    } else {
        FULL_QUALITY
    };
    quality_adjusted(bytes, 1, &BigInt::from(0), flags)
}

/// Quality-adjusted bytes of a sector of `bytes`. `epochs` is its lifetime since its power was last
/// set, `verified_weight` its byte-epochs of verified deals, `flags` the chain's flags of the
/// sector.
#[must_use]
pub fn quality_adjusted(
    bytes: u64,
    epochs: ChainEpoch,
    verified_weight: &BigInt,
    flags: u64,
) -> BigInt {
    let most = BigInt::from(bytes) * 10;
    let lifetime = BigInt::from(bytes) * epochs.max(1);
    if flags & FULL_QUALITY != 0 || *verified_weight >= lifetime {
        return most;
    }
    // Rounds as the protocol does: first quality in units of 2^-20, then the power.
    let quality: BigInt =
        (((&lifetime - verified_weight) * 10 + verified_weight * 100) << 20) / lifetime / 10;
    (BigInt::from(bytes) * quality) >> 20
}

/// Termination fee of a sector of `age` epochs (FIP-0098).
#[must_use]
pub fn termination_fee(
    pledge: &TokenAmount,
    age: ChainEpoch,
    fault_fee: &TokenAmount,
) -> TokenAmount {
    miner::pledge_penalty_for_termination(pledge, age, fault_fee)
}

/// The part of a block reward that the chain locks for 180 days: three quarters, rounded down.
#[must_use]
pub fn locked_part(reward: &TokenAmount) -> TokenAmount {
    miner::locked_reward_from_reward(reward.clone()).0
}

/// A miner's vesting table for block rewards, computed by the protocol's own code.
#[derive(Default)]
pub struct VestingTable {
    funds: VestingFunds,
    store: MemoryBlockstore,
    proving_period_start: ChainEpoch,
    locked: TokenAmount,
}

impl VestingTable {
    #[must_use]
    pub fn new(proving_period_start: ChainEpoch) -> Self {
        Self {
            proving_period_start,
            ..Self::default()
        }
    }

    /// Adds a block reward won at `epoch`: three quarters are locked for 180 days. Returns the
    /// amount that is free at once, earlier rewards that vested by then included.
    pub fn award(
        &mut self,
        epoch: ChainEpoch,
        reward: &TokenAmount,
    ) -> anyhow::Result<TokenAmount> {
        let locked = locked_part(reward);
        let unlocked = self.funds.add_locked_funds(
            &self.store,
            epoch,
            &locked,
            self.proving_period_start,
            &miner::REWARD_VESTING_SPEC,
        )?;
        self.locked += &locked - &unlocked;
        Ok(reward - locked + unlocked)
    }

    /// Unlocks the funds that have vested by `epoch`. Returns their amount.
    pub fn unlock(&mut self, epoch: ChainEpoch) -> anyhow::Result<TokenAmount> {
        let unlocked = self.funds.unlock_vested_funds(&self.store, epoch)?;
        self.locked -= &unlocked;
        Ok(unlocked)
    }

    #[must_use]
    pub fn locked(&self) -> &TokenAmount {
        &self.locked
    }
}

#[cfg(test)]
mod tests {
    use fvm_shared::sector::SectorSize;

    use super::*;

    fn atto(digits: &str) -> TokenAmount {
        TokenAmount::from_atto(digits.parse::<BigInt>().unwrap())
    }

    fn estimate(position: BigInt) -> FilterEstimate {
        FilterEstimate {
            position: position << 128,
            velocity: BigInt::from(0),
        }
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
    fn sectors_and_whole_contracts_match_golden_vectors() {
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
            assert_eq!(
                network.expected_reward(&power, 20 * EPOCHS_PER_DAY),
                atto(twenty)
            );
            assert_eq!(network.pre_commit_deposit(&power), atto(twenty));
            assert_eq!(network.fault_fee(&power), atto(fault));
            assert_eq!(network.initial_pledge(&power), atto(pledge));
            assert_eq!(network.daily_fee(&power), atto(fee));
        }
    }

    #[test]
    fn moving_estimates_match_golden_vectors() {
        let mut network = network();
        network.reward.velocity = BigInt::from(-2_000_000_000_000i64) << 128;
        network.power.velocity = BigInt::from(-3_909_374_857_500i64) << 128;
        let power = BigInt::from(32u64 << 30);
        assert_eq!(
            network.expected_reward(&power, EPOCHS_PER_DAY),
            atto("113159524591288")
        );
        assert_eq!(
            network.expected_reward(&power, 20 * EPOCHS_PER_DAY),
            atto("2271314716129487")
        );
    }

    #[test]
    fn the_termination_fee_matches_golden_vectors() {
        let network = network();
        let power = BigInt::from(32u64 << 30);
        let (pledge, fault) = (network.initial_pledge(&power), network.fault_fee(&power));
        for (days, fee) in [
            (0, "3225717454000106"),
            (30, "3225717454000106"),
            (70, "6854649589750225"),
            (140, "13709299179500451"),
        ] {
            assert_eq!(
                termination_fee(&pledge, days * EPOCHS_PER_DAY, &fault),
                atto(fee),
                "day {days}"
            );
        }
        let ip = TokenAmount::from_atto(1024);
        for (days, fault, fee) in [(141, 0, 87), (70, 0, 43), (141, 1024, 1075), (0, 0, 20)] {
            let got = termination_fee(&ip, days * EPOCHS_PER_DAY, &TokenAmount::from_atto(fault));
            assert_eq!(
                got,
                TokenAmount::from_atto(fee),
                "day {days} fault fee {fault}"
            );
        }
    }

    #[test]
    fn three_quarters_of_a_reward_are_locked() {
        assert_eq!(
            locked_part(&TokenAmount::from_atto(1_000_000)),
            TokenAmount::from_atto(750_000)
        );
        assert_eq!(
            locked_part(&atto("20000000000000000003")),
            atto("15000000000000000002")
        );
    }

    #[test]
    fn vesting_matches_golden_vectors() {
        let mut table = VestingTable::new(1808);
        assert_eq!(
            table
                .award(6_200_123, &atto("20000000000000000003"))
                .unwrap(),
            atto("5000000000000000001")
        );
        assert_eq!(
            table.unlock(6_203_888).unwrap(),
            atto("0"),
            "strictly after the entry"
        );
        assert_eq!(table.unlock(6_203_889).unwrap(), atto("108940972222222222"));
        assert_eq!(table.unlock(6_206_769).unwrap(), atto("83333333333333333"));
        table.unlock(6_719_408).unwrap();
        assert_eq!(
            table.locked(),
            &atto("57725694444444445"),
            "the last of 180 entries"
        );
        let mut merged = VestingTable::new(1808);
        merged
            .award(6_200_123, &atto("20000000000000000003"))
            .unwrap();
        merged
            .award(6_200_963, &TokenAmount::from_whole(4))
            .unwrap();
        assert_eq!(
            merged.unlock(6_203_889).unwrap(),
            atto("125868055555555555")
        );
        assert_eq!(
            merged.unlock(6_206_769).unwrap(),
            atto("100000000000000000")
        );
        assert_eq!(merged.unlock(6_209_649).unwrap(), atto("99999999999999999"));
    }

    #[test]
    fn the_fault_fee_and_the_pledge_ramp_match_golden_vectors() {
        let small = |velocity: i64| FilterEstimate {
            position: BigInt::from(1024) << 128,
            velocity: BigInt::from(velocity) << 128,
        };
        let mut network = network();
        network.reward = estimate(BigInt::from(1u64 << 50));
        network.power = small(-1024);
        assert_eq!(
            network.expected_reward(&BigInt::from(1u64 << 36), 4),
            atto("0"),
            "never negative"
        );
        network.power = small(1024);
        for (power, fee) in [
            (6, "648882954611430"),
            (36, "696732767246986800845657"),
            (50, "11415269658574631745055245227"),
        ] {
            assert_eq!(
                network.fault_fee(&(BigInt::from(1) << power)),
                atto(fee),
                "2^{power}"
            );
        }
        network.reward = estimate(BigInt::from(0));
        network.power = FilterEstimate {
            position: BigInt::from(1024) << 128,
            velocity: BigInt::from(1024) << 128,
        };
        network.baseline = BigInt::from(1u64 << 37);
        network.circulating = TokenAmount::from_whole(1);
        for (since, ramp, pledge) in [
            (-100, 100, "150000000000000001"),
            (0, 100, "150000000000000001"),
            (1, 10, "154500000000000001"),
            (10, 100, "154500000000000001"),
            (50, 100, "172500000000000001"),
            (150, 100, "195000000000000001"),
            (500, 100, "195000000000000001"),
            (0, 0, "195000000000000001"),
            (10, 0, "195000000000000001"),
        ] {
            (network.epoch, network.ramp_start, network.ramp_epochs) = (since, 0, ramp);
            assert_eq!(
                network.initial_pledge(&BigInt::from(1u64 << 36)),
                atto(pledge),
                "{since} of {ramp}"
            );
        }
    }

    #[test]
    fn the_daily_fee_matches_golden_vectors() {
        let mut network = network();
        network.circulating = TokenAmount::from_nano(696_700_000_000_000_000i64);
        assert_eq!(
            network.daily_fee(&BigInt::from(32u64 << 30)),
            atto("3873644882160")
        );
        let fresh = network_fee_times_ten();
        assert_eq!(
            fresh,
            atto("37807930527760"),
            "an adjusted fee is rounded otherwise than a fresh one"
        );
    }

    fn network_fee_times_ten() -> TokenAmount {
        let one = BigInt::from(32u64 << 30);
        miner::daily_proof_fee_adjust(&atto("3780793052776"), &one, &(&one * 10))
    }

    #[test]
    fn the_smoothing_filter_matches_golden_vectors() {
        use fil_actors_shared::v19::reward::smooth::{
            AlphaBetaFilter, DEFAULT_ALPHA, DEFAULT_BETA, extrapolated_cum_sum_of_ratio,
        };
        let big = |digits: &str| digits.parse::<BigInt>().unwrap();
        let before = FilterEstimate {
            position: big("12340768897043811082913117521041414330876498465539749838848"),
            velocity: big("-37396269384748225153347462373739139597454335279104"),
        };
        let after = AlphaBetaFilter::load(&before, &DEFAULT_ALPHA, &DEFAULT_BETA)
            .next_estimate(&big("36266252337034982540"), 3);
        assert_eq!(
            after.position,
            big("12340768782449774548722755900999027209659079673176744001536")
        );
        assert_eq!(
            after.velocity,
            big("-37396515542149801792802995707072472930787668612438")
        );
        let constant = |value: i64| estimate(BigInt::from(value));
        let sum = extrapolated_cum_sum_of_ratio(1000, 0, &constant(4_000_000), &constant(1));
        assert_eq!(sum >> 128, BigInt::from(4_000_000_000i64));
    }

    /// The power that the protocol's own code of version 29 gives a sector.
    fn protocols_power(verified: &BigInt, flags: u32) -> BigInt {
        let sector = miner::SectorOnChainInfo {
            expiration: 540 * EPOCHS_PER_DAY,
            verified_deal_weight: verified.clone(),
            flags: miner::SectorOnChainInfoFlags::from_bits_retain(flags),
            ..miner::SectorOnChainInfo::default()
        };
        miner::qa_power_for_sector(SectorSize::_32GiB, &sector)
    }

    #[test]
    fn power_is_the_protocols_for_every_weight_and_flag() {
        use fil_actor_miner_state::v18;
        let days = 540 * EPOCHS_PER_DAY;
        for verified in [0u64, 1, 1 << 50, 12_345_678_901_234_567] {
            let verified = BigInt::from(verified);
            let own = |flags| quality_adjusted(32 << 30, days, &verified, flags);
            let before = v18::qa_power_for_weight(SectorSize::_32GiB, days, &verified);
            assert_eq!(own(0x1), before, "{verified}");
            for flags in [0x1, 0x3] {
                let protocols = protocols_power(&verified, flags);
                assert_eq!(own(flags.into()), protocols, "{verified} {flags}");
            }
        }
    }

    /// FIP-0118: ten times the power, and so ten times the pledge, for the same bytes.
    #[test]
    fn a_new_sector_counts_and_pledges_ten_times_since_version_29() {
        let bytes = 32u64 << 30;
        let [before, after] = [SOLSTICE - 1, SOLSTICE].map(|v| new_sector_power(bytes, v));
        assert_eq!(before, BigInt::from(bytes));
        assert_eq!(after, BigInt::from(320u64 << 30));
        assert_eq!(after, miner::qa_power_max(SectorSize::_32GiB));
        assert_eq!(
            network().initial_pledge(&before),
            atto("161285872700005307")
        );
        assert_eq!(
            network().initial_pledge(&after),
            atto("1612858727000053091")
        );
    }
}
