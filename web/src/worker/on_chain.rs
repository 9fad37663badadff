//! Asks the chain whether a message's purpose has been achieved: replies get lost, backups are
//! restored, nodes forget. An effect with our own replica is adopted, whoever brought it about.

use anyhow::Context;
use sealyard_core::{
    capacity::Pool,
    ids::{PostId, SectorId},
    proving,
    sealing::{self, Activation, Message, OnChain, Purpose, Sector},
};
use sealyard_filecoin::{
    actor::{RandomnessTag, miner_entropy, sealed_cid},
    rpc::{CidJson, DeadlineState, PreCommitInfo, RpcError, SectorInfo},
};

use super::pipeline::{miner_address, miner_id};
use crate::app::{Shared, read};

/// The chain's answer about the purpose of a message.
#[derive(Clone, Debug)]
pub enum Effect {
    /// Not achieved yet, and still possible.
    Open,
    /// Achieved. For a sector's message: with the fact to record.
    Done(Option<OnChain>),
    /// No longer possible, because of this fact.
    Moot(OnChain),
}

/// Asks the chain about a message's purpose.
pub async fn effect(app: &Shared, pool: &Pool, message: &Message) -> anyhow::Result<Effect> {
    match message.purpose {
        Purpose::PreCommit => pre_commit(app, pool, &sector_of(app, message).await?).await,
        Purpose::ProveCommit => prove_commit(app, pool, &sector_of(app, message).await?).await,
        Purpose::WindowPost => window_post(app, pool, PostId(message.subject_id)).await,
        Purpose::Recover => recovery(app, pool, &sector_of(app, message).await?).await,
    }
}

async fn sector_of(app: &Shared, message: &Message) -> anyhow::Result<Sector> {
    let id = SectorId(message.subject_id);
    Ok(read(app, move |conn| sealing::sector_by_id(conn, id)).await?)
}

/// Whether the chain's sealed CID is that of this sector's replica.
fn is_ours(sector: &Sector, sealed: &CidJson) -> bool {
    let comm_r = sector.comm_r.as_deref().and_then(|text| text.parse().ok());
    comm_r.is_some_and(|comm_r| CidJson::from(sealed_cid(comm_r)) == *sealed)
}

async fn pre_commit_info(
    app: &Shared,
    pool: &Pool,
    sector: &Sector,
) -> anyhow::Result<Option<PreCommitInfo>> {
    Ok(app
        .node
        .pre_commit_info(
            &miner_address(pool)?,
            u64::try_from(sector.number)?,
            &Vec::new(),
        )
        .await?)
}

async fn sector_info(
    app: &Shared,
    pool: &Pool,
    sector: &Sector,
) -> anyhow::Result<Option<SectorInfo>> {
    Ok(app
        .node
        .sector_info(
            &miner_address(pool)?,
            u64::try_from(sector.number)?,
            &Vec::new(),
        )
        .await?)
}

async fn seed_epoch(app: &Shared, info: &PreCommitInfo) -> anyhow::Result<i64> {
    Ok(info.pre_commit_epoch + app.node.network_params().await?.pre_commit_challenge_delay)
}

