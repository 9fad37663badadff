//! Settings of a devnet. Periods default to mainnet's.

use fil_actor_miner_state::v19::VestSpec;
use fil_actors_shared::v19::runtime::Policy;
use fvm_shared::{bigint::BigInt, clock::ChainEpoch, econ::TokenAmount};
use sealyard_filecoin::{
    economics::{EPOCH_SECONDS, EPOCHS_PER_DAY, SOLSTICE},
    params::DEVNET_NAME_PREFIX,
    sector::SealProof,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Clock {
    /// Epochs pass only through `Devnet.Step`.
    Stepped,
    /// An epoch passes every `milliseconds`.
    Ticking { milliseconds: u64 },
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Must start with `sealyard-devnet`: proof parameters refuse other networks.
    pub network_name: String,
    /// Everything random on this chain is derived from it.
    pub seed: u64,
    pub clock: Clock,
    /// Unix seconds of epoch 0.
    pub genesis_timestamp: i64,
    /// Seconds of one epoch.
    pub epoch_seconds: i64,
    /// Bytes of one sector.
    pub sector_size: u64,
    /// Actor id of the only miner.
    pub miner_id: u64,
    /// Quality-adjusted bytes of all other miners. With the miner's own power, this determines its
    /// share.
    pub other_power: u64,
    /// attoFIL minted per epoch.
    pub epoch_reward: String,
    /// Raw bytes below which a miner cannot win.
    pub minimum_power: u64,
    /// Whole FIL.
    pub circulating_supply: u64,
    /// Whole FIL with which the miner actor and its owner each start.
    pub initial_balance: u64,
    /// Null rounds per thousand.
    pub null_rounds: u64,
    /// Epochs between a state and the election that uses its power.
    pub election_lookback: i64,
    /// Epochs between PreCommit and its seed.
    pub seed_delay: i64,
    pub proving_period: i64,
    pub period_deadlines: u64,
    pub challenge_lookback: i64,
    pub fault_cutoff: i64,
    pub vesting_period: i64,
    pub vesting_step: i64,
    pub vesting_quantum: i64,
    /// Divisor of the daily fee's cap (half of a day's reward).
    pub daily_fee_cap_denominator: i64,
    /// How many epochs `Devnet.Reorg` can replace. With 0 it cannot replace any, and no past states
    /// are kept.
    pub reorg_depth: usize,
    /// The last epoch with network version 28, as in Lotus; FIP-0118 holds after it. `None`: never.
    /// `Devnet.Upgrade` sets it on a running chain.
    pub solstice_epoch: Option<i64>,
    /// Epochs after which the winner's part of a reward falls by a step, once version 29 is live:
    /// from 95 % by 5 points at a time, to 50 % at the least.
    pub winners_share_step: i64,
    /// Actor ids of the miner's control addresses. They are wallets of this node and start with the
    /// same balance as the others.
    pub control_addresses: Vec<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network_name: format!("{DEVNET_NAME_PREFIX}-1"),
            seed: 1,
            clock: Clock::Stepped,
            genesis_timestamp: 1_790_726_400,
            epoch_seconds: EPOCH_SECONDS,
            sector_size: 2048,
            miner_id: 1000,
            other_power: 10 << 20,
            epoch_reward: "17800000000000000000".into(),
            minimum_power: 2048,
            circulating_supply: 680_000_000,
            initial_balance: 100_000,
            null_rounds: 7,
            election_lookback: 900,
            seed_delay: 150,
            proving_period: EPOCHS_PER_DAY,
            period_deadlines: 48,
            challenge_lookback: 20,
            fault_cutoff: 70,
            vesting_period: 180 * EPOCHS_PER_DAY,
            vesting_step: EPOCHS_PER_DAY,
            vesting_quantum: 1440,
            daily_fee_cap_denominator: 2,
            reorg_depth: 0,
            solstice_epoch: None,
            winners_share_step: QUARTER,
            control_addresses: Vec::new(),
        }
    }
}

