//! The planner's view of the fleet, and how it is read from the store.

use std::collections::{BTreeMap, HashMap, HashSet};

use diesel::prelude::*;

use super::{
    PlannedBegin,
    history::{self, History},
    previous_plan,
};
use crate::{
    capacity::pools,
    clock::{HOUR, Micros, SECOND},
    fleet::{Machine, check, machines},
    ids::{MachineId, PoolId, SectorId, TaskId},
    orders,
    sealing::{
        Cost, Sector, SectorState, Setbacks, TaskKind, TaskState, ToStore, count_sectors, fetched,
        in_states, leftovers, open_tasks, setbacks, to_store,
    },
    store::{AnyConnection, DbResult, schema::chain_cursors},
};

#[derive(Clone, Debug)]
pub struct MachineView {
    pub id: MachineId,
    pub name: String,
    /// False: it drains, or is silent. It finishes the sectors whose files it has, and begins no
    /// new ones.
    pub takes_new: bool,
    pub cores: i64,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub disk_free_bytes: i64,
    /// Bytes of sealed sectors that are kept there.
    pub stored_bytes: i64,
    /// Bytes of sealed sectors that have moved away and whose copies here are about to be deleted.
    pub leftover_bytes: i64,
    pub gpus: i64,
    /// Whether files move to and from it.
    pub moves: FileMoves,
    /// It keeps sealed sectors, and seals none.
    pub keeps: bool,
    /// The machine whose step times are expected of it: itself, or the one that a hypothetical
    /// machine is like.
    pub quick_as: MachineId,
    /// It was heard from a moment ago, so it can be given work.
    pub is_heard: bool,
}

impl MachineView {
    /// Whether it is large enough for a step.
    #[must_use]
    pub const fn fits(&self, cost: &Cost) -> bool {
        cost.cores <= self.cores && cost.memory_bytes <= self.memory_bytes
    }
}

/// Whether a machine takes part when files move from one to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileMoves {
    /// It shares its files with no other machine, and finishes every sector that it began.
    Never,
    /// Not now: transfers of several sectors to or from it failed, and none succeeded.
    NotNow,
    Now,
}

#[derive(Clone, Debug)]
pub struct TaskView {
    pub id: TaskId,
    pub kind: TaskKind,
    pub sector: Option<SectorId>,
    pub sector_bytes: i64,
    pub cost: Cost,
    pub due_at: Micros,
    pub pinned_to: Option<MachineId>,
    pub avoid: Option<MachineId>,
    /// The machine that a transfer fetches from.
    pub source_machine: Option<MachineId>,
    /// The machine that runs it already, and since when.
    pub leased_to: Option<MachineId>,
    pub started_at: Micros,
}

/// A sector that is owed and does not count on chain yet.
#[derive(Clone, Debug)]
pub struct SectorView {
    pub id: SectorId,
    pub number: i64,
    pub state: SectorState,
    /// Where its files are.
    pub machine: Option<MachineId>,
    pub changed_at: Micros,
    /// Why it last failed, if it has.
    pub setback: Option<String>,
    /// Where and when it was last expected to begin.
    pub planned_begin: Option<PlannedBegin>,
    /// Its layers were fetched from another machine to this one.
    pub fetched: bool,
    /// Its files are not fetched before then, because a transfer has failed.
    pub moves_at: Micros,
}

/// Equal sectors with one promised date: a contract, or an order that is not paid yet.
#[derive(Clone, Debug)]
pub struct Commitment {
    /// The contract's or the order's row.
    pub id: i64,
    pub pool: PoolId,
    pub sector_bytes: i64,
    pub promised_at: Micros,
    /// Sectors of an order that is not paid yet; they are not in the pipeline.
    pub held: i64,
    pub sectors: Vec<SectorView>,
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub now: Micros,
    pub machines: Vec<MachineView>,
    /// Machines with GPUs that were lost recently. Their work is not given to cores yet.
    pub lately_lost: Vec<MachineView>,
    /// Names of machines that are lost or draining.
    pub away: Vec<String>,
    pub tasks: Vec<TaskView>,
    pub commitments: Vec<Commitment>,
    /// The oldest sealed sectors that have to move to a storage machine.
    pub to_store: Vec<ToStore>,
    /// Sector sizes that are on sale.
    pub sizes: Vec<i64>,
    pub history: History,
    /// Length of the chain's epochs; 30 on Filecoin.
    pub epoch_seconds: i64,
}

/// How many sealed sectors are considered at a time for a move to a storage machine.
const TO_STORE: i64 = 200;

