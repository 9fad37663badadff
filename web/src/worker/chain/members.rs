//! Sectors of a miner at a tipset, deadline by deadline. A deadline's CID identifies its content,
//! so only deadlines that changed are read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, ensure};
use cid::Cid;
use futures_util::{StreamExt, TryStreamExt, stream};
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use sealyard_core::capacity::Pool;
use sealyard_filecoin::{
    economics::quality_adjusted,
    rpc::{
        BitFieldJson, Claim, DeadlineSectors, DeadlineTotals, Node, Numbers, RpcError, SectorInfo,
        TipSet, TipSetKey,
    },
};

/// Sectors in one answer, which is then a few megabytes long.
const SECTORS_AT_ONCE: usize = 5000;
const REQUESTS_AT_ONCE: usize = 4;
/// A deadline that is not needed for this many reads is forgotten.
const REMEMBERED: u64 = 32;

/// Deadlines of all miners that were read, by their CIDs.
#[derive(Default)]
pub struct DeadlineCache(Mutex<Remembered>);

#[derive(Default)]
struct Remembered {
    reads: u64,
    deadlines: HashMap<Cid, (u64, Arc<DeadlineSectors>)>,
}

impl DeadlineCache {
    fn get(&self, cid: &Cid) -> Option<Arc<DeadlineSectors>> {
        let remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered
            .deadlines
            .get(cid)
            .map(|(_, sectors)| Arc::clone(sectors))
    }

    fn put(&self, cid: Cid, sectors: Arc<DeadlineSectors>) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let now = remembered.reads;
        remembered.deadlines.insert(cid, (now, sectors));
    }

    fn next_read(&self) {
        let mut remembered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        remembered.reads += 1;
        let oldest = remembered.reads.saturating_sub(REMEMBERED);
        remembered
            .deadlines
            .retain(|_, (last_used, _)| *last_used >= oldest);
    }
}

/// A miner's sectors at a tipset.
pub struct Members {
    deadlines: Vec<Arc<DeadlineSectors>>,
    /// CIDs of the deadlines. Empty if the node does not serve them.
    cids: Vec<Cid>,
    pub active: Numbers,
    pub live: Numbers,
    /// The power that the miner claims.
    pub claim: Claim,
    /// Deposits and pledge that the miner has put up.
    pub deposits: TokenAmount,
    pub pledge: TokenAmount,
}

impl Members {
    /// Reads the deadlines that the cache does not have. The number of active sectors must match
    /// the raw power that the miner claims.
    pub async fn read(
        (node, cache): (&Node, &DeadlineCache),
        (miner, sector_bytes): (&Address, i64),
        tipset: &TipSet,
    ) -> anyhow::Result<Self> {
        // All calls must be about the same state, and the head may move between them.
        let tsk = &tipset.cids;
        cache.next_read();
        let state = node.miner_state(miner, tsk).await?.state;
        let claim = node.miner_power(miner, tsk).await?.miner_power;
        let cids = match state.deadlines {
            Some(named) => named_deadlines(node, &named.cid).await?,
            None => Vec::new(),
        };
        let count = if cids.is_empty() {
            node.deadlines(miner, tsk).await?.len()
        } else {
            cids.len()
        };
        let deadlines: Vec<Arc<DeadlineSectors>> = stream::iter(0..count)
            .map(|index| {
                let known = cids.get(index).and_then(|cid| cache.get(cid));
                async move {
                    match known {
                        Some(known) => Ok::<_, anyhow::Error>(known),
                        None => {
                            let index = u64::try_from(index)?;
                            Ok(Arc::new(node.deadline_sectors(miner, index, tsk).await?))
                        }
                    }
                }
            })
            .buffered(REQUESTS_AT_ONCE)
            .try_collect()
            .await?;
        let active = Numbers::union(deadlines.iter().map(|sectors| &sectors.active));
        ensure!(
            BigInt::from(sector_bytes) * active.len() == claim.raw_byte_power,
            "the node says that {} sectors of miner {miner} are active, but the miner claims \
             {} bytes; nothing is recorded until that adds up",
            active.len(),
            claim.raw_byte_power
        );
        let live = Numbers::union(deadlines.iter().map(|sectors| &sectors.live));
        // Only an answer that adds up is remembered: a wrong one must not outlive its call.
        for (cid, sectors) in cids.iter().zip(&deadlines) {
            cache.put(*cid, Arc::clone(sectors));
        }
        Ok(Self {
            deadlines,
            cids,
            active,
            live,
            claim,
            deposits: state.pre_commit_deposits,
            pledge: state.initial_pledge,
        })
    }