/// Epochs of a quarter of a year.
const QUARTER: i64 = 365 * EPOCHS_PER_DAY / 4;

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(
        "network_name is {0:?}; it must start with {DEVNET_NAME_PREFIX:?}, because the devnet's \
         proofs can be forged"
    )]
    Name(String),
    #[error(
        "proving_period {period} is not divisible into {deadlines} deadlines of more than \
         {lookback} epochs"
    )]
    Deadlines {
        period: i64,
        deadlines: u64,
        lookback: i64,
    },
    #[error("{name} is {value}; it must be {must}")]
    Value {
        name: &'static str,
        value: String,
        must: &'static str,
    },
    #[error(transparent)]
    SectorSize(#[from] sealyard_filecoin::sector::UnknownProof),
}

impl Config {
    pub fn check(&self) -> Result<(), ConfigError> {
        if !self.network_name.starts_with(DEVNET_NAME_PREFIX) {
            return Err(ConfigError::Name(self.network_name.clone()));
        }
        self.seal_proof()?;
        let deadlines = i64::try_from(self.period_deadlines).unwrap_or(i64::MAX);
        if deadlines < 3
            || self.proving_period % deadlines != 0
            || self.proving_period / deadlines <= self.challenge_lookback
        {
            return Err(ConfigError::Deadlines {
                period: self.proving_period,
                deadlines: self.period_deadlines,
                lookback: self.challenge_lookback,
            });
        }
        self.reward()?;
        for (name, value) in [
            ("epoch_seconds", self.epoch_seconds),
            ("seed_delay", self.seed_delay),
            ("vesting_period", self.vesting_period),
            ("vesting_step", self.vesting_step),
            ("vesting_quantum", self.vesting_quantum),
            ("winners_share_step", self.winners_share_step),
            ("daily_fee_cap_denominator", self.daily_fee_cap_denominator),
        ] {
            if value < 1 {
                return Err(ConfigError::Value {
                    name,
                    value: value.to_string(),
                    must: "at least 1",
                });
            }
        }
        Ok(())
    }

    pub fn seal_proof(&self) -> Result<SealProof, ConfigError> {
        Ok(SealProof::for_size(self.sector_size)?)
    }

    /// attoFIL per epoch.
    pub fn reward(&self) -> Result<TokenAmount, ConfigError> {
        let must = "a whole number of attoFIL";
        let value = || ConfigError::Value {
            name: "epoch_reward",
            value: self.epoch_reward.clone(),
            must,
        };
        self.epoch_reward
            .parse::<BigInt>()
            .map(TokenAmount::from_atto)
            .map_err(|_| value())
    }

    /// The network version at an epoch.
    #[must_use]
    pub fn network_version(&self, epoch: ChainEpoch) -> u32 {
        match self.solstice_epoch {
            Some(last) if epoch > last => SOLSTICE,
            _ => SOLSTICE - 1,
        }
    }

    /// Thousandths of a block's reward that its winner gets (FIP-0118).
    #[must_use]
    pub fn winners_permille(&self, epoch: ChainEpoch) -> i64 {
        match self.solstice_epoch {
            Some(last) if epoch > last => {
                let steps = (epoch - last - 1) / self.winners_share_step.max(1);
                950i64.saturating_sub(steps.saturating_mul(50)).max(500)
            }
            _ => 1000,
        }
    }

    #[must_use]
    pub fn policy(&self) -> Policy {
        let window = self.proving_period
            / i64::try_from(self.period_deadlines)
                .unwrap_or(i64::MAX)
                .max(1);
        let mut policy = Policy {
            wpost_proving_period: self.proving_period,
            wpost_challenge_window: window,
            wpost_period_deadlines: self.period_deadlines,
            wpost_max_chain_commit_age: window,
            wpost_challenge_lookback: self.challenge_lookback,
            fault_declaration_cutoff: self.fault_cutoff,
            pre_commit_challenge_delay: self.seed_delay,
            minimum_consensus_power: BigInt::from(self.minimum_power),
            daily_fee_block_reward_cap_denom: self.daily_fee_cap_denominator,
            ..Policy::default()
        };
        if let Ok(proof) = self.seal_proof() {
            policy.valid_pre_commit_proof_type.insert(proof.chain());
            policy.valid_post_proof_type.insert(proof.chain_window());
        }
        policy
    }

    #[must_use]
    pub fn vesting(&self) -> VestSpec {
        VestSpec {
            initial_delay: 0,
            vest_period: self.vesting_period,
            step_duration: self.vesting_step,
            quantization: self.vesting_quantum,
        }
    }
}
