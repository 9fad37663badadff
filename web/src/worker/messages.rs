//! The outbox to the chain: asks whether a stored message is still needed, pushes it, watches it until it is confirmed, acts on it. No
//! message waits for another one.

use anyhow::{Context, ensure};
use sealyard_core::{
    capacity::Pool,
    clock::{DAY, HOUR, Micros, SECOND},
    ids::{PostId, SectorId},
    jobs::{self, AlertKind},
    ledger::LedgerError,
    proving,
    sealing::{self, Landing, Message, MessageState, OnChain, Purpose},
    store::AnyConnection,
};
use sealyard_filecoin::rpc::{self, MsgLookup, RpcError, SignedMessage};

use super::{
    Each, TurnResult,
    chain::base_fee_before,
    fees,
    on_chain::{self, Effect},
    pools,
};
use crate::app::{Shared, read, transact, write};

/// How far back a receipt is looked for beyond the message's age, epochs.
const LOOKBACK: i64 = 2 * 2880;
/// The shortest epoch, so that the look-back is never too short.
const EPOCH_SECONDS: i64 = 30;

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
    let mut all = Each::default();
    // Proofs have an hour at most, the others a day.
    let (proofs, others): (Vec<&Message>, Vec<&Message>) = built.iter().partition(|m| m.purpose == Purpose::WindowPost);
    for message in proofs.into_iter().chain(others) {
        match send(&app, of(message)?, message).await {
            Ok(()) => {}
            Err(error) => match error.downcast_ref::<RpcError>() {
                Some(RpcError::Node { message: text, .. }) => {
                    refused(&app, of(message)?, message, text).await?;
                    all.note(Err(error));
                }
                // The next one would not get there either.
                _ => return Err(error),
            },
        }
    }
    let confirmed = Confirmed::read(&app).await?;
    for message in &pushed {
        if !all.goes_on(watch(&app, of(message)?, message, &confirmed).await) {
            break;
        }
    }
    all.end()
}

/// How far the chain is settled enough to act on receipts.
struct Confirmed {
    head: i64,
    confirmations: i64,
    finalized: i64,
}

impl Confirmed {
    async fn read(app: &Shared) -> anyhow::Result<Self> {
        let head = app.node.chain_head().await?.height;
        // A finalised tipset above the head is no answer.
        let finalized = app.node.finalized().await?.filter(|height| *height <= head);
        Ok(Self { head, confirmations: app.config.confirmations, finalized: finalized.unwrap_or_default() })
    }

    /// An epoch is final, or has its confirmations.
    fn has(&self, epoch: i64) -> bool {
        epoch <= self.finalized || self.head >= epoch + self.confirmations
    }
}

/// A message that the node does not take is tried again for so long before what it is for learns of it.
const PATIENCE: Micros = HOUR;
/// If the wallet or the miner cannot pay, no sector is to blame, and it ends when somebody pays.
const UNPAID_PATIENCE: Micros = DAY;

/// Whether a message that was built some time ago is given up now. A proof always is: it is made into a new message, at a later head.
fn is_given_up(purpose: Purpose, text: &str, waited: Micros) -> bool {
    let unpaid = ["not enough funds", "SysErrInsufficientFunds", "InsufficientFunds", "insufficient funds", "(RetCode=6)"];
    match purpose {
        Purpose::WindowPost => true,
        _ if unpaid.iter().any(|words| text.contains(words)) => waited > UNPAID_PATIENCE,
        _ => waited > PATIENCE,
    }
}

/// The node runs a message before it takes it, and refuses what would fail on chain: perhaps because it has happened already.
async fn refused(app: &Shared, pool: &Pool, message: &Message, text: &str) -> TurnResult {
    if settled(app, pool, message, None).await? {
        return Ok(());
    }
    let (message, text, now) = (message.clone(), text.to_owned(), app.now());
    let given_up = is_given_up(message.purpose, &text, now - message.created_at);
    tracing::error!(purpose = %message.purpose, text, given_up, "the node does not accept a message");
    transact(app, move |conn| {
        if given_up {
            let why = format!("the node does not accept its {}: {text}", message.purpose.words());
            give_up(conn, &message, &why, now)
        } else {
            Ok(sealing::refused(conn, message.id, &text)?)
        }
    })
    .await?;
    Ok(())
}

