//! The outbox to the chain. A stored message that is still needed is pushed, watched until it is
//! confirmed, and acted on. No message waits for another one.

use anyhow::{Context, ensure};
use sealyard_core::{
    capacity::Pool,
    clock::{DAY, HOUR, Micros, SECOND},
    ids::{PostId, SectorId},
    jobs::{self, AlertKind},
    ledger::LedgerError,
    proving,
    sealing::{self, Landing, Message, MessageState, OnChain, Purpose},
    store::{AnyConnection, DbResult},
};
use sealyard_filecoin::{
    economics::EPOCHS_PER_DAY,
    rpc::{self, MsgLookup, RpcError, SignedMessage},
};

use super::{
    Each, TurnResult,
    chain::base_fee_before,
    fees,
    on_chain::{self, Effect},
    pools,
};
use crate::app::{Shared, read, transact, write};

/// Epochs beyond the message's age in which its receipt is searched.
const LOOKBACK: i64 = 2 * EPOCHS_PER_DAY;

pub async fn turn(app: Shared) -> TurnResult {
    let (built, pushed) = read(&app, |conn| {
        Ok((
            sealing::messages_in_state(conn, MessageState::Built)?,
            sealing::messages_in_state(conn, MessageState::Pushed)?,
        ))
    })
    .await?;
    if built.is_empty() && pushed.is_empty() {
        return Ok(());
    }
    let pools = pools(&app).await?;
    let of = |message: &Message| {
        pools
            .iter()
            .find(|p| p.id == message.pool_id)
            .context("the message's pool is gone")
    };
    let mut all = Each::default();
    // Proofs go first: they have an hour at most, the others a day.
    let (proofs, others): (Vec<&Message>, Vec<&Message>) =
        built.iter().partition(|m| m.purpose == Purpose::WindowPost);
    for message in proofs.into_iter().chain(others) {
        all.note(send_or_note_refusal(&app, of(message)?, message).await?);
    }
    let confirmed = Confirmed::read(&app).await?;
    for message in &pushed {
        if !all.goes_on(watch(&app, of(message)?, message, &confirmed).await) {
            break;
        }
    }
    all.end()
}

/// Sends a message. The inner error: the node refuses this message. The outer one: the node does
/// not answer, so the next message would not arrive either.
async fn send_or_note_refusal(
    app: &Shared,
    pool: &Pool,
    message: &Message,
) -> anyhow::Result<TurnResult> {
    let Err(error) = send(app, pool, message).await else {
        return Ok(Ok(()));
    };
    let Some(RpcError::Node { message: text, .. }) = error.downcast_ref::<RpcError>() else {
        return Err(error);
    };
    refused(app, pool, message, text).await?;
    Ok(Err(error))
}

/// The part of the chain that is settled enough to act on receipts.
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
        Ok(Self {
            head,
            confirmations: app.config.confirmations,
            finalized: finalized.unwrap_or_default(),
        })
    }

    /// True for an epoch that is final or has its confirmations.
    fn has(&self, epoch: i64) -> bool {
        epoch <= self.finalized || self.head >= epoch + self.confirmations
    }
}

/// A message that the node refuses is tried again for this long. Then its purpose has failed.
const PATIENCE: Micros = HOUR;
/// The same if the wallet or the miner cannot pay: no sector is to blame, and somebody can pay.
const UNPAID_PATIENCE: Micros = DAY;

/// Whether a refused message is given up after it has waited this long. A proof always is: it goes
/// into a new message at a later head.
fn is_given_up(purpose: Purpose, text: &str, waited: Micros) -> bool {
    let unpaid = [
        "not enough funds",
        "SysErrInsufficientFunds",
        "InsufficientFunds",
        "insufficient funds",
        "(RetCode=6)",
    ];
    match purpose {
        Purpose::WindowPost => true,
        _ if unpaid.iter().any(|words| text.contains(words)) => waited > UNPAID_PATIENCE,
        _ => waited > PATIENCE,
    }
}

