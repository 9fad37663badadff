//! Decides which sector files on the machines nothing needs any more. Deleting cannot be undone, so
//! doubtful files stay.

use std::collections::{HashMap, HashSet};

use diesel::prelude::*;

use super::{
    state::SectorState,
    task::TaskState,
    transfer::{self, Went},
};
use crate::{
    capacity,
    clock::{DAY, MINUTE, Micros},
    fleet::{lost_machines, protocol::StoredSector},
    ids::{MachineId, PoolId, SectorId},
    store::{
        AnyConnection, DbResult,
        schema::{pools, sectors, tasks},
    },
    yields,
};

/// Sector numbers in one query.
const CHUNK: usize = 1000;
/// The books are trusted if the chain was read up to at most this long ago. Older books may come
/// from a backup, which knows less than the machines.
const FRESH: Micros = 3 * DAY;

#[derive(Queryable)]
struct Known {
    id: SectorId,
    pool: PoolId,
    miner: i64,
    number: i64,
    machine: Option<MachineId>,
    state: SectorState,
    activation: Option<i64>,
    expiration: i64,
}

/// Every sector is proven at least once in this time.
const PROVEN_SINCE: Micros = 2 * DAY;

/// A machine reports its stored sectors at least this often.
const SEEN_LATELY: Micros = 45 * MINUTE;

/// Facts needed before anything is deleted.
struct Facts {
    machine: MachineId,
    /// Sectors that a task leased to this machine works on. Their files may be here before the
    /// books say so: the books learn of a transfer only when it ends.
    works_on: HashSet<SectorId>,
    /// The first unread epoch, and its time, of each pool whose chain is read up to date.
    read_up_to: HashMap<PoolId, (i64, Micros)>,
    /// Sectors that count on chain, going by final data only.
    counting: HashSet<(PoolId, i64)>,
    /// The completed transfers of each sector.
    ways: HashMap<SectorId, Vec<Went>>,
    lost: HashSet<MachineId>,
    now: Micros,
}

/// Returns the stored sectors that a machine can delete: those that are now sealed elsewhere or
/// from the beginning, or have ended on chain. Sectors that the server does not know stay. So do
/// sectors on chain, wherever their files are, because a machine may have been enrolled again or
/// its disk moved to another one. The exception is a copy left behind by a transfer, once the
/// sector was proven on its new machine for two days.
pub fn not_needed(
    conn: &mut AnyConnection,
    machine: MachineId,
    stored: &[StoredSector],
    now: Micros,
) -> DbResult<Vec<StoredSector>> {
    let mut over = Vec::new();
    if stored.is_empty() {
        return Ok(over);
    }
    let mut facts = Facts::load(conn, machine, now)?;
    let pools_here: Vec<PoolId> = capacity::pools(conn)?
        .into_iter()
        .map(|pool| pool.id)
        .collect();
    for part in stored.chunks(CHUNK) {
        let numbers: Vec<i64> = part
            .iter()
            .filter_map(|s| i64::try_from(s.number).ok())
            .collect();
        let known = load_known(conn, &pools_here, &numbers)?;
        facts.counting = yields::counting(conn, &pools_here, &numbers)?;
        facts.ways = load_ways(conn, &known)?;
        // Two pools may share a miner, and either may need the files.
        let mut needed: HashMap<StoredSector, bool> = HashMap::new();
        for sector in known {
            if let Some(stored) = StoredSector::of(sector.miner, sector.number) {
                *needed.entry(stored).or_default() |= facts.need(&sector);
            }
        }
        over.extend(
            part.iter()
                .filter(|sector| needed.get(sector) == Some(&false)),
        );
    }
    Ok(over)
}

