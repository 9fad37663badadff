//! Compares the chain with the books, which lack sectors after a backup was restored or somebody
//! else used the miner. Sector numbers are never used twice, and an alert names unknown sectors.

use anyhow::Context;
use sealyard_core::{
    capacity::{self, Pool},
    jobs::{self, AlertKind},
    sealing,
};
use sealyard_filecoin::rpc::Numbers;

use super::{Each, TurnResult, chain::Members, pipeline::miner_address, pools};
use crate::app::{Shared, read, write};

/// Somebody masked the numbers beyond this one; they were never reached by counting.
const LARGEST_NUMBER: i64 = 1 << 62;
/// The most numbers that an alert names.
const NAMED: usize = 20;

pub async fn turn(app: Shared) -> TurnResult {
    let mut all = Each::default();
    for pool in pools(&app).await? {
        if !all.goes_on(
            reconcile(&app, &pool)
                .await
                .with_context(|| format!("comparing pool {} with the chain", pool.name)),
        ) {
            break;
        }
    }
    all.end()
}

async fn reconcile(app: &Shared, pool: &Pool) -> TurnResult {
    let next = next_on_chain(app, pool).await?;
    let unknown = unknown_sectors(app, pool).await?;
    let (id, name, now) = (pool.id, pool.name.clone(), app.now());
    write(app, move |conn| {
        if let Some(next) = next
            && capacity::numbers_used(conn, id, next)?
        {
            tracing::warn!(
                pool = name,
                next,
                "the chain has used sector numbers that the books did not know; \
                 new sectors get higher numbers"
            );
        }
        if unknown.is_empty() {
            jobs::clear(conn, AlertKind::UnknownSector, &name)?;
        } else {
            let text = alert_text(&name, &unknown);
            if jobs::raise(conn, AlertKind::UnknownSector, &name, &text, now)? {
                tracing::error!("{text}");
            }
        }
        Ok(())
    })
    .await?;
    Ok(())
}

/// The number after the last one that the chain has used.
async fn next_on_chain(app: &Shared, pool: &Pool) -> anyhow::Result<Option<i64>> {
    let used = app
        .node
        .allocated_sectors(&miner_address(pool)?, &Vec::new())
        .await?
        .last();
    Ok(used
        .and_then(|last| i64::try_from(last).ok())
        .map(|last| last + 1)
        .filter(|next| *next < LARGEST_NUMBER))
}

/// Live sectors of the miner that the books lack.
async fn unknown_sectors(app: &Shared, pool: &Pool) -> anyhow::Result<Vec<u64>> {
    let live = Members::read(
        (&app.node, &app.deadlines),
        (&miner_address(pool)?, pool.sector_bytes),
        &app.node.chain_head().await?,
    )
    .await?
    .live;
    let id = pool.id;
    let known = read(app, move |conn| sealing::sector_owners(conn, id)).await?;
    let known: Numbers = known
        .into_iter()
        .filter_map(|(number, _)| u64::try_from(number).ok())
        .collect();
    let first = u64::try_from(first_of_ours(app, pool).await?)?;
    Ok(live
        .minus(&known)
        .iter()
        .filter(|number| *number >= first)
        .collect())
}

fn alert_text(pool: &str, unknown: &[u64]) -> String {
    let named: Vec<String> = unknown
        .iter()
        .take(NAMED)
        .map(ToString::to_string)
        .collect();
    let rest = unknown.len().saturating_sub(NAMED);
    let more = if rest > 0 {
        format!(" and {rest} more")
    } else {
        String::new()
    };
    format!(
        "pool {pool}: the chain has sectors that these books do not: {}{more}; \
         if a backup was restored, their orders may have been lost",
        named.join(", ")
    )
}

/// The number of this pool's first sector. Sectors before it belong to another system.
async fn first_of_ours(app: &Shared, pool: &Pool) -> anyhow::Result<i64> {
    let id = pool.id;
    Ok(read(app, move |conn| sealing::lowest_number(conn, id))
        .await?
        .unwrap_or(pool.next_sector))
}
