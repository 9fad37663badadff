//! Follows the chain to finality: blocks won, and when sectors count, recorded exactly once and in order. Then closes days.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anyhow::{Context, bail, ensure};
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use sealyard_core::{
    capacity::Pool,
    ids::{ContractId, PoolId},
    sealing,
    units::ChainTime,
    yields::{self, CloseError, Cursor, PowerOn, Win},
};
use sealyard_filecoin::rpc::{Numbers, SectorInfo, TipSet};

use super::{
    bonds::bonds,
    chunk::Chunk,
    day::{day_end, ended_day},
    fees::fees,
    members::{Members, each_info, power_of, sector_power},
    rewards,
};
use crate::{
    app::{Shared, read, transact, write},
    worker::{TurnResult, pipeline::miner_address, pools},
};

/// Epochs recorded in one transaction: a deadline's length, so that a sector changes at most once within.
const CHUNK: i64 = 60;
/// Chunks before other pools get their turn.
const CHUNKS_PER_TURN: usize = 48;
/// Rows that are made and written together.
const ROWS_AT_ONCE: usize = 5000;

pub async fn turn(app: Shared) -> TurnResult {
    for pool in pools(&app).await? {
        let cursor = start(&app, &pool).await?;
        check_network(&app, &cursor).await?;
        let head = app.node.chain_head().await?.height;
        let follow = Follow { app: &app, pool: &pool, miner: miner_address(&pool)?, head };
        follow.catch_up(cursor).await?;
        close_days(&app, &pool).await?;
    }
    Ok(())
}

/// The cursor, made on first use: reading starts at what is final then.
async fn start(app: &Shared, pool: &Pool) -> anyhow::Result<Cursor> {
    let id = pool.id;
    if let Some(cursor) = read(app, move |conn| yields::cursor(conn, id)).await? {
        return Ok(cursor);
    }
    let genesis = app.node.genesis().await?;
    let genesis_at = genesis.blocks.first().context("the genesis tipset has no block")?.timestamp;
    let epoch_seconds = app.node.network_params().await?.block_delay_secs;
    if epoch_seconds < 1 {
        bail!("the node says that an epoch lasts {epoch_seconds} s");
    }
    let next = (app.node.chain_head().await?.height - app.config.finality).max(0);
    let time = ChainTime { genesis_at, epoch_seconds };
    write(app, move |conn| yields::init_cursor(conn, id, time, next)).await?;
    read(app, move |conn| yields::cursor(conn, id)).await?.context("the cursor was not stored")
}

/// Rules of earlier versions than that of FIP-0100 are not known here.
const OLDEST_VERSION: u32 = 25;

/// Another network's chain is not this pool's, and what rules that are not known mean is not either.
async fn check_network(app: &Shared, cursor: &Cursor) -> TurnResult {
    check_version(app.node.network_version(&Vec::new()).await?, app.config.newest_network_version)?;
    let (pool, found) = (cursor.pool_id, app.node.network_name().await?);
    if cursor.network.is_empty() {
        write(app, move |conn| yields::name_network(conn, pool, &found)).await?;
    } else if cursor.network != found {
        bail!("the node is on network {found:?}, but this pool's chain is {:?}; nothing is recorded or posted", cursor.network);
    }
    Ok(())
}

fn check_version(version: u32, newest: u32) -> TurnResult {
    ensure!(
        (OLDEST_VERSION..=newest).contains(&version),
        "the node is on network version {version}, but this release knows {OLDEST_VERSION} to {newest}; nothing is recorded \
         or posted until Sealyard is upgraded. If nothing in that version affects money, raise newest_network_version instead"
    );
    Ok(())
}

struct Follow<'a> {
    app: &'a Shared,
    pool: &'a Pool,
    miner: Address,
    head: i64,
}

/// The recorded sectors of each pool, kept so that a chunk reads only changes.
#[derive(Default)]
pub struct Followed(Mutex<HashMap<PoolId, Recorded>>);

/// A pool's sectors that count, as recorded before an epoch.
#[derive(Clone)]
struct Recorded {
    next_epoch: i64,
    active: Numbers,
    /// Quality-adjusted bytes of all of them, as the chain claimed them.
    power: BigInt,
}

impl Followed {
    /// `None`: not as of this epoch, so that the books have to be read.
    fn take(&self, pool: PoolId, next_epoch: i64) -> Option<Recorded> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.remove(&pool).filter(|recorded| recorded.next_epoch == next_epoch)
    }

    fn put(&self, pool: PoolId, recorded: Recorded) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(pool, recorded);
    }
}

