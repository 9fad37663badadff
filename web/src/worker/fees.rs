//! Senders and fees of messages, and the replacement of those that do not land.

use anyhow::Context;
use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use sealyard_core::{
    capacity::Pool,
    money::{ATTO_PER_NANO, NanoFil},
    sealing::{Message, Purpose, Signed},
};
use sealyard_filecoin::rpc::{self, MessageSendSpec, SignedMessage};

use super::pipeline::miner_address;
use crate::{app::Shared, config::Config};

/// Maximum cost of a message of a kind.
#[must_use]
pub fn most(config: &Config, purpose: Purpose) -> NanoFil {
    match purpose {
        Purpose::PreCommit => config.max_fee_pre_commit,
        Purpose::ProveCommit => config.max_fee_prove_commit,
        Purpose::WindowPost => config.max_fee_window_post,
        Purpose::Recover => config.max_fee_recover,
    }
}

/// Instructions to the node for sending a message. A proof has an hour at most, so it offers its
/// maximum fee at once; it still pays only the base fee.
fn spec(config: &Config, message: &Message) -> MessageSendSpec {
    let purpose = message.purpose;
    MessageSendSpec {
        max_fee: (BigInt::from(most(config, purpose).0) * ATTO_PER_NANO).to_string(),
        msg_uuid: Some(message.uuid.clone()),
        maximize_fee_cap: matches!(purpose, Purpose::WindowPost | Purpose::Recover),
    }
}

/// Proofs and recoveries go from a control address that can pay, so that they do not wait behind
/// sealing; everything else from the worker.
async fn sender(app: &Shared, miner: &Address, message: &Message) -> anyhow::Result<Address> {
    let info = app.node.miner_info(miner).await?;
    let purpose = message.purpose;
    if !matches!(purpose, Purpose::WindowPost | Purpose::Recover) {
        return Ok(info.worker);
    }
    let needed = TokenAmount::from_nano(most(&app.config, purpose).0);
    for address in info.control_addresses() {
        let can = app.node.wallet_has(&address).await.unwrap_or(false);
        if can && app.node.wallet_balance(&address).await? >= needed {
            return Ok(address);
        }
    }
    Ok(info.worker)
}

/// A stored message in the node's form, with its sender but without gas and nonce.
pub async fn unsigned(
    app: &Shared,
    pool: &Pool,
    message: &Message,
) -> anyhow::Result<rpc::Message> {
    let miner = miner_address(pool)?;
    let from = match &message.sender {
        Some(text) => text
            .parse()
            .with_context(|| format!("{text} is no address"))?,
        None => sender(app, &miner, message).await?,
    };
    Ok(rpc::Message {
        version: 0,
        to: miner,
        from,
        nonce: 0,
        value: TokenAmount::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method: u64::try_from(message.method)?,
        params: BASE64_STANDARD.encode(&message.params),
        cid: None,
    })
}

/// Lets the node sign and send a message.
pub async fn send(
    app: &Shared,
    request: &rpc::Message,
    message: &Message,
) -> Result<SignedMessage, rpc::RpcError> {
    app.node.push(request, &spec(&app.config, message)).await
}

/// The part of a signed message that is stored.
#[must_use]
pub fn signed(message: &SignedMessage) -> Signed {
    Signed {
        cid: message.cid.to_string(),
        nonce: i64::try_from(message.message.nonce).unwrap_or(i64::MAX),
        fee_cap_atto: message.message.gas_fee_cap.atto().to_string(),
        premium_atto: message.message.gas_premium.atto().to_string(),
    }
}

/// Nodes replace a message by another if its premium is a quarter higher (Lotus:
/// `ReplaceByFeeRatio`).
const REPLACE_PERCENT: u32 = 125;

/// Sends a message that does not land again, under its nonce and for a higher fee. `None`: it
/// already offers the maximum.
pub async fn replace(
    app: &Shared,
    pool: &Pool,
    message: &Message,
) -> anyhow::Result<Option<SignedMessage>> {
    let amount = |text: &Option<String>| {
        text.as_ref()
            .and_then(|t| t.parse::<BigInt>().ok())
            .map(TokenAmount::from_atto)
    };
    let (Some(fee_cap), Some(premium), Some(nonce)) = (
        amount(&message.fee_cap_atto),
        amount(&message.premium_atto),
        message.nonce,
    ) else {
        return Ok(None);
    };
    let mut request = unsigned(app, pool, message).await?;
    let offer = MessageSendSpec {
        maximize_fee_cap: true,
        ..spec(&app.config, message)
    };
    let estimate = app.node.estimate_gas(&request, &offer).await?;
    let least = (premium * REPLACE_PERCENT).div_floor(100u32) + TokenAmount::from_atto(1);
    let most_per_gas = TokenAmount::from_nano(most(&app.config, message.purpose).0)
        .div_floor(estimate.gas_limit.max(1));
    if most_per_gas < least || (most_per_gas <= fee_cap && estimate.gas_premium < least) {
        return Ok(None);
    }
    request.nonce = u64::try_from(nonce)?;
    request.gas_limit = estimate.gas_limit;
    request.gas_fee_cap = most_per_gas;
    request.gas_premium = estimate.gas_premium.max(least);
    Ok(Some(app.node.replace(&request).await?))
}
