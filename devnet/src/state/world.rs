//! The chain's state apart from the miner actor's own.

use std::collections::BTreeMap;

use cid::Cid;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use sealyard_filecoin::rpc::{Message, Receipt, atto, decimal};
use serde::{Deserialize, Serialize};

use super::block_cid;
use crate::config::Config;

/// attoFIL per gas unit, unless it was set to something else.
pub const BASE_FEE: i64 = 100;

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Account {
    #[serde(with = "atto")]
    pub balance: TokenAmount,
    pub nonce: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct World {
    pub epoch: i64,
    #[serde(with = "atto")]
    pub miner_balance: TokenAmount,
    /// Bytes of power that count in elections, raw and (below) quality-adjusted.
    #[serde(with = "decimal")]
    pub raw_power: BigInt,
    #[serde(with = "decimal")]
    pub qa_power: BigInt,
    /// Wallets by actor id.
    pub accounts: BTreeMap<u64, Account>,
    /// In order of arrival.
    pub mempool: Vec<Message>,
    /// `MsgUuid` to message CID.
    pub sent: BTreeMap<String, String>,
    #[serde(with = "atto")]
    pub burnt: TokenAmount,
    /// Secret that signs the RPC tokens.
    pub token_secret: String,
    /// attoFIL per gas unit.
    #[serde(default = "usual_base_fee")]
    pub base_fee: i64,
    /// Epochs after which a reorganisation replaced the chain. Randomness from tickets differs from
    /// there on.
    #[serde(default)]
    pub forks: Vec<i64>,
}

const fn usual_base_fee() -> i64 {
    BASE_FEE
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Snapshot {
    pub epoch: i64,
    pub miner_root: Cid,
    #[serde(with = "atto")]
    pub miner_balance: TokenAmount,
    #[serde(with = "decimal")]
    pub raw_power: BigInt,
    #[serde(with = "decimal")]
    pub qa_power: BigInt,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct TipsetRecord {
    pub epoch: i64,
    /// CID of the only block; for a null round, the parent's.
    pub cid: Cid,
    pub parent: Option<Cid>,
    pub null: bool,
    /// How many times our miner won; 0 means that another miner made the block.
    pub win_count: i64,
    /// CIDs of the messages included, in order of execution.
    pub messages: Vec<String>,
    /// attoFIL per gas unit that they paid.
    #[serde(default = "usual_base_fee")]
    pub base_fee: i64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageRecord {
    pub message: Message,
    /// The epoch whose tipset includes the message, and its receipt there.
    pub landed: Option<(i64, Receipt)>,
    #[serde(skip)]
    pub unsaved: bool,
}

impl TipsetRecord {
    pub fn genesis(config: &Config) -> Self {
        let cid = block_cid(format!("{}/{}/genesis", config.network_name, config.seed).as_bytes());
        Self {
            epoch: 0,
            cid,
            parent: None,
            null: false,
            win_count: 0,
            messages: Vec::new(),
            base_fee: BASE_FEE,
        }
    }
}
