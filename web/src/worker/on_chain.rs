//! Asks the chain whether a message's purpose is done: replies get lost, backups are restored, nodes forget. Whatever is there with our
//! own replica is adopted, whoever sent it.

use anyhow::Context;
use sealyard_core::{
    capacity::Pool,
    ids::{PostId, SectorId},
    proving,
    sealing::{self, Activation, Message, OnChain, Purpose, Sector},
};
use sealyard_filecoin::{
    actor::{RandomnessTag, miner_entropy, sealed_cid},
    rpc::{CidJson, PreCommitInfo, RpcError, SectorInfo},
};

use super::pipeline::{miner_address, miner_id};
use crate::app::{Shared, read};

/// The chain's answer about the purpose of a message.
#[derive(Clone, Debug)]
pub enum Effect {
    /// It has not happened, and can.
    Open,
    /// It has happened; a sector's message comes with the fact.
    Done(Option<OnChain>),
    /// It cannot happen any more, because of this fact.
    Moot(OnChain),
}

/// The purpose of a message, as the chain has it now.
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

/// Whether what the chain has is this sector's replica.
fn is_ours(sector: &Sector, sealed: &CidJson) -> bool {
    let comm_r = sector.comm_r.as_deref().and_then(|text| text.parse().ok());
    comm_r.is_some_and(|comm_r| CidJson::from(sealed_cid(comm_r)) == *sealed)
}

async fn pre_commit_info(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Option<PreCommitInfo>> {
    Ok(app.node.pre_commit_info(&miner_address(pool)?, u64::try_from(sector.number)?, &Vec::new()).await?)
}

async fn sector_info(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Option<SectorInfo>> {
    Ok(app.node.sector_info(&miner_address(pool)?, u64::try_from(sector.number)?, &Vec::new()).await?)
}

async fn seed_epoch(app: &Shared, info: &PreCommitInfo) -> anyhow::Result<i64> {
    Ok(info.pre_commit_epoch + app.node.network_params().await?.pre_commit_challenge_delay)
}

async fn pre_commit(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Effect> {
    if let Some(info) = pre_commit_info(app, pool, sector).await? {
        return Ok(if is_ours(sector, &info.info.sealed_cid) {
            Effect::Done(Some(OnChain::PreCommitted { seed_epoch: seed_epoch(app, &info).await? }))
        } else {
            Effect::Moot(OnChain::NumberTaken)
        });
    }
    Ok(match sector_info(app, pool, sector).await? {
        Some(info) if is_ours(sector, &info.sealed_cid) => Effect::Done(Some(activated(app, pool, sector, &info).await?)),
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

/// Whether the chain now draws another seed than the one that the sector's proof is made with: the chain would refuse the proof.
async fn seed_is_replaced(app: &Shared, pool: &Pool, sector: &Sector, seed_epoch: i64) -> anyhow::Result<bool> {
    let Some(known) = sector.seed.as_deref() else { return Ok(false) };
    Ok(seed(app, pool, seed_epoch).await?.is_some_and(|drawn| drawn != known))
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

/// While the window is open the chain tells which partitions have been proven.
async fn window_post(app: &Shared, pool: &Pool, id: PostId) -> anyhow::Result<Effect> {
    let post = read(app, move |conn| proving::by_id(conn, id)).await?;
    let head = app.node.chain_head().await?.height;
    if head < post.open_epoch || head >= post.close_epoch {
        return Ok(Effect::Open);
    }
    let deadlines = app.node.deadlines(&miner_address(pool)?, &Vec::new()).await?;
    let state = deadlines.get(usize::try_from(post.deadline)?).context("the node does not list this deadline")?;
    let posted = state.post_submissions.numbers(MOST_PARTITIONS).context("too many submissions")?;
    Ok(if posted.contains(&u64::try_from(post.partition)?) { Effect::Done(None) } else { Effect::Open })
}

/// Most partitions of one deadline (the protocol's is 3,000).
const MOST_PARTITIONS: usize = 10_000;
/// Most sectors that are recovering at once.
const MOST_RECOVERING: usize = 1_000_000;

/// A declaration is about several sectors; one of them tells for all.
async fn recovery(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Effect> {
    let declared = app.node.recoveries(&miner_address(pool)?).await?;
    let declared = declared.numbers(MOST_RECOVERING).context("too many recovering sectors")?;
    Ok(if declared.contains(&u64::try_from(sector.number)?) { Effect::Done(None) } else { Effect::Open })
}

async fn activated(app: &Shared, pool: &Pool, sector: &Sector, info: &SectorInfo) -> anyhow::Result<OnChain> {
    let (miner, number) = (miner_address(pool)?, u64::try_from(sector.number)?);
    let unknown = || format!("sector {number} is on chain, but the node does not say where");
    let location = app.node.sector_location(&miner, number, &Vec::new()).await?.with_context(unknown)?;
    let expiration = app.node.sector_expiration(&miner, number).await?.on_time;
    Ok(OnChain::Activated(Activation {
        activation: info.activation,
        expiration,
        deadline: i64::try_from(location.deadline)?,
        partition: i64::try_from(location.partition)?,
    }))
}

/// The chain's word on a sector whose earlier facts are provisional: the fact that has to be recorded, if it is another one.
pub async fn read_again(app: &Shared, pool: &Pool, sector: &Sector) -> anyhow::Result<Option<OnChain>> {
    if sector.state.is_on_chain() {
        return Ok(match sector_info(app, pool, sector).await? {
            None => Some(OnChain::ActivationLost),
            Some(info) if Some(info.activation) != sector.activation => Some(activated(app, pool, sector, &info).await?),
            Some(_) => None,
        });
    }
    match prove_commit(app, pool, sector).await? {
        Effect::Open => Ok(None),
        Effect::Done(fact) => Ok(fact),
        Effect::Moot(fact) => Ok(Some(fact)),
    }
}
