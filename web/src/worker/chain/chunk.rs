//! A piece of the chain, read once. Its records are made only from the states of its own tipsets.

use std::{collections::HashMap, ops::Range, sync::Arc};

use anyhow::{Context, ensure};
use futures_util::{StreamExt, TryStreamExt, stream};
use fvm_shared::address::Address;
use sealyard_core::capacity::Pool;
use sealyard_filecoin::rpc::{ProvingDeadline, TipSet};

use super::members::Members;
use crate::{app::Shared, worker::TurnResult};

const REQUESTS_AT_ONCE: usize = 8;

/// The epochs `[first, end)`. Each tipset is built on the one before it.
pub struct Chunk<'a> {
    pub app: &'a Shared,
    pub pool: &'a Pool,
    pub miner: &'a Address,
    pub first: i64,
    /// Without `end`, lowest first.
    pub tipsets: Vec<TipSet>,
    /// The first tipset after the chunk. Its state is that at the chunk's end.
    pub end: TipSet,
    /// Epochs in `[first, end)` that are the last of a deadline, with the deadline's index.
    pub deadline_ends: Vec<(i64, u64)>,
    /// The miner's sectors by the height of the tipset at which they were read.
    seen: tokio::sync::Mutex<HashMap<i64, Arc<Members>>>,
}

impl<'a> Chunk<'a> {
    /// Reads the tipsets from `first` to `end`. The first must be built on the block `below`
    /// (empty: on anything) and each other on the one before it. A tipset that is missing or
    /// belongs to another chain is therefore noticed.
    pub async fn read(
        app: &'a Shared,
        (pool, miner): (&'a Pool, &'a Address),
        first: i64,
        end: TipSet,
        below: &str,
    ) -> anyhow::Result<Self> {
        let node = &app.node;
        let tipsets: Vec<TipSet> = stream::iter(first..end.height)
            .map(|epoch| async move {
                Ok::<_, anyhow::Error>((epoch, node.tipset_by_height(epoch).await?))
            })
            .buffered(REQUESTS_AT_ONCE)
            // A null round answers with the tipset before it.
            .try_filter_map(|(epoch, tipset)| async move {
                Ok((tipset.height == epoch).then_some(tipset))
            })
            .try_collect()
            .await?;
        check_links(below, &tipsets, &end)?;
        let now = node.proving_deadline(miner).await?;
        let deadline_ends = deadline_ends(&now, first..end.height)?;
        Ok(Self {
            app,
            pool,
            miner,
            first,
            tipsets,
            end,
            deadline_ends,
            seen: tokio::sync::Mutex::default(),
        })
    }

    /// The miner's sectors at a tipset, read once.
    pub async fn members(&self, tipset: &TipSet) -> anyhow::Result<Arc<Members>> {
        let mut seen = self.seen.lock().await;
        if let Some(members) = seen.get(&tipset.height) {
            return Ok(Arc::clone(members));
        }
        let from = (&self.app.node, &self.app.deadlines);
        let read = Members::read(from, (self.miner, self.pool.sector_bytes), tipset).await;
        let members = Arc::new(read.with_context(|| format!("epoch {}", tipset.height))?);
        seen.insert(tipset.height, Arc::clone(&members));
        Ok(members)
    }

    /// The first tipset of the chunk. Its state is that at the chunk's beginning.
    pub fn beginning(&self) -> &TipSet {
        self.tipsets.first().unwrap_or(&self.end)
    }

    /// The tipset at `epoch`, or the last before it in the chunk when that round was null.
    pub fn at(&self, epoch: i64) -> &TipSet {
        let next = self
            .tipsets
            .partition_point(|tipset| tipset.height <= epoch);
        next.checked_sub(1)
            .and_then(|last| self.tipsets.get(last))
            .unwrap_or_else(|| self.beginning())
    }

    /// The first tipset after `epoch`. Its state is that after `epoch`.
    pub fn after(&self, epoch: i64) -> &TipSet {
        self.tipsets
            .get(
                self.tipsets
                    .partition_point(|tipset| tipset.height <= epoch),
            )
            .unwrap_or(&self.end)
    }

