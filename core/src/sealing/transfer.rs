//! Transfers of sectors' files between machines: layers go from the machine that did PC1 to a GPU
//! machine, sealed sectors to a storage machine. Until the files have arrived complete, the sector
//! stays where it was. A failed transfer is not by itself the sector's failure.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;

use super::{
    Sector, SectorState, Task, TaskKind, assign,
    sector::by_id,
    task::{self, NewTask, OPEN, TaskState},
};
use crate::{
    capacity::pool_by_id,
    clock::{DAY, HOUR, MINUTE, Micros},
    fleet::{
        Machine, Pass,
        protocol::{MoveInput, StoredSector},
    },
    ids::{self, MachineId, PoolId, SectorId, TaskId},
    store::{
        AnyConnection, DbResult,
        schema::{machines, pools, sectors, tasks},
    },
};

/// Copies fetched within this time are looked for in machines' reports.
const WATCHED: Micros = 30 * DAY;
/// How long a pass lets the files be read.
const PASS_LASTS: Micros = 2 * DAY;
/// The first pause of a sector whose transfer failed. Machines that are to blame pause as long.
pub const TRANSFER_PAUSE: Micros = 10 * MINUTE;

/// A lease that begins now.
#[derive(Clone, Copy)]
pub struct Grant {
    pub to: MachineId,
    pub now: Micros,
    pub until: Micros,
}

/// Has a sector's layers fetched to the machine that is to run its waiting PC2. False: PC2 no
/// longer waits, or the machine with the layers shares no files.
pub fn begin_move(conn: &mut AnyConnection, pc2: TaskId, grant: Grant) -> DbResult<bool> {
    let waiting: Option<Task> = tasks::table
        .find(pc2)
        .filter(tasks::state.eq(TaskState::Ready))
        .first(conn)
        .optional()?;
    let Some(id) = waiting.and_then(|task| task.sector_id) else {
        return Ok(false);
    };
    let sector = by_id(conn, id)?;
    if sector.state != SectorState::PreCommit2 {
        return Ok(false);
    }
    begin(conn, &sector, (TaskKind::Move, String::new()), grant)
}

/// Has a sealed sector, one of [`to_store`], fetched by a storage machine. False: it is not sealed,
/// or its machine shares no files.
pub fn begin_store(conn: &mut AnyConnection, id: SectorId, grant: Grant) -> DbResult<bool> {
    let sector = by_id(conn, id)?;
    if !may_be_stored(sector.state) {
        return Ok(false);
    }
    let randomness = ids::digest(&ids::secret());
    begin(conn, &sector, (TaskKind::Store, randomness), grant)
}

/// The sector's sealed files are complete.
const fn may_be_stored(state: SectorState) -> bool {
    matches!(state, SectorState::Proving | SectorState::Active)
}

fn begin(
    conn: &mut AnyConnection,
    sector: &Sector,
    (kind, prove_with): (TaskKind, String),
    grant: Grant,
) -> DbResult<bool> {
    let Some(from) = sector.machine_id.filter(|from| *from != grant.to) else {
        return Ok(false);
    };
    let from: Machine = machines::table.find(from).first(conn)?;
    let Some(url) = from.files_url else {
        return Ok(false);
    };
    let files = sector.input(&pool_by_id(conn, sector.pool_id)?);
    let read = StoredSector {
        miner: files.miner,
        number: files.number,
    };
    let pass = Pass {
        sector: read,
        until: grant.now.saturating_add(PASS_LASTS),
    };
    let input = MoveInput {
        sector: files,
        from: url,
        pass: pass.sign(&from.key_hash),
        prove_with,
    };
    let fetch = NewTask {
        kind,
        sector: Some(sector.id),
        post: None,
        pool: sector.pool_id,
        pinned_to: Some(grant.to),
        // The machine that has the files.
        avoid: None,
        source_machine: Some(from.id),
        input: serde_json::to_string(&input).unwrap_or_default(),
        due_at: sector.due_at,
    };
    let fetch = task::create(conn, &fetch, grant.now)?;
    assign(conn, fetch, grant.to, grant.now, grant.until)
}