/// The node runs a message before it accepts it, and refuses one that would fail on chain. Perhaps
/// its purpose has been achieved already.
async fn refused(app: &Shared, pool: &Pool, message: &Message, text: &str) -> TurnResult {
    if settled(app, pool, message, None).await? {
        return Ok(());
    }
    let (message, text, now) = (message.clone(), text.to_owned(), app.now());
    let given_up = is_given_up(message.purpose, &text, now - message.created_at);
    tracing::error!(
        purpose = %message.purpose,
        text,
        given_up,
        "the node does not accept a message"
    );
    transact(app, move |conn| {
        if given_up {
            let why = format!(
                "the node does not accept its {}: {text}",
                message.purpose.words()
            );
            give_up(conn, &message, &why, now)
        } else {
            Ok(sealing::refused(conn, message.id, &text)?)
        }
    })
    .await?;
    Ok(())
}

/// Ends a message without effect. Its purpose is decided anew.
fn give_up(
    conn: &mut AnyConnection,
    message: &Message,
    why: &str,
    now: Micros,
) -> Result<(), LedgerError> {
    jobs::clear(conn, AlertKind::Message, &message.uuid)?;
    if !sealing::give_up(conn, message.id, why, now)? {
        return Ok(());
    }
    match message.purpose {
        Purpose::WindowPost => proving::landed(conn, PostId(message.subject_id), REFUSED)?,
        Purpose::PreCommit | Purpose::ProveCommit => {
            let sector = sealing::sector_by_id(conn, SectorId(message.subject_id))?;
            let fact = OnChain::MessageFailed {
                reason: why.to_owned(),
            };
            sealing::mark_on_chain(conn, sector, fact, now)?;
        }
        Purpose::Recover => {}
    }
    Ok(())
}

/// Stands for an exit code when the message was never run on chain.
const REFUSED: i64 = -1;