/// How long the planner waits for a lost GPU machine: it may be back soon, and doing its work on
/// cores takes longer.
const GPU_IS_WAITED_FOR: Micros = 2 * HOUR;

/// Loads machines that are not lost, tasks that are not done, sectors that do not count yet, and
/// holds that have not expired.
pub fn load(conn: &mut AnyConnection, now: Micros) -> DbResult<Snapshot> {
    let sizes: HashMap<PoolId, i64> = pools(conn)?
        .into_iter()
        .map(|p| (p.id, p.sector_bytes))
        .collect();
    let epoch_seconds = chain_cursors::table
        .select(chain_cursors::epoch_seconds)
        .first(conn)
        .optional()?;
    let machines = machines(conn)?;
    let setbacks = setbacks(conn, now)?;
    let (stored, left) = (
        load_stored(conn, &sizes)?,
        load_leftovers(conn, &sizes, now)?,
    );
    let bytes_of =
        |of: &HashMap<MachineId, i64>, machine: &Machine| of.get(&machine.id).copied().unwrap_or(0);
    let view = |m: &Machine| view(m, (bytes_of(&stored, m), bytes_of(&left, m)), &setbacks);
    let lately_lost = |m: &&Machine| {
        m.gpus > 0
            && m.lost_since
                .is_some_and(|since| since > now - GPU_IS_WAITED_FOR)
    };
    let has_storage = machines.iter().any(|m| m.is_for_storage() && !m.is_lost());
    Ok(Snapshot {
        now,
        to_store: if has_storage {
            to_store(conn, &setbacks, TO_STORE)?
        } else {
            Vec::new()
        },
        machines: machines.iter().filter(|m| !m.is_lost()).map(view).collect(),
        lately_lost: machines.iter().filter(lately_lost).map(view).collect(),
        away: machines
            .iter()
            .filter(|m| m.is_lost() || m.is_draining())
            .map(|m| m.name.clone())
            .collect(),
        tasks: load_tasks(conn, &sizes)?,
        commitments: load_commitments(conn, &sizes, &setbacks, now)?,
        sizes: sizes.values().copied().collect(),
        history: history::load(conn, &sizes, now)?,
        epoch_seconds: epoch_seconds.unwrap_or(30).max(1),
    })
}

/// Bytes of sealed sectors that lie on each machine.
fn load_stored(
    conn: &mut AnyConnection,
    sizes: &HashMap<PoolId, i64>,
) -> DbResult<HashMap<MachineId, i64>> {
    let mut stored = HashMap::new();
    for counted in count_sectors(conn)?
        .into_iter()
        .filter(|counted| counted.state.is_on_chain())
    {
        if let (Some(machine), Some(bytes)) = (counted.machine, sizes.get(&counted.pool)) {
            *stored.entry(machine).or_default() += counted.sectors * bytes;
        }
    }
    Ok(stored)
}

/// Bytes that copies of sealed sectors which have moved away still take on each machine.
fn load_leftovers(
    conn: &mut AnyConnection,
    sizes: &HashMap<PoolId, i64>,
    now: Micros,
) -> DbResult<HashMap<MachineId, i64>> {
    let mut left: HashMap<MachineId, i64> = HashMap::new();
    for (machine, pool) in leftovers(conn, now)? {
        *left.entry(machine).or_default() += sizes.get(&pool).copied().unwrap_or(0);
    }
    Ok(left)
}

fn view(
    machine: &Machine,
    (stored_bytes, leftover_bytes): (i64, i64),
    setbacks: &Setbacks,
) -> MachineView {
    MachineView {
        id: machine.id,
        name: machine.name.clone(),
        takes_new: !machine.is_draining(),
        // Rows older than these checks must not make the planner's sums overflow.
        cores: machine.cores.clamp(0, check::MOST_CORES),
        memory_bytes: machine.memory_bytes.clamp(0, check::MOST_MEMORY),
        disk_bytes: machine.disk_bytes.clamp(0, check::MOST_DISK),
        disk_free_bytes: machine.disk_free_bytes.clamp(0, check::MOST_DISK),
        stored_bytes,
        leftover_bytes,
        gpus: machine
            .gpus
            .clamp(0, i64::try_from(check::MOST_GPUS).unwrap_or(i64::MAX)),
        moves: match &machine.files_url {
            None => FileMoves::Never,
            Some(_) if setbacks.machines.contains(&machine.id) => FileMoves::NotNow,
            Some(_) => FileMoves::Now,
        },
        keeps: machine.is_for_storage(),
        quick_as: machine.id,
        is_heard: true,
    }
}

