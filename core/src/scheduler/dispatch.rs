//! Plans and grants leases. Any number of processes may do so at once: they take turns.

use sealyard_planner::Rounds;

use super::{
    Assignment, Snapshot, load,
    plan::{plan, starting_soon},
    storing::storing,
};
use crate::{
    clock::Micros,
    ids::{MachineId, SectorId},
    sealing::{Grant, assign, begin_move, begin_store},
    store::{
        AnyConnection, DbResult,
        dialect::{Turn, lock},
    },
};

/// How many sectors may be simulated for one plan, repeats included; some hundredths of a second.
const SECTORS_PLAYED: usize = 20_000;

/// The search budget. It depends on the snapshot alone, so the same fleet gets the same plan.
fn budget(snapshot: &Snapshot) -> Option<Rounds> {
    let sectors: usize = snapshot
        .commitments
        .iter()
        .map(|commitment| commitment.sectors.len())
        .sum();
    let rounds = u32::try_from(SECTORS_PLAYED / sectors.max(500)).unwrap_or(0);
    (rounds > 0).then(|| Rounds::most(rounds))
}

/// Planned sectors whose tickets should be drawn now, because their turn comes within `seconds`.
#[must_use]
pub fn need_tickets(snapshot: &Snapshot, seconds: i32) -> Vec<SectorId> {
    starting_soon(snapshot, seconds, budget(snapshot).as_mut())
}

/// Assigns the tasks that can begin now, leased for `lease`. Returns what was granted.
pub fn dispatch(conn: &mut AnyConnection, now: Micros, lease: Micros) -> DbResult<Vec<Assignment>> {
    let snapshot = take_turn(conn, now)?;
    grant(conn, &snapshot, lease)
}

/// The fleet's snapshot. No other transaction can plan for it until this one ends.
pub fn take_turn(conn: &mut AnyConnection, now: Micros) -> DbResult<Snapshot> {
    lock(conn, Turn::Plan)?;
    load(conn, now)
}

/// Assigns every step that can begin now, given the snapshot from [`take_turn`].
pub fn grant(
    conn: &mut AnyConnection,
    snapshot: &Snapshot,
    lease: Micros,
) -> DbResult<Vec<Assignment>> {
    let mut granted = plan(snapshot, budget(snapshot).as_mut());
    let is_heard = |machine: MachineId| {
        snapshot
            .machines
            .iter()
            .any(|m| m.id == machine && m.is_heard)
    };
    granted.retain(|given| is_heard(given.machine));
    let mut failure = None;
    granted.retain(|given| match grant_one(conn, snapshot, given, lease) {
        Ok(won) => won,
        Err(error) => {
            failure.get_or_insert(error);
            false
        }
    });
    if let Some(error) = failure {
        return Err(error);
    }
    for (sector, to) in storing(snapshot)
        .into_iter()
        .filter(|(_, to)| is_heard(*to))
    {
        begin_store(
            conn,
            sector,
            Grant {
                to,
                now: snapshot.now,
                until: snapshot.now.saturating_add(lease),
            },
        )?;
    }
    Ok(granted)
}

/// Grants one task. If a PC2's files are on another machine than the one that is to do it, they are
/// moved there first.
fn grant_one(
    conn: &mut AnyConnection,
    snapshot: &Snapshot,
    given: &Assignment,
    lease: Micros,
) -> DbResult<bool> {
    let grant = Grant {
        to: given.machine,
        now: snapshot.now,
        until: snapshot.now.saturating_add(lease),
    };
    let task = snapshot.tasks.iter().find(|t| t.id == given.task);
    if task.is_some_and(|t| t.pinned_to.is_some_and(|at| at != given.machine)) {
        begin_move(conn, given.task, grant)
    } else {
        assign(conn, given.task, given.machine, grant.now, grant.until)
    }
}
