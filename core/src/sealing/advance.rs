//! Moves sectors on for every reason but a machine's report: tickets, seeds, verdicts, receipts and
//! the chain's view.

use std::collections::BTreeSet;

use diesel::prelude::*;

use super::{
    Sector, TaskKind,
    message::{Purpose, Request, build, latest, next_attempt, reopen},
    sector::{by_id, of_contract},
    state::{Event, SectorState, Transition, Where},
    task::{NewTask, Of, TaskState, cancel_open, create},
};
use crate::{
    capacity::{Pool, pool_by_id, take_number},
    clock::Micros,
    contracts,
    fleet::protocol::FailureLevel,
    ids::{ContractId, MachineId, SectorId},
    ledger::LedgerError,
    store::{
        AnyConnection, DbResult,
        dialect::{Turn, lock},
        schema::{sectors, tasks},
    },
};

/// The chain's record of an activated sector.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    pub activation: i64,
    pub expiration: i64,
    pub deadline: i64,
    pub partition: i64,
}

/// Takes a drawn ticket and queues PC1 for any machine. A sector whose PreCommit has landed keeps
/// its old ticket.
pub fn begin_sealing(conn: &mut AnyConnection, mut sector: Sector, ticket: &str, epoch: i64, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::TicketDrawn, now)?.is_none() {
        return Ok(());
    }
    let kept = sector.pc2_output.is_some() && sector.seed_epoch.is_some();
    if !kept {
        diesel::update(sectors::table.find(sector.id))
            .set((sectors::ticket.eq(ticket), sectors::ticket_epoch.eq(epoch)))
            .execute(conn)?;
        sector.ticket = Some(ticket.to_owned());
    }
    queue(conn, &sector, TaskKind::PreCommit1, now)
}

/// Takes a drawn seed and queues C1 on the machine that has the layers.
pub fn seed_drawn(conn: &mut AnyConnection, mut sector: Sector, seed: &str, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::SeedDrawn, now)?.is_some() {
        diesel::update(sectors::table.find(sector.id)).set(sectors::seed.eq(seed)).execute(conn)?;
        sector.seed = Some(seed.to_owned());
        queue(conn, &sector, TaskKind::Commit1, now)?;
    }
    Ok(())
}

/// Takes our own verdict on a PoRep proof. `message` is the method and the parameters that send a
/// good proof. `None`: the proof is bad, and C1 and C2 run again.
pub fn proof_verified(conn: &mut AnyConnection, mut sector: Sector, message: Option<(u64, &[u8])>, now: Micros) -> DbResult<()> {
    let event = if message.is_some() { Event::ProofVerified } else { Event::ProofRejected };
    if sector.apply(conn, event, now)?.is_none() {
        return Ok(());
    }
    match message {
        Some((method, params)) => {
            let (pool, purpose, subject) = (sector.pool_id, Purpose::ProveCommit, sector.id.0);
            let attempt = next_attempt(conn, purpose, subject)?;
            build(conn, &Request { pool, purpose, subject, attempt, method, params }, now).map(drop)
        }
        None => {
            count_failure(conn, &mut sector, "the proof did not verify", now)?;
            queue(conn, &sector, TaskKind::Commit1, now)
        }
    }
}

