//! Sectors and messages that the chain has and the books lack, after a backup was restored or somebody else used the miner: numbers are never used twice, and
//! sectors that nobody here knows are named.

use anyhow::Context;
use sealyard_core::{
    capacity::{self, Pool},
    jobs::{self, AlertKind},
    sealing,
};
use sealyard_filecoin::rpc::Numbers;

use super::{Each, TurnResult, chain::Members, pipeline::miner_address, pools};
use crate::app::{Shared, read, write};

/// Numbers beyond it were masked by somebody, not counted up to.
const LARGEST_NUMBER: i64 = 1 << 62;
/// Numbers that one sentence names.
const NAMED: usize = 20;

pub async fn turn(app: Shared) -> TurnResult {
    let mut all = Each::default();
    for pool in pools(&app).await? {
        if !all.goes_on(reconcile(&app, &pool).await.with_context(|| format!("comparing pool {} with the chain", pool.name))) {
            break;
        }
    }
    all.end()
}

async fn reconcile(app: &Shared, pool: &Pool) -> TurnResult {
    let miner = miner_address(pool)?;
    let used = app.node.allocated_sectors(&miner, &Vec::new()).await?.last();
    let next = used.and_then(|last| i64::try_from(last).ok()).map(|last| last + 1).filter(|next| *next < LARGEST_NUMBER);
    let from = (&app.node, &app.deadlines);
    let live = Members::read(from, (&miner, pool.sector_bytes), &app.node.chain_head().await?).await?.live;
    let (id, name, now) = (pool.id, pool.name.clone(), app.now());
    let known = read(app, move |conn| sealing::sector_owners(conn, id)).await?;
    let known: Numbers = known.into_iter().filter_map(|(number, _)| u64::try_from(number).ok()).collect();
    let first = u64::try_from(first_of_ours(app, pool).await?)?;
    let unknown: Vec<u64> = live.minus(&known).iter().filter(|number| *number >= first).collect();
    write(app, move |conn| {
        if let Some(next) = next
            && capacity::numbers_used(conn, id, next)?
        {
            tracing::warn!(
                pool = name,
                next,
                "the chain has used sector numbers that the books did not know; new sectors get higher numbers"
            );
        }
        if unknown.is_empty() {
            jobs::clear(conn, AlertKind::UnknownSector, &name)?;
        } else {
            let named: Vec<String> = unknown.iter().take(NAMED).map(ToString::to_string).collect();
            let rest = unknown.len().saturating_sub(NAMED);
            let more = if rest > 0 { format!(" and {rest} more") } else { String::new() };
            let text = format!(
                "pool {name}: the chain has sectors that these books do not: {}{more}; \
                 if a backup was restored, their orders may have been lost",
                named.join(", ")
            );
            if jobs::raise(conn, AlertKind::UnknownSector, &name, &text, now)? {
                tracing::error!("{text}");
            }
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// Sectors before this pool's first are another system's.
async fn first_of_ours(app: &Shared, pool: &Pool) -> anyhow::Result<i64> {
    let id = pool.id;
    Ok(read(app, move |conn| sealing::lowest_number(conn, id)).await?.unwrap_or(pool.next_sector))
}
