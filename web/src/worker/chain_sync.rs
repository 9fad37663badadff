//! Follows the chain to finality: blocks won, and when sectors count, recorded exactly once and in order. Then closes days.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use anyhow::{Context, bail, ensure};
use fvm_shared::{address::Address, bigint::BigInt};
use sealyard_core::{
    capacity::Pool,
    ids::ContractId,
    sealing,
    store::DbFault,
    units::ChainTime,
    yields::{self, CloseError, Cursor, PowerOn, Win},
};
use sealyard_filecoin::{
    economics::quality_adjusted,
    rpc::{BitFieldJson, SectorInfo, TipSet},
};

use super::{
    TurnResult,
    active::active_numbers,
    block_rewards,
    chain_bonds::bonds,
    chain_day::{day_end, ended_day},
    chain_fees::fees,
    chunk::Chunk,
    pipeline::miner_address,
    pools,
};
use crate::app::{Shared, read, transact};

/// Epochs recorded in one transaction: a deadline's length, so that a sector changes at most once within.
const CHUNK: i64 = 60;
/// Sectors of which one answer tells: some megabytes.
const SECTORS_AT_ONCE: usize = 5000;
/// Chunks before other pools get their turn.
const CHUNKS_PER_TURN: usize = 48;

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
    transact(app, move |conn| Ok::<_, DbFault>(yields::init_cursor(conn, id, time, next)?)).await?;
    read(app, move |conn| yields::cursor(conn, id)).await?.context("the cursor was not stored")
}

/// Rules of earlier versions than that of FIP-0100 are not known here.
const OLDEST_VERSION: u32 = 25;

/// Another network's chain is not this pool's, and what rules that are not known mean is not either.
async fn check_network(app: &Shared, cursor: &Cursor) -> TurnResult {
    check_version(app.node.network_version(&Vec::new()).await?, app.config.newest_network_version)?;
    let (pool, found) = (cursor.pool_id, app.node.network_name().await?);
    if cursor.network.is_empty() {
        transact(app, move |conn| Ok::<_, DbFault>(yields::name_network(conn, pool, &found)?)).await?;
    } else if cursor.network != found {
        bail!("the node is on network {found:?}, this pool's chain is {:?}; nothing is recorded or posted", cursor.network);
    }
    Ok(())
}

fn check_version(version: u32, newest: u32) -> TurnResult {
    ensure!(
        (OLDEST_VERSION..=newest).contains(&version),
        "the node is on network version {version}, versions {OLDEST_VERSION} to {newest} are known here; nothing is recorded or posted until \
         Sealyard is brought up to date, or newest_network_version is raised because nothing of that version touches money"
    );
    Ok(())
}

struct Follow<'a> {
    app: &'a Shared,
    pool: &'a Pool,
    miner: Address,
    head: i64,
}

/// A sector that began or stopped to count.
#[derive(Clone)]
enum Change {
    On(PowerOn),
    Off { number: i64, epoch: i64 },
}