async fn pre_commit(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Effect> {
    if let Some(info) = pre_commit_info(app, pool, sector).await? {
        return Ok(if is_ours(sector, &info.info.sealed_cid) {
            Effect::Done(Some(OnChain::PreCommitted {
                seed_epoch: seed_epoch(app, &info).await?,
            }))
        } else {
            Effect::Moot(OnChain::NumberTaken)
        });
    }
    Ok(match sector_info(app, pool, sector).await? {
        Some(info) if is_ours(sector, &info.sealed_cid) => {
            Effect::Done(Some(activated(app, pool, sector, &info).await?))
        }
        Some(_) => Effect::Moot(OnChain::NumberTaken),
        None => Effect::Open,
    })
}

async fn prove_commit(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Effect> {
    if let Some(info) = sector_info(app, pool, sector).await? {
        return Ok(if is_ours(sector, &info.sealed_cid) {
            Effect::Done(Some(activated(app, pool, sector, &info).await?))
        } else {
            Effect::Moot(OnChain::NumberTaken)
        });
    }
    Ok(match pre_commit_info(app, pool, sector).await? {
        None => Effect::Moot(OnChain::PreCommitLost),
        Some(info) if !is_ours(sector, &info.info.sealed_cid) => Effect::Moot(OnChain::NumberTaken),
        Some(info) => {
            let seed_epoch = seed_epoch(app, &info).await?;
            if sector.seed_epoch != Some(seed_epoch) {
                Effect::Moot(OnChain::PreCommitted { seed_epoch })
            } else if seed_is_replaced(app, pool, sector, seed_epoch).await? {
                Effect::Moot(OnChain::SeedReplaced)
            } else {
                Effect::Open
            }
        }
    })
}

/// Whether the chain now draws another seed than the one in the sector's proof. If so, it would
/// refuse the proof.
async fn seed_is_replaced(
    app: &Shared,
    pool: &Pool,
    sector: &Sector,
    seed_epoch: i64,
) -> anyhow::Result<bool> {
    let Some(known) = sector.seed.as_deref() else {
        return Ok(false);
    };
    Ok(seed(app, pool, seed_epoch)
        .await?
        .is_some_and(|drawn| drawn != known))
}

/// The seed of an epoch. `None`: it cannot be drawn yet.
pub async fn seed(app: &Shared, pool: &Pool, epoch: i64) -> anyhow::Result<Option<String>> {
    let entropy = miner_entropy(miner_id(pool)?);
    let tag = RandomnessTag::InteractiveSealChallengeSeed;
    match app.node.randomness_from_beacon(tag, epoch, &entropy).await {
        Err(RpcError::Node { .. }) => Ok(None),
        drawn => Ok(Some(drawn?.to_string())),
    }
}

/// The chain says which partitions have been proven, but only while the window is open.
async fn window_post(app: &Shared, pool: &Pool, id: PostId) -> anyhow::Result<Effect> {
    let post = read(app, move |conn| proving::by_id(conn, id)).await?;
    let head = app.node.chain_head().await?.height;
    if head < post.open_epoch || head >= post.close_epoch {
        return Ok(Effect::Open);
    }
    let deadlines = app
        .node
        .deadlines(&miner_address(pool)?, &Vec::new())
        .await?;
    let posted = posted_partitions(&deadlines, u64::try_from(post.deadline)?)?;
    Ok(if posted.contains(&u64::try_from(post.partition)?) {
        Effect::Done(None)
    } else {
        Effect::Open
    })
}

/// Most partitions of one deadline (the protocol allows 3,000).
const MOST_PARTITIONS: usize = 10_000;

/// Partitions of an open deadline whose proofs the chain has.
pub fn posted_partitions(deadlines: &[DeadlineState], deadline: u64) -> anyhow::Result<Vec<u64>> {
    deadlines
        .get(usize::try_from(deadline)?)
        .context("the node does not list this deadline")?
        .post_submissions
        .numbers(MOST_PARTITIONS)
        .context("too many submissions")
}

/// Most sectors that are recovering at once.
const MOST_RECOVERING: usize = 1_000_000;

/// A declaration covers several sectors. One of them answers for all.
async fn recovery(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Effect> {
    let declared = app.node.recoveries(&miner_address(pool)?).await?;
    let declared = declared
        .numbers(MOST_RECOVERING)
        .context("too many recovering sectors")?;
    Ok(if declared.contains(&u64::try_from(sector.number)?) {
        Effect::Done(None)
    } else {
        Effect::Open
    })
}

async fn activated(
    app: &Shared,
    pool: &Pool,
    sector: &Sector,
    info: &SectorInfo,
) -> anyhow::Result<OnChain> {
    let (miner, number) = (miner_address(pool)?, u64::try_from(sector.number)?);
    let unknown = || format!("sector {number} is on chain, but the node does not say where");
    let location = app
        .node
        .sector_location(&miner, number, &Vec::new())
        .await?
        .with_context(unknown)?;
    let expiration = app.node.sector_expiration(&miner, number).await?.on_time;
    Ok(OnChain::Activated(Activation {
        activation: info.activation,
        expiration,
        deadline: i64::try_from(location.deadline)?,
        partition: i64::try_from(location.partition)?,
    }))
}

/// Asks the chain again about a sector whose facts are provisional. Returns the fact to record, if
/// it is another one.
pub async fn read_again(
    app: &Shared,
    pool: &Pool,
    sector: &Sector,
) -> anyhow::Result<Option<OnChain>> {
    if sector.state.is_on_chain() {
        return Ok(match sector_info(app, pool, sector).await? {
            None => Some(OnChain::ActivationLost),
            Some(info) if Some(info.activation) != sector.activation => {
                Some(activated(app, pool, sector, &info).await?)
            }
            Some(_) => None,
        });
    }
    match prove_commit(app, pool, sector).await? {
        Effect::Open => Ok(None),
        Effect::Done(fact) => Ok(fact),
        Effect::Moot(fact) => Ok(Some(fact)),
    }
}