/// A message is over without effect: what it was for decides anew.
fn give_up(conn: &mut AnyConnection, message: &Message, why: &str, now: Micros) -> Result<(), LedgerError> {
    jobs::clear(conn, AlertKind::Message, &message.uuid)?;
    if !sealing::give_up(conn, message.id, why, now)? {
        return Ok(());
    }
    match message.purpose {
        Purpose::WindowPost => proving::landed(conn, PostId(message.subject_id), REFUSED)?,
        Purpose::PreCommit | Purpose::ProveCommit => {
            let sector = sealing::sector_by_id(conn, SectorId(message.subject_id))?;
            let fact = OnChain::MessageFailed { reason: why.to_owned() };
            sealing::mark_on_chain(conn, sector, fact, now)?;
        }
        Purpose::Recover => {}
    }
    Ok(())
}

/// As an exit code: it has not been run on chain.
const REFUSED: i64 = -1;

/// Asks the chain about what a message is for. True: it has happened, or cannot any more, and that is recorded.
/// `landing`: its receipt, if it failed on chain; its gas was paid all the same.
async fn settled(app: &Shared, pool: &Pool, message: &Message, landing: Option<&Landing>) -> anyhow::Result<bool> {
    let (fact, adopted) = match on_chain::effect(app, pool, message).await? {
        Effect::Open => return Ok(false),
        Effect::Done(fact) => (fact, true),
        Effect::Moot(fact) => (Some(fact), false),
    };
    let (message, landing, now) = (message.clone(), landing.cloned(), app.now());
    tracing::info!(purpose = %message.purpose, ?fact, adopted, "the chain has already settled a message");
    transact(app, move |conn| {
        jobs::clear(conn, AlertKind::Message, &message.uuid)?;
        let won = if adopted {
            sealing::adopted(conn, message.id, landing.as_ref(), now)?
        } else if let Some(landing) = &landing {
            landed(conn, &message, landing, now)?
        } else {
            sealing::give_up(conn, message.id, "the chain has changed, and the message is no longer needed", now)?
        };
        if !won {
            return Ok(());
        }
        if message.purpose == Purpose::WindowPost {
            proving::landed(conn, PostId(message.subject_id), 0)?;
        }
        if let Some(fact) = &fact {
            let sector = sealing::sector_by_id(conn, SectorId(message.subject_id))?;
            sealing::mark_on_chain(conn, sector, fact.clone(), now)?;
        }
        Ok::<_, LedgerError>(())
    })
    .await?;
    Ok(true)
}

/// So long after a push was tried other nodes' mempools have what it came to.
const GOSSIP: Micros = 60 * SECOND;

async fn send(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    if settled(app, pool, message, None).await? {
        return Ok(());
    }
    let request = fees::unsigned(app, pool, message).await?;
    let (id, now, sender) = (message.id, app.now(), request.from.to_string());
    if let Some(tried_at) = message.tried_at {
        // The answer was lost, or the node forgot: it may be on its way all the same.
        if let Some(waiting) = waiting(app, &request).await? {
            return sent(app, message, &waiting).await;
        }
        if !app.node.is_first() && now - tried_at < GOSSIP {
            return Ok(());
        }
    }
    write(app, move |conn| sealing::tried(conn, id, &sender, now)).await?;
    let signed = fees::send(app, &request, message).await?;
    if !is_same(app, &request, &signed.message).await? {
        let (id, uuid) = (message.id, message.uuid.clone());
        tracing::error!(uuid, cid = %signed.cid, "the node has another message under this identity; ours gets a new one");
        write(app, move |conn| sealing::renew_identity(conn, id, now)).await?;
        return Ok(());
    }
    sent(app, message, &signed).await
}

