//! Follows the chain to finality: blocks won, and when sectors count, recorded exactly once and in order. Then closes days.

use std::collections::{HashMap, HashSet};

use anyhow::{Context, bail, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
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
    rpc::{SectorInfo, TipSet},
};

use super::{
    TurnResult, block_rewards,
    chain_bonds::bonds,
    chain_day::{day_end, ended_day},
    chain_fees::fees,
    pipeline::miner_address,
    pools,
};
use crate::app::{Shared, read, transact};

/// Epochs recorded in one transaction: a deadline's length, so that a sector changes at most once within.
const CHUNK: i64 = 60;
/// Chunks before other pools get their turn.
const CHUNKS_PER_TURN: usize = 48;
const REQUESTS_AT_ONCE: usize = 8;

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

/// A piece of the chain that is read at once: `[first, end)`, at both ends of which there is a tipset.
pub struct Chunk<'a> {
    pub app: &'a Shared,
    pub pool: &'a Pool,
    pub miner: &'a Address,
    pub first: i64,
    pub end: &'a TipSet,
}

impl Chunk<'_> {
    /// The first tipset after `epoch`: its state is that after `epoch`.
    pub async fn tipset_after(&self, epoch: i64) -> anyhow::Result<TipSet> {
        for next in epoch + 1..self.end.height {
            let tipset = self.app.node.tipset_by_height(next).await?;
            if tipset.height == next {
                return Ok(tipset);
            }
        }
        Ok(self.end.clone())
    }

    /// Epochs in `[first, end)` that are the last of a deadline, with the deadline's index.
    pub async fn deadline_ends(&self) -> anyhow::Result<Vec<(i64, u64)>> {
        let now = self.app.node.proving_deadline(self.miner).await?;
        let (length, count) = (now.challenge_window.max(1), i64::try_from(now.period_deadlines)?.max(1));
        let ends = (self.first..self.end.height).filter(|epoch| (epoch + 1 - now.period_start).rem_euclid(length) == 0);
        let index = |epoch: i64| ((epoch + 1 - now.period_start).div_euclid(length) - 1).rem_euclid(count);
        ends.map(|epoch| Ok((epoch, u64::try_from(index(epoch))?))).collect()
    }
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
            self.record(&cursor, &end).await?;
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
    async fn record(&self, cursor: &Cursor, end: &TipSet) -> TurnResult {
        self.check_rollback(cursor).await?;
        let changes = self.changes(cursor.next_epoch, end).await?;
        let chunk = Chunk { app: self.app, pool: self.pool, miner: &self.miner, first: cursor.next_epoch, end };
        let wins = self.wins(cursor, &chunk).await?;
        let mut flows = fees(&chunk).await?;
        flows.extend(bonds(&chunk).await?);
        // A day's state is read from the first tipset after it: what happened up to there is in it.
        let last = cursor.time().first_epoch(cursor.time().day(cursor.next_epoch) + 1) - 1;
        flows.iter_mut().for_each(|flow| flow.epoch = flow.epoch.min(last));
        let day_end = match ended_day(cursor, end) {
            Some(day) => Some(day_end(self.app, &self.miner, day, end).await?),
            None => None,
        };
        let before = self.app.node.tipset_by_height(end.height - 1).await?;
        let last_cid = before.cids.first().map(ToString::to_string).unwrap_or_default();
        let (cursor, pool, end_height, head) = (cursor.clone(), self.pool.id, end.height, self.head);
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

    /// Wins of the tipsets from the cursor to `end`, each of which must be built on the one before: a tipset that was left out, or
    /// one of another chain, shows.
    async fn wins(&self, cursor: &Cursor, chunk: &Chunk<'_>) -> anyhow::Result<Vec<Win>> {
        let tipsets: Vec<TipSet> = stream::iter(chunk.first..chunk.end.height)
            .map(|epoch| async move { Ok::<_, anyhow::Error>((epoch, self.app.node.tipset_by_height(epoch).await?)) })
            .buffered(REQUESTS_AT_ONCE)
            // A null round answers with the tipset before it.
            .try_filter_map(|(epoch, tipset)| async move { Ok((tipset.height == epoch).then_some(tipset)) })
            .try_collect()
            .await?;
        check_links(&cursor.last_cid, &tipsets, chunk.end)?;
        let mut wins = Vec::new();
        for tipset in tipsets {
            for at in (0..tipset.blocks.len()).filter(|at| tipset.blocks.get(*at).is_some_and(|block| block.miner == self.miner))
            {
                wins.extend(block_rewards::win(chunk, &tipset, at).await?);
            }
        }
        Ok(wins)
    }

    /// Sectors whose membership in the active set differs at the chunk's end from what is recorded, each with the exact epoch.
    async fn changes(&self, first: i64, end: &TipSet) -> anyhow::Result<Vec<Change>> {
        let pool = self.pool.id;
        let (known, ours) = read(self.app, move |conn| {
            let known: HashSet<i64> = yields::open_intervals(conn, pool)?.into_iter().map(|i| i.number).collect();
            let ours: HashMap<i64, ContractId> = sealing::all_sectors(conn, i64::MAX)?
                .into_iter()
                .filter(|s| s.pool_id == pool)
                .map(|s| (s.number, s.contract_id))
                .collect();
            Ok((known, ours))
        })
        .await?;
        let now_active = self.active(end).await?;
        let mut changes = Vec::new();
        for (number, info) in now_active.iter().filter(|(number, _)| !known.contains(number)) {
            changes.push(Change::On(PowerOn {
                pool_id: pool,
                number: *number,
                contract_id: ours.get(number).copied(),
                start_epoch: self.change_epoch(first, end.height, *number, true).await?,
                qa_power: sector_power(self.pool, info)?,
                pledge_atto: info.initial_pledge.atto().to_string(),
                daily_fee_atto: info.daily_fee.atto().to_string(),
            }));
        }
        for number in known.into_iter().filter(|number| !now_active.contains_key(number)) {
            let epoch = self.change_epoch(first, end.height, number, false).await?;
            changes.push(Change::Off { number, epoch });
        }
        changes.sort_by_key(Change::number);
        Ok(changes)
    }

    /// Sectors that count, which must add up to the power that the miner claims.
    async fn active(&self, tipset: &TipSet) -> anyhow::Result<HashMap<i64, SectorInfo>> {
        let sectors = self.app.node.active_sectors(&self.miner, &tipset.cids).await?;
        let claim = self.app.node.miner_power(&self.miner, &tipset.cids).await?.miner_power;
        let raw = BigInt::from(self.pool.sector_bytes) * sectors.len();
        let mut power = BigInt::default();
        for sector in &sectors {
            power += sector_power(self.pool, sector)?;
        }
        ensure!(
            (&raw, &power) == (&claim.raw_byte_power, &claim.quality_adj_power),
            "the node says that {} active sectors have {power} bytes of power at epoch {}, but miner {} claims {}; nothing is recorded \
             until that adds up",
            sectors.len(),
            tipset.height,
            self.miner,
            claim.quality_adj_power
        );
        sectors.into_iter().map(|s| Ok((i64::try_from(s.sector_number)?, s))).collect()
    }

    /// The epoch in `[first, end)` in whose execution the sector came to be (or ceased to be) active. State read at a tipset is
    /// that before its own messages, hence the one epoch less.
    async fn change_epoch(&self, first: i64, end: i64, number: i64, active: bool) -> anyhow::Result<i64> {
        let (mut before, mut after) = (first, end);
        while after - before > 1 {
            let middle = i64::midpoint(before, after);
            let tipset = self.app.node.tipset_by_height(middle).await?;
            if tipset.height <= before {
                before = middle;
                continue;
            }
            if self.active(&tipset).await?.contains_key(&number) == active {
                after = tipset.height;
            } else {
                before = middle;
            }
        }
        Ok(after - 1)
    }
}

