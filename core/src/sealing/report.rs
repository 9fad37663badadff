//! Machines' reports about tasks. A result and its consequences are stored in one transaction.

use diesel::prelude::*;
use serde_json::value::RawValue;

use super::{
    Sector, Task, TaskKind,
    advance::{queue, step},
    failure::{Failure, after_failure},
    result::{Sealed, StepOutput, check},
    sector::by_id,
    state::Event,
    task::{TaskState, create, forget_c1_output},
    transfer::{are_bad, arrived},
};
use crate::{
    clock::Micros,
    fleet::{
        machine_name,
        protocol::{FailureLevel, Outcome, ReportRequest, Usage},
    },
    ids::{MachineId, TaskId},
    jobs::{self, AlertKind},
    proving,
    store::{
        AnyConnection, DbFault, DbResult,
        schema::{sectors, tasks},
    },
};

/// Takes a report. `false`: the lease had moved on, and the report was not used. Repeating a report
/// changes nothing; one of a finished task is accepted again. An invalid result counts as a failure
/// of the machine.
pub fn report(
    conn: &mut AnyConnection,
    machine: MachineId,
    request: &ReportRequest,
    now: Micros,
) -> Result<bool, DbFault> {
    let held = tasks::table
        .filter(
            tasks::id
                .eq(TaskId(request.task))
                .and(tasks::machine_id.eq(machine))
                .and(tasks::fence.eq(request.fence)),
        )
        .first::<Task>(conn)
        .optional()?;
    let Some(task) = held else { return Ok(false) };
    if task.state != TaskState::Leased {
        return Ok(task.state == TaskState::Done);
    }
    let ended = judge(conn, &task, machine, &request.outcome, now)?;
    store_end(conn, task.id, &ended, request.usage, now)?;
    match ended {
        Ended::Well { checked, output } => {
            let name = machine_name(conn, machine)?;
            jobs::clear(conn, AlertKind::Machine, &alert_subject(&name))?;
            done(conn, &task, (checked, output), now)?;
        }
        Ended::Failed { level, reason } => failed(conn, &task, (level, &reason), machine, now)?,
    }
    Ok(true)
}

/// How a task ended, after its result was checked.
enum Ended<'r> {
    Well {
        checked: StepOutput,
        output: &'r RawValue,
    },
    Failed {
        level: FailureLevel,
        reason: String,
    },
}

/// Checks a result, and alerts people to an invalid one.
fn judge<'r>(
    conn: &mut AnyConnection,
    task: &Task,
    machine: MachineId,
    outcome: &'r Outcome,
    now: Micros,
) -> DbResult<Ended<'r>> {
    let output: &RawValue = match outcome {
        Outcome::Done { output } => output,
        Outcome::Failed { level, reason } => {
            return Ok(Ended::Failed {
                level: *level,
                reason: reason.clone(),
            });
        }
    };
    let why = match check(task, task.kind, output) {
        Ok(checked) => return Ok(Ended::Well { checked, output }),
        Err(why) => why,
    };
    let (name, step) = (machine_name(conn, machine)?, task.kind.name());
    let text = format!("machine {name} reported an invalid result of {step}: {why}");
    jobs::raise(conn, AlertKind::Machine, &alert_subject(&name), &text, now)?;
    Ok(Ended::Failed {
        level: FailureLevel::Permanent,
        reason: format!("its result is invalid: {why}"),
    })
}

/// The subject of alerts about a machine's invalid results.
fn alert_subject(machine: &str) -> String {
    format!("{machine}: result")
}

/// Stores how a task ended, and what it used.
fn store_end(
    conn: &mut AnyConnection,
    id: TaskId,
    ended: &Ended<'_>,
    usage: Usage,
    now: Micros,
) -> DbResult<()> {
    let usage = (
        tasks::wall_ms.eq(usage.wall_ms),
        tasks::cpu_ms.eq(usage.cpu_ms),
        tasks::peak_bytes.eq(usage.peak_bytes),
        tasks::done_at.eq(now),
        tasks::lease_until.eq(None::<Micros>),
    );
    let row = tasks::table.find(id);
    match ended {
        Ended::Well { output, .. } => diesel::update(row)
            .set((
                tasks::state.eq(TaskState::Done),
                tasks::output.eq(output.get().as_bytes()),
                tasks::progress.eq("done"),
                usage,
            ))
            .execute(conn),
        Ended::Failed { level, reason } => diesel::update(row)
            .set((
                tasks::state.eq(TaskState::Failed),
                tasks::failure_level.eq(level.name()),
                tasks::failure.eq(reason),
                usage,
            ))
            .execute(conn),
    }
    .map(drop)
}

fn done(
    conn: &mut AnyConnection,
    task: &Task,
    result: (StepOutput, &RawValue),
    now: Micros,
) -> DbResult<()> {
    match (task.sector_id, task.post_id) {
        (Some(sector), _) => {
            let sector = by_id(conn, sector)?;
            sector_step_done(conn, task, sector, result, now)
        }
        (None, Some(post)) => proving::step_done(conn, post, task.kind, result.0, now),
        (None, None) => Ok(()),
    }
}