/// The sectors of these pools with these numbers.
fn load_known(
    conn: &mut AnyConnection,
    pools_here: &[PoolId],
    numbers: &[i64],
) -> DbResult<Vec<Known>> {
    sectors::table
        .inner_join(pools::table.on(pools::id.eq(sectors::pool_id)))
        .filter(
            sectors::pool_id
                .eq_any(pools_here)
                .and(sectors::number.eq_any(numbers)),
        )
        .select((
            sectors::id,
            sectors::pool_id,
            pools::miner_id,
            sectors::number,
            sectors::machine_id,
            sectors::state,
            sectors::activation,
            sectors::expiration,
        ))
        .load(conn)
}

/// The completed transfers of each of these sectors.
fn load_ways(conn: &mut AnyConnection, known: &[Known]) -> DbResult<HashMap<SectorId, Vec<Went>>> {
    let ids: Vec<SectorId> = known.iter().map(|sector| sector.id).collect();
    let mut ways: HashMap<SectorId, Vec<Went>> = HashMap::new();
    for went in transfer::ways(conn, &ids)? {
        ways.entry(went.sector).or_default().push(went);
    }
    Ok(ways)
}

impl Facts {
    /// The facts that concern no single sector.
    fn load(conn: &mut AnyConnection, machine: MachineId, now: Micros) -> DbResult<Self> {
        Ok(Self {
            machine,
            works_on: works_on(conn, machine)?,
            read_up_to: read_up_to(conn, now)?,
            counting: HashSet::new(),
            ways: HashMap::new(),
            lost: lost_machines(conn)?,
            now,
        })
    }

    /// The sector left here, was proven since, and its new machine recently reported that it has
    /// it.
    fn is_well_elsewhere(&self, sector: &Known, read_at: Micros) -> bool {
        let (Some(ways), Some(at)) = (self.ways.get(&sector.id), sector.machine) else {
            return false;
        };
        let left = ways
            .iter()
            .rev()
            .find(|went| went.from == self.machine)
            .map(|went| went.at);
        let proven = left.is_some_and(|left| left.saturating_add(PROVEN_SINCE) <= read_at);
        let seen = ways.iter().any(|went| {
            went.to == at
                && went
                    .seen_at
                    .is_some_and(|seen| seen > self.now - SEEN_LATELY)
        });
        proven && seen && at != self.machine && !self.lost.contains(&at)
    }

    fn need(&self, sector: &Known) -> bool {
        let Some((read, read_at)) = self.read_up_to.get(&sector.pool) else {
            return true;
        };
        if self.works_on.contains(&sector.id) {
            return true;
        }
        if self.counting.contains(&(sector.pool, sector.number)) {
            return sector.state != SectorState::Active
                || !self.is_well_elsewhere(sector, *read_at);
        }
        match sector.state {
            // A sector that never was on chain has nothing left to prove. One that was has ended
            // only when final data says so, not when a node once did.
            SectorState::Expired => sector.activation.is_some() && *read <= sector.expiration,
            // With a ProveCommit on its way, the sector may already be on chain. A person decides
            // about quarantined sectors.
            SectorState::ProveCommitting | SectorState::Quarantined => true,
            state => state.is_on_chain() || sector.machine == Some(self.machine),
        }
    }
}

fn works_on(conn: &mut AnyConnection, machine: MachineId) -> DbResult<HashSet<SectorId>> {
    let here = tasks::table
        .filter(
            tasks::machine_id
                .eq(machine)
                .and(tasks::state.eq(TaskState::Leased)),
        )
        .select(tasks::sector_id);
    Ok(here
        .load::<Option<SectorId>>(conn)?
        .into_iter()
        .flatten()
        .collect())
}

fn read_up_to(conn: &mut AnyConnection, now: Micros) -> DbResult<HashMap<PoolId, (i64, Micros)>> {
    let mut read = HashMap::new();
    for pool in capacity::pools(conn)? {
        let Some(cursor) = yields::cursor(conn, pool.id)? else {
            continue;
        };
        let read_at = cursor.time().micros(cursor.next_epoch);
        if read_at >= now - FRESH {
            read.insert(pool.id, (cursor.next_epoch, read_at));
        }
    }
    Ok(read)
}
