//! Follows the chain to finality and records each chunk of it exactly once and in order. Then
//! closes days.

use anyhow::{Context, bail, ensure};
use fvm_shared::address::Address;
use sealyard_core::{
    capacity::Pool,
    store::AnyConnection,
    units::ChainTime,
    yields::{self, CloseError, Cursor, Flow, Win},
};
use sealyard_filecoin::{economics::SOLSTICE, rpc::TipSet};

use super::{
    bonds::bonds,
    changes::Changes,
    chunk::Chunk,
    day::{DayEnd, day_end, ended_day},
    fees::fees,
    rewards,
};
use crate::{
    app::{Shared, read, transact, write},
    worker::{TurnResult, pipeline::miner_address, pools},
};

/// Epochs recorded in one transaction. It is a deadline's length, so that a sector changes at most
/// once within.
const CHUNK: i64 = 60;
/// Chunks before other pools get their turn.
const CHUNKS_PER_TURN: usize = 48;

pub async fn turn(app: Shared) -> TurnResult {
    for pool in pools(&app).await? {
        let cursor = start(&app, &pool).await?;
        check_network(&app, &cursor).await?;
        let head = app.node.chain_head().await?.height;
        let follow = Follow {
            app: &app,
            pool: &pool,
            miner: miner_address(&pool)?,
            head,
        };
        follow.catch_up(cursor).await?;
        close_days(&app, &pool).await?;
    }
    Ok(())
}

/// The cursor. On first use it is made at the last final epoch.
async fn start(app: &Shared, pool: &Pool) -> anyhow::Result<Cursor> {
    let id = pool.id;
    if let Some(cursor) = read(app, move |conn| yields::cursor(conn, id)).await? {
        return Ok(cursor);
    }
    let genesis = app.node.genesis().await?;
    let genesis_at = genesis
        .blocks
        .first()
        .context("the genesis tipset has no block")?
        .timestamp;
    let epoch_seconds = app.node.network_params().await?.block_delay_secs;
    if epoch_seconds < 1 {
        bail!("the node says that an epoch lasts {epoch_seconds} s");
    }
    let next = (app.node.chain_head().await?.height - app.config.finality).max(0);
    let time = ChainTime {
        genesis_at,
        epoch_seconds,
    };
    write(app, move |conn| yields::init_cursor(conn, id, time, next)).await?;
    read(app, move |conn| yields::cursor(conn, id))
        .await?
        .context("the cursor was not stored")
}

/// The version of FIP-0100. This program does not know the rules of earlier ones.
const OLDEST_VERSION: u32 = 25;

/// Refuses a network that is not this pool's, and a version whose rules are not known.
async fn check_network(app: &Shared, cursor: &Cursor) -> TurnResult {
    let version = app.node.network_version(&Vec::new()).await?;
    check_version(version, app.config.newest_network_version)?;
    if version >= SOLSTICE && cursor.full_quality_after.is_none() {
        note_full_quality(app, cursor).await?;
    }
    let (pool, found) = (cursor.pool_id, app.node.network_name().await?);
    if cursor.network.is_empty() {
        write(app, move |conn| yields::name_network(conn, pool, &found)).await?;
    } else if cursor.network != found {
        bail!(
            "the node is on network {found:?}, but this pool's chain is {:?}; \
             nothing is recorded or posted",
            cursor.network
        );
    }
    Ok(())
}

/// Stores since when new sectors count ten times. A node that does not say it is believed to have
/// changed after the last epoch that is recorded.
async fn note_full_quality(app: &Shared, cursor: &Cursor) -> TurnResult {
    let params = app.node.network_params().await?;
    let named = params.fork_upgrade_params.upgrade_solstice_height;
    let head = app.node.chain_head().await?.height;
    let last = named
        .filter(|last| *last <= head)
        .unwrap_or(cursor.next_epoch - 1);
    let pool = cursor.pool_id;
    tracing::info!(
        pool = pool.0,
        last,
        "new sectors count ten times their bytes since this epoch"
    );
    write(app, move |conn| {
        yields::full_quality_after(conn, pool, last)
    })
    .await?;
    Ok(())
}

fn check_version(version: u32, newest: u32) -> TurnResult {
    ensure!(
        (OLDEST_VERSION..=newest).contains(&version),
        "the node is on network version {version}, but this release knows {OLDEST_VERSION} to \
         {newest}; nothing is recorded or posted until Sealyard is upgraded. If nothing in that \
         version affects money, raise newest_network_version instead"
    );
    Ok(())
}

/// A pool that is followed, and the head of its chain.
pub(super) struct Follow<'a> {
    pub(super) app: &'a Shared,
    pub(super) pool: &'a Pool,
    pub(super) miner: Address,
    head: i64,
}

/// Everything that a chunk adds to the books.
struct Records {
    wins: Vec<Win>,
    sectors: Changes,
    flows: Vec<Flow>,
    day_end: Option<DayEnd>,
}

