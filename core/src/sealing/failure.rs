//! Decides what follows when a step of a sector fails.

use std::collections::BTreeSet;

use diesel::prelude::*;

use super::{
    Sector, TaskKind,
    advance::{needs_files, restart, step},
    state::{Event, SectorState, Transition, Where},
    task::{NewTask, TaskState, create},
};
use crate::{
    clock::Micros,
    fleet::protocol::FailureLevel,
    ids::MachineId,
    store::{
        AnyConnection, DbResult,
        schema::{sectors, tasks},
    },
};

/// A step that failed.
#[derive(Clone, Copy)]
pub(super) struct Failure<'f> {
    pub kind: TaskKind,
    pub level: FailureLevel,
    pub reason: &'f str,
    pub machine: MachineId,
    /// The step's input.
    pub input: &'f str,
}

/// Repeats the step, lets the sector start again, or puts it in quarantine.
pub(super) fn after_failure(
    conn: &mut AnyConnection,
    mut sector: Sector,
    failure: Failure<'_>,
    now: Micros,
) -> DbResult<()> {
    let Failure { kind, reason, .. } = failure;
    count_failure(conn, &mut sector, reason, now)?;
    let event = Event::StepFailed {
        level: failure.level,
        failures: sector.failures,
        machines: machines_failed(conn, &sector)?,
        needs_files: needs_files(kind),
    };
    match sector.apply(conn, event, now)? {
        Some(Transition::Retry(place)) => {
            if kind == TaskKind::PreCommit1 {
                diesel::update(sectors::table.find(sector.id))
                    .set(sectors::machine_id.eq(None::<MachineId>))
                    .execute(conn)?;
            }
            let again = NewTask {
                avoid: (place == Where::Elsewhere).then_some(failure.machine),
                source_machine: None,
                ..step(&sector, kind, failure.input.to_owned())
            };
            create(conn, &again, now).map(drop)
        }
        Some(Transition::To(SectorState::Planned)) => restart(conn, &sector, reason, now),
        _ => Ok(()),
    }
}

/// Counts a failure of the sector, and keeps its reason.
pub(super) fn count_failure(
    conn: &mut AnyConnection,
    sector: &mut Sector,
    reason: &str,
    now: Micros,
) -> DbResult<()> {
    sector.failures += 1;
    sector.reason = Some(reason.to_owned());
    diesel::update(sectors::table.find(sector.id))
        .set((
            sectors::failures.eq(sector.failures),
            sectors::reason.eq(reason),
            sectors::changed_at.eq(now),
        ))
        .execute(conn)
        .map(drop)
}

/// Counts the machines on which the sector itself failed, not for want of disk or time. Looks at
/// its latest failed tasks, no more than its failures since the last release.
fn machines_failed(conn: &mut AnyConnection, sector: &Sector) -> DbResult<i64> {
    let failed: Vec<(Option<MachineId>, Option<String>)> = tasks::table
        .filter(
            tasks::sector_id
                .eq(sector.id)
                .and(tasks::state.eq(TaskState::Failed))
                .and(tasks::kind.ne_all(TaskKind::TRANSFERS)),
        )
        .order(tasks::id.desc())
        .limit(sector.failures)
        .select((tasks::machine_id, tasks::failure_level))
        .load(conn)?;
    let own = [FailureLevel::Permanent.name(), FailureLevel::Abort.name()];
    let machines = failed
        .iter()
        .filter(|(_, level)| level.as_deref().is_some_and(|l| own.contains(&l)));
    let distinct: BTreeSet<MachineId> = machines.filter_map(|(machine, _)| *machine).collect();
    Ok(i64::try_from(distinct.len()).unwrap_or(i64::MAX))
}
