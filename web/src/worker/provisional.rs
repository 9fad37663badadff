//! Facts of the head are provisional. After a reorganisation, and after a start, the recorded facts
//! of the latest epochs are read again.

use std::sync::PoisonError;

use anyhow::Context;
use sealyard_core::{
    capacity::Pool,
    ids::SectorId,
    proving::{self, PostState},
    sealing::{self, OnChain},
};
use sealyard_filecoin::rpc::TipSet;

use super::{TurnResult, on_chain, pipeline::miner_address};
use crate::app::{Shared, read, transact, write};

/// Reads provisional facts again if the chain is no longer the one that was seen last.
pub async fn look(app: &Shared, pools: &[Pool], head: &TipSet) -> TurnResult {
    let seen = app
        .seen_head
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    let same = match &seen {
        None => false,
        Some((height, _)) if *height > head.height => false,
        Some((height, cids)) if *height == head.height => *cids == head.cids,
        Some((height, cids)) => {
            let there = app.node.tipset_by_height(*height).await?;
            there.height == *height && there.cids == *cids
        }
    };
    if !same {
        if seen.is_some() {
            tracing::warn!(
                head = head.height,
                "the chain was reorganised; facts of the latest epochs are read again"
            );
        }
        for pool in pools {
            read_again(app, pool, head.height)
                .await
                .with_context(|| format!("reading provisional facts of pool {}", pool.name))?;
        }
    }
    *app.seen_head.lock().unwrap_or_else(PoisonError::into_inner) =
        Some((head.height, head.cids.clone()));
    Ok(())
}

async fn read_again(app: &Shared, pool: &Pool, head: i64) -> TurnResult {
    let (id, since) = (pool.id, head - app.config.finality);
    for sector in read(app, move |conn| sealing::provisional(conn, id, since)).await? {
        if let Some(fact) = on_chain::read_again(app, pool, &sector).await? {
            tracing::warn!(
                sector = sector.number,
                ?fact,
                "the chain now says something else about a sector"
            );
            record(app, sector.id, fact).await?;
        }
    }
    read_posts_again(app, pool, head).await
}

/// Reads again whether the chain has the proofs of the open window.
async fn read_posts_again(app: &Shared, pool: &Pool, head: i64) -> TurnResult {
    let landed = read(app, |conn| proving::in_state(conn, PostState::Landed)).await?;
    let open: Vec<_> = landed
        .into_iter()
        .filter(|post| {
            post.pool_id == pool.id && post.open_epoch <= head && head < post.close_epoch
        })
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    let deadlines = app
        .node
        .deadlines(&miner_address(pool)?, &Vec::new())
        .await?;
    for post in open {
        let posted = on_chain::posted_partitions(&deadlines, u64::try_from(post.deadline)?)?;
        if !posted.contains(&u64::try_from(post.partition)?) {
            tracing::warn!(
                deadline = post.deadline,
                partition = post.partition,
                "the chain no longer has a WindowPoSt"
            );
            let (id, now) = (post.id, app.now());
            write(app, move |conn| proving::taken_back(conn, id, now)).await?;
        }
    }
    Ok(())
}

/// Records the chain's word about a sector.
pub async fn record(app: &Shared, id: SectorId, fact: OnChain) -> TurnResult {
    let now = app.now();
    transact(app, move |conn| {
        let sector = sealing::sector_by_id(conn, id)?;
        sealing::mark_on_chain(conn, sector, fact.clone(), now)
    })
    .await?;
    Ok(())
}
