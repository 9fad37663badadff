//! Collateral that a miner puts up for its sectors and gets back: deposits from PreCommit to
//! activation, pledge from activation to the end, and the fee for an end that comes early.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use sealyard_core::yields::{self, Flow, FlowKind, NO_SECTOR};
use sealyard_filecoin::{
    economics::termination_fee,
    rpc::{Numbers, PreCommitInfo, SectorInfo, TipSet},
};

use super::{
    chunk::Chunk,
    fees::flow,
    members::{Members, each_info, sector_power},
};
use crate::app::read;

/// An upper bound on the sectors that are pre-committed in a chunk.
const MOST_NEW: usize = 1 << 18;

/// Deposits and pledge that came and went in the chunk. They add up to the miner's state: an amount
/// that belongs to no sector that came or went (a pledge that was topped up) is recorded as such.
pub async fn bonds(chunk: &Chunk<'_>) -> anyhow::Result<Vec<Flow>> {
    let node = &chunk.app.node;
    let before = chunk.beginning();
    let (was, is) = (
        chunk.members(before).await?,
        chunk.members(&chunk.end).await?,
    );
    let known = node.allocated_sectors(chunk.miner, &before.cids).await?;
    // Millions of numbers may be masked (CompactSectorNumbers). Those are not sectors.
    let new = node
        .allocated_sectors(chunk.miner, &chunk.end.cids)
        .await?
        .new_since(&known, MOST_NEW)
        .unwrap_or_default();
    let unchanged = was.deposits == is.deposits && was.pledge == is.pledge;
    let mut bonds = Bonds {
        chunk,
        before,
        was: Arc::clone(&was),
        is: Arc::clone(&is),
        flows: Vec::new(),
    };
    bonds.opening().await?;
    if unchanged && new.is_empty() {
        return Ok(bonds.flows);
    }
    bonds.came(new).await?;
    bonds.deposits_ended().await?;
    bonds.balance(
        &was.deposits,
        &is.deposits,
        [FlowKind::DepositIn, FlowKind::DepositBack],
        &[FlowKind::DepositLost],
    )?;
    bonds.left().await?;
    bonds.balance(
        &was.pledge,
        &is.pledge,
        [FlowKind::PledgeIn, FlowKind::PledgeBack],
        &[],
    )?;
    Ok(bonds.flows)
}

/// The amount of a recorded flow. `None`: it is not a number.
fn amount(flow: &Flow) -> Option<TokenAmount> {
    flow.atto.parse::<BigInt>().ok().map(TokenAmount::from_atto)
}

struct Bonds<'c> {
    chunk: &'c Chunk<'c>,
    /// The tipset whose state is that at the chunk's beginning.
    before: &'c TipSet,
    was: Arc<Members>,
    is: Arc<Members>,
    flows: Vec<Flow>,
}