    /// The epoch in whose execution something became true that holds at the chunk's end, but not at
    /// its beginning. A tipset's state is that before its own messages, so the result is one epoch
    /// before the first tipset at which it holds.
    pub async fn changed_at<'t, F>(&'t self, holds: impl Fn(&'t TipSet) -> F) -> anyhow::Result<i64>
    where
        F: Future<Output = anyhow::Result<bool>> + 't,
    {
        let (mut before, mut after) = (0, self.tipsets.len());
        while after.saturating_sub(before) > 1 {
            let middle = usize::midpoint(before, after);
            let tipset = self.tipsets.get(middle).context("a tipset is missing")?;
            if holds(tipset).await? {
                after = middle
            } else {
                before = middle
            }
        }
        Ok(self.tipsets.get(after).unwrap_or(&self.end).height - 1)
    }

    /// The block on which the end is built. The next chunk must be built on it as well.
    pub fn last_cid(&self) -> String {
        parent(&self.end)
    }
}

/// The epochs that are the last of one of the miner's deadlines, with the deadline's index.
fn deadline_ends(now: &ProvingDeadline, epochs: Range<i64>) -> anyhow::Result<Vec<(i64, u64)>> {
    let length = now.challenge_window.max(1);
    let count = i64::try_from(now.period_deadlines.max(1))?;
    let since_start = |epoch: i64| epoch + 1 - now.period_start;
    epochs
        .filter(|epoch| since_start(*epoch).rem_euclid(length) == 0)
        .map(|epoch| {
            let index = (since_start(epoch).div_euclid(length) - 1).rem_euclid(count);
            Ok((epoch, u64::try_from(index)?))
        })
        .collect()
}

fn parent(tipset: &TipSet) -> String {
    tipset
        .parents()
        .first()
        .map(ToString::to_string)
        .unwrap_or_default()
}

/// Every tipset must be built on the one before it, the first on the block `below`.
fn check_links(below: &str, tipsets: &[TipSet], end: &TipSet) -> TurnResult {
    let mut below = below.to_owned();
    for tipset in tipsets.iter().chain([end]) {
        let parent = parent(tipset);
        ensure!(
            below.is_empty() || parent == below,
            "the node's tipset of epoch {} is built on {parent}, but the one below it is {below}; \
             nothing is recorded until they agree",
            tipset.height
        );
        below = tipset
            .cids
            .first()
            .map(ToString::to_string)
            .unwrap_or_default();
    }
    Ok(())
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

    /// The tipset of epoch `at`, which names the one before as its parent; a block for each of
    /// `heights`.
    fn tipset(at: usize, heights: &[usize]) -> TipSet {
        let cid = |at: usize| json!({"/": CIDS[at]});
        let block = |height: &usize| {
            json!({
                "Miner": "f01000",
                "Parents": [cid(at - 1)],
                "ParentWeight": "1",
                "Height": height,
                "ParentStateRoot": cid(0),
                "ParentMessageReceipts": cid(0),
                "Messages": cid(0),
                "Timestamp": 0,
                "ForkSignaling": 0,
                "ParentBaseFee": "100"
            })
        };
        let blocks: Vec<_> = heights.iter().map(block).collect();
        let cids: Vec<_> = heights.iter().map(|_| cid(at)).collect();
        serde_json::from_value(json!({"Cids": cids, "Blocks": blocks, "Height": at})).unwrap()
    }

    #[test]
    fn a_missing_or_foreign_tipset_is_detected() {
        let [one, two, three] = [tipset(1, &[1]), tipset(2, &[2]), tipset(3, &[3])];
        check_links(CIDS[0], &[one.clone(), two.clone()], &three).unwrap();
        check_links("", std::slice::from_ref(&two), &three).unwrap();
        for (below, tipsets) in [
            (CIDS[0], vec![one]),
            (CIDS[0], vec![two]),
            (CIDS[3], Vec::new()),
        ] {
            assert!(
                check_links(below, &tipsets, &three).is_err(),
                "{below} {tipsets:?}"
            );
        }
    }

    #[test]
    fn a_tipset_that_contradicts_itself_is_faulty() {
        assert_eq!(tipset(2, &[2, 2]).fault(), None);
        assert!(tipset(2, &[2, 1]).fault().is_some());
        assert!(tipset(2, &[]).fault().is_some());
    }
}