/// Applies a fact that the chain tells about a sector.
pub fn mark_on_chain(conn: &mut AnyConnection, mut sector: Sector, fact: OnChain, now: Micros) -> Result<(), LedgerError> {
    match fact {
        OnChain::PreCommitted { seed_epoch } => pre_committed(conn, sector, seed_epoch, now)?,
        OnChain::SeedReplaced => {
            if sector.apply(conn, Event::SeedMoved, now)?.is_some() {
                seed_moved(conn, &sector, now)?;
            }
        }
        OnChain::PreCommitLost => {
            if sector.apply(conn, Event::PreCommitLost, now)?.is_some() {
                undo(conn, &sector, Purpose::PreCommit, "the chain was reorganised: its PreCommit has to land again", now)?;
                let nothing = (sectors::seed_epoch.eq(None::<i64>), sectors::seed.eq(None::<&str>));
                diesel::update(sectors::table.find(sector.id)).set(nothing).execute(conn)?;
            }
        }
        OnChain::ActivationLost => {
            if sector.apply(conn, Event::ActivationLost, now)?.is_some() {
                undo(conn, &sector, Purpose::ProveCommit, "the chain was reorganised: its ProveCommit has to land again", now)?;
                let nothing =
                    (sectors::activation.eq(None::<i64>), sectors::deadline.eq(None::<i64>), sectors::partition.eq(None::<i64>));
                diesel::update(sectors::table.find(sector.id)).set(nothing).execute(conn)?;
            }
        }
        OnChain::NumberTaken => number_taken(conn, sector, now)?,
        OnChain::Activated(at) => {
            let landed = sector.apply(conn, Event::ProveCommitLanded, now)?.is_some();
            // After a reorganisation the sector may have been activated at another epoch.
            if landed || sector.state.is_on_chain() {
                diesel::update(sectors::table.find(sector.id))
                    .set((
                        sectors::activation.eq(at.activation),
                        sectors::expiration.eq(at.expiration),
                        sectors::deadline.eq(at.deadline),
                        sectors::partition.eq(at.partition),
                    ))
                    .execute(conn)?;
            }
            if landed {
                cancel_open(conn, Of::Sector(sector.id), "the chain has the sector", now)?;
                queue(conn, &sector, TaskKind::Finalize, now)?;
            }
        }
        OnChain::MessageFailed { reason } => message_failed(conn, sector, &reason, now)?,
        OnChain::Counts { at } => {
            if sector.apply(conn, Event::PowerOn, now)?.is_some() && others(conn, &sector, SectorState::Active)? == 0 {
                contracts::mark_active(conn, sector.contract_id, at)?;
            }
        }
        OnChain::Faulty => drop(sector.apply(conn, Event::FaultSeen, now)?),
        OnChain::Gone => {
            if sector.apply(conn, Event::RanOut, now)?.is_some() {
                cancel_open(conn, Of::Sector(sector.id), "the sector has ended on chain", now)?;
                if others(conn, &sector, SectorState::Expired)? == 0 {
                    contracts::end(conn, sector.contract_id, now)?;
                }
            }
        }
    }
    Ok(())
}

/// Takes a PreCommit that landed for the first time, or again at another epoch and so with another
/// seed.
fn pre_committed(conn: &mut AnyConnection, mut sector: Sector, seed_epoch: i64, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::PreCommitLanded, now)?.is_none() {
        if sector.seed_epoch == Some(seed_epoch) {
            return Ok(());
        }
        if sector.apply(conn, Event::SeedMoved, now)?.is_some() {
            seed_moved(conn, &sector, now)?;
        } else if sector.state != SectorState::WaitSeed {
            return Ok(());
        }
    }
    let values = (sectors::seed_epoch.eq(seed_epoch), sectors::seed.eq(None::<&str>));
    diesel::update(sectors::table.find(sector.id)).set(values).execute(conn).map(drop)
}

/// Cancels work with the old seed.
fn seed_moved(conn: &mut AnyConnection, sector: &Sector, now: Micros) -> DbResult<()> {
    let reason = "the chain was reorganised: its seed is another one";
    cancel_open(conn, Of::Sector(sector.id), reason, now)?;
    let values = (sectors::reason.eq(reason), sectors::seed.eq(None::<&str>));
    diesel::update(sectors::table.find(sector.id)).set(values).execute(conn).map(drop)
}

/// Waits again for a fact that the chain took back, and cancels the work that followed from it.
fn undo(conn: &mut AnyConnection, sector: &Sector, purpose: Purpose, reason: &str, now: Micros) -> DbResult<()> {
    cancel_open(conn, Of::Sector(sector.id), reason, now)?;
    if let Some(message) = latest(conn, purpose, sector.id.0)? {
        reopen(conn, message.id, now)?;
    }
    diesel::update(sectors::table.find(sector.id)).set(sectors::reason.eq(reason)).execute(conn).map(drop)
}

/// The number belongs to a sector that is not in our books, so this one gets the pool's next
/// number.
fn number_taken(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::NumberTaken, now)?.is_none() {
        return Ok(());
    }
    let number = take_number(conn, sector.pool_id)?;
    let reason = format!("the chain has another sector under its old number {}", sector.number);
    let renewed = (
        sectors::number.eq(number),
        sectors::seed_epoch.eq(None::<i64>),
        sectors::seed.eq(None::<&str>),
        sectors::comm_r.eq(None::<&str>),
        sectors::pc2_output.eq(None::<&str>),
    );
    diesel::update(sectors::table.find(sector.id)).set(renewed).execute(conn)?;
    restart(conn, &sector, &reason, now)
}

