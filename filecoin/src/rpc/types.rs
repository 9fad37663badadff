//! Shapes of requests and answers, Lotus v1 (docs: Filecoin OpenRPC v1). The client reads them, the
//! devnet writes them.
//!
//! Unknown fields are ignored and null stands for an empty list, as real nodes do. Big numbers are
//! decimal strings.

use fil_actors_shared::v19::reward::FilterEstimate;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use serde::{Deserialize, Serialize};

use super::{BitFieldJson, CidJson, null_as_default};
use crate::{economics::SOLSTICE, gas::GasOffer};

/// Decimal text of a big integer.
pub mod decimal {
    use std::{fmt::Display, str::FromStr};

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(
        value: &impl Display,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>, T: FromStr<Err: Display>>(
        deserializer: D,
    ) -> Result<T, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

/// Decimal attoFIL.
pub mod atto {
    use fvm_shared::{bigint::BigInt, econ::TokenAmount};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &TokenAmount, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value.atto())
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<TokenAmount, D::Error> {
        let text = String::deserialize(deserializer)?;
        let atto = text
            .parse::<BigInt>()
            .ok()
            .filter(|atto| atto.magnitude() <= BigInt::from(MOST).magnitude());
        atto.map(TokenAmount::from_atto)
            .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is not an amount")))
    }

    /// There will never be more than two billion FIL.
    const MOST: u128 = 2_000_000_000 * 1_000_000_000_000_000_000;
}

/// Address text with the mainnet prefix.
pub mod address {
    use fvm_shared::address::{Address, Network};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(value: &Address, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Address, D::Error> {
        let text = String::deserialize(deserializer)?;
        Network::Mainnet
            .parse_address(&text)
            .or_else(|_| Network::Testnet.parse_address(&text))
            .map_err(|error| serde::de::Error::custom(format!("address {text:?}: {error}")))
    }
}

/// An empty list or null means the heaviest tipset.
pub type TipSetKey = Vec<CidJson>;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct TipSet {
    #[serde(default, deserialize_with = "null_as_default")]
    pub cids: TipSetKey,
    #[serde(default, deserialize_with = "null_as_default")]
    pub blocks: Vec<BlockHeader>,
    pub height: i64,
}

impl TipSet {
    /// A contradiction within the tipset; `None` if it is consistent.
    #[must_use]
    pub fn fault(&self) -> Option<&'static str> {
        let first = self.blocks.first();
        match first {
            None => Some("a tipset without blocks"),
            Some(_) if self.cids.len() != self.blocks.len() => {
                Some("blocks and CIDs of different number")
            }
            Some(_)
                if self.blocks.iter().any(|block| block.height != self.height)
                    || self.height < 0 =>
            {
                Some("a wrong height")
            }
            Some(first)
                if self
                    .blocks
                    .iter()
                    .any(|block| block.parents != first.parents) =>
            {
                Some("blocks with different parents")
            }
            Some(_) => None,
        }
    }

