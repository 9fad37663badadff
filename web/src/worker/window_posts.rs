//! WindowPoSt upkeep: begins partitions that are due, verifies and sends finished proofs, records
//! missed windows.

use anyhow::Context;
use sealyard_core::{
    capacity::Pool,
    clock::SECOND,
    proving::{self, NewPost, PostState, WindowPost},
    sealing::{self, MessageRequest, Purpose, Sector},
};
use sealyard_filecoin::{
    actor::{self, Method, PostSubmission, RandomnessTag, miner_entropy},
    economics::EPOCHS_PER_DAY,
    hash::Hash32,
    proofs::{PublicReplica, verify_window_post},
    rpc::{Partition, ProvingDeadline},
    sector::{SealProof, SectorIdent},
};

use super::{
    Each, TurnResult, on_chain,
    pipeline::{ident, miner_address, miner_id},
    pools,
};
use crate::app::{Shared, read, write};

/// Most sectors of one partition (the protocol's largest is 2,349).
const MOST_SECTORS: usize = 10_000;
/// Epochs in which a window's message is searched.
const LOOKBACK: i64 = EPOCHS_PER_DAY;

pub async fn turn(app: Shared) -> TurnResult {
    let mut all = Each::default();
    for pool in pools(&app).await? {
        let outcome = turn_of(&app, &pool, &mut all).await;
        all.note(outcome);
    }
    all.end()
}

/// Looks after one pool's windows. An error of one window is noted, and the next is looked at.
async fn turn_of(app: &Shared, pool: &Pool, all: &mut Each) -> TurnResult {
    let head = app.node.chain_head().await?.height;
    let open = app.node.proving_deadline(&miner_address(pool)?).await?;
    for window in due_windows(&open, head) {
        all.note(begin_window(app, pool, &window, head).await);
    }
    let (id, name, now) = (pool.id, pool.name.clone(), app.now());
    let given_up = write(app, move |conn| {
        proving::go_on_without_silent(conn, id, now)
    })
    .await?;
    if given_up > 0 {
        tracing::error!(
            pool = name,
            sectors = given_up,
            "continuing the WindowPoSt without the sectors of silent machines"
        );
    }
    submit_proven(app, pool, head, all).await?;
    for post in read(app, move |conn| proving::closed(conn, id, head)).await? {
        all.note(close(app, pool, post).await);
    }
    Ok(())
}

/// Records a closed window as missed, unless its message has landed in time and only waits for its
/// confirmations.
async fn close(app: &Shared, pool: &Pool, post: WindowPost) -> TurnResult {
    if let Some(id) = post.message_id {
        let message = read(app, move |conn| sealing::message_by_id(conn, id)).await?;
        if let Some(cid) = message.cid.filter(|_| post.state == PostState::Submitted) {
            let found = app.node.search_message(&cid, LOOKBACK).await?;
            if found.is_some_and(|found| found.receipt.exit_code == 0) {
                return Ok(());
            }
        }
    }
    let (deadline, partition, open, now) =
        (post.deadline, post.partition, post.open_epoch, app.now());
    if write(app, move |conn| proving::miss(conn, &post, now)).await? {
        tracing::error!(
            pool = pool.name,
            deadline,
            partition,
            open,
            "WindowPoSt missed"
        );
    }
    Ok(())
}

/// A deadline whose challenge can be drawn and whose window has not closed.
struct Window {
    deadline: u64,
    open: i64,
    close: i64,
    challenge: i64,
    /// True if its submissions can be read. They are reset when a window closes.
    is_current: bool,
}

/// The open deadline, and the next one once its challenge is visible.
fn due_windows(current: &ProvingDeadline, head: i64) -> Vec<Window> {
    let of = |deadline: u64, open: i64, is_current: bool| Window {
        deadline,
        open,
        close: open + current.challenge_window,
        challenge: open - current.challenge_lookback,
        is_current,
    };
    let next = if current.period_deadlines == 0 {
        0
    } else {
        (current.index + 1) % current.period_deadlines
    };
    let windows = [
        of(current.index, current.open, true),
        of(next, current.close, false),
    ];
    windows
        .into_iter()
        .filter(|w| w.challenge <= head && head + 1 < w.close)
        .collect()
}

/// Sectors that the chain expects in the proof: those that are live and not faulty, or recovering.
fn to_prove(partition: &Partition) -> anyhow::Result<Vec<i64>> {
    let read = |bits: &sealyard_filecoin::rpc::BitFieldJson| {
        bits.numbers(MOST_SECTORS)
            .context("a partition with too many sectors")
    };
    let (live, faulty) = (
        read(&partition.live_sectors)?,
        read(&partition.faulty_sectors)?,
    );
    let recovering = read(&partition.recovering_sectors)?;
    let wanted = live
        .into_iter()
        .filter(|n| !faulty.contains(n) || recovering.contains(n));
    wanted
        .map(|n| i64::try_from(n).context("sector number"))
        .collect()
}

async fn begin_window(app: &Shared, pool: &Pool, window: &Window, head: i64) -> TurnResult {
    let miner = miner_address(pool)?;
    let partitions = app
        .node
        .partitions(&miner, window.deadline, &Vec::new())
        .await?;
    if partitions.is_empty() {
        return Ok(());
    }
    let posted = if window.is_current {
        let deadlines = app.node.deadlines(&miner, &Vec::new()).await?;
        on_chain::posted_partitions(&deadlines, window.deadline)?
    } else {
        Vec::new()
    };
    for (index, partition) in (0u64..).zip(&partitions) {
        let sectors = to_prove(partition)?;
        if sectors.is_empty() || posted.contains(&index) {
            continue;
        }
        begin_partition(app, pool, (window, head), i64::try_from(index)?, sectors).await?;
    }
    Ok(())
}

