//! The outbox to the chain: pushes stored messages, watches them to their receipt, acts on it.

use anyhow::{Context, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{address::Address, econ::TokenAmount};
use sealyard_core::{
    capacity::Pool,
    ids::{PostId, SectorId},
    ledger::LedgerError,
    proving,
    sealing::{self, Activation, Landing, Message, MessageState, OnChain, Purpose},
    store::DbFault,
};
use sealyard_filecoin::rpc::{self, MsgLookup};

use super::{TurnResult, block_rewards::base_fee_before, pipeline::miner_address, pools};
use crate::app::{Shared, read, transact};

/// How far back a receipt is looked for, epochs.
const LOOKBACK: i64 = 2 * 2880;

pub async fn turn(app: Shared) -> TurnResult {
    let (built, pushed) = read(&app, |conn| {
        Ok((sealing::messages_in_state(conn, MessageState::Built)?, sealing::messages_in_state(conn, MessageState::Pushed)?))
    })
    .await?;
    if built.is_empty() && pushed.is_empty() {
        return Ok(());
    }
    let pools = pools(&app).await?;
    let of = |message: &Message| pools.iter().find(|p| p.id == message.pool_id).context("the message's pool is gone");
    for message in &built {
        push(&app, of(message)?, message).await?;
    }
    for message in &pushed {
        watch(&app, of(message)?, message).await?;
    }
    Ok(())
}

async fn push(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    let miner = miner_address(pool)?;
    let worker: Address = app.node.miner_info(&miner).await?.worker;
    let request = rpc::Message {
        version: 0,
        to: miner,
        from: worker,
        nonce: 0,
        value: TokenAmount::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method: u64::try_from(message.method)?,
        params: BASE64_STANDARD.encode(&message.params),
        cid: None,
    };
    let signed = app.node.push(&request, &message.uuid).await?;
    let (id, cid, now) = (message.id, signed.cid.to_string(), app.now());
    tracing::info!(purpose = message.purpose, %cid, "message pushed");
    transact(app, move |conn| Ok::<_, DbFault>(sealing::pushed(conn, id, &cid, now)?)).await?;
    Ok(())
}

async fn watch(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    let cid = message.cid.as_deref().context("a pushed message without a CID")?;
    let Some(found) = app.node.search_message(cid, LOOKBACK).await? else { return Ok(()) };
    if found.receipt.exit_code != 0 {
        tracing::error!(purpose = message.purpose, %cid, exit_code = found.receipt.exit_code, "message failed on chain");
    }
    let landing = landing(app, cid, &found).await?;
    match message.purpose.as_str() {
        "window_post" => post_landed(app, message, landing).await,
        "pre_commit" => sector_landed(app, pool, message, landing, Purpose::PreCommit).await,
        "prove_commit" => sector_landed(app, pool, message, landing, Purpose::ProveCommit).await,
        _ => record(app, message, landing).await,
    }
}

/// The receipt, with what its gas cost.
async fn landing(app: &Shared, cid: &str, found: &MsgLookup) -> anyhow::Result<Landing> {
    let sent = app.node.message(cid).await?;
    let base_fee = base_fee_before(app, found.height).await?;
    let receipt = &found.receipt;
    ensure!(
        u32::try_from(receipt.exit_code).is_ok() && receipt.gas_used >= 0 && sent.gas_limit >= receipt.gas_used,
        "the node says that message {cid} ended with exit code {} and {} of {} gas; nothing is recorded until that can be",
        receipt.exit_code,
        receipt.gas_used,
        sent.gas_limit
    );
    let cost = sent.gas_offer().cost(receipt.gas_used, &base_fee);
    Ok(Landing {
        epoch: found.height,
        exit_code: receipt.exit_code,
        gas_used: receipt.gas_used,
        burnt_atto: cost.burnt.atto().to_string(),
        tip_atto: cost.tip.atto().to_string(),
    })
}

async fn record(app: &Shared, message: &Message, landing: Landing) -> TurnResult {
    let (id, now) = (message.id, app.now());
    transact(app, move |conn| Ok::<_, DbFault>(sealing::landed(conn, id, &landing, now)?)).await?;
    Ok(())
}

async fn post_landed(app: &Shared, message: &Message, landing: Landing) -> TurnResult {
    let (id, post, now) = (message.id, PostId(message.subject_id), app.now());
    transact(app, move |conn| {
        if sealing::landed(conn, id, &landing, now)? {
            proving::landed(conn, post, landing.exit_code)?;
        }
        Ok::<_, DbFault>(())
    })
    .await?;
    Ok(())
}

/// The receipt and what the chain says of the sector are recorded together.
async fn sector_landed(app: &Shared, pool: &Pool, message: &Message, landing: Landing, purpose: Purpose) -> TurnResult {
    let id = SectorId(message.subject_id);
    let sector = read(app, move |conn| sealing::sector_by_id(conn, id)).await?;
    let failed = || OnChain::MessageFailed { purpose, reason: format!("{} exit code {}", purpose.name(), landing.exit_code) };
    let fact = match purpose {
        _ if landing.exit_code != 0 => failed(),
        Purpose::PreCommit => pre_committed(app, pool, sector.number).await?,
        _ => activated(app, pool, sector.number).await?,
    };
    let (message_id, now) = (message.id, app.now());
    transact(app, move |conn| {
        if sealing::landed(conn, message_id, &landing, now)? {
            let sector = sealing::sector_by_id(conn, id)?;
            sealing::mark_on_chain(conn, sector, fact.clone(), now)?;
        }
        Ok::<_, LedgerError>(())
    })
    .await?;
    Ok(())
}

async fn pre_committed(app: &Shared, pool: &Pool, number: i64) -> anyhow::Result<OnChain> {
    let info = app.node.pre_commit_info(&miner_address(pool)?, u64::try_from(number)?, &Vec::new()).await?;
    let info = info.with_context(|| format!("sector {number}: the PreCommit landed, but the node does not know it yet"))?;
    let delay = app.node.network_params().await?.pre_commit_challenge_delay;
    Ok(OnChain::PreCommitted { seed_epoch: info.pre_commit_epoch + delay })
}

async fn activated(app: &Shared, pool: &Pool, number: i64) -> anyhow::Result<OnChain> {
    let miner = miner_address(pool)?;
    let on_chain = u64::try_from(number)?;
    let unknown = || format!("sector {number}: the ProveCommit landed, but the node does not know the sector yet");
    let info = app.node.sector_info(&miner, on_chain, &Vec::new()).await?.with_context(unknown)?;
    let location = app.node.sector_location(&miner, on_chain, &Vec::new()).await?.with_context(unknown)?;
    let expiration = app.node.sector_expiration(&miner, on_chain).await?.on_time;
    Ok(OnChain::Activated(Activation {
        activation: info.activation,
        expiration,
        deadline: i64::try_from(location.deadline)?,
        partition: i64::try_from(location.partition)?,
    }))
}
