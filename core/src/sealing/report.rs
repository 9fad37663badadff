//! Machines' reports about tasks. A result and its consequences are stored in one transaction.

use diesel::prelude::*;
use serde_json::value::RawValue;

use super::{
    Task, TaskKind,
    advance::{after_failure, queue, queue_with},
    result::{StepOutput, check},
    sector::by_id,
    state::Event,
    task::{TaskState, forget_c1_output},
    transfer::{are_bad, arrived},
};
use crate::{
    clock::Micros,
    fleet::{
        machine_name,
        protocol::{FailureLevel, Outcome, ReportRequest},
    },
    ids::{MachineId, SectorId, TaskId},
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
pub fn report(conn: &mut AnyConnection, machine: MachineId, request: &ReportRequest, now: Micros) -> Result<bool, DbFault> {
    let id = TaskId(request.task);
    let held = tasks::table
        .filter(tasks::id.eq(id).and(tasks::machine_id.eq(machine)).and(tasks::fence.eq(request.fence)))
        .first::<Task>(conn)
        .optional()?;
    let Some(task) = held else { return Ok(false) };
    if task.state != TaskState::Leased {
        return Ok(task.state == TaskState::Done);
    }
    let kind = task.kind;
    let usage = (
        tasks::wall_ms.eq(request.usage.wall_ms),
        tasks::cpu_ms.eq(request.usage.cpu_ms),
        tasks::peak_bytes.eq(request.usage.peak_bytes),
        tasks::done_at.eq(now),
        tasks::lease_until.eq(None::<Micros>),
    );
    let row = tasks::table.find(id);
    let (level, reason) = match &request.outcome {
        Outcome::Done { output } => match check(&task, kind, output) {
            Ok(checked) => {
                diesel::update(row)
                    .set((
                        tasks::state.eq(TaskState::Done),
                        tasks::output.eq(output.get().as_bytes()),
                        tasks::progress.eq("done"),
                        usage,
                    ))
                    .execute(conn)?;
                let name = machine_name(conn, machine)?;
                jobs::clear(conn, AlertKind::Machine, &format!("{name}: result"))?;
                done(conn, &task, kind, (checked, output), now)?;
                return Ok(true);
            }
            Err(why) => {
                let name = machine_name(conn, machine)?;
                let text = format!("machine {name} reported an invalid result of {}: {why}", kind.name());
                jobs::raise(conn, AlertKind::Machine, &format!("{name}: result"), &text, now)?;
                (FailureLevel::Permanent, format!("its result is invalid: {why}"))
            }
        },
        Outcome::Failed { level, reason } => (*level, reason.clone()),
    };
    diesel::update(row)
        .set((tasks::state.eq(TaskState::Failed), tasks::failure_level.eq(level.name()), tasks::failure.eq(&reason), usage))
        .execute(conn)?;
    failed(conn, &task, kind, (level, &reason), machine, now)?;
    Ok(true)
}

fn done(conn: &mut AnyConnection, task: &Task, kind: TaskKind, result: (StepOutput, &RawValue), now: Micros) -> DbResult<()> {
    match (task.sector_id, task.post_id) {
        (Some(sector), _) => sector_step_done(conn, task, sector, kind, result, now),
        (None, Some(post)) => proving::step_done(conn, post, kind, result.0, now),
        (None, None) => Ok(()),
    }
}

fn sector_step_done(
    conn: &mut AnyConnection,
    task: &Task,
    id: SectorId,
    kind: TaskKind,
    (checked, output): (StepOutput, &RawValue),
    now: Micros,
) -> DbResult<()> {
    let mut sector = by_id(conn, id)?;
    let row = sectors::table.find(id);
    match (kind, checked) {
        (TaskKind::PreCommit1, _) => {
            if sector.apply(conn, Event::PreCommit1Done, now)?.is_some() {
                diesel::update(row).set(sectors::machine_id.eq(task.machine_id)).execute(conn)?;
                sector.machine_id = task.machine_id;
                queue(conn, &sector, TaskKind::PreCommit2, now)?;
            }
        }
        (TaskKind::Move | TaskKind::Store, _) => arrived(conn, task, kind, id)?,
        (TaskKind::PreCommit2, StepOutput::Sealed(sealed)) => {
            if sector.apply(conn, Event::PreCommit2Done, now)?.is_some() {
                diesel::update(row)
                    .set((
                        sectors::comm_r.eq(&sealed.comm_r),
                        sectors::comm_d.eq(&sealed.comm_d),
                        sectors::pc2_output.eq(&sealed.pc2),
                    ))
                    .execute(conn)?;
                // The sector was sealed again: its PreCommit is already on chain, and its seed is
                // known or due.
                if sector.seed_epoch.is_some() {
                    sector.apply(conn, Event::PreCommitLanded, now)?;
                }
            }
        }
        (TaskKind::Commit1, _) => {
            if sector.apply(conn, Event::Commit1Done, now)?.is_some() {
                queue_with(conn, &sector, TaskKind::Commit2, None, c2_input(&task.input, output), now)?;
            }
        }
        (TaskKind::Commit2, StepOutput::Proof(proof)) => {
            if sector.apply(conn, Event::Commit2Done, now)?.is_some() {
                diesel::update(row).set(sectors::porep_proof.eq(proof)).execute(conn)?;
                forget_c1_output(conn, id)?;
            }
        }
        (TaskKind::Finalize, _) => drop(sector.apply(conn, Event::Finalized, now)?),
        (TaskKind::Vanilla | TaskKind::WindowPost | TaskKind::PreCommit2 | TaskKind::Commit2, _) => {}
    }
    Ok(())
}

/// C2's input: C1's input, which describes the sector, and C1's output. Both are JSON and are
/// embedded unchanged.
fn c2_input(c1_input: &str, c1_output: &RawValue) -> String {
    format!("{{\"sector\":{c1_input},\"c1\":{}}}", c1_output.get())
}

fn failed(
    conn: &mut AnyConnection,
    task: &Task,
    kind: TaskKind,
    failure: (FailureLevel, &str),
    machine: MachineId,
    now: Micros,
) -> DbResult<()> {
    match (task.sector_id, task.post_id) {
        // Reading a faulty sector failed again, so it stays faulty.
        (Some(_), _) if kind.is_proving() => Ok(()),
        // Files that did not arrive are still at their source, and may arrive next time.
        (Some(sector), _) if kind.is_transfer() => {
            let sector = by_id(conn, sector)?;
            if kind == TaskKind::Move && are_bad(conn, task, &sector)? {
                return after_failure(conn, sector, kind, (FailureLevel::Abort, failure.1), Some(machine), "", now);
            }
            Ok(())
        }
        (Some(sector), _) => {
            let sector = by_id(conn, sector)?;
            after_failure(conn, sector, kind, failure, Some(machine), &task.input, now)
        }
        (None, Some(post)) => proving::step_failed(conn, post, task, machine, now),
        (None, None) => Ok(()),
    }
}
