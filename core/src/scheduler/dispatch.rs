//! Plans and grants leases. Any number may do so at once: they take turns.

use super::{Assignment, load, plan, planner::Rounds};
use crate::{
    clock::Micros,
    sealing::assign,
    store::{
        AnyConnection, DbResult,
        dialect::{Turn, lock},
    },
};

/// Sectors that may be played for one plan, over and over: some hundredths of a second.
const SECTORS_PLAYED: usize = 20_000;

/// Assigns what can begin now, leased for `lease`; returns what was granted.
pub fn dispatch(conn: &mut AnyConnection, now: Micros, lease: Micros) -> DbResult<Vec<Assignment>> {
    lock(conn, Turn::Plan)?;
    let snapshot = load(conn, now)?;
    let sectors: usize = snapshot.owed.iter().map(|owed| owed.sectors.len()).sum();
    let rounds = u32::try_from(SECTORS_PLAYED / sectors.max(500)).unwrap_or(0);
    let mut budget = Rounds::most(rounds);
    let mut granted = plan(&snapshot, (rounds > 0).then_some(&mut budget));
    let mut failure = None;
    granted.retain(|given| match assign(conn, given.task, given.machine, now, now.saturating_add(lease)) {
        Ok(won) => won,
        Err(error) => {
            failure.get_or_insert(error);
            false
        }
    });
    failure.map_or(Ok(granted), Err)
}