fn load_tasks(conn: &mut AnyConnection, sizes: &HashMap<PoolId, i64>) -> DbResult<Vec<TaskView>> {
    let tasks = open_tasks(conn)?.into_iter().filter_map(|task| {
        let kind = task.kind;
        let sector_bytes = *sizes.get(&task.pool_id)?;
        Some(TaskView {
            id: task.id,
            kind,
            sector: task.sector_id,
            sector_bytes,
            cost: Cost::of(kind, sector_bytes),
            due_at: task.due_at,
            pinned_to: task.pinned_to,
            avoid: task.avoid,
            source_machine: task.source_machine,
            leased_to: task.machine_id.filter(|_| task.state == TaskState::Leased),
            started_at: task.started_at.unwrap_or(task.created_at),
        })
    });
    Ok(tasks.collect())
}

/// Contracts whose sectors do not count yet, and orders that are not paid yet.
fn load_commitments(
    conn: &mut AnyConnection,
    sizes: &HashMap<PoolId, i64>,
    setbacks: &Setbacks,
    now: Micros,
) -> DbResult<Vec<Commitment>> {
    let mut commitments = load_contracts(conn, sizes, setbacks)?;
    let held = orders::placed(conn, now)?.into_iter().filter_map(|order| {
        let sector_bytes = *sizes.get(&order.pool_id)?;
        Some(Commitment {
            id: order.id.0,
            pool: order.pool_id,
            sector_bytes,
            promised_at: order.promised_at,
            held: order.bytes / sector_bytes.max(1),
            sectors: Vec::new(),
        })
    });
    commitments.extend(held);
    Ok(commitments)
}

fn load_contracts(
    conn: &mut AnyConnection,
    sizes: &HashMap<PoolId, i64>,
    setbacks: &Setbacks,
) -> DbResult<Vec<Commitment>> {
    let is_owed = |state: &SectorState| state.is_sealing() || *state == SectorState::Quarantined;
    let owed: Vec<SectorState> = SectorState::ALL.into_iter().filter(is_owed).collect();
    let planned_begin = previous_plan::load(conn)?;
    let sectors = in_states(conn, &owed)?;
    let in_pc2: Vec<SectorId> = sectors
        .iter()
        .filter(|s| s.state == SectorState::PreCommit2)
        .map(|s| s.id)
        .collect();
    let fetched = fetched(conn, &in_pc2)?;
    let mut contracts: BTreeMap<i64, Commitment> = BTreeMap::new();
    for sector in sectors {
        let Some(sector_bytes) = sizes.get(&sector.pool_id) else {
            continue;
        };
        let contract = contracts
            .entry(sector.contract_id.0)
            .or_insert_with(|| Commitment {
                id: sector.contract_id.0,
                pool: sector.pool_id,
                sector_bytes: *sector_bytes,
                promised_at: sector.due_at,
                held: 0,
                sectors: Vec::new(),
            });
        contract.sectors.push(SectorView {
            planned_begin: planned_begin.get(&sector.id).copied(),
            fetched: fetched.contains(&sector.id),
            moves_at: setbacks.sectors.get(&sector.id).copied().unwrap_or(0),
            ..sector_view(sector)
        });
    }
    Ok(contracts.into_values().collect())
}

/// A sector as its own row tells it.
fn sector_view(sector: Sector) -> SectorView {
    SectorView {
        id: sector.id,
        number: sector.number,
        state: sector.state,
        machine: sector.machine_id,
        changed_at: sector.changed_at,
        setback: sector.reason.filter(|_| sector.failures > 0),
        planned_begin: None,
        fetched: false,
        moves_at: 0,
    }
}

impl Snapshot {
    /// Gives nothing to machines that are not in `heard`: work given to a silent machine might lie
    /// there until its lease ends.
    pub fn leave_out_silent(&mut self, heard: &HashSet<MachineId>) {
        for machine in self
            .machines
            .iter_mut()
            .filter(|machine| !heard.contains(&machine.id))
        {
            machine.takes_new = false;
            machine.is_heard = false;
        }
    }

    /// Sectors of a pool that are owed, or held for an order, and are not on chain.
    #[must_use]
    pub fn committed_sectors(&self, pool: PoolId) -> i64 {
        let of_pool = self.commitments.iter().filter(|o| o.pool == pool);
        of_pool
            .map(|o| o.held + i64::try_from(o.sectors.len()).unwrap_or(i64::MAX))
            .sum()
    }

    /// Whole seconds from `from` to now; 0 if `from` is in the future.
    #[must_use]
    pub fn seconds_since(&self, from: Micros) -> i64 {
        (self.now - from).max(0) / SECOND
    }
}
