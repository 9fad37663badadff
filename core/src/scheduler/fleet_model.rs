//! The real fleet as the planner sees it. All machines are in one planner pool, because each can
//! work for any miner. Layers move to a GPU between machines that share their files. Sealed sectors
//! move to storage machines, if there are any. C2 is not bound to the machine that has the files.

use std::collections::{HashMap, HashSet};

use sealyard_planner::{
    Delays, Fleet, Key, KindIx, Machine, MachineIx, Order, OrderIx, Policy, Pool, PoolIx,
    PreviousPlan, Progress, Rule, Secs, SectorIx, World,
};

use super::{
    Commitment, FileMoves, SectorView, Snapshot, TaskView,
    disk::{rooms_for_new, scratch_held, scratch_of},
    machine_class::{class_of, kind, moves, whole},
};
use crate::{
    clock::{DAY, Micros, SECOND},
    ids::{MachineId, SectorId, TaskId},
    sealing::{Cost, MIB, SectorState, TRANSFER_PAUSE, TaskKind},
};

/// The planner's clock begins this long before now, so that all running work began after it.
const PAST: Secs = 60 * 86_400;
/// In epochs: from PreCommit to the seed, until a message is included, the greatest age of a
/// PreCommit's ticket, and from PreCommit to the last moment for ProveCommit.
const SEED_EPOCHS: i64 = 150;
const MESSAGE_EPOCHS: i64 = 2;
const TICKET_EPOCHS: i64 = 2820;
const PROVE_EPOCHS: i64 = 30 * 2880;

/// From activation until the sector counts: its first WindowPoSt comes within one proving period.
pub const FIRST_POST: Micros = DAY;

/// The policy of the real fleet: promises are kept in the order of their dates. No capacity is kept
/// free for future orders: they are promised what is left.
#[must_use]
pub fn live_policy() -> Policy {
    Policy {
        rule: Rule::Edd,
        burst: None,
        ..Policy::default()
    }
}

pub struct FleetModel<'s> {
    snapshot: &'s Snapshot,
    pub fleet: Fleet,
    sizes: Vec<i64>,
    pub(super) machines: HashMap<MachineId, MachineIx>,
    pub(super) tasks: HashMap<SectorId, &'s TaskView>,
    /// Transfers of sectors whose files are on their way.
    pub(super) on_the_way: HashMap<SectorId, &'s TaskView>,
    /// Whether quarantined sectors are simulated as if they were released now.
    pub(super) with_quarantined: bool,
}