/// Gives up the sectors that were not sealed before their contract's term was over. Otherwise their
/// bytes could never be sold again.
pub fn term_over(conn: &mut AnyConnection, contract: ContractId, now: Micros) -> Result<(), LedgerError> {
    let reason = "its contract's term is over";
    let mut given_up = None;
    for mut sector in of_contract(conn, contract)? {
        if sector.apply(conn, Event::TermOver, now)?.is_some() {
            cancel_open(conn, Of::Sector(sector.id), reason, now)?;
            diesel::update(sectors::table.find(sector.id)).set(sectors::reason.eq(reason)).execute(conn)?;
            given_up = Some(sector);
        }
    }
    if let Some(sector) = given_up
        && others(conn, &sector, SectorState::Expired)? == 0
    {
        contracts::end(conn, contract, now)?;
    }
    Ok(())
}

/// Counts the sectors of the same contract that are not in `state`.
fn others(conn: &mut AnyConnection, sector: &Sector, state: SectorState) -> DbResult<i64> {
    let others = sectors::contract_id.eq(sector.contract_id).and(sectors::state.ne(state));
    sectors::table.filter(others).count().get_result(conn)
}

/// Facts about a sector that only the chain can tell.
#[derive(Clone, Debug)]
pub enum OnChain {
    PreCommitted {
        seed_epoch: i64,
    },
    /// The seed at the same epoch is now another one.
    SeedReplaced,
    /// It was pre-committed, and no longer is.
    PreCommitLost,
    /// It was activated, and no longer is.
    ActivationLost,
    /// Another replica's sector has its number.
    NumberTaken,
    Activated(Activation),
    MessageFailed {
        reason: String,
    },
    /// It has power; `at` is the chain's time when this was seen.
    Counts {
        at: Micros,
    },
    Faulty,
    Gone,
}

/// Has a failed message built again under a new attempt number, until the sector has failed too
/// often. The sealed files are kept. A failed PreCommit is sent again while its ticket is young
/// enough; after a failed ProveCommit the proof is verified again.
fn message_failed(conn: &mut AnyConnection, mut sector: Sector, reason: &str, now: Micros) -> DbResult<()> {
    count_failure(conn, &mut sector, reason, now)?;
    let event = Event::MessageFailed { failures: sector.failures };
    sector.apply(conn, event, now).map(drop)
}

/// The ticket is too old for a PreCommit to land, so the files sealed with it are worthless.
pub fn ticket_expired(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::TicketExpired, now)?.is_some() {
        count_failure(conn, &mut sector, "its ticket expired before the PreCommit landed", now)?;
        restart(conn, &sector, "its ticket expired before the PreCommit landed", now)?;
    }
    Ok(())
}

/// Restarts a sector whose ticket would be too old at the end of the step that it waits for: its
/// layers are worthless. Leaves alone a sector with a running task or a PreCommit on its way, and a
/// ticket that is on chain. True: the sector was restarted.
pub fn renew_ticket(conn: &mut AnyConnection, id: SectorId, now: Micros) -> DbResult<bool> {
    // No plan may lease the sector to a machine meanwhile.
    lock(conn, Turn::Plan)?;
    let mut sector = by_id(conn, id)?;
    let runs = tasks::table.filter(tasks::sector_id.eq(id).and(tasks::state.eq(TaskState::Leased)));
    if sector.seed_epoch.is_some() || runs.count().get_result::<i64>(conn)? > 0 {
        return Ok(false);
    }
    let reason = sector.reason.clone();
    let waits = matches!(sector.state, SectorState::PreCommit1 | SectorState::PreCommit2);
    if !waits || sector.apply(conn, Event::TicketExpired, now)?.is_none() {
        return Ok(false);
    }
    restart(conn, &sector, reason.as_deref().unwrap_or("its ticket became too old while it waited"), now).map(|()| true)
}

pub(super) fn count_failure(conn: &mut AnyConnection, sector: &mut Sector, reason: &str, now: Micros) -> DbResult<()> {
    sector.failures += 1;
    sector.reason = Some(reason.to_owned());
    diesel::update(sectors::table.find(sector.id))
        .set((sectors::failures.eq(sector.failures), sectors::reason.eq(reason), sectors::changed_at.eq(now)))
        .execute(conn)
        .map(drop)
}

/// Queues a step whose input is made from the sector's row.
pub(super) fn queue(conn: &mut AnyConnection, sector: &Sector, kind: TaskKind, now: Micros) -> DbResult<()> {
    let pool: Pool = pool_by_id(conn, sector.pool_id)?;
    let input = serde_json::to_string(&sector.input(&pool)).unwrap_or_default();
    queue_with(conn, sector, kind, None, input, now)
}

