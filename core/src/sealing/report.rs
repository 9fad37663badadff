//! What a machine reports about a task, and what follows: the result and its consequences in one transaction.

use diesel::prelude::*;
use serde::Deserialize;

use super::{
    Task, TaskKind,
    advance::{after_failure, queue, queue_with},
    sector::by_id,
    state::Event,
    task::forget_c1_output,
    transfer::{are_bad, arrived},
};
use crate::{
    clock::Micros,
    fleet::protocol::{FailureLevel, Outcome, ReportRequest},
    ids::{MachineId, SectorId, TaskId},
    proving,
    store::{
        AnyConnection, DbFault,
        schema::{sectors, tasks},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    #[error("the output of {kind} is unreadable: {reason}")]
    Output { kind: &'static str, reason: String },
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(ReportError);

/// PC2's result as agents send it.
#[derive(Deserialize)]
struct Sealed {
    comm_r: String,
    comm_d: String,
    pc2: serde_json::Value,
}

/// Takes a report. `false`: the lease had moved on, nothing was used. The same report again is accepted and changes nothing.
pub fn report(conn: &mut AnyConnection, machine: MachineId, request: &ReportRequest, now: Micros) -> Result<bool, ReportError> {
    let id = TaskId(request.task);
    let held = tasks::table
        .filter(tasks::id.eq(id).and(tasks::machine_id.eq(machine)).and(tasks::fence.eq(request.fence)))
        .first::<Task>(conn)
        .optional()?;
    let Some(task) = held else { return Ok(false) };
    if task.state != "leased" {
        return Ok(task.state == "done");
    }
    let Some(kind) = task.kind() else { return Ok(false) };
    let usage = (
        tasks::wall_ms.eq(request.usage.wall_ms),
        tasks::cpu_ms.eq(request.usage.cpu_ms),
        tasks::peak_bytes.eq(request.usage.peak_bytes),
        tasks::done_at.eq(now),
        tasks::lease_until.eq(None::<Micros>),
    );
    let row = tasks::table.find(id);
    match &request.outcome {
        Outcome::Done { output } => {
            let bytes = serde_json::to_vec(output).unwrap_or_default();
            diesel::update(row)
                .set((tasks::state.eq("done"), tasks::output.eq(bytes), tasks::progress.eq("done"), usage))
                .execute(conn)?;
            done(conn, &task, kind, output, now)?;
        }
        Outcome::Failed { level, reason } => {
            diesel::update(row)
                .set((tasks::state.eq("failed"), tasks::failure_level.eq(level.name()), tasks::failure.eq(reason), usage))
                .execute(conn)?;
            failed(conn, &task, kind, (*level, reason), machine, now)?;
        }
    }
    Ok(true)
}

fn done(
    conn: &mut AnyConnection,
    task: &Task,
    kind: TaskKind,
    output: &serde_json::Value,
    now: Micros,
) -> Result<(), ReportError> {
    match (task.sector_id, task.post_id) {
        (Some(sector), _) => sector_step_done(conn, task, sector, kind, output, now),
        (None, Some(post)) => Ok(proving::step_done(conn, post, kind, output, now)?),
        (None, None) => Ok(()),
    }
}

fn sector_step_done(
    conn: &mut AnyConnection,
    task: &Task,
    id: SectorId,
    kind: TaskKind,
    output: &serde_json::Value,
    now: Micros,
) -> Result<(), ReportError> {
    let mut sector = by_id(conn, id)?;
    let unreadable = |reason: String| ReportError::Output { kind: kind.name(), reason };
    let row = sectors::table.find(id);
    match kind {
        TaskKind::PreCommit1 => {
            if sector.apply(conn, Event::PreCommit1Done, now)?.is_some() {
                diesel::update(row).set(sectors::machine_id.eq(task.machine_id)).execute(conn)?;
                sector.machine_id = task.machine_id;
                queue(conn, &sector, TaskKind::PreCommit2, now)?;
            }
        }
        TaskKind::Move | TaskKind::Store => arrived(conn, task, kind, id)?,
        TaskKind::PreCommit2 => {
            let sealed: Sealed = serde_json::from_value(output.clone()).map_err(|error| unreadable(error.to_string()))?;
            if sector.apply(conn, Event::PreCommit2Done, now)?.is_some() {
                diesel::update(row)
                    .set((
                        sectors::comm_r.eq(&sealed.comm_r),
                        sectors::comm_d.eq(&sealed.comm_d),
                        sectors::pc2_output.eq(sealed.pc2.to_string()),
                    ))
                    .execute(conn)?;
                // Sealed again after its machine was lost: the PreCommit is on chain already, the seed is known or due.
                if sector.seed_epoch.is_some() {
                    sector.apply(conn, Event::PreCommitLanded, now)?;
                }
            }
        }
        TaskKind::Commit1 => {
            if sector.apply(conn, Event::Commit1Done, now)?.is_some() {
                let input = c2_input(&task.input, output).map_err(unreadable)?;
                queue_with(conn, &sector, TaskKind::Commit2, None, input, now)?;
            }
        }
        TaskKind::Commit2 => {
            let proof = output.get("proof").and_then(serde_json::Value::as_str).and_then(|text| hex::decode(text).ok());
            let proof = proof.ok_or_else(|| unreadable("no proof in it".into()))?;
            if sector.apply(conn, Event::Commit2Done, now)?.is_some() {
                diesel::update(row).set(sectors::porep_proof.eq(proof)).execute(conn)?;
                forget_c1_output(conn, id)?;
            }
        }
        TaskKind::Finalize => drop(sector.apply(conn, Event::Finalized, now)?),
        TaskKind::Vanilla | TaskKind::WindowPost => {}
    }
    Ok(())
}

/// C2's input: the sector, and C1's output in place of PC2's.
fn c2_input(c1_input: &str, c1_output: &serde_json::Value) -> Result<String, String> {
    let sector: serde_json::Value = serde_json::from_str(c1_input).map_err(|error| error.to_string())?;
    Ok(serde_json::json!({"sector": sector, "c1": c1_output}).to_string())
}

fn failed(
    conn: &mut AnyConnection,
    task: &Task,
    kind: TaskKind,
    failure: (FailureLevel, &str),
    machine: MachineId,
    now: Micros,
) -> Result<(), ReportError> {
    match (task.sector_id, task.post_id) {
        // Reading a faulty sector again failed: it stays faulty.
        (Some(_), _) if kind.is_proving() => Ok(()),
        // Files that did not arrive are still where they were, and may arrive next time.
        (Some(sector), _) if kind.is_transfer() => {
            let sector = by_id(conn, sector)?;
            if kind == TaskKind::Move && are_bad(conn, task, &sector)? {
                return Ok(after_failure(conn, sector, kind, (FailureLevel::Abort, failure.1), Some(machine), "", now)?);
            }
            Ok(())
        }
        (Some(sector), _) => {
            let sector = by_id(conn, sector)?;
            Ok(after_failure(conn, sector, kind, failure, Some(machine), &task.input, now)?)
        }
        (None, Some(post)) => Ok(proving::step_failed(conn, post, task, machine, now)?),
        (None, None) => Ok(()),
    }
}
