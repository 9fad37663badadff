//! Machine rows.

use diesel::prelude::*;

use super::protocol::Hardware;
use crate::{
    clock::Micros,
    ids::MachineId,
    store::{AnyConnection, DbResult, schema::machines},
};

#[derive(Clone, Debug, Queryable)]
pub struct Machine {
    pub id: MachineId,
    pub public_id: String,
    pub name: String,
    pub state: String,
    pub key_hash: String,
    pub cores: i64,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub disk_free_bytes: i64,
    pub gpus: i64,
    pub detail: String,
    pub enrolled_at: Micros,
    pub seen_at: Micros,
}

pub fn machines(conn: &mut AnyConnection) -> DbResult<Vec<Machine>> {
    machines::table.order(machines::id.asc()).load(conn)
}

pub fn by_public_id(conn: &mut AnyConnection, id: &str) -> DbResult<Option<Machine>> {
    machines::table.filter(machines::public_id.eq(id)).first(conn).optional()
}

/// Whose key it is.
pub fn by_key(conn: &mut AnyConnection, key: &str) -> DbResult<Option<Machine>> {
    machines::table.filter(machines::key_hash.eq(crate::ids::digest(key))).first(conn).optional()
}

/// Records that the machine is alive and what it has now. A lost machine that speaks again is active again.
pub fn heartbeat(conn: &mut AnyConnection, machine: &Machine, hardware: &Hardware, now: Micros) -> DbResult<()> {
    let state = if machine.state == "lost" { "active" } else { machine.state.as_str() };
    diesel::update(machines::table.find(machine.id))
        .set((
            machines::state.eq(state),
            machines::cores.eq(hardware.cores),
            machines::memory_bytes.eq(hardware.memory_bytes),
            machines::disk_bytes.eq(hardware.disk_bytes),
            machines::disk_free_bytes.eq(hardware.disk_free_bytes),
            machines::gpus.eq(i64::try_from(hardware.gpus.len()).unwrap_or(i64::MAX)),
            machines::detail.eq(&hardware.description),
            machines::seen_at.eq(now),
        ))
        .execute(conn)
        .map(drop)
}

/// Machines silent since `silent_since` count as lost; returns them.
pub fn mark_lost(conn: &mut AnyConnection, silent_since: Micros) -> DbResult<Vec<MachineId>> {
    let silent: Vec<MachineId> = machines::table
        .filter(machines::state.ne("lost").and(machines::seen_at.lt(silent_since)))
        .select(machines::id)
        .load(conn)?;
    diesel::update(machines::table.filter(machines::id.eq_any(&silent))).set(machines::state.eq("lost")).execute(conn)?;
    Ok(silent)
}

/// A draining machine finishes what it has and gets nothing new.
pub fn set_draining(conn: &mut AnyConnection, id: MachineId, draining: Draining) -> DbResult<()> {
    let state = match draining {
        Draining::Start => "draining",
        Draining::Stop => "active",
    };
    diesel::update(machines::table.find(id)).set(machines::state.eq(state)).execute(conn).map(drop)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Draining {
    Start,
    Stop,
}