/// Steps that can only run where the sector's files are.
const fn needs_files(kind: TaskKind) -> bool {
    matches!(kind, TaskKind::PreCommit2 | TaskKind::Commit1 | TaskKind::Finalize)
}

/// Queues a step with the given input. Steps that need the sector's files are pinned to their machine.
pub(super) fn queue_with(
    conn: &mut AnyConnection,
    sector: &Sector,
    kind: TaskKind,
    avoid: Option<MachineId>,
    input: String,
    now: Micros,
) -> DbResult<()> {
    let task = NewTask {
        kind,
        sector: Some(sector.id),
        post: None,
        pool: sector.pool_id,
        pinned_to: sector.machine_id.filter(|_| needs_files(kind)),
        avoid,
        input,
        due_at: sector.due_at,
    };
    create(conn, &task, now).map(drop)
}

/// Decides what follows when a step failed at a level, for a reason, on `machine`.
pub(super) fn after_failure(
    conn: &mut AnyConnection,
    mut sector: Sector,
    kind: TaskKind,
    failure: (FailureLevel, &str),
    machine: Option<MachineId>,
    input: &str,
    now: Micros,
) -> DbResult<()> {
    let (level, reason) = failure;
    count_failure(conn, &mut sector, reason, now)?;
    let machines = machines_failed(conn, &sector)?;
    let needs_files = needs_files(kind) && machine.is_some();
    let event = Event::StepFailed { level, failures: sector.failures, machines, needs_files };
    match sector.apply(conn, event, now)? {
        Some(Transition::Retry(place)) => {
            let avoid = machine.filter(|_| place == Where::Elsewhere);
            if kind == TaskKind::PreCommit1 {
                diesel::update(sectors::table.find(sector.id)).set(sectors::machine_id.eq(None::<MachineId>)).execute(conn)?;
            }
            queue_with(conn, &sector, kind, avoid, input.to_owned(), now)
        }
        Some(Transition::To(SectorState::Planned)) => restart(conn, &sector, reason, now),
        _ => Ok(()),
    }
}

/// Counts the machines on which the sector itself failed, not for want of disk or time. Looks at
/// its latest failed tasks, no more than its failures since the last release.
fn machines_failed(conn: &mut AnyConnection, sector: &Sector) -> DbResult<i64> {
    let failed: Vec<(Option<MachineId>, Option<String>)> = tasks::table
        .filter(
            tasks::sector_id.eq(sector.id).and(tasks::state.eq(TaskState::Failed)).and(tasks::kind.ne_all(TaskKind::TRANSFERS)),
        )
        .order(tasks::id.desc())
        .limit(sector.failures)
        .select((tasks::machine_id, tasks::failure_level))
        .load(conn)?;
    let own = [FailureLevel::Permanent.name(), FailureLevel::Abort.name()];
    let machines = failed.iter().filter(|(_, level)| level.as_deref().is_some_and(|l| own.contains(&l)));
    let distinct: BTreeSet<MachineId> = machines.filter_map(|(machine, _)| *machine).collect();
    Ok(i64::try_from(distinct.len()).unwrap_or(i64::MAX))
}

/// A person lets a quarantined sector start again, with a clean record. False: it is not quarantined.
pub fn release(conn: &mut AnyConnection, id: SectorId, now: Micros) -> DbResult<bool> {
    let mut sector = by_id(conn, id)?;
    if sector.apply(conn, Event::Released, now)?.is_none() {
        return Ok(false);
    }
    diesel::update(sectors::table.find(id)).set(sectors::failures.eq(0)).execute(conn)?;
    restart(conn, &sector, "released from quarantine", now)?;
    Ok(true)
}

/// The sector's files are gone: it starts again, on any machine.
pub fn machine_lost(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::MachineLost, now)?.is_some() {
        restart(conn, &sector, "its machine was lost", now)?;
    }
    Ok(())
}

fn restart(conn: &mut AnyConnection, sector: &Sector, reason: &str, now: Micros) -> DbResult<()> {
    cancel_open(conn, Of::Sector(sector.id), reason, now)?;
    diesel::update(sectors::table.find(sector.id))
        .set((sectors::machine_id.eq(None::<MachineId>), sectors::reason.eq(reason), sectors::changed_at.eq(now)))
        .execute(conn)
        .map(drop)
}
