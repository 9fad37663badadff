//! Plans and grants leases. Any number may do so at once: they take turns.

use super::{Assignment, load, plan};
use crate::{
    clock::Micros,
    sealing::assign,
    store::{
        AnyConnection, DbResult,
        dialect::{Turn, lock},
    },
};

/// Assigns what can begin now, leased for `lease`; returns what was granted.
pub fn dispatch(conn: &mut AnyConnection, now: Micros, lease: Micros) -> DbResult<Vec<Assignment>> {
    lock(conn, Turn::Plan)?;
    let snapshot = load(conn, now)?;
    let mut granted = plan(&snapshot, None);
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