async fn sent(app: &Shared, message: &Message, signed: &SignedMessage) -> TurnResult {
    let (id, kept, now) = (message.id, fees::signed(signed), app.now());
    tracing::info!(purpose = %message.purpose, cid = %signed.cid, nonce = kept.nonce, "message pushed");
    write(app, move |conn| sealing::pushed(conn, id, &kept, now)).await?;
    Ok(())
}

/// The message of the mempool that does what this one is to do.
async fn waiting(app: &Shared, request: &rpc::Message) -> anyhow::Result<Option<SignedMessage>> {
    for signed in app.node.mempool().await? {
        if signed.message.method == request.method && is_same(app, request, &signed.message).await? {
            return Ok(Some(signed));
        }
    }
    Ok(None)
}

/// Whether a message does what was asked for. Messages that were signed name their sender by its key.
async fn is_same(app: &Shared, request: &rpc::Message, found: &rpc::Message) -> anyhow::Result<bool> {
    let does = |m: &rpc::Message| (m.to, m.method, m.params.clone(), m.value.clone());
    if does(request) != does(found) {
        return Ok(false);
    }
    Ok(request.from == found.from || app.node.account_key(&request.from).await? == app.node.account_key(&found.from).await?)
}

async fn watch(app: &Shared, pool: &Pool, message: &Message, confirmed: &Confirmed) -> TurnResult {
    let cid = message.cid.as_deref().context("a pushed message without a CID")?;
    let age = (app.now() - message.changed_at) / SECOND / EPOCH_SECONDS;
    let Some(found) = app.node.search_message(cid, age.max(0) + LOOKBACK).await? else {
        return silent(app, pool, message).await;
    };
    // The head is provisional: what landed a moment ago may land elsewhere.
    if !confirmed.has(found.height) {
        return Ok(());
    }
    // Somebody may have replaced it: by one with more gas, or by one that does something else.
    let cid = found.message.cid.to_string();
    let sent = app.node.message(&cid).await?;
    if !is_same(app, &fees::unsigned(app, pool, message).await?, &sent).await? {
        tracing::error!(purpose = %message.purpose, %cid, "another message took our message's nonce");
        let (message, now) = (message.clone(), app.now());
        transact(app, move |conn| give_up(conn, &message, "another message took its nonce", now)).await?;
        return Ok(());
    }
    let landing = landing(app, &sent, &found).await?;
    if found.receipt.exit_code != 0 {
        tracing::error!(purpose = %message.purpose, %cid, exit_code = found.receipt.exit_code, "message failed on chain");
        if settled(app, pool, message, Some(&landing)).await? {
            return Ok(());
        }
    }
    match message.purpose {
        Purpose::WindowPost => post_landed(app, message, landing).await,
        purpose @ (Purpose::PreCommit | Purpose::ProveCommit) => sector_landed(app, pool, message, landing, purpose).await,
        Purpose::Recover => record(app, message, landing).await,
    }
}

/// Nothing is heard of a message: perhaps another one did it, or the node dropped it, or it offers too little.
async fn silent(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    let now = app.now();
    let patience = app.config.stuck_after_s * SECOND * if message.purpose == Purpose::WindowPost { 1 } else { 4 };
    if now - message.changed_at < patience || settled(app, pool, message, None).await? {
        return Ok(());
    }
    let replaced = fees::replace(app, pool, message).await;
    let text = match &replaced {
        Ok(Some(signed)) => {
            tracing::warn!(purpose = %message.purpose, cid = %signed.cid, "a message did not land; sent again for a higher fee");
            sent(app, message, signed).await?;
            format!("did not land under nonce {} and was sent again with a higher fee", message.nonce.unwrap_or_default())
        }
        Ok(None) => format!(
            "does not land under nonce {} although it already offers the maximum fee ({} FIL); raise max_fee_{}",
            message.nonce.unwrap_or_default(),
            fees::most(&app.config, message.purpose),
            message.purpose
        ),
        Err(error) => format!("does not land, and cannot be sent again with a higher fee: {error:#}"),
    };
    let (uuid, purpose) = (message.uuid.clone(), message.purpose.words());
    let text = format!("{purpose} message {} {text}", message.cid.as_deref().unwrap_or_default());
    write(app, move |conn| jobs::raise(conn, AlertKind::Message, &uuid, &text, now)).await?;
    replaced.map(drop)
}

