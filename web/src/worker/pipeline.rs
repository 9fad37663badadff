//! Moves sectors along where the chain is needed: tickets, PreCommit messages, seeds, verification, power.

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
use crate::app::{Shared, read, transact, write};

/// Tickets are drawn this far back, so that a reorganisation cannot change them.
const TICKET_LOOKBACK: i64 = 900;
/// Seconds before PC1 that a ticket is drawn: it ages while a sector waits.
const TICKET_AHEAD: i32 = 600;
/// Epochs after which a PreCommit with this ticket is refused (a day and the lookback), less some for its inclusion.
const OLDEST_TICKET: i64 = EPOCHS_PER_DAY + TICKET_LOOKBACK - 60;
/// PC1, PC2 and their queues take less.
const SEALING_EPOCHS: i64 = EPOCHS_PER_DAY / 4;
/// PreCommit checks the lifetime as if activation came at the last legal moment, 30 days later.
const LATEST_ACTIVATION: i64 = 31 * EPOCHS_PER_DAY;
const SHORTEST_LIFE_DAYS: i64 = 180;

pub async fn turn(app: Shared) -> TurnResult {
    let sectors = read(&app, |conn| {
        sealing::in_states(
            conn,
            &[
                SectorState::Planned,
                SectorState::PreCommit1,
                SectorState::PreCommit2,
                SectorState::PreCommitting,
                SectorState::WaitSeed,
                SectorState::Verifying,
            ],
        )
    })
    .await?;
    let pools = pools(&app).await?;
    if pools.is_empty() {
        return Ok(());
    }
    let soon = starting_soon(&app, &sectors).await?;
    let head = app.node.chain_head().await?;
    let head_at = head.blocks.first().context("the node's head has no blocks")?.timestamp.saturating_mul(SECOND);
    let mut all = Each::default();
    if !all.goes_on(provisional::look(&app, &pools, &head).await) {
        return all.end();
    }
    for pool in pools {
        let of_pool: Vec<&Sector> = sectors.iter().filter(|s| s.pool_id == pool.id).collect();
        let step = Step { app: &app, pool: &pool, head: head.height, head_tipset: &head, head_at };
        for sector in &of_pool {
            let outcome = match sector.state {
                SectorState::Planned if soon.contains(&sector.id) => step.draw_ticket(sector).await,
                SectorState::PreCommit1 => step.renew_ticket(sector, SEALING_EPOCHS).await,
                SectorState::PreCommit2 => step.renew_ticket(sector, 0).await,
                SectorState::PreCommitting => step.pre_commit(sector).await,
                SectorState::WaitSeed => step.draw_seed(sector).await,
                SectorState::Verifying => step.verify(sector).await,
                _ => Ok(()),
            };
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

/// Planned sectors for which the plan has a machine within minutes.
async fn starting_soon(app: &Shared, sectors: &[Sector]) -> anyhow::Result<HashSet<SectorId>> {
    if !sectors.iter().any(|s| s.state == SectorState::Planned) {
        return Ok(HashSet::new());
    }
    let now = app.now();
    let snapshot = read(app, move |conn| scheduler::load(conn, now)).await?;
    Ok(tokio::task::spawn_blocking(move || scheduler::need_tickets(&snapshot, TICKET_AHEAD)).await?.into_iter().collect())
}

struct Step<'a> {
    app: &'a Shared,
    pool: &'a Pool,
    head: i64,
    head_tipset: &'a TipSet,
    /// The head's own time: chain facts are dated by the chain, not by when we look.
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
    async fn draw_ticket(&self, sector: &Sector) -> TurnResult {
        let epoch = (self.head - TICKET_LOOKBACK).max(0);
        let entropy = miner_entropy(miner_id(self.pool)?);
        let ticket = self.app.node.randomness_from_tickets(RandomnessTag::SealRandomness, epoch, &entropy).await?.to_string();
        let (sector, now) = (sector.clone(), self.app.now());
        write(self.app, move |conn| sealing::begin_sealing(conn, sector.clone(), &ticket, epoch, now)).await?;
        Ok(())
    }

    /// Renews a ticket that would be too old once sealing has taken this many epochs.
    async fn renew_ticket(&self, sector: &Sector, takes: i64) -> TurnResult {
        if sector.ticket_epoch.is_none_or(|epoch| self.head <= epoch + OLDEST_TICKET - takes) {
            return Ok(());
        }
        let (id, now) = (sector.id, self.app.now());
        if write(self.app, move |conn| sealing::renew_ticket(conn, id, now)).await? {
            tracing::info!(sector = sector.number, "its ticket became too old while it waited; it gets a new one");
        }
        Ok(())
    }

    async fn pre_commit(&self, sector: &Sector) -> TurnResult {
        let subject = sector.id.0;
        let earlier = read(self.app, move |conn| sealing::latest_message(conn, Purpose::PreCommit, subject)).await?;
        if earlier.is_some_and(|m| m.is_open()) {
            return Ok(());
        }
        let ticket_epoch = sector.ticket_epoch.context("no ticket")?;
        if self.head > ticket_epoch + OLDEST_TICKET {
            tracing::warn!(sector = sector.number, ticket_epoch, "the ticket expired; sealing starts again");
            let (sector, now) = (sector.clone(), self.app.now());
            write(self.app, move |conn| sealing::ticket_expired(conn, sector.clone(), now)).await?;
            return Ok(());
        }
        // Until it is pre-committed a sector's expiration counts the days it was sold for.
        let days = sector.expiration.max(SHORTEST_LIFE_DAYS);
        // The term begins on the promised date at the latest, which may be weeks away.
        let ahead = sector.due_at.saturating_sub(self.app.now()).max(0) / 1_000_000;
        let ahead = ahead / self.app.node.network_params().await?.block_delay_secs.max(1);
        let expiration = self.head + ahead + LATEST_ACTIVATION + days * EPOCHS_PER_DAY;
        let params = actor::pre_commit(&[PreCommit {
            proof: SealProof::try_from(sector.seal_proof)?,
            number: u64::try_from(sector.number)?,
            comm_r: sector.comm_r.as_deref().context("no CommR")?.parse()?,
            ticket_epoch,
            expiration,
        }])?;
        let (sector, now) = (sector.clone(), self.app.now());
        let method = Method::PreCommitSectorBatch2.number();
        write(self.app, move |conn| {
            let (pool, purpose, subject) = (sector.pool_id, Purpose::PreCommit, sector.id.0);
            if sealing::latest_message(conn, purpose, subject)?.is_some_and(|m| m.is_open()) {
                return Ok(());
            }
            let attempt = sealing::next_attempt(conn, purpose, subject)?;
            sealing::build_message(conn, &MessageRequest { pool, purpose, subject, attempt, method, params: &params }, now)?;
            Ok(())
        })
        .await?;
        Ok(())
    }

    async fn draw_seed(&self, sector: &Sector) -> TurnResult {
        let epoch = sector.seed_epoch.context("no seed epoch")?;
        if self.head <= epoch {
            return Ok(());
        }
        // The seed is bound to the epoch in which the PreCommit is now.
        if let Some(fact) = on_chain::read_again(self.app, self.pool, sector).await? {
            return provisional::record(self.app, sector.id, fact).await;
        }
        let Some(seed) = on_chain::seed(self.app, self.pool, epoch).await? else { return Ok(()) };
        let (sector, now) = (sector.clone(), self.app.now());
        write(self.app, move |conn| sealing::seed_drawn(conn, sector.clone(), &seed, now)).await?;
        Ok(())
    }

    /// Our own verification: a proof that the chain would refuse costs no gas.
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
            tracing::error!(sector = sector.number, "PoRep proof does not verify; it is redone");
        }
        let params = actor::prove_commit(&[ProveCommit { number: claim.sector.number, proof }])?;
        let (sector, now) = (sector.clone(), self.app.now());
        write(self.app, move |conn| {
            let message = good.then_some((Method::ProveCommitSectors3.number(), params.as_slice()));
            sealing::proof_verified(conn, sector.clone(), message, now)
        })
        .await?;
        Ok(())
    }

    /// Watches the sectors that the chain counts at its head, for the pages; earnings follow from final tipsets.
    async fn watch_power(&self) -> TurnResult {
        let id = self.pool.id;
        let (watched, cursor) = read(self.app, move |conn| Ok((sealing::watched(conn, id)?, yields::cursor(conn, id)?))).await?;
        // That a sector has ended cannot be taken back: what is final says so, not the head.
        let read_up_to = cursor.map_or(0, |cursor| cursor.next_epoch);
        if watched.is_empty() {
            return Ok(());
        }
        let from = (&self.app.node, &self.app.deadlines);
        let members = Members::read(from, (&miner_address(self.pool)?, self.pool.sector_bytes), self.head_tipset).await?;
        for sector in watched {
            let counts = members.active.contains(u64::try_from(sector.number)?);
            let fact = match (sector.state, counts) {
                (SectorState::Proving | SectorState::Faulty, true) => OnChain::Counts { at: self.head_at },
                (_, false) if read_up_to > sector.expiration => OnChain::Gone,
                (_, false) if self.head > sector.expiration => continue,
                (SectorState::Active, false) => OnChain::Faulty,
                // It was never proven.
                (SectorState::Proving | SectorState::Finalizing, false) if self.head > sector.activation + 2 * EPOCHS_PER_DAY => {
                    OnChain::Faulty
                }
                _ => continue,
            };
            let now = self.app.now();
            transact(self.app, move |conn| {
                let sector = sealing::sector_by_id(conn, sector.id)?;
                sealing::mark_on_chain(conn, sector, fact.clone(), now)
            })
            .await?;
        }
        Ok(())
    }
}
