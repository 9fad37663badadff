//! Sectors' files on their way between machines: layers from where PC1 was done to a GPU, sealed sectors to a machine that keeps them.
//! Until they have arrived whole the sector is where it was; a transfer that fails is no fault of the sector's.

use diesel::prelude::*;

use super::{
    Sector, SectorState, Task, TaskKind, assign,
    sector::by_id,
    task::{self, NewTask},
};
use crate::{
    capacity::pool_by_id,
    clock::{DAY, MINUTE, Micros},
    fleet::{
        Machine, Pass,
        protocol::{MoveInput, StoredSector},
    },
    ids::{self, MachineId, SectorId, TaskId},
    store::{
        AnyConnection, DbResult,
        schema::{machines, sectors, tasks},
    },
};

/// How long the files may be read.
const PASS_LASTS: Micros = 2 * DAY;
/// Machines between which a transfer failed are left out of others for so long.
pub const TRANSFER_PAUSE: Micros = 10 * MINUTE;

/// A lease that begins now.
#[derive(Clone, Copy)]
pub struct Grant {
    pub to: MachineId,
    pub now: Micros,
    pub until: Micros,
}

/// Has layers fetched for a PC2 that waits on another machine. False: it does not wait any more, or nobody may read there.
pub fn begin_move(conn: &mut AnyConnection, pc2: TaskId, grant: Grant) -> DbResult<bool> {
    let waiting: Option<Task> = tasks::table.find(pc2).filter(tasks::state.eq("ready")).first(conn).optional()?;
    let Some(id) = waiting.and_then(|task| task.sector_id) else { return Ok(false) };
    let sector = by_id(conn, id)?;
    if sector.state() != SectorState::PreCommit2 {
        return Ok(false);
    }
    begin(conn, &sector, (TaskKind::Move, String::new()), grant)
}

/// Has a sealed sector fetched by a machine that keeps it. False: it is not sealed, or nobody may read where it is.
pub fn begin_store(conn: &mut AnyConnection, id: SectorId, grant: Grant) -> DbResult<bool> {
    let sector = by_id(conn, id)?;
    if !may_be_stored(sector.state()) {
        return Ok(false);
    }
    let randomness = ids::digest(&ids::secret());
    begin(conn, &sector, (TaskKind::Store, randomness), grant)
}

/// It is whole, and tidied.
const fn may_be_stored(state: SectorState) -> bool {
    matches!(state, SectorState::Proving | SectorState::Active)
}

fn begin(conn: &mut AnyConnection, sector: &Sector, (kind, prove_with): (TaskKind, String), grant: Grant) -> DbResult<bool> {
    let Some(from) = sector.machine_id.filter(|from| *from != grant.to) else { return Ok(false) };
    let from: Machine = machines::table.find(from).first(conn)?;
    let Some(url) = from.files_url else { return Ok(false) };
    let files = sector.input(&pool_by_id(conn, sector.pool_id)?);
    let read = StoredSector { miner: files.miner, number: files.number };
    let pass = Pass { sector: read, until: grant.now.saturating_add(PASS_LASTS) };
    let input = MoveInput { sector: files, from: url, pass: pass.sign(&from.key_hash), prove_with };
    let fetch = NewTask {
        kind,
        sector: Some(sector.id),
        post: None,
        pool: sector.pool_id,
        pinned_to: Some(grant.to),
        // Where the files are.
        avoid: Some(from.id),
        input: serde_json::to_string(&input).unwrap_or_default(),
        due_at: sector.due_at,
    };
    let fetch = task::create(conn, &fetch, grant.now)?;
    assign(conn, fetch, grant.to, grant.now, grant.until)
}

/// The files have arrived: this is where they are from now on.
pub(super) fn arrived(conn: &mut AnyConnection, transfer: &Task, kind: TaskKind, sector: SectorId) -> DbResult<()> {
    let state = by_id(conn, sector)?.state();
    let awaited = if kind == TaskKind::Move { state == SectorState::PreCommit2 } else { state.is_on_chain() };
    if !awaited {
        return Ok(());
    }
    let at = sectors::machine_id.eq(transfer.machine_id);
    diesel::update(sectors::table.find(sector)).set(at).execute(conn)?;
    let waits = tasks::sector_id.eq(sector).and(tasks::kind.eq(TaskKind::PreCommit2.name())).and(tasks::state.eq("ready"));
    diesel::update(tasks::table.filter(waits)).set(tasks::pinned_to.eq(transfer.machine_id)).execute(conn).map(drop)
}

