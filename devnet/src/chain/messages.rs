//! The mempool: estimating, signing, queueing and replacing messages.

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use sealyard_filecoin::rpc::{CidJson, Message, MessageSendSpec, Signature, SignedMessage};

use crate::{
    miner,
    state::{Chain, MessageRecord, block_cid},
};

/// Gas limit over expected use, in hundredths (Lotus' default over-estimation).
const LIMIT_HUNDREDTHS: i64 = 125;
/// attoFIL per gas unit.
const PREMIUM: i64 = 100_000;

#[derive(Debug, thiserror::Error)]
pub enum PushError {
    #[error("{0} is no wallet of this node")]
    UnknownSender(String),
    #[error("nonce must be 0: the node assigns it")]
    Nonce,
    #[error("params are not base64: {0}")]
    Params(String),
    #[error(
        "wallet {wallet} holds {balance} attoFIL, the message may cost {needed}; send it funds"
    )]
    Funds {
        wallet: String,
        balance: String,
        needed: String,
    },
    #[error(
        "a message with this nonce waits already; replacing it takes a premium of {least} attoFIL"
    )]
    Premium { least: String },
    #[error(transparent)]
    Broken(#[from] anyhow::Error),
}

impl Chain {
    /// Fills in gas like `GasEstimateMessageGas`. The fee stays within the specification's maximum,
    /// and uses all of it if `maximize_fee_cap` is set.
    pub fn estimate(&self, message: &Message, spec: &MessageSendSpec) -> Message {
        let mut message = message.clone();
        if message.gas_limit == 0 {
            message.gas_limit = miner::gas_of(&message) * LIMIT_HUNDREDTHS / 100;
        }
        if message.gas_premium.is_zero() {
            message.gas_premium = TokenAmount::from_atto(PREMIUM);
        }
        let wanted = TokenAmount::from_atto(2 * self.world.base_fee + PREMIUM);
        let allowed = spec
            .max_fee
            .parse::<BigInt>()
            .ok()
            .filter(|fee| *fee > BigInt::from(0))
            .map(TokenAmount::from_atto);
        let most = allowed.map(|fee| fee.div_floor(message.gas_limit.max(1)));
        if message.gas_fee_cap.is_zero() {
            message.gas_fee_cap = match most {
                Some(most) if spec.maximize_fee_cap => most,
                Some(most) => wanted.min(most),
                None => wanted,
            };
        }
        message.gas_premium = message.gas_premium.min(message.gas_fee_cap.clone());
        message
    }

    /// Signs and queues a message, or returns the one already sent under the same UUID.
    pub fn push(
        &mut self,
        message: &Message,
        spec: &MessageSendSpec,
    ) -> Result<SignedMessage, PushError> {
        let uuid = spec.msg_uuid.as_deref();
        if let Some(earlier) = uuid
            .and_then(|uuid| self.world.sent.get(uuid))
            .and_then(|cid| self.messages.get(cid))
        {
            return signed(&earlier.message).map_err(PushError::from);
        }
        if message.nonce != 0 {
            return Err(PushError::Nonce);
        }
        BASE64_STANDARD
            .decode(&message.params)
            .map_err(|error| PushError::Params(error.to_string()))?;
        let wallet = self.wallet_of(message)?;
        let mut message = self.estimate(message, spec);
        self.check_funds(&message)?;
        let account = self.world.accounts.entry(wallet).or_default();
        message.nonce = account.nonce;
        account.nonce += 1;
        let signed = self.queue(message)?;
        if let Some(uuid) = uuid {
            self.world
                .sent
                .insert(uuid.to_owned(), signed.cid.to_string());
        }
        self.commit_messages()?;
        Ok(signed)
    }

    /// Queues a message that its sender has signed. It may replace a waiting message with the same
    /// nonce if its premium is a quarter higher.
    pub fn push_signed(&mut self, sent: &SignedMessage) -> Result<CidJson, PushError> {
        let wallet = self.wallet_of(&sent.message)?;
        let same = |m: &Message| m.from == sent.message.from && m.nonce == sent.message.nonce;
        if let Some(waiting) = self.world.mempool.iter().find(|m| same(m)) {
            let least =
                (&waiting.gas_premium * 125u32).div_floor(100u32) + TokenAmount::from_atto(1);
            if sent.message.gas_premium < least {
                return Err(PushError::Premium {
                    least: least.atto().to_string(),
                });
            }
        }
        self.check_funds(&sent.message)?;
        self.world.mempool.retain(|m| !same(m));
        let account = self.world.accounts.entry(wallet).or_default();
        account.nonce = account.nonce.max(sent.message.nonce + 1);
        let cid = self.queue(sent.message.clone())?.cid;
        self.commit_messages()?;
        Ok(cid)
    }

    fn queue(&mut self, mut message: Message) -> Result<SignedMessage> {
        let signed = signed(&message)?;
        message.cid = Some(signed.cid);
        self.world.mempool.push(message.clone());
        self.messages.insert(
            signed.cid.to_string(),
            MessageRecord {
                message,
                landed: None,
                unsaved: true,
            },
        );
        Ok(signed)
    }

    /// Signs a message with one of the node's wallets, without sending it.
    pub fn sign(&self, message: &Message) -> Result<SignedMessage, PushError> {
        self.wallet_of(message)?;
        Ok(signed(message)?)
    }

    fn wallet_of(&self, message: &Message) -> Result<u64, PushError> {
        self.wallet_id(&message.from.to_string())
            .ok_or_else(|| PushError::UnknownSender(message.from.to_string()))
    }

    fn check_funds(&self, message: &Message) -> Result<(), PushError> {
        let needed = &message.value + &message.gas_fee_cap * message.gas_limit;
        let wallet = self.wallet_of(message)?;
        let balance = self
            .world
            .accounts
            .get(&wallet)
            .map(|account| account.balance.clone())
            .unwrap_or_default();
        if balance >= needed {
            return Ok(());
        }
        let (balance, needed) = (balance.atto().to_string(), needed.atto().to_string());
        Err(PushError::Funds {
            wallet: message.from.to_string(),
            balance,
            needed,
        })
    }

    pub(super) fn commit_messages(&mut self) -> Result<()> {
        self.commit()?;
        for record in self.messages.values_mut().filter(|r| r.unsaved) {
            record.unsaved = false;
        }
        Ok(())
    }
}

/// The devnet's wallets sign with a digest: nobody verifies the signatures.
fn signed(message: &Message) -> Result<SignedMessage> {
    let mut message = message.clone();
    message.cid = None;
    let cid = CidJson::from(block_cid(&serde_json::to_vec(&message)?));
    let data = BASE64_STANDARD.encode(blake2b_simd::blake2b(&cid.cid.to_bytes()).as_bytes());
    message.cid = Some(cid);
    Ok(SignedMessage {
        message,
        signature: Signature { kind: 1, data },
        cid,
    })
}