    #[must_use]
    pub fn deadline(&self, index: u64) -> Option<&DeadlineSectors> {
        self.deadlines
            .get(usize::try_from(index).ok()?)
            .map(Arc::as_ref)
    }

    /// The chain's own totals for a deadline. `None`: the node does not serve them.
    pub async fn totals(&self, node: &Node, index: u64) -> anyhow::Result<Option<DeadlineTotals>> {
        let Some(cid) = self.cids.get(usize::try_from(index)?) else {
            return Ok(None);
        };
        match node.deadline_totals(cid).await {
            // The object may have another shape in another version of the network.
            Err(RpcError::Node { .. } | RpcError::Malformed { .. }) => Ok(None),
            other => Ok(Some(other?)),
        }
    }
}

/// The CIDs of the deadlines. Empty if the node does not serve the chain's objects.
async fn named_deadlines(node: &Node, cid: &Cid) -> Result<Vec<Cid>, RpcError> {
    match node.deadline_cids(cid).await {
        Err(RpcError::Node { .. }) => Ok(Vec::new()),
        other => other,
    }
}

/// Reads the chain's records of these sectors in answers of a bounded length, and passes each
/// answer to `each`. An answer must be about exactly the sectors that were asked for.
pub async fn each_info(
    (node, miner): (&Node, &Address),
    numbers: &Numbers,
    tsk: &TipSetKey,
    mut each: impl FnMut(Vec<SectorInfo>) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut left = numbers.iter().peekable();
    while left.peek().is_some() {
        let part: Vec<u64> = left.by_ref().take(SECTORS_AT_ONCE).collect();
        let wanted: BitFieldJson = part.iter().copied().collect();
        let mut answer = node.sectors(miner, &wanted, tsk).await?;
        answer.sort_unstable_by_key(|info| info.sector_number);
        ensure!(
            answer
                .iter()
                .map(|info| info.sector_number)
                .eq(part.iter().copied()),
            "the node does not return {} of the sectors of miner {miner}; \
             nothing is recorded until it does",
            part.len()
        );
        each(answer)?;
    }
    Ok(())
}

/// Quality-adjusted bytes of a sector, from the chain's own weights and flags.
pub fn sector_power(pool: &Pool, info: &SectorInfo) -> anyhow::Result<i64> {
    let lives = info
        .expiration
        .checked_sub(info.power_base_epoch)
        .filter(|lives| *lives > 0);
    let lives =
        lives.with_context(|| format!("sector {} expires before it counts", info.sector_number))?;
    ensure!(
        !info.initial_pledge.is_negative() && !info.daily_fee.is_negative(),
        "sector {} has a negative pledge or daily fee",
        info.sector_number
    );
    let power = quality_adjusted(
        u64::try_from(pool.sector_bytes)?,
        lives,
        &info.verified_deal_weight,
        info.flags,
    );
    Ok(i64::try_from(power)?)
}

/// The power of these sectors together.
pub async fn power_of(
    (node, miner): (&Node, &Address),
    pool: &Pool,
    numbers: &Numbers,
    tsk: &TipSetKey,
) -> anyhow::Result<BigInt> {
    let mut sum = BigInt::default();
    each_info((node, miner), numbers, tsk, |infos| {
        for info in infos {
            sum += sector_power(pool, &info)?;
        }
        Ok(())
    })
    .await?;
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use sealyard_devnet::large_miner::{LargeMiner, SECTOR_BYTES, Size};
    use sealyard_filecoin::rpc::{Endpoint, NodeConfig};

    use super::*;

    #[tokio::test]
    async fn a_wrong_answer_is_not_remembered() {
        let size = Size {
            sectors: 5000,
            new_each_window: 0,
            epochs: 700,
            serves_objects: true,
        };
        let large = LargeMiner::start(size, 600).unwrap();
        let first = Endpoint {
            url: large.url.clone(),
            token: String::new(),
        };
        let timeout = Duration::from_secs(5);
        let node = Node::new(NodeConfig {
            first,
            fallbacks: Vec::new(),
            timeout,
            backoff: timeout,
        })
        .unwrap();
        let (miner, cache) = (Address::new_id(1000), DeadlineCache::default());
        let head = node.chain_head().await.unwrap();
        let read = || Members::read((&node, &cache), (&miner, SECTOR_BYTES), &head);
        large.lie_once();
        let refused = read().await.err().unwrap().to_string();
        assert!(refused.contains("until that adds up"), "{refused}");
        assert_eq!(read().await.unwrap().active.len(), 5000);
        // Now every deadline is known by its CID.
        let _ = large.traffic();
        assert_eq!(read().await.unwrap().live.len(), 5000);
        assert_eq!(
            large.traffic().0,
            3,
            "the state, the power, the names of the deadlines"
        );
    }
}
