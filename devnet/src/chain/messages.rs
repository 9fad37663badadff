//! The mempool: what a wallet signs and what becomes of it.

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::econ::TokenAmount;
use sealyard_filecoin::rpc::{CidJson, Message, Receipt, Signature, SignedMessage};
use serde::{Deserialize, Serialize};

use super::{Chain, block_cid};
use crate::miner;

/// Gas limit over expected use, in hundredths (Lotus' default over-estimation).
const LIMIT_HUNDREDTHS: i64 = 125;
/// attoFIL per gas unit.
pub const BASE_FEE: i64 = 100;
const PREMIUM: i64 = 100_000;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageRecord {
    pub message: Message,
    /// The epoch whose tipset includes it, and what came of it there.
    pub landed: Option<(i64, Receipt)>,
    #[serde(skip)]
    pub unsaved: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("{0} is no wallet of this node")]
    UnknownSender(String),
    #[error("nonce must be 0: the node assigns it")]
    Nonce,
    #[error("params are not base64: {0}")]
    Params(String),
    #[error("wallet {wallet} holds {balance} attoFIL, the message may cost {needed}; send it funds")]
    Funds { wallet: String, balance: String, needed: String },
    #[error(transparent)]
    Broken(#[from] anyhow::Error),
}

impl Chain {
    /// Fills in gas, as `GasEstimateMessageGas`.
    pub fn estimate(&self, message: &Message) -> Message {
        let mut message = message.clone();
        if message.gas_limit == 0 {
            message.gas_limit = miner::gas_of(&message) * LIMIT_HUNDREDTHS / 100;
        }
        if message.gas_premium.is_zero() {
            message.gas_premium = TokenAmount::from_atto(PREMIUM);
        }
        if message.gas_fee_cap.is_zero() {
            message.gas_fee_cap = TokenAmount::from_atto(2 * BASE_FEE + PREMIUM);
        }
        message
    }

    /// Signs and queues a message, or returns the one that was sent under the same `uuid`.
    pub fn push(&mut self, message: &Message, uuid: Option<&str>) -> Result<SignedMessage, PushError> {
        if let Some(earlier) = uuid.and_then(|uuid| self.world.sent.get(uuid)).and_then(|cid| self.messages.get(cid)) {
            return signed(&earlier.message).map_err(PushError::from);
        }
        if message.nonce != 0 {
            return Err(PushError::Nonce);
        }
        BASE64_STANDARD.decode(&message.params).map_err(|error| PushError::Params(error.to_string()))?;
        let wallet =
            self.wallet_id(&message.from.to_string()).ok_or_else(|| PushError::UnknownSender(message.from.to_string()))?;
        let mut message = self.estimate(message);
        let needed = &message.value + &message.gas_fee_cap * message.gas_limit;
        let account = self.world.accounts.entry(wallet).or_default();
        if account.balance < needed {
            return Err(PushError::Funds {
                wallet: message.from.to_string(),
                balance: account.balance.atto().to_string(),
                needed: needed.atto().to_string(),
            });
        }
        message.nonce = account.nonce;
        account.nonce += 1;
        let signed = signed(&message)?;
        message.cid = Some(signed.cid);
        let cid = signed.cid.to_string();
        if let Some(uuid) = uuid {
            self.world.sent.insert(uuid.to_owned(), cid.clone());
        }
        self.world.mempool.push(message.clone());
        self.messages.insert(cid, MessageRecord { message, landed: None, unsaved: true });
        self.commit_messages()?;
        Ok(signed)
    }

    fn commit_messages(&mut self) -> Result<()> {
        self.commit()?;
        for record in self.messages.values_mut().filter(|r| r.unsaved) {
            record.unsaved = false;
        }
        Ok(())
    }

    /// Actor id of one of the node's wallets; a robust address is not needed on a network of one.
    pub fn wallet_id(&self, address: &str) -> Option<u64> {
        let id = address.get(2..).filter(|_| address.starts_with("f0") || address.starts_with("t0"))?.parse().ok()?;
        self.world.accounts.contains_key(&id).then_some(id)
    }
}

/// The devnet's wallets sign with a digest: nobody else has to check it.
fn signed(message: &Message) -> Result<SignedMessage> {
    let mut message = message.clone();
    message.cid = None;
    let cid = CidJson::from(block_cid(&serde_json::to_vec(&message)?));
    let data = BASE64_STANDARD.encode(blake2b_simd::blake2b(&cid.cid.to_bytes()).as_bytes());
    message.cid = Some(cid);
    Ok(SignedMessage { message, signature: Signature { kind: 1, data }, cid })
}
