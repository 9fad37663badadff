//! Fees that the chain takes at the end of each of a miner's deadlines: the daily fee of its
//! sectors (FIP-0100), and a fee for those that were faulty before and still are.

use anyhow::Context;
use fvm_shared::econ::TokenAmount;
use sealyard_core::yields::{Flow, FlowKind};
use sealyard_filecoin::{
    economics::{EPOCHS_PER_DAY, daily_fee_payable},
    rpc::{DeadlineTotals, TipSet},
};

use super::{
    chunk::Chunk,
    members::{Members, power_of},
};

/// Fees of the deadlines that end in the chunk.
pub async fn fees(chunk: &Chunk<'_>) -> anyhow::Result<Vec<Flow>> {
    let mut flows = Vec::new();
    let node = &chunk.app.node;
    for &(epoch, index) in &chunk.deadline_ends {
        let (before, after) = (chunk.at(epoch), chunk.after(epoch));
        let was = node
            .deadline_sectors(chunk.miner, index, &before.cids)
            .await?;
        if was.live.is_empty() {
            continue;
        }
        let members = chunk.members(after).await?;
        let is = members.deadline(index).context("a deadline is missing")?;
        let estimate = node.network_estimate(before).await?;
        let totals = totals(chunk, (&members, after), index).await?;
        let day_reward = estimate.expected_reward(&totals.live_qa_power, EPOCHS_PER_DAY);
        let mut took = |kind, amount: &TokenAmount| -> anyhow::Result<()> {
            flows.extend(flow(chunk, kind, i64::try_from(index)?, epoch, amount)?);
            Ok(())
        };
        took(
            FlowKind::DailyFee,
            &daily_fee_payable(&totals.daily_fee, &day_reward),
        )?;
        // Sectors that were proven again by the last messages are not charged, nor are those that
        // have never been proven.
        let faulty = was.faulty.minus(&is.active);
        if !faulty.is_empty() {
            let power = power_of((node, chunk.miner), chunk.pool, &faulty, &after.cids).await?;
            took(FlowKind::FaultFee, &estimate.fault_fee(&power))?;
        }
    }
    Ok(flows)
}

/// A deadline's power and daily fee after its end. They come from the chain's object, or else are
/// added up sector by sector.
async fn totals(
    chunk: &Chunk<'_>,
    (members, after): (&Members, &TipSet),
    index: u64,
) -> anyhow::Result<DeadlineTotals> {
    let node = &chunk.app.node;
    if let Some(totals) = members.totals(node, index).await? {
        return Ok(totals);
    }
    let live = &members
        .deadline(index)
        .context("a deadline is missing")?
        .live;
    let fees = node.deadlines(chunk.miner, &after.cids).await?;
    let daily_fee = fees
        .get(usize::try_from(index)?)
        .context("a deadline is missing")?
        .daily_fee
        .clone();
    Ok(DeadlineTotals {
        live_qa_power: power_of((node, chunk.miner), chunk.pool, live, &after.cids).await?,
        daily_fee,
    })
}

/// The record of an amount. `None`: the amount is zero.
pub fn flow(
    chunk: &Chunk<'_>,
    kind: FlowKind,
    subject: i64,
    epoch: i64,
    amount: &TokenAmount,
) -> anyhow::Result<Option<Flow>> {
    anyhow::ensure!(
        !amount.is_negative(),
        "the node says that {} of {subject} is {} attoFIL at epoch {epoch}; \
         that is impossible, and nothing is recorded until the answer changes",
        kind.name(),
        amount.atto()
    );
    let flow = || Flow {
        pool_id: chunk.pool.id,
        kind,
        subject,
        epoch,
        atto: amount.atto().to_string(),
    };
    Ok((!amount.is_zero()).then(flow))
}