    /// The tipset on which it was built.
    #[must_use]
    pub fn parents(&self) -> &[CidJson] {
        self.blocks.first().map_or(&[], |block| &block.parents)
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlockHeader {
    #[serde(with = "address")]
    pub miner: Address,
    pub ticket: Option<Ticket>,
    pub election_proof: Option<ElectionProof>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub beacon_entries: Vec<serde_json::Value>,
    #[serde(rename = "WinPoStProof", default, deserialize_with = "null_as_default")]
    pub win_post_proof: Vec<serde_json::Value>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub parents: TipSetKey,
    pub parent_weight: String,
    pub height: i64,
    pub parent_state_root: CidJson,
    pub parent_message_receipts: CidJson,
    pub messages: CidJson,
    #[serde(rename = "BLSAggregate")]
    pub bls_aggregate: Option<Signature>,
    /// Unix seconds.
    pub timestamp: i64,
    pub block_sig: Option<Signature>,
    pub fork_signaling: u64,
    /// Base fee per gas unit for the messages in this block.
    #[serde(with = "atto")]
    pub parent_base_fee: TokenAmount,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    #[serde(rename = "VRFProof")]
    pub vrf_proof: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElectionProof {
    #[serde(rename = "WinCount")]
    pub win_count: i64,
    #[serde(rename = "VRFProof")]
    pub vrf_proof: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Signature {
    #[serde(rename = "Type")]
    pub kind: u8,
    pub data: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Message {
    pub version: u64,
    #[serde(with = "address")]
    pub to: Address,
    #[serde(with = "address")]
    pub from: Address,
    pub nonce: u64,
    #[serde(with = "atto")]
    pub value: TokenAmount,
    pub gas_limit: i64,
    #[serde(with = "atto")]
    pub gas_fee_cap: TokenAmount,
    #[serde(with = "atto")]
    pub gas_premium: TokenAmount,
    pub method: u64,
    /// Base64 of CBOR.
    #[serde(default, deserialize_with = "null_as_default")]
    pub params: String,
    #[serde(rename = "CID", default, skip_serializing_if = "Option::is_none")]
    pub cid: Option<CidJson>,
}

impl Message {
    #[must_use]
    pub fn gas_offer(&self) -> GasOffer {
        GasOffer {
            limit: self.gas_limit,
            fee_cap: self.gas_fee_cap.clone(),
            premium: self.gas_premium.clone(),
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SignedMessage {
    pub message: Message,
    pub signature: Signature,
    #[serde(rename = "CID")]
    pub cid: CidJson,
}

/// How the node should send a message. `MsgUuid` makes a repeated push of the same message
/// harmless.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MessageSendSpec {
    pub max_fee: String,
    #[serde(default)]
    pub msg_uuid: Option<String>,
    /// Forest rejects a specification without this field.
    #[serde(default)]
    pub maximize_fee_cap: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Receipt {
    pub exit_code: i64,
    #[serde(default, deserialize_with = "null_as_default")]
    pub r#return: String,
    pub gas_used: i64,
    #[serde(default)]
    pub events_root: Option<CidJson>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MsgLookup {
    pub message: CidJson,
    pub receipt: Receipt,
    #[serde(default)]
    pub return_dec: serde_json::Value,
    #[serde(default, deserialize_with = "null_as_default")]
    pub tip_set: TipSetKey,
    pub height: i64,
}

/// A block's messages in order of execution: BLS-signed ones first.
#[derive(Clone, Debug, PartialEq, Default, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct BlockMessages {
    #[serde(default, deserialize_with = "null_as_default")]
    pub bls_messages: Vec<Message>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub secpk_messages: Vec<SignedMessage>,
    #[serde(default, deserialize_with = "null_as_default")]
    pub cids: Vec<CidJson>,
}

impl BlockMessages {
    pub fn all(&self) -> impl Iterator<Item = &Message> {
        self.bls_messages
            .iter()
            .chain(self.secpk_messages.iter().map(|signed| &signed.message))
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ParentMessage {
    pub cid: CidJson,
    pub message: Message,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Version {
    pub version: String,
    #[serde(rename = "APIVersion")]
    pub api_version: u64,
    pub block_delay: u64,
    #[serde(default)]
    pub agent: String,
}

/// The fields of `StateGetNetworkParams` that we need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct NetworkParams {
    pub network_name: String,
    /// Seconds of one epoch.
    pub block_delay_secs: i64,
    /// Epochs between PreCommit and its seed.
    pub pre_commit_challenge_delay: i64,
    #[serde(default)]
    pub fork_upgrade_params: ForkUpgradeParams,
}

/// Heights of network upgrades.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ForkUpgradeParams {
    /// The last epoch with network version 28. `None`: a node that does not know version 29.
    #[serde(default)]
    pub upgrade_solstice_height: Option<i64>,
}

impl NetworkParams {
    /// The network version with which a message can land until `epoch`, from the version now.
    #[must_use]
    pub fn version_by(&self, now: u32, epoch: i64) -> u32 {
        match self.fork_upgrade_params.upgrade_solstice_height {
            Some(last) if epoch > last => now.max(SOLSTICE),
            _ => now,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MinerInfo {
    #[serde(with = "address")]
    pub owner: Address,
    #[serde(with = "address")]
    pub worker: Address,
    #[serde(with = "address")]
    pub beneficiary: Address,
    pub window_po_st_proof_type: i64,
    pub sector_size: u64,
    #[serde(rename = "WindowPoStPartitionSectors")]
    pub window_post_partition_sectors: u64,
    pub consensus_fault_elapsed: i64,
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

impl MinerInfo {
    /// Addresses besides the worker's that may send proofs. Unreadable ones are left out.
    #[must_use]
    pub fn control_addresses(&self) -> Vec<Address> {
        let listed = self
            .rest
            .get("ControlAddresses")
            .and_then(serde_json::Value::as_array);
        let parsed = listed
            .into_iter()
            .flatten()
            .filter_map(|value| address::deserialize(value.clone()).ok());
        parsed.collect()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Claim {
    /// Bytes.
    #[serde(with = "decimal")]
    pub raw_byte_power: BigInt,
    /// Bytes.
    #[serde(with = "decimal")]
    pub quality_adj_power: BigInt,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MinerPower {
    pub miner_power: Claim,
    pub total_power: Claim,
    pub has_min_power: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorInfo {
    pub sector_number: u64,
    pub seal_proof: i64,
    #[serde(rename = "SealedCID")]
    pub sealed_cid: CidJson,
    #[serde(rename = "DealIDs", default, deserialize_with = "null_as_default")]
    pub deal_ids: Vec<u64>,
    pub activation: i64,
    pub expiration: i64,
    #[serde(with = "decimal")]
    pub deal_weight: BigInt,
    #[serde(with = "decimal")]
    pub verified_deal_weight: BigInt,
    #[serde(with = "atto")]
    pub initial_pledge: TokenAmount,
    pub power_base_epoch: i64,
    #[serde(rename = "SectorKeyCID", default)]
    pub sector_key_cid: Option<CidJson>,
    #[serde(default)]
    pub flags: u64,
    #[serde(with = "atto", default)]
    pub daily_fee: TokenAmount,
    /// Set by old actors only; attoFIL.
    #[serde(default)]
    pub expected_day_reward: Option<String>,
    #[serde(default)]
    pub expected_storage_pledge: Option<String>,
    #[serde(default)]
    pub replaced_day_reward: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PreCommitInfo {
    #[serde(with = "atto")]
    pub pre_commit_deposit: TokenAmount,
    pub pre_commit_epoch: i64,
    pub info: PreCommitted,
}

/// The content of a PreCommit, as far as we need it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PreCommitted {
    #[serde(rename = "SealedCID")]
    pub sealed_cid: CidJson,
    #[serde(flatten)]
    pub rest: serde_json::Map<String, serde_json::Value>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Partition {
    pub all_sectors: BitFieldJson,
    pub faulty_sectors: BitFieldJson,
    pub recovering_sectors: BitFieldJson,
    pub live_sectors: BitFieldJson,
    pub active_sectors: BitFieldJson,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct DeadlineState {
    pub post_submissions: BitFieldJson,
    pub disputable_proof_count: u64,
    #[serde(with = "atto", default)]
    pub daily_fee: TokenAmount,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ProvingDeadline {
    pub current_epoch: i64,
    pub period_start: i64,
    pub index: u64,
    pub open: i64,
    pub close: i64,
    pub challenge: i64,
    pub fault_cutoff: i64,
    #[serde(rename = "WPoStPeriodDeadlines")]
    pub period_deadlines: u64,
    #[serde(rename = "WPoStProvingPeriod")]
    pub proving_period: i64,
    #[serde(rename = "WPoStChallengeWindow")]
    pub challenge_window: i64,
    #[serde(rename = "WPoStChallengeLookback")]
    pub challenge_lookback: i64,
    pub fault_declaration_cutoff: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorCount {
    pub live: u64,
    pub active: u64,
    pub faulty: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorLocation {
    pub deadline: u64,
    pub partition: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct SectorExpiration {
    pub on_time: i64,
    pub early: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct CirculatingSupply {
    #[serde(with = "atto")]
    pub fil_vested: TokenAmount,
    #[serde(with = "atto")]
    pub fil_mined: TokenAmount,
    #[serde(with = "atto")]
    pub fil_burnt: TokenAmount,
    #[serde(with = "atto")]
    pub fil_locked: TokenAmount,
    #[serde(with = "atto")]
    pub fil_circulating: TokenAmount,
    #[serde(with = "atto")]
    pub fil_reserve_disbursed: TokenAmount,
}

/// `StateReadState`: the state's own fields depend on the actor.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ActorState<T> {
    #[serde(with = "atto")]
    pub balance: TokenAmount,
    pub code: CidJson,
    pub state: T,
}

/// A smoothed estimate, both parts Q.128.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Smoothed {
    #[serde(with = "decimal")]
    pub position_estimate: BigInt,
    #[serde(with = "decimal")]
    pub velocity_estimate: BigInt,
}

impl From<Smoothed> for FilterEstimate {
    fn from(smoothed: Smoothed) -> Self {
        Self {
            position: smoothed.position_estimate,
            velocity: smoothed.velocity_estimate,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct RewardState {
    #[serde(with = "atto")]
    pub this_epoch_reward: TokenAmount,
    pub this_epoch_reward_smoothed: Smoothed,
    #[serde(with = "decimal")]
    pub this_epoch_baseline_power: BigInt,
    pub epoch: i64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct PowerState {
    #[serde(rename = "ThisEpochQAPowerSmoothed")]
    pub this_epoch_qa_power_smoothed: Smoothed,
    pub ramp_start_epoch: i64,
    pub ramp_duration_epochs: u64,
    #[serde(with = "atto")]
    pub total_pledge_collateral: TokenAmount,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct MinerState {
    #[serde(with = "atto")]
    pub pre_commit_deposits: TokenAmount,
    #[serde(with = "atto")]
    pub locked_funds: TokenAmount,
    #[serde(with = "atto")]
    pub fee_debt: TokenAmount,
    #[serde(with = "atto")]
    pub initial_pledge: TokenAmount,
    pub proving_period_start: i64,
    pub current_deadline: u64,
    pub deadline_cron_active: bool,
    /// CID of the object that lists the miner's deadlines.
    #[serde(default)]
    pub deadlines: Option<CidJson>,
    /// The vesting table's first entry, its tail as a CID.
    #[serde(default)]
    pub vesting_funds: serde_json::Value,
}