/// Records that the files have arrived on the machine that fetched them.
pub(super) fn arrived(
    conn: &mut AnyConnection,
    transfer: &Task,
    kind: TaskKind,
    sector: SectorId,
) -> DbResult<()> {
    let state = by_id(conn, sector)?.state;
    let awaited = if kind == TaskKind::Move {
        state == SectorState::PreCommit2
    } else {
        state.is_on_chain()
    };
    if !awaited {
        return Ok(());
    }
    let at = sectors::machine_id.eq(transfer.machine_id);
    diesel::update(sectors::table.find(sector))
        .set(at)
        .execute(conn)?;
    let waits = tasks::sector_id
        .eq(sector)
        .and(tasks::kind.eq(TaskKind::PreCommit2))
        .and(tasks::state.eq(TaskState::Ready));
    diesel::update(tasks::table.filter(waits))
        .set(tasks::pinned_to.eq(transfer.machine_id))
        .execute(conn)
        .map(drop)
}

/// Fails transfers whose machine went silent. No other machine takes them over; the next plan
/// decides anew.
pub(super) fn call_off_transfers(conn: &mut AnyConnection, now: Micros) -> DbResult<()> {
    let left = tasks::kind
        .eq_any(TaskKind::TRANSFERS)
        .and(tasks::state.eq(TaskState::Ready));
    let over = (
        tasks::state.eq(TaskState::Failed),
        tasks::failure.eq("the machine that fetched went silent"),
        tasks::done_at.eq(now),
    );
    diesel::update(tasks::table.filter(left))
        .set(over)
        .execute(conn)
        .map(drop)
}

/// Machines and sectors whose transfers are not worth trying for a while.
#[derive(Clone, Debug, Default)]
pub struct Setbacks {
    /// Machines that failed in several sectors' transfers, and completed none.
    pub machines: Vec<MachineId>,
    /// When each of these sectors is tried again.
    pub sectors: HashMap<SectorId, Micros>,
}

/// The network may be back, and tickets age, so no pause is longer than this.
const LONGEST_PAUSE: Micros = HOUR;

/// This many failures are unlikely to be chance.
const NO_CHANCE: usize = 3;

/// A transfer that ended.
#[derive(Queryable)]
struct Ended {
    sector: Option<SectorId>,
    to: Option<MachineId>,
    from: Option<MachineId>,
    at: Option<Micros>,
}

impl Ended {
    /// The machines at its two ends.
    fn ends(&self) -> impl Iterator<Item = MachineId> {
        [self.to, self.from].into_iter().flatten()
    }
}

/// Recent setbacks. A sector waits longer after each failed transfer. A machine is to blame if
/// several sectors failed there.
pub fn setbacks(conn: &mut AnyConnection, now: Micros) -> DbResult<Setbacks> {
    let columns = (
        tasks::sector_id,
        tasks::machine_id,
        tasks::source_machine,
        tasks::done_at,
    );
    let ended = |state: TaskState| {
        tasks::table.filter(
            tasks::kind
                .eq_any(TaskKind::TRANSFERS)
                .and(tasks::state.eq(state)),
        )
    };
    let told = tasks::failure_level
        .is_not_null()
        .and(tasks::done_at.gt(now - DAY));
    let failed: Vec<Ended> = ended(TaskState::Failed)
        .filter(told)
        .order(tasks::id.asc())
        .select(columns)
        .load(conn)?;
    if failed.is_empty() {
        return Ok(Setbacks::default());
    }
    let done: Vec<Ended> = ended(TaskState::Done)
        .filter(tasks::done_at.gt(now - TRANSFER_PAUSE))
        .select(columns)
        .load(conn)?;
    Ok(Setbacks {
        machines: to_blame(&failed, &done, now),
        sectors: tried_again(&failed, now),
    })
}

/// When the sectors of failed transfers, oldest first, are tried again, if not yet.
fn tried_again(failed: &[Ended], now: Micros) -> HashMap<SectorId, Micros> {
    let mut again = HashMap::new();
    let mut tries: HashMap<SectorId, u32> = HashMap::new();
    for task in failed {
        let (Some(sector), Some(at)) = (task.sector, task.at) else {
            continue;
        };
        let tried = tries.entry(sector).or_default();
        let pause = TRANSFER_PAUSE
            .saturating_mul(1 << (*tried).min(10))
            .min(LONGEST_PAUSE);
        *tried += 1;
        again.insert(sector, at.saturating_add(pause));
    }
    again.retain(|_, until| *until > now);
    again
}