impl Bonds<'_> {
    fn put(
        &mut self,
        kind: FlowKind,
        subject: u64,
        epoch: i64,
        amount: &TokenAmount,
    ) -> anyhow::Result<()> {
        self.flows.extend(flow(
            self.chunk,
            kind,
            i64::try_from(subject)?,
            epoch,
            amount,
        )?);
        Ok(())
    }

    fn sum(&self, kind: FlowKind) -> TokenAmount {
        let of_kind = self
            .flows
            .iter()
            .filter(|flow| flow.kind == kind && flow.epoch >= self.chunk.first);
        of_kind.filter_map(amount).sum()
    }

    /// Sectors among `numbers` (`None`: all) with an amount that came before the chunk's end and is
    /// still there.
    async fn open(
        &self,
        came: FlowKind,
        left: &'static [FlowKind],
        numbers: Option<&Numbers>,
    ) -> anyhow::Result<BTreeMap<u64, Flow>> {
        let pool = self.chunk.pool.id;
        let wanted: Option<Vec<i64>> = numbers
            .map(|numbers| numbers.iter().map(i64::try_from).collect::<Result<_, _>>())
            .transpose()?;
        let open = read(self.chunk.app, move |conn| {
            yields::open_flows(conn, pool, (came, left), wanted.as_deref())
        })
        .await?;
        let here = self
            .flows
            .iter()
            .filter(|flow| flow.kind == came && flow.subject != NO_SECTOR)
            .cloned();
        open.into_iter()
            .chain(here)
            .map(|flow| Ok((u64::try_from(flow.subject)?, flow)))
            .collect()
    }

    /// When a miner is first followed, the pledge of the sectors that it already has.
    async fn opening(&mut self) -> anyhow::Result<()> {
        let pool = self.chunk.pool.id;
        let known = read(self.chunk.app, move |conn| {
            yields::has_flows(conn, pool, FlowKind::PledgeIn)
        })
        .await?;
        if known || self.was.pledge.is_zero() {
            return Ok(());
        }
        let (chunk, was) = (self.chunk, Arc::clone(&self.was));
        each_info(
            (&chunk.app.node, chunk.miner),
            &was.live,
            &self.before.cids,
            |infos| {
                for info in infos {
                    self.put(
                        FlowKind::PledgeIn,
                        info.sector_number,
                        info.activation.min(chunk.first - 1),
                        &info.initial_pledge,
                    )?;
                }
                Ok(())
            },
        )
        .await
    }

    /// The chain's record of a sector at the chunk's end.
    async fn sector(&self, number: u64) -> anyhow::Result<Option<SectorInfo>> {
        let (node, end) = (&self.chunk.app.node, &self.chunk.end);
        Ok(node
            .sector_info(self.chunk.miner, number, &end.cids)
            .await?)
    }

    /// Deposits that were put up, and pledge of sectors that never had one.
    async fn came(&mut self, new: Vec<u64>) -> anyhow::Result<()> {
        for number in new {
            if let Some(info) = self.pre_commit(number).await? {
                self.put(
                    FlowKind::DepositIn,
                    number,
                    info.pre_commit_epoch,
                    &info.pre_commit_deposit,
                )?;
            } else if let Some(sector) = self.sector(number).await? {
                // Sealed without a PreCommit (FIP-0092).
                self.put(
                    FlowKind::PledgeIn,
                    number,
                    sector.activation,
                    &sector.initial_pledge,
                )?;
            }
        }
        Ok(())
    }

    /// Deposits that became pledge, or were lost.
    async fn deposits_ended(&mut self) -> anyhow::Result<()> {
        let (node, end) = (&self.chunk.app.node, &self.chunk.end);
        let ends = &[FlowKind::DepositBack, FlowKind::DepositLost];
        for (number, deposit) in self.open(FlowKind::DepositIn, ends, None).await? {
            if node
                .pre_commit_info(self.chunk.miner, number, &end.cids)
                .await?
                .is_some()
            {
                continue;
            }
            let amount = amount(&deposit).context("a deposit that is not a number")?;
            match self.sector(number).await? {
                Some(sector) => {
                    self.put(FlowKind::DepositBack, number, sector.activation, &amount)?;
                    self.put(
                        FlowKind::PledgeIn,
                        number,
                        sector.activation,
                        &sector.initial_pledge,
                    )?;
                }
                // Deposits are lost at the end of a deadline.
                None => {
                    let at = self
                        .chunk
                        .deadline_ends
                        .last()
                        .map_or(end.height - 1, |(epoch, _)| *epoch);
                    self.put(FlowKind::DepositLost, number, at, &amount)?;
                }
            }
        }
        Ok(())
    }

    /// The PreCommit of a number that is new in this chunk. If the seed comes before the chunk
    /// ends, the PreCommit may be gone at the end, so earlier tipsets are asked as well.
    async fn pre_commit(&self, number: u64) -> anyhow::Result<Option<PreCommitInfo>> {
        let node = &self.chunk.app.node;
        let after = self.chunk.tipsets.iter().skip(1).chain([&self.chunk.end]);
        for at in after.rev() {
            let found = node
                .pre_commit_info(self.chunk.miner, number, &at.cids)
                .await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Pledge of sectors that ended, and the fee of those that ended early.
    async fn left(&mut self) -> anyhow::Result<()> {
        let node = &self.chunk.app.node;
        let (was, is) = (Arc::clone(&self.was), Arc::clone(&self.is));
        let ended = was.live.minus(&is.live);
        let open = self
            .open(FlowKind::PledgeIn, &[FlowKind::PledgeBack], Some(&ended))
            .await?;
        for (number, pledged) in open
            .into_iter()
            .filter(|(number, _)| !is.live.contains(*number))
        {
            let info = node
                .sector_info(self.chunk.miner, number, &self.before.cids)
                .await?;
            let Some(info) = info.filter(|_| was.live.contains(number)) else {
                // It came and ended within this chunk.
                let amount = amount(&pledged).context("a pledge that is not a number")?;
                let last = self.chunk.end.height - 1;
                self.put(FlowKind::PledgeBack, number, last, &amount)?;
                continue;
            };
            self.ended(number, &info).await?;
        }
        Ok(())
    }

    /// The pledge of a sector that ended, and its fee if it ended early.
    async fn ended(&mut self, number: u64, info: &SectorInfo) -> anyhow::Result<()> {
        let epoch = self.ended_at(info).await?;
        self.put(FlowKind::PledgeBack, number, epoch, &info.initial_pledge)?;
        if epoch < info.expiration {
            let node = &self.chunk.app.node;
            let estimate = node.network_estimate(self.chunk.at(epoch)).await?;
            let power = BigInt::from(sector_power(self.chunk.pool, info)?);
            let fault_fee = estimate.fault_fee(&power);
            let fee = termination_fee(&info.initial_pledge, epoch - info.activation, &fault_fee);
            self.put(FlowKind::TerminationFee, number, epoch, &fee)?;
        }
        Ok(())
    }

    /// The epoch in whose execution a sector ended that was live at the chunk's beginning.
    async fn ended_at(&self, info: &SectorInfo) -> anyhow::Result<i64> {
        let (node, number) = (&self.chunk.app.node, info.sector_number);
        let place = node
            .sector_location(self.chunk.miner, number, &self.before.cids)
            .await?;
        let deadline = place
            .with_context(|| format!("sector {number} was live, but is in no deadline"))?
            .deadline;
        self.chunk
            .changed_at(|tipset| async move {
                Ok(!node
                    .deadline_sectors(self.chunk.miner, deadline, &tipset.cids)
                    .await?
                    .live
                    .contains(number))
            })
            .await
    }

    /// Records the rest that the chain's state shows beyond the amounts of single sectors.
    fn balance(
        &mut self,
        was: &TokenAmount,
        is: &TokenAmount,
        [came, back]: [FlowKind; 2],
        also_left: &[FlowKind],
    ) -> anyhow::Result<()> {
        let left: TokenAmount = also_left
            .iter()
            .chain([&back])
            .map(|kind| self.sum(*kind))
            .sum();
        let rest = is - was - self.sum(came) + left;
        let (kind, amount) = if rest.is_negative() {
            (back, -rest)
        } else {
            (came, rest)
        };
        self.flows.extend(flow(
            self.chunk,
            kind,
            NO_SECTOR,
            self.chunk.end.height - 1,
            &amount,
        )?);
        Ok(())
    }
}
