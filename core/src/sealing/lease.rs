//! Leases: only one machine at a time may do a task. Each grant moves the fence, and only a result
//! with the current fence counts.

use diesel::prelude::*;
use serde_json::value::RawValue;

use super::{
    SectorState, Task, TaskKind, TaskState, in_states, machine_lost, transfer::call_off_transfers,
};
use crate::{
    clock::Micros,
    fleet::{
        listening, lost_machines, mark_lost,
        protocol::{HeartbeatAnswer, Lease, Running},
    },
    ids::{MachineId, SectorId, TaskId},
    store::{
        AnyConnection, DbResult,
        schema::{sectors, tasks},
    },
};

/// Leases a ready task to a machine. False: the task was no longer ready.
pub fn assign(
    conn: &mut AnyConnection,
    task: TaskId,
    machine: MachineId,
    now: Micros,
    until: Micros,
) -> DbResult<bool> {
    let won = diesel::update(
        tasks::table.filter(tasks::id.eq(task).and(tasks::state.eq(TaskState::Ready))),
    )
    .set((
        tasks::state.eq(TaskState::Leased),
        tasks::machine_id.eq(machine),
        tasks::fence.eq(tasks::fence + 1),
        tasks::attempts.eq(tasks::attempts + 1),
        tasks::lease_until.eq(until),
        tasks::started_at.eq(now),
        tasks::progress.eq("assigned"),
    ))
    .execute(conn)?;
    let (kind, sector): (TaskKind, Option<SectorId>) = tasks::table
        .find(task)
        .select((tasks::kind, tasks::sector_id))
        .first(conn)?;
    if won == 1
        && kind == TaskKind::PreCommit1
        && let Some(sector) = sector
    {
        // The sector's files are where PC1 runs. PC1 starts from nothing, wherever it ran before.
        diesel::update(sectors::table.find(sector))
            .set(sectors::machine_id.eq(machine))
            .execute(conn)?;
    }
    Ok(won == 1)
}

/// Extends the leases of the tasks that a machine says it runs. Tells it which other leases it
/// holds, and which tasks to stop.
pub fn leases_of(
    conn: &mut AnyConnection,
    machine: MachineId,
    running: &[Running],
    until: Micros,
) -> DbResult<HeartbeatAnswer> {
    let stop = extend(conn, machine, running, until)?;
    let is_running = |task: &Task| {
        let mut running = running.iter();
        running.any(|run| run.task == task.id.0 && run.fence == task.fence)
    };
    let held: Vec<Task> = tasks::table
        .filter(
            tasks::machine_id
                .eq(machine)
                .and(tasks::state.eq(TaskState::Leased)),
        )
        .order((tasks::due_at.asc(), tasks::id.asc()))
        .load(conn)?;
    let leases = held.into_iter().filter(|task| !is_running(task));
    Ok(HeartbeatAnswer {
        leases: leases.filter_map(lease).collect(),
        stop,
        drop: Vec::new(),
        now: 0,
    })
}

/// Extends the leases of running tasks. Returns the tasks to stop, whose lease has moved on.
fn extend(
    conn: &mut AnyConnection,
    machine: MachineId,
    running: &[Running],
    until: Micros,
) -> DbResult<Vec<i64>> {
    let mut stop = Vec::new();
    for run in running {
        let held = tasks::table.filter(
            tasks::id
                .eq(run.task)
                .and(tasks::fence.eq(run.fence))
                .and(tasks::machine_id.eq(machine))
                .and(tasks::state.eq(TaskState::Leased)),
        );
        let extended = diesel::update(held)
            .set((
                tasks::lease_until.eq(until),
                tasks::progress.eq(&run.progress),
            ))
            .execute(conn)?;
        if extended == 0 {
            stop.push(run.task);
        }
    }
    Ok(stop)
}

/// `None`: the task's input is not JSON, so no machine can do it.
fn lease(task: Task) -> Option<Lease> {
    Some(Lease {
        task: task.id.0,
        fence: task.fence,
        kind: task.kind.name().to_owned(),
        input: RawValue::from_string(task.input).ok()?,
    })
}

/// Makes tasks ready again whose lease ran out; the next grant moves the fence past the old holder.
/// While no machine at all can be heard, leases are kept: their holders work on, and report when
/// they can. Returns how many leases ran out.
pub fn expire_leases(conn: &mut AnyConnection, now: Micros) -> DbResult<usize> {
    if listening(conn)?.is_some_and(|listening| listening.is_deaf(now)) {
        return Ok(0);
    }
    let expired = diesel::update(
        tasks::table.filter(
            tasks::state
                .eq(TaskState::Leased)
                .and(tasks::lease_until.lt(now)),
        ),
    )
    .set((
        tasks::state.eq(TaskState::Ready),
        tasks::machine_id.eq(None::<MachineId>),
        tasks::lease_until.eq(None::<Micros>),
    ))
    .execute(conn)?;
    call_off_transfers(conn, now)?;
    Ok(expired)
}

/// Gives up machines that have been silent for `patience`. Their tasks become ready again, and
/// sectors whose files were on them are sealed again as soon as the chain allows it. Returns the
/// machines that were not lost before.
pub fn give_up_lost(
    conn: &mut AnyConnection,
    patience: Micros,
    now: Micros,
) -> DbResult<Vec<MachineId>> {
    let newly = mark_lost(conn, patience, now)?;
    diesel::update(
        tasks::table.filter(
            tasks::state
                .eq(TaskState::Leased)
                .and(tasks::machine_id.eq_any(&newly)),
        ),
    )
    .set((
        tasks::state.eq(TaskState::Ready),
        tasks::machine_id.eq(None::<MachineId>),
        tasks::lease_until.eq(None::<Micros>),
    ))
    .execute(conn)?;
    call_off_transfers(conn, now)?;
    let lost = lost_machines(conn)?;
    if !lost.is_empty() {
        let sealing = SectorState::ALL
            .into_iter()
            .filter(|s| s.is_sealing())
            .collect::<Vec<_>>();
        for sector in in_states(conn, &sealing)?
            .into_iter()
            .filter(|s| s.machine_id.is_some_and(|m| lost.contains(&m)))
        {
            machine_lost(conn, sector, now)?;
        }
    }
    Ok(newly)
}
