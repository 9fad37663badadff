//! Advances sectors wherever the chain is needed: tickets, PreCommit messages, seeds, verification,
//! power.

use std::collections::HashSet;

use anyhow::Context;
use fvm_shared::address::Address;
use sealyard_core::{
    capacity::Pool,
    clock::{Micros, SECOND},
    ids::SectorId,
    scheduler,
    sealing::{self, MessageRequest, OnChain, Purpose, Sector, SectorState},
    yields,
};
use sealyard_filecoin::{
    actor::{self, Method, PreCommit, ProveCommit, RandomnessTag, miner_entropy},
    economics::EPOCHS_PER_DAY,
    proofs::{SealClaim, verify_seal},
    rpc::TipSet,
    sector::{SealProof, SectorIdent},
};

use super::{Each, TurnResult, chain::Members, on_chain, pools, provisional};
use crate::app::{Shared, read, write};

/// Tickets are drawn this far back, so that a reorganisation cannot change them.
const TICKET_LOOKBACK: i64 = 900;
/// Seconds before PC1 at which a ticket is drawn. It is no earlier, because tickets age.
const TICKET_AHEAD: i32 = 600;
/// Epochs after which the chain refuses a PreCommit with this ticket (a day and the lookback), less
/// an allowance for its inclusion.
const OLDEST_TICKET: i64 = EPOCHS_PER_DAY + TICKET_LOOKBACK - 60;
/// An upper bound on the time for PC1, PC2 and their queues.
const SEALING_EPOCHS: i64 = EPOCHS_PER_DAY / 4;
/// PreCommit checks the lifetime as if activation came at the last legal moment, 30 days later.
const LATEST_ACTIVATION: i64 = 31 * EPOCHS_PER_DAY;
const SHORTEST_LIFE_DAYS: i64 = 180;

/// States in which a sector may need the chain.
const NEED_CHAIN: [SectorState; 6] = [
    SectorState::Planned,
    SectorState::PreCommit1,
    SectorState::PreCommit2,
    SectorState::PreCommitting,
    SectorState::WaitSeed,
    SectorState::Verifying,
];

pub async fn turn(app: Shared) -> TurnResult {
    let sectors = read(&app, |conn| sealing::in_states(conn, &NEED_CHAIN)).await?;
    let pools = pools(&app).await?;
    if pools.is_empty() {
        return Ok(());
    }
    let soon = starting_soon(&app, &sectors).await?;
    let head = app.node.chain_head().await?;
    let head_at = head
        .blocks
        .first()
        .context("the node's head has no blocks")?
        .timestamp
        .saturating_mul(SECOND);
    let mut all = Each::default();
    if !all.goes_on(provisional::look(&app, &pools, &head).await) {
        return all.end();
    }
    for pool in pools {
        let step = Step {
            app: &app,
            pool: &pool,
            head: head.height,
            head_tipset: &head,
            head_at,
        };
        for sector in sectors.iter().filter(|s| s.pool_id == pool.id) {
            let outcome = step.advance(sector, &soon).await;
            if !all.goes_on(outcome.with_context(|| format!("sector {}", sector.number))) {
                return all.end();
            }
        }
        if !all.goes_on(step.watch_power().await) {
            return all.end();
        }
    }
    all.end()
}

/// Planned sectors for which the plan has a machine within a few minutes.
async fn starting_soon(app: &Shared, sectors: &[Sector]) -> anyhow::Result<HashSet<SectorId>> {
    if !sectors.iter().any(|s| s.state == SectorState::Planned) {
        return Ok(HashSet::new());
    }
    let now = app.now();
    let snapshot = read(app, move |conn| scheduler::load(conn, now)).await?;
    Ok(
        tokio::task::spawn_blocking(move || scheduler::need_tickets(&snapshot, TICKET_AHEAD))
            .await?
            .into_iter()
            .collect(),
    )
}

struct Step<'a> {
    app: &'a Shared,
    pool: &'a Pool,
    head: i64,
    head_tipset: &'a TipSet,
    /// The head's own time. Facts of the chain are dated by the chain, not by our clock.
    head_at: Micros,
}

pub fn miner_id(pool: &Pool) -> anyhow::Result<u64> {
    u64::try_from(pool.miner_id).context("the pool's miner id is negative")
}