/// The receipt, with what its gas cost.
async fn landing(app: &Shared, sent: &rpc::Message, found: &MsgLookup) -> anyhow::Result<Landing> {
    let base_fee = base_fee_before(app, found.height).await?;
    let receipt = &found.receipt;
    ensure!(
        u32::try_from(receipt.exit_code).is_ok() && receipt.gas_used >= 0 && sent.gas_limit >= receipt.gas_used,
        "the node says that message {} ended with exit code {} and {} of {} gas; \
         that is impossible, and nothing is recorded until the answer changes",
        found.message,
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
    let (message, now) = (message.clone(), app.now());
    write(app, move |conn| landed(conn, &message, &landing, now).map(drop)).await?;
    Ok(())
}

/// Records a receipt, once.
fn landed(conn: &mut AnyConnection, message: &Message, landing: &Landing, now: Micros) -> Result<bool, diesel::result::Error> {
    jobs::clear(conn, AlertKind::Message, &message.uuid)?;
    sealing::landed(conn, message.id, landing, now)
}

async fn post_landed(app: &Shared, message: &Message, landing: Landing) -> TurnResult {
    let (message, now) = (message.clone(), app.now());
    transact(app, move |conn| {
        let post = PostId(message.subject_id);
        // A message that landed before the window opened is another window's, whatever the node says.
        if landing.epoch < proving::by_id(conn, post)?.open_epoch {
            return give_up(conn, &message, "it landed before its window opened", now);
        }
        if landed(conn, &message, &landing, now)? {
            proving::landed(conn, post, landing.exit_code)?;
        }
        Ok::<_, LedgerError>(())
    })
    .await?;
    Ok(())
}

/// The receipt and what the chain says of the sector are recorded together.
async fn sector_landed(app: &Shared, pool: &Pool, message: &Message, landing: Landing, purpose: Purpose) -> TurnResult {
    let fact = if landing.exit_code == 0 {
        match on_chain::effect(app, pool, message).await? {
            Effect::Done(Some(fact)) | Effect::Moot(fact) => fact,
            Effect::Done(None) | Effect::Open => {
                anyhow::bail!(
                    "{} of sector row {} has landed, but the node does not show its effect yet",
                    purpose.name(),
                    message.subject_id
                )
            }
        }
    } else {
        OnChain::MessageFailed { reason: format!("{} exit code {}", purpose.name(), landing.exit_code) }
    };
    let (message, now) = (message.clone(), app.now());
    transact(app, move |conn| {
        if landed(conn, &message, &landing, now)? {
            let sector = sealing::sector_by_id(conn, SectorId(message.subject_id))?;
            sealing::mark_on_chain(conn, sector, fact.clone(), now)?;
        }
        Ok::<_, LedgerError>(())
    })
    .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receipt_counts_when_it_is_final_or_has_its_confirmations() {
        let confirmed = Confirmed { head: 100, confirmations: 5, finalized: 97 };
        assert_eq!([95, 97, 98, 100].map(|epoch| confirmed.has(epoch)), [true, true, false, false]);
        // The node does not tell.
        let confirmed = Confirmed { finalized: 0, ..confirmed };
        assert_eq!([95, 96, 97].map(|epoch| confirmed.has(epoch)), [true, false, false]);
    }

    #[test]
    fn patience_with_a_refused_message_depends_on_its_cause_and_purpose() {
        let old_ticket = "message execution failed: exit 16, reason: ticket too old";
        let poor = "mpool push: not enough funds: 0.1 FIL";
        let sectors = Purpose::PreCommit;
        assert_eq!([0, PATIENCE + 1].map(|waited| is_given_up(sectors, old_ticket, waited)), [false, true]);
        assert_eq!([PATIENCE + 1, DAY + 1].map(|waited| is_given_up(sectors, poor, waited)), [false, true]);
        assert!(is_given_up(Purpose::WindowPost, old_ticket, 0));
    }
}