/// A sector that began to count. Amounts in attoFIL.
#[derive(Clone, Copy)]
struct Began {
    number: i64,
    contract: Option<ContractId>,
    epoch: i64,
    qa_power: i64,
    pledge: i128,
    daily_fee: i128,
}

impl Began {
    fn row(&self, pool_id: PoolId) -> PowerOn {
        PowerOn {
            pool_id,
            number: self.number,
            contract_id: self.contract,
            start_epoch: self.epoch,
            qa_power: self.qa_power,
            pledge_atto: self.pledge.to_string(),
            daily_fee_atto: self.daily_fee.to_string(),
        }
    }
}

/// Sectors that began and ceased to count in a chunk, with the epochs, and what is recorded when that is.
struct Changes {
    began: Vec<Began>,
    ceased: Vec<(i64, i64)>,
    then: Recorded,
}

impl Follow<'_> {
    async fn catch_up(&self, mut cursor: Cursor) -> TurnResult {
        let id = self.pool.id;
        for _ in 0..CHUNKS_PER_TURN {
            let Some(end) = self.chunk_end(&cursor).await? else { return Ok(()) };
            self.record(&cursor, end).await?;
            cursor = read(self.app, move |conn| yields::cursor(conn, id)).await?.context("the cursor is gone")?;
        }
        Ok(())
    }

    /// The tipset that ends the next chunk: final, a whole chunk on or the first of a new day, and not null, because a state is read
    /// from the tipset after it.
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
        let chunk = Chunk::read(self.app, (self.pool, &self.miner), cursor.next_epoch, end, &cursor.last_cid).await?;
        let changes = self.changes(cursor, &chunk).await?;
        let Changes { began, ceased, then } = changes;
        let wins = wins(&chunk).await?;
        let mut flows = fees(&chunk).await?;
        flows.extend(bonds(&chunk).await?);
        // A day's state is read from the first tipset after it: what happened up to there is in it.
        let last = cursor.time().first_epoch(cursor.time().day(cursor.next_epoch) + 1) - 1;
        flows.iter_mut().for_each(|flow| flow.epoch = flow.epoch.min(last));
        let day_end = match ended_day(cursor, &chunk.end) {
            Some(day) => Some(day_end(self.app, &self.miner, day, &chunk.end).await?),
            None => None,
        };
        let last_cid = chunk.last_cid();
        let (cursor, pool, end_height, head) = (cursor.clone(), self.pool.id, chunk.end.height, self.head);
        let recorded = transact(self.app, move |conn| {
            if !yields::advance_cursor(conn, &cursor, end_height, head, &last_cid)? {
                return Ok::<_, CloseError>(false);
            }
            for win in &wins {
                yields::record_win(conn, win)?;
            }
            for some in began.chunks(ROWS_AT_ONCE) {
                yields::power_on(conn, &some.iter().map(|began| began.row(pool)).collect::<Vec<_>>())?;
            }
            for (number, epoch) in &ceased {
                yields::power_off(conn, pool, *number, *epoch)?;
            }
            yields::record_flows(conn, &flows)?;
            day_end.as_ref().map_or(Ok(()), |day_end| day_end.record(conn, &cursor))?;
            Ok(true)
        })
        .await?;
        if recorded {
            self.app.followed.put(pool, then);
        }
        Ok(())
    }

    /// Fails unless the tipset that was recorded as final is still there.
    async fn check_rollback(&self, cursor: &Cursor) -> TurnResult {
        if cursor.last_cid.is_empty() {
            return Ok(());
        }
        let before = self.app.node.tipset_by_height(cursor.next_epoch - 1).await?;
        let cid = before.cids.first().map(ToString::to_string).unwrap_or_default();
        if cid != cursor.last_cid {
            bail!(
                "the node's chain differs below epoch {} from what was recorded as final ({cid} instead of {}); nothing is recorded or \
                 posted until the node agrees again",
                cursor.next_epoch,
                cursor.last_cid
            );
        }
        Ok(())
    }

    /// Sectors whose membership in the active set differs at the chunk's end from what is recorded, each with the exact epoch. Only of
    /// those is anything else read.
    async fn changes(&self, cursor: &Cursor, chunk: &Chunk<'_>) -> anyhow::Result<Changes> {
        let was = self.recorded(cursor).await?;
        let members = chunk.members(&chunk.end).await?;
        let (new, gone) = (members.active.minus(&was.active), was.active.minus(&members.active));
        let mut began = Vec::new();
        each_info((&self.app.node, &self.miner), &new, &chunk.end.cids, |infos| {
            for info in infos {
                began.push(self.began(&info)?);
            }
            Ok(())
        })
        .await?;
        self.check_power(&was, (&began, &gone), (&members, &chunk.end)).await?;
        for some in began.chunks_mut(ROWS_AT_ONCE) {
            let (pool, numbers) = (self.pool.id, some.iter().map(|began| began.number).collect::<Vec<_>>());
            let owners = read(self.app, move |conn| sealing::owners_of(conn, pool, &numbers)).await?;
            let owners: HashMap<i64, ContractId> = owners.into_iter().collect();
            for began in some {
                began.contract = owners.get(&began.number).copied();
                began.epoch = change_epoch(chunk, (began.number, true)).await?;
            }
        }
        let mut ceased = Vec::new();
        for number in gone.iter() {
            let number = i64::try_from(number)?;
            ceased.push((number, change_epoch(chunk, (number, false)).await?));
        }
        let power = members.claim.quality_adj_power.clone();
        let then = Recorded { next_epoch: chunk.end.height, active: members.active.clone(), power };
        Ok(Changes { began, ceased, then })
    }

    fn began(&self, info: &SectorInfo) -> anyhow::Result<Began> {
        let atto = |amount: &TokenAmount| i128::try_from(amount.atto()).context("more FIL than can exist");
        Ok(Began {
            number: i64::try_from(info.sector_number)?,
            contract: None,
            epoch: 0,
            qa_power: sector_power(self.pool, info)?,
            pledge: atto(&info.initial_pledge)?,
            daily_fee: atto(&info.daily_fee)?,
        })
    }

    /// As remembered from the last chunk, or from the books.
    async fn recorded(&self, cursor: &Cursor) -> anyhow::Result<Recorded> {
        let (pool, next_epoch) = (self.pool.id, cursor.next_epoch);
        if let Some(recorded) = self.app.followed.take(pool, next_epoch) {
            return Ok(recorded);
        }
        let (numbers, power) = read(self.app, move |conn| yields::counting_now(conn, pool)).await?;
        let active = numbers.into_iter().map(u64::try_from).collect::<Result<Numbers, _>>()?;
        Ok(Recorded { next_epoch, active, power: power.into() })
    }

    /// The power of sectors that count, those that are known and those that are new, must add up to what the miner claims. Where it does
    /// not, some may have been extended: then all are read, once.
    async fn check_power(
        &self,
        was: &Recorded,
        (began, gone): (&[Began], &Numbers),
        (members, tipset): (&Members, &TipSet),
    ) -> TurnResult {
        let claim = &members.claim.quality_adj_power;
        let (pool, numbers) = (self.pool.id, gone.iter().map(i64::try_from).collect::<Result<Vec<_>, _>>()?);
        let lost = read(self.app, move |conn| yields::power_counting(conn, pool, &numbers)).await?;
        let mut power = &was.power - lost + began.iter().map(|began| i128::from(began.qa_power)).sum::<i128>();
        if power != *claim {
            power = power_of((&self.app.node, &self.miner), self.pool, &members.active, &tipset.cids).await?;
        }
        ensure!(
            power == *claim,
            "the node says that {} active sectors have {power} bytes of power at epoch {}, but miner {} claims {claim}; nothing is \
             recorded until that adds up",
            members.active.len(),
            tipset.height,
            self.miner
        );
        Ok(())
    }
}

/// The epoch in whose execution the sector came to be (or ceased to be) active.
async fn change_epoch(chunk: &Chunk<'_>, (number, active): (i64, bool)) -> anyhow::Result<i64> {
    let number = u64::try_from(number)?;
    chunk.changed_at(|tipset| async move { Ok(chunk.members(tipset).await?.active.contains(number) == active) }).await
}

async fn wins(chunk: &Chunk<'_>) -> anyhow::Result<Vec<Win>> {
    let mut wins = Vec::new();
    for tipset in &chunk.tipsets {
        for (at, _) in tipset.blocks.iter().enumerate().filter(|(_, block)| block.miner == *chunk.miner) {
            wins.extend(rewards::win(chunk, tipset, at).await?);
        }
    }
    Ok(wins)
}

async fn close_days(app: &Shared, pool: &Pool) -> TurnResult {
    loop {
        let (id, now) = (pool.id, app.now());
        let Some(closed) = transact(app, move |conn| yields::close_day(conn, id, now)).await? else { return Ok(()) };
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
            assert!(said.contains(&format!("version {unknown}")) && said.contains("newest_network_version"), "{said}");
        }
    }
}