async fn begin_partition(
    app: &Shared,
    pool: &Pool,
    (window, head): (&Window, i64),
    partition: i64,
    sectors: Vec<i64>,
) -> TurnResult {
    let tag = RandomnessTag::WindowedPoStChallengeSeed;
    let entropy = miner_entropy(miner_id(pool)?);
    let randomness = app
        .node
        .randomness_from_beacon(tag, window.challenge, &entropy)
        .await?;
    let (now, epoch_seconds) = (app.now(), app.epoch_seconds().await);
    let new = NewPost {
        pool: pool.id,
        deadline: i64::try_from(window.deadline)?,
        partition,
        open_epoch: window.open,
        close_epoch: window.close,
        challenge_epoch: window.challenge,
        randomness: randomness.to_string(),
        sectors,
        due_at: now + (window.close - head) * epoch_seconds * SECOND,
    };
    let begun = write(app, move |conn| proving::begin(conn, &new, now)).await?;
    if begun {
        tracing::info!(
            deadline = window.deadline,
            partition,
            open = window.open,
            "WindowPoSt due"
        );
    }
    Ok(())
}

async fn submit_proven(app: &Shared, pool: &Pool, head: i64, all: &mut Each) -> TurnResult {
    let posts = read(app, |conn| proving::in_state(conn, PostState::Proven)).await?;
    for post in posts
        .iter()
        .filter(|p| p.pool_id == pool.id && head + 1 >= p.open_epoch && head + 1 < p.close_epoch)
    {
        all.note(submit(app, pool, post).await);
    }
    Ok(())
}

async fn submit(app: &Shared, pool: &Pool, post: &WindowPost) -> TurnResult {
    let proof = post
        .proof
        .clone()
        .context("a proven window without a proof")?;
    let sectors = proven_sectors(app, pool, post).await?;
    let first = sectors.first().context("no sector left to prove")?;
    let ident = ident(pool, first)?;
    if !verifies(ident, &sectors, post, &proof).await? {
        let (id, now) = (post.id, app.now());
        write(app, move |conn| proving::rejected(conn, id, now)).await?;
        anyhow::bail!(
            "WindowPoSt of deadline {} partition {} does not verify; it is redone",
            post.deadline,
            post.partition
        );
    }
    let params = submission(app, post, ident.proof, &proof).await?;
    let (post, now) = (post.clone(), app.now());
    write(app, move |conn| {
        if proving::by_id(conn, post.id)?.state != PostState::Proven {
            return Ok(());
        }
        // One message per attempt: a submission that failed on chain is built anew.
        let (purpose, subject) = (Purpose::WindowPost, post.id.0);
        let request = MessageRequest {
            pool: post.pool_id,
            purpose,
            subject,
            attempt: sealing::next_attempt(conn, purpose, subject)?,
            method: Method::SubmitWindowedPoSt.number(),
            params: &params,
        };
        let id = sealing::build_message(conn, &request, now)?;
        proving::submitted(conn, &post, id)
    })
    .await?;
    Ok(())
}

/// The sectors that a proof covers: those of its partition that were not skipped.
async fn proven_sectors(
    app: &Shared,
    pool: &Pool,
    post: &WindowPost,
) -> anyhow::Result<Vec<Sector>> {
    let skipped = post.skipped_numbers();
    let mut numbers = post.sector_numbers();
    numbers.retain(|n| !skipped.contains(n));
    let pool = pool.id;
    Ok(read(app, move |conn| {
        let mut found = Vec::new();
        for &number in &numbers {
            found.extend(sealing::by_number(conn, pool, number)?);
        }
        Ok(found)
    })
    .await?)
}

/// Verifies the proof here, so that one that the chain would refuse is not sent.
async fn verifies(
    ident: SectorIdent,
    sectors: &[Sector],
    post: &WindowPost,
    proof: &[u8],
) -> anyhow::Result<bool> {
    let mut replicas = Vec::new();
    for sector in sectors {
        let comm_r: Hash32 = sector.comm_r.as_deref().context("no CommR")?.parse()?;
        replicas.push(PublicReplica {
            number: u64::try_from(sector.number)?,
            comm_r,
        });
    }
    let (randomness, bytes): (Hash32, Vec<u8>) = (post.randomness.parse()?, proof.to_vec());
    let verified = tokio::task::spawn_blocking(move || {
        verify_window_post(&ident, &replicas, randomness, &bytes)
    });
    Ok(verified.await??)
}

/// The parameters of the message that submits a proof.
async fn submission(
    app: &Shared,
    post: &WindowPost,
    seal_proof: SealProof,
    proof: &[u8],
) -> anyhow::Result<Vec<u8>> {
    // Any epoch since the challenge will do. This one is the least likely to be reorganised.
    let commit_epoch = post.challenge_epoch;
    let commit_randomness = app
        .node
        .randomness_from_tickets(RandomnessTag::PoStChainCommit, commit_epoch, &[])
        .await?;
    let skipped: Vec<u64> = post
        .skipped_numbers()
        .into_iter()
        .map(u64::try_from)
        .collect::<Result<_, _>>()?;
    Ok(actor::submit_window_post(&PostSubmission {
        deadline: u64::try_from(post.deadline)?,
        partition: u64::try_from(post.partition)?,
        skipped: &skipped,
        seal_proof,
        proof,
        commit_epoch,
        commit_randomness,
    })?)
}