pub fn miner_address(pool: &Pool) -> anyhow::Result<Address> {
    Ok(Address::new_id(miner_id(pool)?))
}

pub fn ident(pool: &Pool, sector: &Sector) -> anyhow::Result<SectorIdent> {
    Ok(SectorIdent {
        miner: miner_id(pool)?,
        number: u64::try_from(sector.number)?,
        proof: SealProof::try_from(sector.seal_proof)?,
    })
}

impl Step<'_> {
    /// Does for a sector what its state asks for. `soon`: the planned sectors that need a ticket.
    async fn advance(&self, sector: &Sector, soon: &HashSet<SectorId>) -> TurnResult {
        match sector.state {
            SectorState::Planned if soon.contains(&sector.id) => self.draw_ticket(sector).await,
            SectorState::PreCommit1 => self.renew_ticket(sector, SEALING_EPOCHS).await,
            SectorState::PreCommit2 => self.renew_ticket(sector, 0).await,
            SectorState::PreCommitting => self.pre_commit(sector).await,
            SectorState::WaitSeed => self.draw_seed(sector).await,
            SectorState::Verifying => self.verify(sector).await,
            _ => Ok(()),
        }
    }

    async fn draw_ticket(&self, sector: &Sector) -> TurnResult {
        let epoch = (self.head - TICKET_LOOKBACK).max(0);
        let entropy = miner_entropy(miner_id(self.pool)?);
        let ticket = self
            .app
            .node
            .randomness_from_tickets(RandomnessTag::SealRandomness, epoch, &entropy)
            .await?
            .to_string();
        let (sector, now) = (sector.clone(), self.app.now());
        write(self.app, move |conn| {
            sealing::begin_sealing(conn, sector.clone(), &ticket, epoch, now)
        })
        .await?;
        Ok(())
    }

    /// Renews a ticket that would be too old once sealing has taken this many epochs.
    async fn renew_ticket(&self, sector: &Sector, takes: i64) -> TurnResult {
        if sector
            .ticket_epoch
            .is_none_or(|epoch| self.head <= epoch + OLDEST_TICKET - takes)
        {
            return Ok(());
        }
        let (id, now) = (sector.id, self.app.now());
        if write(self.app, move |conn| sealing::renew_ticket(conn, id, now)).await? {
            tracing::info!(
                sector = sector.number,
                "its ticket became too old while it waited; it gets a new one"
            );
        }
        Ok(())
    }

    async fn pre_commit(&self, sector: &Sector) -> TurnResult {
        let subject = sector.id.0;
        let earlier = read(self.app, move |conn| {
            sealing::latest_message(conn, Purpose::PreCommit, subject)
        })
        .await?;
        if earlier.is_some_and(|m| m.is_open()) {
            return Ok(());
        }
        let ticket_epoch = sector.ticket_epoch.context("no ticket")?;
        if self.head > ticket_epoch + OLDEST_TICKET {
            tracing::warn!(
                sector = sector.number,
                ticket_epoch,
                "the ticket expired; sealing starts again"
            );
            let (sector, now) = (sector.clone(), self.app.now());
            write(self.app, move |conn| {
                sealing::ticket_expired(conn, sector.clone(), now)
            })
            .await?;
            return Ok(());
        }
        let expiration = self.new_expiration(sector).await?;
        let params = actor::pre_commit(&[PreCommit {
            proof: SealProof::try_from(sector.seal_proof)?,
            number: u64::try_from(sector.number)?,
            comm_r: sector.comm_r.as_deref().context("no CommR")?.parse()?,
            ticket_epoch,
            expiration,
        }])?;
        let (pool, now) = (sector.pool_id, self.app.now());
        write(self.app, move |conn| {
            let purpose = Purpose::PreCommit;
            if sealing::latest_message(conn, purpose, subject)?.is_some_and(|m| m.is_open()) {
                return Ok(());
            }
            let request = MessageRequest {
                pool,
                purpose,
                subject,
                attempt: sealing::next_attempt(conn, purpose, subject)?,
                method: Method::PreCommitSectorBatch2.number(),
                params: &params,
            };
            sealing::build_message(conn, &request, now).map(drop)
        })
        .await?;
        Ok(())
    }

    /// The expiration with which a sector is pre-committed now.
    async fn new_expiration(&self, sector: &Sector) -> anyhow::Result<i64> {
        // Until a sector is pre-committed its expiration counts the days for which it was sold.
        let days = sector.expiration.max(SHORTEST_LIFE_DAYS);
        // The term begins on the promised date at the latest, which may be weeks away.
        let ahead = sector.due_at.saturating_sub(self.app.now()).max(0) / SECOND;
        let params = self.app.node.network_params().await?;
        let ahead = ahead / params.block_delay_secs.max(1);
        Ok(self.head + ahead + LATEST_ACTIVATION + days * EPOCHS_PER_DAY)
    }

    async fn draw_seed(&self, sector: &Sector) -> TurnResult {
        let epoch = sector.seed_epoch.context("no seed epoch")?;
        if self.head <= epoch {
            return Ok(());
        }
        // The seed belongs to the epoch in which the chain now has the PreCommit.
        if let Some(fact) = on_chain::read_again(self.app, self.pool, sector).await? {
            return provisional::record(self.app, sector.id, fact).await;
        }
        let Some(seed) = on_chain::seed(self.app, self.pool, epoch).await? else {
            return Ok(());
        };
        let (sector, now) = (sector.clone(), self.app.now());
        write(self.app, move |conn| {
            sealing::seed_drawn(conn, sector.clone(), &seed, now)
        })
        .await?;
        Ok(())
    }

    /// Verifies the proof here, so that one that the chain would refuse costs no gas.
    async fn verify(&self, sector: &Sector) -> TurnResult {
        if let Some(fact) = on_chain::read_again(self.app, self.pool, sector).await? {
            return provisional::record(self.app, sector.id, fact).await;
        }
        let proof = sector.porep_proof.clone().context("no proof")?;
        let claim = SealClaim {
            sector: ident(self.pool, sector)?,
            comm_r: sector.comm_r.as_deref().context("no CommR")?.parse()?,
            comm_d: sector.comm_d.as_deref().context("no CommD")?.parse()?,
            ticket: sector.ticket.as_deref().context("no ticket")?.parse()?,
            seed: sector.seed.as_deref().context("no seed")?.parse()?,
        };
        let bytes = proof.clone();
        let good = tokio::task::spawn_blocking(move || verify_seal(&claim, &bytes)).await??;
        if !good {
            tracing::error!(
                sector = sector.number,
                "PoRep proof does not verify; it is redone"
            );
        }
        let params = actor::prove_commit(&[ProveCommit {
            number: claim.sector.number,
            proof,
        }])?;
        let (sector, now) = (sector.clone(), self.app.now());
        write(self.app, move |conn| {
            let message = good.then_some((Method::ProveCommitSectors3.number(), params.as_slice()));
            sealing::proof_verified(conn, sector.clone(), message, now)
        })
        .await?;
        Ok(())
    }

    /// Records for the pages which sectors the chain counts at its head. Earnings follow from final
    /// tipsets.
    async fn watch_power(&self) -> TurnResult {
        let id = self.pool.id;
        let (watched, cursor) = read(self.app, move |conn| {
            Ok((sealing::watched(conn, id)?, yields::cursor(conn, id)?))
        })
        .await?;
        // A sector's end cannot be undone, so it is taken from final tipsets, not from the head.
        let read_up_to = cursor.map_or(0, |cursor| cursor.next_epoch);
        if watched.is_empty() {
            return Ok(());
        }
        let from = (&self.app.node, &self.app.deadlines);
        let members = Members::read(
            from,
            (&miner_address(self.pool)?, self.pool.sector_bytes),
            self.head_tipset,
        )
        .await?;
        for sector in watched {
            let counts = members.active.contains(u64::try_from(sector.number)?);
            let fact = match (sector.state, counts) {
                (SectorState::Proving | SectorState::Faulty, true) => {
                    OnChain::Counts { at: self.head_at }
                }
                (_, false) if read_up_to > sector.expiration => OnChain::Gone,
                (_, false) if self.head > sector.expiration => continue,
                (SectorState::Active, false) => OnChain::Faulty,
                // It was never proven.
                (SectorState::Proving | SectorState::Finalizing, false)
                    if self.head > sector.activation + 2 * EPOCHS_PER_DAY =>
                {
                    OnChain::Faulty
                }
                _ => continue,
            };
            provisional::record(self.app, sector.id, fact).await?;
        }
        Ok(())
    }
}