/// Machines where several sectors' transfers failed lately, and none was completed.
fn to_blame(failed: &[Ended], done: &[Ended], now: Micros) -> Vec<MachineId> {
    let well: HashSet<MachineId> = done.iter().flat_map(Ended::ends).collect();
    let mut lately: HashMap<MachineId, HashSet<SectorId>> = HashMap::new();
    for task in failed {
        let is_recent = task.at.is_some_and(|at| at > now - TRANSFER_PAUSE);
        if let Some(sector) = task.sector.filter(|_| is_recent) {
            for machine in task.ends() {
                lately.entry(machine).or_default().insert(sector);
            }
        }
    }
    lately
        .into_iter()
        .filter(|(machine, sectors)| sectors.len() >= NO_CHANCE && !well.contains(machine))
        .map(|(machine, _)| machine)
        .collect()
}

/// Whether to give up a sector's layers: since PC1 they failed to arrive several times, while other
/// sectors' layers arrived by the same route.
pub(super) fn are_bad(
    conn: &mut AnyConnection,
    transfer: &Task,
    sector: &Sector,
) -> DbResult<bool> {
    let ways = tasks::source_machine
        .eq(transfer.source_machine)
        .and(tasks::machine_id.eq(transfer.machine_id));
    let same_way = tasks::kind
        .eq(TaskKind::Move)
        .and(ways)
        .and(tasks::done_at.ge(sector.changed_at));
    let own = tasks::sector_id
        .eq(sector.id)
        .and(tasks::state.eq(TaskState::Failed))
        .and(tasks::failure_level.is_not_null());
    let failed: Vec<Option<Micros>> = tasks::table
        .filter(same_way)
        .filter(own)
        .select(tasks::done_at)
        .load(conn)?;
    let Some(first) = failed
        .iter()
        .flatten()
        .min()
        .filter(|_| failed.len() >= NO_CHANCE)
    else {
        return Ok(false);
    };
    let others = tasks::table.filter(same_way).filter(
        tasks::state
            .eq(TaskState::Done)
            .and(tasks::done_at.gt(*first)),
    );
    Ok(others.count().get_result::<i64>(conn)? > 0)
}

/// A sealed sector that is to go to a storage machine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ToStore {
    pub sector: SectorId,
    pub from: MachineId,
    pub bytes: i64,
}

