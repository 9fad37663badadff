//! Where sectors that have not begun were last expected to begin. Each dispatch simulates the plan
//! anew. It keeps to the previous plan where that costs nothing, so that the plan does not change
//! whenever a step takes a little longer.

use std::collections::HashMap;

use diesel::prelude::*;

use super::{Outlook, Snapshot};
use crate::{
    clock::{DAY, MINUTE, Micros},
    ids::{MachineId, SectorId},
    on_conn,
    sealing::TaskKind,
    store::{AnyConnection, DbResult, schema::drawings},
};

/// How far ahead the plan is kept.
const AHEAD: Micros = DAY;
/// Smaller changes of a moment are not recorded.
const SAME: Micros = 10 * MINUTE;

/// Where a sector is expected to begin, and when.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PlannedBegin {
    pub machine: MachineId,
    pub at: Micros,
}

pub(super) fn load(conn: &mut AnyConnection) -> DbResult<HashMap<SectorId, PlannedBegin>> {
    let rows: Vec<(SectorId, MachineId, Micros)> = drawings::table.load(conn)?;
    Ok(rows
        .into_iter()
        .map(|(sector, machine, at)| (sector, PlannedBegin { machine, at }))
        .collect())
}

/// Stores the beginnings that `outlook` expects for the coming day. Returns how many sectors are
/// expected on another machine than before.
pub fn keep_plan(
    conn: &mut AnyConnection,
    snapshot: &Snapshot,
    outlook: &Outlook,
) -> DbResult<usize> {
    let mut before = load(conn)?;
    let mut moved = 0;
    let begins = outlook
        .steps
        .iter()
        .filter(|s| s.step == TaskKind::PreCommit1 && s.from >= snapshot.now);
    for step in begins.filter(|s| s.from < snapshot.now + AHEAD) {
        let now = PlannedBegin {
            machine: step.machine,
            at: step.from,
        };
        let was = before.remove(&step.sector);
        if was.is_some_and(|was| was.machine == now.machine && (was.at - now.at).abs() < SAME) {
            continue;
        }
        moved += usize::from(was.is_some_and(|was| was.machine != now.machine));
        let values = (
            drawings::machine_id.eq(now.machine),
            drawings::begins_at.eq(now.at),
        );
        on_conn!(&mut *conn, |c| diesel::insert_into(drawings::table)
            .values((drawings::sector_id.eq(step.sector), values))
            .on_conflict(drawings::sector_id)
            .do_update()
            .set(values)
            .execute(c))?;
    }
    let over: Vec<SectorId> = before.into_keys().collect();
    for part in over.chunks(1000) {
        diesel::delete(drawings::table.filter(drawings::sector_id.eq_any(part))).execute(conn)?;
    }
    Ok(moved)
}