/// Every tipset must be built on the one before it, the first on the block `below` that was recorded last.
fn check_links(below: &str, tipsets: &[TipSet], end: &TipSet) -> TurnResult {
    let mut below = below.to_owned();
    for tipset in tipsets.iter().chain([end]) {
        let parent = tipset.parents().first().map(ToString::to_string).unwrap_or_default();
        ensure!(
            below.is_empty() || parent == below,
            "the node's tipset of epoch {} is built on {parent}, the one below it is {below}; nothing is recorded until that fits",
            tipset.height
        );
        below = tipset.cids.first().map(ToString::to_string).unwrap_or_default();
    }
    Ok(())
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
    use serde_json::json;

    use super::*;

    const CIDS: [&str; 4] = [
        "bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4",
        "bafkqaaa",
        "bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy",
        "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
    ];

    /// The tipset of epoch `at`, which names the one before as its parent; a block for each of `heights`.
    fn tipset(at: usize, heights: &[usize]) -> TipSet {
        let cid = |at: usize| json!({"/": CIDS[at]});
        let block = |height: &usize| {
            json!({
                "Miner": "f01000", "Parents": [cid(at - 1)], "ParentWeight": "1", "Height": height, "ParentStateRoot": cid(0),
                "ParentMessageReceipts": cid(0), "Messages": cid(0), "Timestamp": 0, "ForkSignaling": 0, "ParentBaseFee": "100"
            })
        };
        let blocks: Vec<_> = heights.iter().map(block).collect();
        let cids: Vec<_> = heights.iter().map(|_| cid(at)).collect();
        serde_json::from_value(json!({"Cids": cids, "Blocks": blocks, "Height": at})).unwrap()
    }

    #[test]
    fn rules_that_are_not_known_stop_everything_and_say_what_to_do() {
        check_version(28, 29).unwrap();
        check_version(29, 29).unwrap();
        for unknown in [24, 30] {
            let said = check_version(unknown, 29).unwrap_err().to_string();
            assert!(said.contains(&format!("version {unknown}")) && said.contains("newest_network_version"), "{said}");
        }
    }

    #[test]
    fn a_tipset_that_is_left_out_or_of_another_chain_shows() {
        let [one, two, three] = [tipset(1, &[1]), tipset(2, &[2]), tipset(3, &[3])];
        check_links(CIDS[0], &[one.clone(), two.clone()], &three).unwrap();
        check_links("", std::slice::from_ref(&two), &three).unwrap();
        for (below, tipsets) in [(CIDS[0], vec![one]), (CIDS[0], vec![two]), (CIDS[3], Vec::new())] {
            assert!(check_links(below, &tipsets, &three).is_err(), "{below} {tipsets:?}");
        }
    }

    #[test]
    fn a_tipset_that_contradicts_itself_is_none() {
        assert_eq!(tipset(2, &[2, 2]).fault(), None);
        assert!(tipset(2, &[2, 1]).fault().is_some());
        assert!(tipset(2, &[]).fault().is_some());
    }
}