/// Asks the chain about a message's purpose. True: it has been achieved or has become impossible,
/// and that is recorded. `landing`: the receipt, if the message failed on chain. Its gas was paid
/// all the same.
async fn settled(
    app: &Shared,
    pool: &Pool,
    message: &Message,
    landing: Option<&Landing>,
) -> anyhow::Result<bool> {
    let (fact, adopted) = match on_chain::effect(app, pool, message).await? {
        Effect::Open => return Ok(false),
        Effect::Done(fact) => (fact, true),
        Effect::Moot(fact) => (Some(fact), false),
    };
    tracing::info!(
        purpose = %message.purpose,
        ?fact,
        adopted,
        "the chain has already settled a message"
    );
    let (message, landing, now) = (message.clone(), landing.cloned(), app.now());
    transact(app, move |conn| {
        if !end_settled(conn, &message, adopted, landing.as_ref(), now)? {
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

/// Ends a message whose purpose the chain has settled. False if it had ended before.
fn end_settled(
    conn: &mut AnyConnection,
    message: &Message,
    adopted: bool,
    landing: Option<&Landing>,
    now: Micros,
) -> DbResult<bool> {
    jobs::clear(conn, AlertKind::Message, &message.uuid)?;
    if adopted {
        return sealing::adopted(conn, message.id, landing, now);
    }
    match landing {
        Some(landing) => landed(conn, message, landing, now),
        None => sealing::give_up(
            conn,
            message.id,
            "the chain has changed, and the message is no longer needed",
            now,
        ),
    }
}

/// After this time other nodes' mempools have a message whose push was tried, if it got through.
const GOSSIP: Micros = 60 * SECOND;

async fn send(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    if settled(app, pool, message, None).await? {
        return Ok(());
    }
    let request = fees::unsigned(app, pool, message).await?;
    let (id, now, sender) = (message.id, app.now(), request.from.to_string());
    if let Some(tried_at) = message.tried_at {
        // The answer was lost, or the node forgot it. The message may be on its way all the same.
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
        tracing::error!(
            uuid,
            cid = %signed.cid,
            "the node has another message under this identity; ours gets a new one"
        );
        write(app, move |conn| sealing::renew_identity(conn, id, now)).await?;
        return Ok(());
    }
    sent(app, message, &signed).await
}

async fn sent(app: &Shared, message: &Message, signed: &SignedMessage) -> TurnResult {
    let (id, kept, now) = (message.id, fees::signed(signed), app.now());
    tracing::info!(
        purpose = %message.purpose,
        cid = %signed.cid,
        nonce = kept.nonce,
        "message pushed"
    );
    write(app, move |conn| sealing::pushed(conn, id, &kept, now)).await?;
    Ok(())
}

/// The message in the mempool that does the same as this one.
async fn waiting(app: &Shared, request: &rpc::Message) -> anyhow::Result<Option<SignedMessage>> {
    for signed in app.node.mempool().await? {
        if signed.message.method == request.method && is_same(app, request, &signed.message).await?
        {
            return Ok(Some(signed));
        }
    }
    Ok(None)
}

/// Whether a message does what was requested. Signed messages name their sender by its key.
async fn is_same(
    app: &Shared,
    request: &rpc::Message,
    found: &rpc::Message,
) -> anyhow::Result<bool> {
    let does = |m: &rpc::Message| (m.to, m.method, m.params.clone(), m.value.clone());
    if does(request) != does(found) {
        return Ok(false);
    }
    Ok(request.from == found.from
        || app.node.account_key(&request.from).await? == app.node.account_key(&found.from).await?)
}

async fn watch(app: &Shared, pool: &Pool, message: &Message, confirmed: &Confirmed) -> TurnResult {
    let cid = message
        .cid
        .as_deref()
        .context("a pushed message without a CID")?;
    let age = (app.now() - message.changed_at) / SECOND / app.epoch_seconds().await;
    let Some(found) = app.node.search_message(cid, age.max(0) + LOOKBACK).await? else {
        return silent(app, pool, message).await;
    };
    // The head is provisional: a message that landed a moment ago may land elsewhere.
    if !confirmed.has(found.height) {
        return Ok(());
    }
    // Somebody may have replaced it, with more gas or with a message that does something else.
    let cid = found.message.cid.to_string();
    let sent = app.node.message(&cid).await?;
    if !is_same(app, &fees::unsigned(app, pool, message).await?, &sent).await? {
        tracing::error!(
            purpose = %message.purpose,
            %cid,
            "another message took our message's nonce"
        );
        let (message, now) = (message.clone(), app.now());
        transact(app, move |conn| {
            give_up(conn, &message, "another message took its nonce", now)
        })
        .await?;
        return Ok(());
    }
    let landing = landing(app, &sent, &found).await?;
    if found.receipt.exit_code != 0 {
        tracing::error!(
            purpose = %message.purpose,
            %cid,
            exit_code = found.receipt.exit_code,
            "message failed on chain"
        );
        if settled(app, pool, message, Some(&landing)).await? {
            return Ok(());
        }
    }
    match message.purpose {
        Purpose::WindowPost => post_landed(app, message, landing).await,
        purpose @ (Purpose::PreCommit | Purpose::ProveCommit) => {
            sector_landed(app, pool, message, landing, purpose).await
        }
        Purpose::Recover => record(app, message, landing).await,
    }
}

/// Acts on a message of which nothing is heard: perhaps another one did the same, or the node
/// dropped it, or it offers too little.
async fn silent(app: &Shared, pool: &Pool, message: &Message) -> TurnResult {
    let now = app.now();
    let factor = if message.purpose == Purpose::WindowPost {
        1
    } else {
        4
    };
    let patience = app.config.stuck_after_s * SECOND * factor;
    if now - message.changed_at < patience || settled(app, pool, message, None).await? {
        return Ok(());
    }
    let replaced = fees::replace(app, pool, message).await;
    if let Ok(Some(signed)) = &replaced {
        tracing::warn!(
            purpose = %message.purpose,
            cid = %signed.cid,
            "a message did not land; sent again for a higher fee"
        );
        sent(app, message, signed).await?;
    }
    let uuid = message.uuid.clone();
    let text = format!(
        "{} message {} {}",
        message.purpose.words(),
        message.cid.as_deref().unwrap_or_default(),
        stuck_text(app, message, &replaced)
    );
    write(app, move |conn| {
        jobs::raise(conn, AlertKind::Message, &uuid, &text, now)
    })
    .await?;
    replaced.map(drop)
}

/// The alert's words about a message that does not land.
fn stuck_text(
    app: &Shared,
    message: &Message,
    replaced: &anyhow::Result<Option<SignedMessage>>,
) -> String {
    let nonce = message.nonce.unwrap_or_default();
    match replaced {
        Ok(Some(_)) => {
            format!("did not land under nonce {nonce} and was sent again with a higher fee")
        }
        Ok(None) => format!(
            "does not land under nonce {nonce} although it already offers the maximum fee \
             ({} FIL); raise max_fee_{}",
            fees::most(&app.config, message.purpose),
            message.purpose
        ),
        Err(error) => {
            format!("does not land, and cannot be sent again with a higher fee: {error:#}")
        }
    }
}

/// The receipt, with the cost of its gas.
async fn landing(app: &Shared, sent: &rpc::Message, found: &MsgLookup) -> anyhow::Result<Landing> {
    let base_fee = base_fee_before(app, found.height).await?;
    let receipt = &found.receipt;
    ensure!(
        u32::try_from(receipt.exit_code).is_ok()
            && receipt.gas_used >= 0
            && sent.gas_limit >= receipt.gas_used,
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
    write(app, move |conn| {
        landed(conn, &message, &landing, now).map(drop)
    })
    .await?;
    Ok(())
}

/// Records a receipt, once.
fn landed(
    conn: &mut AnyConnection,
    message: &Message,
    landing: &Landing,
    now: Micros,
) -> DbResult<bool> {
    jobs::clear(conn, AlertKind::Message, &message.uuid)?;
    sealing::landed(conn, message.id, landing, now)
}

async fn post_landed(app: &Shared, message: &Message, landing: Landing) -> TurnResult {
    let (message, now) = (message.clone(), app.now());
    transact(app, move |conn| {
        let post = PostId(message.subject_id);
        // A message that landed before the window opened belongs to another window, whatever the
        // node says.
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

/// Records the receipt together with the chain's word about the sector.
async fn sector_landed(
    app: &Shared,
    pool: &Pool,
    message: &Message,
    landing: Landing,
    purpose: Purpose,
) -> TurnResult {
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
        OnChain::MessageFailed {
            reason: format!("{} exit code {}", purpose.name(), landing.exit_code),
        }
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
        let confirmed = Confirmed {
            head: 100,
            confirmations: 5,
            finalized: 97,
        };
        assert_eq!(
            [95, 97, 98, 100].map(|epoch| confirmed.has(epoch)),
            [true, true, false, false]
        );
        // The node does not say.
        let confirmed = Confirmed {
            finalized: 0,
            ..confirmed
        };
        assert_eq!(
            [95, 96, 97].map(|epoch| confirmed.has(epoch)),
            [true, false, false]
        );
    }

    #[test]
    fn patience_with_a_refused_message_depends_on_its_cause_and_purpose() {
        let old_ticket = "message execution failed: exit 16, reason: ticket too old";
        let poor = "mpool push: not enough funds: 0.1 FIL";
        let sectors = Purpose::PreCommit;
        assert_eq!(
            [0, PATIENCE + 1].map(|waited| is_given_up(sectors, old_ticket, waited)),
            [false, true]
        );
        assert_eq!(
            [PATIENCE + 1, DAY + 1].map(|waited| is_given_up(sectors, poor, waited)),
            [false, true]
        );
        assert!(is_given_up(Purpose::WindowPost, old_ticket, 0));
    }
}