/// A world of the fleet, and its orders and sectors with the commitments and sectors that they
/// stand for.
pub struct Simulation<'h> {
    pub world: World<'h>,
    pub orders: Vec<(OrderIx, &'h Commitment)>,
    pub sectors: Vec<(SectorIx, &'h SectorView)>,
}

/// The chain's delays, in seconds.
fn delays(epoch_seconds: i64) -> Delays {
    let seconds = |epochs: i64| whole(epochs * epoch_seconds);
    Delays {
        message: seconds(MESSAGE_EPOCHS),
        seed: seconds(SEED_EPOCHS),
        c1: 60,
        ticket: seconds(TICKET_EPOCHS),
        prove: seconds(PROVE_EPOCHS),
    }
}

/// Sector sizes that are owed or on sale, smallest first.
fn all_sizes(snapshot: &Snapshot) -> Vec<i64> {
    let owed = snapshot.commitments.iter().map(|o| o.sector_bytes);
    let mut sizes: Vec<i64> = owed.chain(snapshot.sizes.iter().copied()).collect();
    sizes.sort_unstable();
    sizes.dedup();
    sizes
}

impl<'s> FleetModel<'s> {
    /// The model for dates. Steps that run beside sealing now say nothing about the days to come.
    /// Quarantined sectors are still owed, so a date without them would be too early.
    #[must_use]
    pub fn for_dates(snapshot: &'s Snapshot) -> Self {
        Self {
            with_quarantined: true,
            ..Self::new(snapshot, &HashMap::new())
        }
    }

    /// `taken`: resources of each machine that leases and fresh assignments of other steps take.
    #[must_use]
    pub fn new(snapshot: &'s Snapshot, taken: &HashMap<MachineId, Cost>) -> Self {
        let sizes = all_sizes(snapshot);
        let mut fleet = Fleet {
            delays: delays(snapshot.epoch_seconds),
            kinds: sizes.iter().map(|size| kind(*size)).collect(),
            ..Fleet::default()
        };
        let pool = fleet.pools.push(Pool {
            moves: sizes.iter().map(|size| moves(snapshot, *size)).collect(),
        });
        let of_sectors = snapshot.tasks.iter().filter_map(|t| Some((t.sector?, t)));
        let (on_the_way, tasks): (HashMap<_, _>, HashMap<_, _>) =
            of_sectors.partition(|(_, task)| task.kind == TaskKind::Move);
        let held = scratch_held(snapshot, &tasks, &on_the_way);
        let rooms = rooms_for_new(snapshot);
        let mut machines = HashMap::new();
        for view in &snapshot.machines {
            let used = taken.get(&view.id).copied().unwrap_or_default();
            let scratch = scratch_of(view, held.get(&view.id).copied().unwrap_or(0));
            let store = rooms.get(&view.id).map_or(0, |bytes| whole(*bytes / MIB));
            let class = class_of(view, &used, (scratch, store), snapshot, &sizes);
            let class = fleet.classes.push(class);
            let machine = Machine {
                pool,
                class,
                down: Vec::new(),
                drains: !view.takes_new,
            };
            machines.insert(view.id, fleet.machines.push(machine));
        }
        Self {
            snapshot,
            fleet,
            sizes,
            machines,
            tasks,
            on_the_way,
            with_quarantined: false,
        }
    }

    /// The fleet as it is at [`Self::now`].
    #[must_use]
    pub fn world(&self) -> Simulation<'_> {
        self.world_without(&HashSet::new())
    }

    /// As [`Self::world`], without some of its sectors.
    #[must_use]
    pub fn world_without(&self, out: &HashSet<SectorId>) -> Simulation<'_> {
        let mut world = World::at(&self.fleet, live_policy(), Self::now());
        self.pause_transfers(&mut world);
        let (mut orders, mut sectors) = (Vec::new(), Vec::new());
        for commitment in &self.snapshot.commitments {
            let known: Vec<(&SectorView, Progress)> = commitment
                .sectors
                .iter()
                .filter(|s| !out.contains(&s.id))
                .filter_map(|s| self.progress(s).map(|p| (s, p)))
                .collect();
            let count = i64::try_from(known.len()).unwrap_or(0) + commitment.held;
            let Some(order) = self.order(
                commitment.id,
                commitment.sector_bytes,
                count,
                commitment.promised_at,
            ) else {
                continue;
            };
            let id = world.add_order(order);
            orders.push((id, commitment));
            for (view, progress) in known {
                sectors.extend(world.resume(id, progress).map(|s| (s, view)));
            }
        }
        world.keep_to(self.previous_plan(&sectors));
        Simulation {
            world,
            orders,
            sectors,
        }
    }

    /// Machines whose transfers failed lately move no files for a while.
    fn pause_transfers(&self, world: &mut World<'_>) {
        let until = Self::now() + whole(TRANSFER_PAUSE / SECOND);
        let machines = self.snapshot.machines.iter();
        for view in machines.filter(|m| m.moves == FileMoves::NotNow) {
            let machine = self.machines.get(&view.id).copied();
            world.keep_still(machine.unwrap_or(MachineIx::NONE), until);
        }
    }

    /// Where and when sectors that have not begun were last expected to begin.
    fn previous_plan(&self, sectors: &[(SectorIx, &SectorView)]) -> PreviousPlan {
        // A sector that has its ticket does not give way to an equal one that has none yet.
        let ticketed =
            |s: &SectorView| s.state == SectorState::PreCommit1 && self.task_of(s.id).is_some();
        let some_wait: HashSet<SectorId> = self
            .snapshot
            .commitments
            .iter()
            .filter(|o| o.sectors.iter().any(ticketed))
            .flat_map(|o| o.sectors.iter().filter(|s| !ticketed(s)).map(|s| s.id))
            .collect();
        let planned_begin = sectors
            .iter()
            .filter(|(_, view)| !some_wait.contains(&view.id))
            .filter_map(|(id, view)| {
                let planned_begin = view.planned_begin?;
                Some((
                    self.at(planned_begin.at),
                    *id,
                    *self.machines.get(&planned_begin.machine)?,
                ))
            });
        PreviousPlan::of(self.fleet.machines.len(), planned_begin.collect())
    }

    /// A new order as the planner sees it. `None`: nothing to do, or a size that nobody seals here.
    #[must_use]
    pub fn order(
        &self,
        id: i64,
        sector_bytes: i64,
        sectors: i64,
        promised_at: Micros,
    ) -> Option<Order> {
        let kind = KindIx::of(self.sizes.iter().position(|s| *s == sector_bytes)?);
        let n = u32::try_from(sectors).ok().filter(|n| *n > 0)?;
        let now = Self::now();
        // The promise is that sectors count, which takes a first WindowPoSt after activation.
        let due = self.at(promised_at.saturating_sub(FIRST_POST));
        Some(Order {
            id,
            pool: Some(PoolIx(0)),
            kind,
            n,
            release: now,
            step: 0,
            due,
            weight: 1,
            known: now,
        })
    }

    /// The planner's clock now.
    #[must_use]
    pub const fn now() -> Secs {
        PAST
    }

    /// A moment on the planner's clock.
    pub(super) fn at(&self, moment: Micros) -> Secs {
        let seconds = (moment - self.snapshot.now) / SECOND;
        whole(seconds.clamp(i64::from(-PAST), 20 * 365 * 86_400)).saturating_add(PAST)
    }

    /// The longest usual duration of any step here.
    #[must_use]
    pub fn longest_step(&self) -> Micros {
        let all = self
            .fleet
            .classes
            .iter()
            .flat_map(|class| class.durations.iter());
        i64::from(all.map(|d| d.p1.max(d.p2).max(d.c2)).max().unwrap_or(0)) * SECOND
    }

    /// The real time of a moment on the planner's clock.
    #[must_use]
    pub fn moment(&self, at: Secs) -> Micros {
        self.snapshot
            .now
            .saturating_add(i64::from(at - PAST).saturating_mul(SECOND))
    }

    #[must_use]
    pub fn machine_id(&self, machine: MachineIx) -> Option<MachineId> {
        self.snapshot.machines.get(machine.at()).map(|view| view.id)
    }

    /// The task of a sector that waits for a machine.
    #[must_use]
    pub fn task_of(&self, sector: SectorId) -> Option<TaskId> {
        let waits =
            |t: &&&TaskView| t.leased_to.is_none() && !self.on_the_way.contains_key(&sector);
        self.tasks.get(&sector).filter(waits).map(|t| t.id)
    }
}