impl Change {
    fn number(&self) -> i64 {
        match self {
            Self::On(on) => on.number,
            Self::Off { number, .. } => *number,
        }
    }
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
        let changes = self.changes(&chunk).await?;
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
        transact(self.app, move |conn| {
            if !yields::advance_cursor(conn, &cursor, end_height, head, &last_cid)? {
                return Ok::<_, CloseError>(());
            }
            for win in &wins {
                yields::record_win(conn, win)?;
            }
            for change in &changes {
                match change {
                    Change::On(on) => yields::power_on(conn, on)?,
                    Change::Off { number, epoch } => yields::power_off(conn, pool, *number, *epoch)?,
                }
            }
            for flow in &flows {
                yields::record_flow(conn, flow)?;
            }
            day_end.as_ref().map_or(Ok(()), |day_end| day_end.record(conn, &cursor))
        })
        .await?;
        Ok(())
    }

    /// What was recorded as final must still be there.
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
    /// those that are new is anything else read.
    async fn changes(&self, chunk: &Chunk<'_>) -> anyhow::Result<Vec<Change>> {
        let pool = self.pool.id;
        let (known, ours) = read(self.app, move |conn| {
            let known: HashMap<i64, i64> =
                yields::open_intervals(conn, pool)?.into_iter().map(|i| (i.number, i.qa_power)).collect();
            let ours: HashMap<i64, ContractId> = sealing::sector_owners(conn, pool)?.into_iter().collect();
            Ok((known, ours))
        })
        .await?;
        let seen = Seen::default();
        let now_active = self.active(&chunk.end, &seen).await?;
        let new: BTreeSet<u64> =
            now_active.iter().copied().filter(|n| i64::try_from(*n).is_ok_and(|n| !known.contains_key(&n))).collect();
        let infos = self.infos(&new, &chunk.end).await?;
        self.check_power(&now_active, (&known, &infos), &chunk.end).await?;
        let mut changes = Vec::new();
        for info in &infos {
            let number = i64::try_from(info.sector_number)?;
            changes.push(Change::On(PowerOn {
                pool_id: pool,
                number,
                contract_id: ours.get(&number).copied(),
                start_epoch: self.change_epoch(chunk, (number, true), &seen).await?,
                qa_power: sector_power(self.pool, info)?,
                pledge_atto: info.initial_pledge.atto().to_string(),
                daily_fee_atto: info.daily_fee.atto().to_string(),
            }));
        }
        for number in known.into_keys() {
            if !now_active.contains(&u64::try_from(number)?) {
                let epoch = self.change_epoch(chunk, (number, false), &seen).await?;
                changes.push(Change::Off { number, epoch });
            }
        }
        changes.sort_by_key(Change::number);
        Ok(changes)
    }

    /// Numbers of sectors that count at a tipset: as many as the miner claims raw power for.
    async fn active(&self, tipset: &TipSet, seen: &Seen) -> anyhow::Result<Arc<BTreeSet<u64>>> {
        if let Some(active) = seen.0.lock().await.get(&tipset.height) {
            return Ok(Arc::clone(active));
        }
        let (active, claim) = active_numbers(self.app, (&self.miner, self.pool.sector_bytes), &tipset.cids).await?;
        let active = Arc::new(active);
        ensure!(
            BigInt::from(self.pool.sector_bytes) * active.len() == claim.raw_byte_power,
            "the node says that {} sectors of miner {} are active at epoch {}, which claims {} bytes; nothing is recorded until that \
             adds up",
            active.len(),
            self.miner,
            tipset.height,
            claim.raw_byte_power
        );
        seen.0.lock().await.insert(tipset.height, Arc::clone(&active));
        Ok(active)
    }

    /// The chain's records of these sectors, in answers of a bounded length: of each that was asked for, and of no other.
    async fn infos(&self, numbers: &BTreeSet<u64>, tipset: &TipSet) -> anyhow::Result<Vec<SectorInfo>> {
        let all: Vec<u64> = numbers.iter().copied().collect();
        let mut infos = Vec::with_capacity(all.len());
        for part in all.chunks(SECTORS_AT_ONCE) {
            let wanted: BitFieldJson = part.iter().copied().collect();
            let mut answer = self.app.node.sectors(&self.miner, &wanted, &tipset.cids).await?;
            answer.sort_unstable_by_key(|info| info.sector_number);
            ensure!(
                answer.iter().map(|info| info.sector_number).eq(part.iter().copied()),
                "the node does not tell what it has of {} sectors of miner {} at epoch {}; nothing is recorded until it does",
                part.len(),
                self.miner,
                tipset.height
            );
            infos.append(&mut answer);
        }
        Ok(infos)
    }

    /// The power of sectors that count, those that are known and those that are new, must add up to what the miner claims. Where it does
    /// not, some may have been extended: then all are read, once.
    async fn check_power(
        &self,
        active: &BTreeSet<u64>,
        (known, new): (&HashMap<i64, i64>, &[SectorInfo]),
        tipset: &TipSet,
    ) -> TurnResult {
        let claim = self.app.node.miner_power(&self.miner, &tipset.cids).await?.miner_power.quality_adj_power;
        let sum = |infos: &[SectorInfo]| {
            infos.iter().try_fold(BigInt::default(), |sum, info| Ok::<_, anyhow::Error>(sum + sector_power(self.pool, info)?))
        };
        let there = known.iter().filter(|(number, _)| u64::try_from(**number).is_ok_and(|n| active.contains(&n)));
        let mut power = there.fold(sum(new)?, |sum, (_, power)| sum + power);
        if power != claim {
            power = sum(&self.infos(active, tipset).await?)?;
        }
        ensure!(
            power == claim,
            "the node says that {} active sectors have {power} bytes of power at epoch {}, but miner {} claims {claim}; nothing is \
             recorded until that adds up",
            active.len(),
            tipset.height,
            self.miner
        );
        Ok(())
    }

    /// The epoch in whose execution the sector came to be (or ceased to be) active.
    async fn change_epoch(&self, chunk: &Chunk<'_>, (number, active): (i64, bool), seen: &Seen) -> anyhow::Result<i64> {
        let number = u64::try_from(number)?;
        chunk.changed_at(|tipset| async move { Ok(self.active(tipset, seen).await?.contains(&number) == active) }).await
    }
}

/// Active sectors by the height of the tipset at which they were read.
#[derive(Default)]
struct Seen(tokio::sync::Mutex<HashMap<i64, Arc<BTreeSet<u64>>>>);

async fn wins(chunk: &Chunk<'_>) -> anyhow::Result<Vec<Win>> {
    let mut wins = Vec::new();
    for tipset in &chunk.tipsets {
        for (at, _) in tipset.blocks.iter().enumerate().filter(|(_, block)| block.miner == *chunk.miner) {
            wins.extend(block_rewards::win(chunk, tipset, at).await?);
        }
    }
    Ok(wins)
}

/// Quality-adjusted bytes, as the chain's own weights and flags have them.
pub fn sector_power(pool: &Pool, info: &SectorInfo) -> anyhow::Result<i64> {
    let lives = info.expiration.checked_sub(info.power_base_epoch).filter(|lives| *lives > 0);
    let lives = lives.with_context(|| format!("sector {} expires before it counts", info.sector_number))?;
    ensure!(
        !info.initial_pledge.is_negative() && !info.daily_fee.is_negative(),
        "sector {} has less than no pledge or daily fee",
        info.sector_number
    );
    let power = quality_adjusted(u64::try_from(pool.sector_bytes)?, lives, &info.verified_deal_weight, info.flags);
    Ok(i64::try_from(power)?)
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
    fn rules_that_are_not_known_stop_everything_and_say_what_to_do() {
        check_version(28, 29).unwrap();
        check_version(29, 29).unwrap();
        for unknown in [24, 30] {
            let said = check_version(unknown, 29).unwrap_err().to_string();
            assert!(said.contains(&format!("version {unknown}")) && said.contains("newest_network_version"), "{said}");
        }
    }
}
