//! What the chain takes at the end of each of a miner's deadlines: the daily fee of its sectors (FIP-0100), and a fee for those that
//! were faulty before and still are.

use std::collections::BTreeSet;

use anyhow::Context;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use sealyard_core::yields::{Flow, FlowKind};
use sealyard_filecoin::{
    economics::{EPOCHS_PER_DAY, daily_fee_payable},
    rpc::{BitFieldJson, Partition, SectorInfo},
};

use super::{chain_sync::sector_power, chunk::Chunk};

/// More sectors than any partition or miner has.
pub const MOST_SECTORS: usize = 1 << 24;

/// Fees of the deadlines that end in the chunk.
pub async fn fees(chunk: &Chunk<'_>) -> anyhow::Result<Vec<Flow>> {
    let mut flows = Vec::new();
    let node = &chunk.app.node;
    for &(epoch, index) in &chunk.deadline_ends {
        let before = chunk.at(epoch);
        let was = node.partitions(chunk.miner, index, &before.cids).await?;
        if union(&was, |partition| &partition.live_sectors)?.is_empty() {
            continue;
        }
        let after = chunk.after(epoch);
        let is = node.partitions(chunk.miner, index, &after.cids).await?;
        let live = union(&is, |partition| &partition.live_sectors)?;
        let active = union(&is, |partition| &partition.active_sectors)?;
        // What was proven again with the last messages is not charged. What was not proven for the first time is not, either.
        let mut faulty = union(&was, |partition| &partition.faulty_sectors)?;
        faulty.retain(|number| !active.contains(number));
        let infos = node.sectors(chunk.miner, &live.union(&faulty).copied().collect(), &after.cids).await?;
        let estimate = node.network_estimate(before).await?;
        let deadlines = node.deadlines(chunk.miner, &after.cids).await?;
        let daily_fee = &deadlines.get(usize::try_from(index)?).context("a deadline is missing")?.daily_fee;
        let day_reward = estimate.expected_reward(&power(chunk, &infos, &live)?, EPOCHS_PER_DAY);
        let mut took = |kind, amount: &TokenAmount| -> anyhow::Result<()> {
            flows.extend(flow(chunk, kind, i64::try_from(index)?, epoch, amount)?);
            Ok(())
        };
        took(FlowKind::DailyFee, &daily_fee_payable(daily_fee, &day_reward))?;
        if !faulty.is_empty() {
            took(FlowKind::FaultFee, &estimate.fault_fee(&power(chunk, &infos, &faulty)?))?;
        }
    }
    Ok(flows)
}

/// An amount to be recorded. `None`: there is nothing to record.
pub fn flow(chunk: &Chunk<'_>, kind: FlowKind, subject: i64, epoch: i64, amount: &TokenAmount) -> anyhow::Result<Option<Flow>> {
    anyhow::ensure!(
        !amount.is_negative(),
        "the node says that {} of {subject} is {} attoFIL at epoch {epoch}; nothing is recorded until that can be",
        kind.name(),
        amount.atto()
    );
    let flow = || Flow { pool_id: chunk.pool.id, kind: kind.name().into(), subject, epoch, atto: amount.atto().to_string() };
    Ok((!amount.is_zero()).then(flow))
}

/// Sectors that are set in a field of some partition.
pub fn union(partitions: &[Partition], of: impl Fn(&Partition) -> &BitFieldJson) -> anyhow::Result<BTreeSet<u64>> {
    let mut all = BTreeSet::new();
    for partition in partitions {
        all.extend(numbers(of(partition))?);
    }
    Ok(all)
}

pub fn numbers(bits: &BitFieldJson) -> anyhow::Result<Vec<u64>> {
    bits.numbers(MOST_SECTORS).context("the node names more sectors than there can be")
}

/// Quality-adjusted bytes of those of `of` that the chain knows.
fn power(chunk: &Chunk<'_>, infos: &[SectorInfo], of: &BTreeSet<u64>) -> anyhow::Result<BigInt> {
    let mut sum = BigInt::default();
    for info in infos.iter().filter(|info| of.contains(&info.sector_number)) {
        sum += sector_power(chunk.pool, info)?;
    }
    Ok(sum)
}
