//! A sector's files go from the machine that did PC1 to one with a GPU. Until they have arrived whole the sector is where it was, and
//! its PC2 waits; a transfer that fails is no fault of the sector's.

use diesel::prelude::*;

use super::{
    SectorState, Task, TaskKind, assign,
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
    ids::{MachineId, SectorId, TaskId},
    store::{
        AnyConnection, DbResult,
        schema::{machines, sectors, tasks},
    },
};

/// How long the files may be read.
const PASS_LASTS: Micros = 2 * DAY;
/// Machines between which a transfer failed are left out of others for so long.
const PAUSE: Micros = 10 * MINUTE;

/// Has `to` fetch the files for a PC2 that waits elsewhere. False: it does not wait any more, or its machine shows its files to nobody.
pub fn begin_move(conn: &mut AnyConnection, pc2: TaskId, to: MachineId, now: Micros, until: Micros) -> DbResult<bool> {
    let waiting: Option<Task> = tasks::table.find(pc2).filter(tasks::state.eq("ready")).first(conn).optional()?;
    let Some((id, from)) = waiting.and_then(|task| Some((task.sector_id?, task.pinned_to?))) else { return Ok(false) };
    let sector = by_id(conn, id)?;
    let from: Machine = machines::table.find(from).first(conn)?;
    let Some(url) = from.files_url.filter(|_| sector.state() == SectorState::PreCommit2) else { return Ok(false) };
    let miner = pool_by_id(conn, sector.pool_id)?.miner_id;
    let (Ok(miner), Ok(number)) = (u64::try_from(miner), u64::try_from(sector.number)) else { return Ok(false) };
    let files = StoredSector { miner, number };
    let pass = Pass { sector: files, until: now.saturating_add(PASS_LASTS) };
    let input = MoveInput { sector: files, from: url, pass: pass.sign(&from.key_hash) };
    let fetch = NewTask {
        kind: TaskKind::Move,
        sector: Some(id),
        post: None,
        pool: sector.pool_id,
        pinned_to: Some(to),
        avoid: None,
        input: serde_json::to_string(&input).unwrap_or_default(),
        due_at: sector.due_at,
    };
    let fetch = task::create(conn, &fetch, now)?;
    assign(conn, fetch, to, now, until)
}

/// The files have arrived: this is where they are from now on.
pub(super) fn arrived(conn: &mut AnyConnection, sector: SectorId, at: Option<MachineId>) -> DbResult<()> {
    if by_id(conn, sector)?.state() != SectorState::PreCommit2 {
        return Ok(());
    }
    diesel::update(sectors::table.find(sector)).set(sectors::machine_id.eq(at)).execute(conn)?;
    let waits = tasks::sector_id.eq(sector).and(tasks::kind.eq(TaskKind::PreCommit2.name())).and(tasks::state.eq("ready"));
    diesel::update(tasks::table.filter(waits)).set(tasks::pinned_to.eq(at)).execute(conn).map(drop)
}

/// A transfer whose machine went silent is not taken up by another: the next plan decides anew.
pub(super) fn call_off_moves(conn: &mut AnyConnection, now: Micros) -> DbResult<()> {
    let left = tasks::kind.eq(TaskKind::Move.name()).and(tasks::state.eq("ready"));
    let over = (tasks::state.eq("failed"), tasks::failure.eq("the machine that fetched went silent"), tasks::done_at.eq(now));
    diesel::update(tasks::table.filter(left)).set(over).execute(conn).map(drop)
}

/// Machines between which a transfer failed a short while ago: which of the two is to blame cannot be told.
pub fn paused(conn: &mut AnyConnection, now: Micros) -> DbResult<Vec<MachineId>> {
    let lately =
        tasks::kind.eq(TaskKind::Move.name()).and(tasks::failure_level.is_not_null()).and(tasks::done_at.gt(now - PAUSE));
    let failed: Vec<(Option<MachineId>, Option<MachineId>)> = tasks::table
        .inner_join(sectors::table.on(tasks::sector_id.eq(sectors::id.nullable())))
        .filter(lately)
        .select((tasks::machine_id, sectors::machine_id))
        .load(conn)?;
    Ok(failed.into_iter().flat_map(|(to, from)| [to, from]).flatten().collect())
}