pub(super) const TRANSFERS: [&str; 2] = [TaskKind::Move.name(), TaskKind::Store.name()];

/// A transfer whose machine went silent is not taken up by another: the next plan decides anew.
pub(super) fn call_off_transfers(conn: &mut AnyConnection, now: Micros) -> DbResult<()> {
    let left = tasks::kind.eq_any(TRANSFERS).and(tasks::state.eq("ready"));
    let over = (tasks::state.eq("failed"), tasks::failure.eq("the machine that fetched went silent"), tasks::done_at.eq(now));
    diesel::update(tasks::table.filter(left)).set(over).execute(conn).map(drop)
}

/// Machines between which a transfer failed a short while ago: which of the two is to blame cannot be told.
pub fn paused(conn: &mut AnyConnection, now: Micros) -> DbResult<Vec<MachineId>> {
    let lately = tasks::failure_level.is_not_null().and(tasks::done_at.gt(now - TRANSFER_PAUSE));
    let failed: Vec<(Option<MachineId>, Option<MachineId>)> =
        tasks::table.filter(tasks::kind.eq_any(TRANSFERS).and(lately)).select((tasks::machine_id, tasks::avoid)).load(conn)?;
    Ok(failed.into_iter().flat_map(|(to, from)| [to, from]).flatten().collect())
}

/// A sealed sector that is to go to a machine that keeps it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToStore {
    pub sector: SectorId,
    pub from: MachineId,
    pub bytes: i64,
}

/// Sealed sectors on machines that show their files and are not meant to keep them, oldest first, at most `most`; without those that
/// are on their way, or on one of the machines `but`.
pub fn to_store(conn: &mut AnyConnection, but: &[MachineId], most: i64) -> DbResult<Vec<ToStore>> {
    use crate::store::schema::pools;
    let states = SectorState::ALL.into_iter().filter(|s| may_be_stored(*s)).map(SectorState::name);
    let under_way: Vec<Option<SectorId>> = tasks::table
        .filter(tasks::kind.eq(TaskKind::Store.name()).and(tasks::state.eq_any(["ready", "leased"])))
        .select(tasks::sector_id)
        .load(conn)?;
    let under_way: Vec<SectorId> = under_way.into_iter().flatten().collect();
    let rows: Vec<(SectorId, Option<MachineId>, i64)> = sectors::table
        .inner_join(machines::table.on(sectors::machine_id.eq(machines::id.nullable())))
        .inner_join(pools::table.on(pools::id.eq(sectors::pool_id)))
        .filter(sectors::state.eq_any(states).and(sectors::id.ne_all(under_way)))
        .filter(machines::id.ne_all(but))
        .filter(machines::keeps.eq(0).and(machines::files_url.is_not_null()).and(machines::lost_since.is_null()))
        .order(sectors::id.asc())
        .limit(most)
        .select((sectors::id, sectors::machine_id, pools::sector_bytes))
        .load(conn)?;
    Ok(rows.into_iter().filter_map(|(sector, from, bytes)| Some(ToStore { sector, from: from?, bytes })).collect())
}

/// When each of these sectors last left a machine for another one.
pub(super) fn left(conn: &mut AnyConnection, machine: MachineId, of: &[SectorId]) -> DbResult<Vec<(SectorId, Micros)>> {
    let rows: Vec<(Option<SectorId>, Option<Micros>)> = tasks::table
        .filter(tasks::sector_id.eq_any(of).and(tasks::kind.eq_any(TRANSFERS)))
        .filter(tasks::avoid.eq(machine).and(tasks::state.eq("done")))
        .order(tasks::id.asc())
        .select((tasks::sector_id, tasks::done_at))
        .load(conn)?;
    Ok(rows.into_iter().filter_map(|(sector, at)| Some((sector?, at?))).collect())
}