impl Records {
    fn write(&self, conn: &mut AnyConnection, cursor: &Cursor) -> Result<(), CloseError> {
        for win in &self.wins {
            yields::record_win(conn, win)?;
        }
        self.sectors.write(conn, cursor.pool_id)?;
        yields::record_flows(conn, &self.flows)?;
        match &self.day_end {
            Some(day_end) => day_end.record(conn, cursor),
            None => Ok(()),
        }
    }
}

impl Follow<'_> {
    async fn catch_up(&self, mut cursor: Cursor) -> TurnResult {
        let id = self.pool.id;
        for _ in 0..CHUNKS_PER_TURN {
            let Some(end) = self.chunk_end(&cursor).await? else {
                return Ok(());
            };
            self.record(&cursor, end).await?;
            cursor = read(self.app, move |conn| yields::cursor(conn, id))
                .await?
                .context("the cursor is gone")?;
        }
        Ok(())
    }

    /// The tipset that ends the next chunk. It is final, and a whole chunk away or the first of a
    /// new day. It is not null, because a state is read from the tipset after it.
    async fn chunk_end(&self, cursor: &Cursor) -> anyhow::Result<Option<TipSet>> {
        let last_final = self.head - self.app.config.finality;
        let (time, next) = (cursor.time(), cursor.next_epoch);
        let next_day = time.first_epoch(time.day(next) + 1);
        for epoch in (next + CHUNK).min(next_day)..=last_final {
            let tipset = self.app.node.tipset_by_height(epoch).await?;
            if tipset.height == epoch {
                return Ok(Some(tipset));
            }
        }
        Ok(None)
    }

    /// Records `[cursor.next_epoch, end.height)` in one transaction.
    async fn record(&self, cursor: &Cursor, end: TipSet) -> TurnResult {
        self.check_rollback(cursor).await?;
        let chunk = Chunk::read(
            self.app,
            (self.pool, &self.miner),
            cursor.next_epoch,
            end,
            &cursor.last_cid,
        )
        .await?;
        let (sectors, then) = self.changes(cursor, &chunk).await?;
        let records = Records {
            sectors,
            wins: rewards::wins(&chunk).await?,
            flows: flows(cursor, &chunk).await?,
            day_end: match ended_day(cursor, &chunk.end) {
                Some(day) => Some(day_end(self.app, &self.miner, day, &chunk.end).await?),
                None => None,
            },
        };
        let last_cid = chunk.last_cid();
        let (cursor, pool, end_height, head) =
            (cursor.clone(), self.pool.id, chunk.end.height, self.head);
        let recorded = transact(self.app, move |conn| {
            if !yields::advance_cursor(conn, &cursor, end_height, head, &last_cid)? {
                return Ok::<_, CloseError>(false);
            }
            records.write(conn, &cursor)?;
            Ok(true)
        })
        .await?;
        if recorded {
            self.app.followed.put(pool, then);
        }
        Ok(())
    }

    /// Fails unless the chain still has the tipset that was recorded as final.
    async fn check_rollback(&self, cursor: &Cursor) -> TurnResult {
        if cursor.last_cid.is_empty() {
            return Ok(());
        }
        let before = self
            .app
            .node
            .tipset_by_height(cursor.next_epoch - 1)
            .await?;
        let cid = before
            .cids
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
        if cid != cursor.last_cid {
            bail!(
                "the node's chain differs below epoch {} from what was recorded as final \
                 ({cid} instead of {}); nothing is recorded or posted until the node agrees again",
                cursor.next_epoch,
                cursor.last_cid
            );
        }
        Ok(())
    }
}

/// Fees, deposits and pledge of a chunk.
async fn flows(cursor: &Cursor, chunk: &Chunk<'_>) -> anyhow::Result<Vec<Flow>> {
    let mut flows = fees(chunk).await?;
    flows.extend(bonds(chunk).await?);
    // A day's state is read from the first tipset after it, and includes everything up to there.
    let time = cursor.time();
    let last = time.first_epoch(time.day(cursor.next_epoch) + 1) - 1;
    for flow in &mut flows {
        flow.epoch = flow.epoch.min(last);
    }
    Ok(flows)
}

async fn close_days(app: &Shared, pool: &Pool) -> TurnResult {
    loop {
        let (id, now) = (pool.id, app.now());
        let Some(closed) = transact(app, move |conn| yields::close_day(conn, id, now)).await?
        else {
            return Ok(());
        };
        tracing::info!(
            pool = pool.name,
            day = sealyard_core::clock::day_text(closed.day),
            posted = %closed.posted,
            lots = closed.lots,
            "day closed"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_network_version_stops_the_sync_and_names_the_remedy() {
        check_version(28, 29).unwrap();
        check_version(29, 29).unwrap();
        for unknown in [24, 30] {
            let said = check_version(unknown, 29).unwrap_err().to_string();
            assert!(
                said.contains(&format!("version {unknown}"))
                    && said.contains("newest_network_version"),
                "{said}"
            );
        }
    }
}