/// Sealed and tidied sectors on machines that share their files but are not for storage, oldest
/// first, at most `most`. Leaves out sectors that are on their way, those whose machine is already
/// sending one, and those held back by `setbacks`.
pub fn to_store(
    conn: &mut AnyConnection,
    setbacks: &Setbacks,
    most: i64,
) -> DbResult<Vec<ToStore>> {
    let states = SectorState::ALL.into_iter().filter(|s| may_be_stored(*s));
    let kinds = [TaskKind::Store, TaskKind::Finalize];
    // A sector may have power again before its files are tidied.
    let open: Vec<(TaskKind, Option<SectorId>, Option<MachineId>)> = tasks::table
        .filter(tasks::kind.eq_any(kinds).and(tasks::state.eq_any(OPEN)))
        .select((tasks::kind, tasks::sector_id, tasks::source_machine))
        .load(conn)?;
    let busy: Vec<MachineId> = open
        .iter()
        .filter(|(kind, ..)| *kind == TaskKind::Store)
        .filter_map(|(.., at)| *at)
        .chain(setbacks.machines.iter().copied())
        .collect();
    let not_now: Vec<SectorId> = open
        .iter()
        .filter_map(|(_, sector, _)| *sector)
        .chain(setbacks.sectors.keys().copied())
        .collect();
    let from = givers(conn, busy)?;
    let rows: Vec<(SectorId, Option<MachineId>, i64)> = sectors::table
        .inner_join(pools::table.on(pools::id.eq(sectors::pool_id)))
        .filter(
            sectors::machine_id
                .eq_any(from)
                .and(sectors::state.eq_any(states)),
        )
        .filter(sectors::id.ne_all(not_now))
        .order(sectors::id.asc())
        .limit(most)
        .select((sectors::id, sectors::machine_id, pools::sector_bytes))
        .load(conn)?;
    let of = |(sector, from, bytes): (SectorId, Option<MachineId>, i64)| {
        Some(ToStore {
            sector,
            from: from?,
            bytes,
        })
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

/// Machines that are not for storage and share their files, except busy ones.
fn givers(conn: &mut AnyConnection, busy: Vec<MachineId>) -> DbResult<Vec<MachineId>> {
    let shares = machines::keeps
        .eq(0)
        .and(machines::files_url.is_not_null())
        .and(machines::lost_since.is_null());
    machines::table
        .filter(shares.and(machines::id.ne_all(busy)))
        .select(machines::id)
        .load(conn)
}

/// Takes a machine's report of its stored sectors: the copies that it fetched are really there.
pub fn copies_seen(
    conn: &mut AnyConnection,
    machine: MachineId,
    told: &[StoredSector],
    now: Micros,
) -> DbResult<()> {
    if told.is_empty() {
        return Ok(());
    }
    let told: HashSet<&StoredSector> = told.iter().collect();
    let stored: Vec<(TaskId, i64, i64)> = tasks::table
        .inner_join(sectors::table.on(tasks::sector_id.eq(sectors::id.nullable())))
        .inner_join(pools::table.on(pools::id.eq(sectors::pool_id)))
        .filter(
            tasks::kind
                .eq_any(TaskKind::TRANSFERS)
                .and(tasks::state.eq(TaskState::Done))
                .and(tasks::done_at.gt(now - WATCHED)),
        )
        .filter(tasks::machine_id.eq(machine))
        .select((tasks::id, pools::miner_id, sectors::number))
        .load(conn)?;
    let is_there = |miner: i64, number: i64| {
        StoredSector::of(miner, number).is_some_and(|sector| told.contains(&sector))
    };
    let seen = stored
        .into_iter()
        .filter(|(_, miner, number)| is_there(*miner, *number))
        .map(|(id, ..)| id);
    diesel::update(tasks::table.filter(tasks::id.eq_any(seen)))
        .set(tasks::seen_at.eq(now))
        .execute(conn)
        .map(drop)
}

/// A completed transfer of a sector from one machine to another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Went {
    pub sector: SectorId,
    pub from: MachineId,
    pub to: MachineId,
    pub at: Micros,
    /// When the receiving machine last reported that it has the sector.
    pub seen_at: Option<Micros>,
}

/// The completed transfers of these sectors, oldest first.
pub(super) fn ways(conn: &mut AnyConnection, of: &[SectorId]) -> DbResult<Vec<Went>> {
    type Row = (
        Option<SectorId>,
        Option<MachineId>,
        Option<MachineId>,
        Option<Micros>,
        Option<Micros>,
    );
    let rows: Vec<Row> = tasks::table
        .filter(
            tasks::sector_id
                .eq_any(of)
                .and(tasks::kind.eq_any(TaskKind::TRANSFERS))
                .and(tasks::state.eq(TaskState::Done)),
        )
        .order(tasks::id.asc())
        .select((
            tasks::sector_id,
            tasks::source_machine,
            tasks::machine_id,
            tasks::done_at,
            tasks::seen_at,
        ))
        .load(conn)?;
    let of = |(sector, from, to, at, seen_at): Row| {
        Some(Went {
            sector: sector?,
            from: from?,
            to: to?,
            at: at?,
            seen_at,
        })
    };
    Ok(rows.into_iter().filter_map(of).collect())
}

/// How long the copy left behind by a stored sector usually stays.
const LINGERS: Micros = 2 * DAY + 12 * HOUR;

/// Copies of sealed sectors that were left behind and may still be there, by machine and pool.
pub fn leftovers(conn: &mut AnyConnection, now: Micros) -> DbResult<Vec<(MachineId, PoolId)>> {
    let lately = tasks::kind
        .eq(TaskKind::Store)
        .and(tasks::state.eq(TaskState::Done))
        .and(tasks::done_at.gt(now - LINGERS));
    let rows: Vec<(Option<MachineId>, PoolId)> = tasks::table
        .filter(lately)
        .select((tasks::source_machine, tasks::pool_id))
        .load(conn)?;
    Ok(rows
        .into_iter()
        .filter_map(|(machine, pool)| Some((machine?, pool)))
        .collect())
}

/// Sectors whose layers were fetched, since PC1, to the machine where they are now.
pub fn fetched(conn: &mut AnyConnection, of: &[SectorId]) -> DbResult<HashSet<SectorId>> {
    let rows: Vec<Option<SectorId>> = tasks::table
        .inner_join(sectors::table.on(tasks::sector_id.eq(sectors::id.nullable())))
        .filter(
            tasks::sector_id
                .eq_any(of)
                .and(tasks::kind.eq(TaskKind::Move))
                .and(tasks::state.eq(TaskState::Done)),
        )
        .filter(
            tasks::machine_id
                .eq(sectors::machine_id)
                .and(tasks::done_at.ge(sectors::changed_at.nullable())),
        )
        .select(tasks::sector_id)
        .load(conn)?;
    Ok(rows.into_iter().flatten().collect())
}