fn sector_step_done(
    conn: &mut AnyConnection,
    task: &Task,
    mut sector: Sector,
    (checked, output): (StepOutput, &RawValue),
    now: Micros,
) -> DbResult<()> {
    match (task.kind, checked) {
        (TaskKind::PreCommit1, _) => pc1_done(conn, sector, task.machine_id, now),
        (TaskKind::Move | TaskKind::Store, _) => arrived(conn, task, task.kind, sector.id),
        (TaskKind::PreCommit2, StepOutput::Sealed(sealed)) => pc2_done(conn, sector, &sealed, now),
        (TaskKind::Commit1, _) => c1_done(conn, sector, (&task.input, output), now),
        (TaskKind::Commit2, StepOutput::Proof(proof)) => c2_done(conn, sector, &proof, now),
        (TaskKind::Finalize, _) => sector.apply(conn, Event::Finalized, now).map(drop),
        (
            TaskKind::Vanilla | TaskKind::WindowPost | TaskKind::PreCommit2 | TaskKind::Commit2,
            _,
        ) => Ok(()),
    }
}

/// Queues PC2 on the machine that has the layers.
fn pc1_done(
    conn: &mut AnyConnection,
    mut sector: Sector,
    machine: Option<MachineId>,
    now: Micros,
) -> DbResult<()> {
    if sector.apply(conn, Event::PreCommit1Done, now)?.is_none() {
        return Ok(());
    }
    diesel::update(sectors::table.find(sector.id))
        .set(sectors::machine_id.eq(machine))
        .execute(conn)?;
    sector.machine_id = machine;
    queue(conn, &sector, TaskKind::PreCommit2, now)
}

/// Keeps the commitments. The PreCommit message follows from them.
fn pc2_done(
    conn: &mut AnyConnection,
    mut sector: Sector,
    sealed: &Sealed,
    now: Micros,
) -> DbResult<()> {
    if sector.apply(conn, Event::PreCommit2Done, now)?.is_none() {
        return Ok(());
    }
    diesel::update(sectors::table.find(sector.id))
        .set((
            sectors::comm_r.eq(&sealed.comm_r),
            sectors::comm_d.eq(&sealed.comm_d),
            sectors::pc2_output.eq(&sealed.pc2),
        ))
        .execute(conn)?;
    // The sector was sealed again: its PreCommit is already on chain, and its seed is known or due.
    if sector.seed_epoch.is_some() {
        sector.apply(conn, Event::PreCommitLanded, now)?;
    }
    Ok(())
}

/// Queues C2 for any machine, with C1's output.
fn c1_done(
    conn: &mut AnyConnection,
    mut sector: Sector,
    (input, output): (&str, &RawValue),
    now: Micros,
) -> DbResult<()> {
    if sector.apply(conn, Event::Commit1Done, now)?.is_none() {
        return Ok(());
    }
    let c2 = step(&sector, TaskKind::Commit2, c2_input(input, output));
    create(conn, &c2, now).map(drop)
}

/// Keeps the proof, which is verified next.
fn c2_done(
    conn: &mut AnyConnection,
    mut sector: Sector,
    proof: &[u8],
    now: Micros,
) -> DbResult<()> {
    if sector.apply(conn, Event::Commit2Done, now)?.is_none() {
        return Ok(());
    }
    diesel::update(sectors::table.find(sector.id))
        .set(sectors::porep_proof.eq(proof))
        .execute(conn)?;
    forget_c1_output(conn, sector.id)
}

/// C2's input: C1's input, which describes the sector, and C1's output. Both are JSON and are
/// embedded unchanged.
fn c2_input(c1_input: &str, c1_output: &RawValue) -> String {
    format!("{{\"sector\":{c1_input},\"c1\":{}}}", c1_output.get())
}

fn failed(
    conn: &mut AnyConnection,
    task: &Task,
    (level, reason): (FailureLevel, &str),
    machine: MachineId,
    now: Micros,
) -> DbResult<()> {
    let failure = Failure {
        kind: task.kind,
        level,
        reason,
        machine,
        input: &task.input,
    };
    match (task.sector_id, task.post_id) {
        // Reading a faulty sector failed again, so it stays faulty.
        (Some(_), _) if task.kind.is_proving() => Ok(()),
        (Some(sector), _) => {
            let sector = by_id(conn, sector)?;
            if task.kind.is_transfer() {
                transfer_failed(conn, task, sector, failure, now)
            } else {
                after_failure(conn, sector, failure, now)
            }
        }
        (None, Some(post)) => proving::step_failed(conn, post, task, machine, now),
        (None, None) => Ok(()),
    }
}

/// Files that did not arrive are still at their source, and may arrive next time. Only layers that
/// never do are given up.
fn transfer_failed(
    conn: &mut AnyConnection,
    task: &Task,
    sector: Sector,
    failure: Failure<'_>,
    now: Micros,
) -> DbResult<()> {
    if task.kind != TaskKind::Move || !are_bad(conn, task, &sector)? {
        return Ok(());
    }
    let layers_lost = Failure {
        level: FailureLevel::Abort,
        input: "",
        ..failure
    };
    after_failure(conn, sector, layers_lost, now)
}
