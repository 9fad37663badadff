//! Moves sectors on for reasons that no machine reports: tickets, seeds, verdicts on proofs, the
//! end of a contract's term, lost machines, and a person's word.

use diesel::prelude::*;

use super::{
    Sector, TaskKind,
    failure::count_failure,
    message::{Purpose, Request, build, next_attempt},
    sector::{by_id, of_contract},
    state::{Event, SectorState},
    task::{NewTask, Of, TaskState, cancel_open, create},
};
use crate::{
    capacity::{Pool, pool_by_id},
    clock::Micros,
    contracts,
    ids::{ContractId, MachineId, SectorId},
    ledger::LedgerError,
    store::{
        AnyConnection, DbResult,
        dialect::{Turn, lock},
        schema::{sectors, tasks},
    },
};

/// Takes a drawn ticket and queues PC1 for any machine. A sector whose PreCommit has landed keeps
/// its old ticket.
pub fn begin_sealing(
    conn: &mut AnyConnection,
    mut sector: Sector,
    ticket: &str,
    epoch: i64,
    now: Micros,
) -> DbResult<()> {
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
pub fn seed_drawn(
    conn: &mut AnyConnection,
    mut sector: Sector,
    seed: &str,
    now: Micros,
) -> DbResult<()> {
    if sector.apply(conn, Event::SeedDrawn, now)?.is_some() {
        diesel::update(sectors::table.find(sector.id))
            .set(sectors::seed.eq(seed))
            .execute(conn)?;
        sector.seed = Some(seed.to_owned());
        queue(conn, &sector, TaskKind::Commit1, now)?;
    }
    Ok(())
}

/// Takes our own verdict on a PoRep proof. `message` is the method and the parameters that send a
/// good proof. `None`: the proof is bad, and C1 and C2 run again.
pub fn proof_verified(
    conn: &mut AnyConnection,
    mut sector: Sector,
    message: Option<(u64, &[u8])>,
    now: Micros,
) -> DbResult<()> {
    let event = if message.is_some() {
        Event::ProofVerified
    } else {
        Event::ProofRejected
    };
    if sector.apply(conn, event, now)?.is_none() {
        return Ok(());
    }
    match message {
        Some((method, params)) => {
            let (pool, purpose, subject) = (sector.pool_id, Purpose::ProveCommit, sector.id.0);
            let attempt = next_attempt(conn, purpose, subject)?;
            build(
                conn,
                &Request {
                    pool,
                    purpose,
                    subject,
                    attempt,
                    method,
                    params,
                },
                now,
            )
            .map(drop)
        }
        None => {
            count_failure(conn, &mut sector, "the proof did not verify", now)?;
            queue(conn, &sector, TaskKind::Commit1, now)
        }
    }
}

/// Gives up the sectors that were not sealed before their contract's term was over. Otherwise their
/// bytes could never be sold again.
pub fn term_over(
    conn: &mut AnyConnection,
    contract: ContractId,
    now: Micros,
) -> Result<(), LedgerError> {
    let reason = "its contract's term is over";
    let mut given_up = None;
    for mut sector in of_contract(conn, contract)? {
        if sector.apply(conn, Event::TermOver, now)?.is_some() {
            cancel_open(conn, Of::Sector(sector.id), reason, now)?;
            diesel::update(sectors::table.find(sector.id))
                .set(sectors::reason.eq(reason))
                .execute(conn)?;
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
pub(super) fn others(
    conn: &mut AnyConnection,
    sector: &Sector,
    state: SectorState,
) -> DbResult<i64> {
    let others = sectors::contract_id
        .eq(sector.contract_id)
        .and(sectors::state.ne(state));
    sectors::table.filter(others).count().get_result(conn)
}

/// The ticket is too old for a PreCommit to land, so the files sealed with it are worthless.
pub fn ticket_expired(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::TicketExpired, now)?.is_some() {
        let reason = "its ticket expired before the PreCommit landed";
        count_failure(conn, &mut sector, reason, now)?;
        restart(conn, &sector, reason, now)?;
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
    let runs = tasks::table.filter(
        tasks::sector_id
            .eq(id)
            .and(tasks::state.eq(TaskState::Leased)),
    );
    if sector.seed_epoch.is_some() || runs.count().get_result::<i64>(conn)? > 0 {
        return Ok(false);
    }
    let reason = sector.reason.clone();
    let waits = matches!(
        sector.state,
        SectorState::PreCommit1 | SectorState::PreCommit2
    );
    if !waits || sector.apply(conn, Event::TicketExpired, now)?.is_none() {
        return Ok(false);
    }
    let reason = reason.as_deref();
    let reason = reason.unwrap_or("its ticket became too old while it waited");
    restart(conn, &sector, reason, now)?;
    Ok(true)
}

/// Queues a step whose input is made from the sector's row.
pub(super) fn queue(
    conn: &mut AnyConnection,
    sector: &Sector,
    kind: TaskKind,
    now: Micros,
) -> DbResult<()> {
    let pool: Pool = pool_by_id(conn, sector.pool_id)?;
    let input = serde_json::to_string(&sector.input(&pool)).unwrap_or_default();
    create(conn, &step(sector, kind, input), now).map(drop)
}

/// Steps that can only run where the sector's files are.
pub(super) const fn needs_files(kind: TaskKind) -> bool {
    matches!(
        kind,
        TaskKind::PreCommit2 | TaskKind::Commit1 | TaskKind::Finalize
    )
}

/// A step with the given input. Steps that need the sector's files are pinned to their machine.
pub(super) fn step(sector: &Sector, kind: TaskKind, input: String) -> NewTask {
    NewTask {
        kind,
        sector: Some(sector.id),
        post: None,
        pool: sector.pool_id,
        pinned_to: sector.machine_id.filter(|_| needs_files(kind)),
        avoid: None,
        source_machine: None,
        input,
        due_at: sector.due_at,
    }
}

/// A person lets a quarantined sector start again, with a clean record. False: it is not
/// quarantined.
pub fn release(conn: &mut AnyConnection, id: SectorId, now: Micros) -> DbResult<bool> {
    let mut sector = by_id(conn, id)?;
    if sector.apply(conn, Event::Released, now)?.is_none() {
        return Ok(false);
    }
    diesel::update(sectors::table.find(id))
        .set(sectors::failures.eq(0))
        .execute(conn)?;
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

/// Cancels the sector's work, and forgets the machine that has its files.
pub(super) fn restart(
    conn: &mut AnyConnection,
    sector: &Sector,
    reason: &str,
    now: Micros,
) -> DbResult<()> {
    cancel_open(conn, Of::Sector(sector.id), reason, now)?;
    diesel::update(sectors::table.find(sector.id))
        .set((
            sectors::machine_id.eq(None::<MachineId>),
            sectors::reason.eq(reason),
            sectors::changed_at.eq(now),
        ))
        .execute(conn)
        .map(drop)
}
