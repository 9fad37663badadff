//! The real fleet as the planner sees it. All machines are in one planner pool, because each can
//! work for any miner. Layers move to a GPU between machines that share their files. Sealed sectors
//! move to storage machines, if there are any. C2 is not bound to the machine that has the files.

use std::collections::{HashMap, HashSet};

use sealyard_planner::{
    Class, Delays, Durations, Fleet, Key, Kind, KindIx, Machine, MachineIx, Moves, Need, Order, OrderIx, Policy, Pool, PoolIx,
    PreviousPlan, Progress, Rule, Secs, SectorIx, Table, World,
};

use super::{
    Commitment, FileMoves, MachineView, SectorView, Snapshot, TaskView,
    storing::{TO_ONE, keepers, rooms},
};
use crate::{
    clock::{DAY, Micros, SECOND},
    ids::{MachineId, SectorId, TaskId},
    sealing::{Cost, SectorState, TRANSFER_PAUSE, TaskKind},
};

/// The planner's clock begins this long before now, so that all running work began after it.
const PAST: Secs = 60 * 86_400;
const MIB: i64 = 1 << 20;
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
    Policy { rule: Rule::Edd, burst: None, ..Policy::default() }
}

pub struct FleetModel<'s> {
    snapshot: &'s Snapshot,
    pub fleet: Fleet,
    sizes: Vec<i64>,
    machines: HashMap<MachineId, MachineIx>,
    tasks: HashMap<SectorId, &'s TaskView>,
    /// Transfers of sectors whose files are on their way.
    on_the_way: HashMap<SectorId, &'s TaskView>,
    /// Whether quarantined sectors are simulated as if they were released now.
    with_quarantined: bool,
}

/// A world of the fleet, and its orders and sectors with the commitments and sectors that they
/// stand for.
pub struct Simulation<'h> {
    pub world: World<'h>,
    pub orders: Vec<(OrderIx, &'h Commitment)>,
    pub sectors: Vec<(SectorIx, &'h SectorView)>,
}

fn mib(bytes: i64) -> i32 {
    i32::try_from((bytes + MIB - 1) / MIB).unwrap_or(i32::MAX)
}

fn whole(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

impl<'s> FleetModel<'s> {
    /// The model for dates. Steps that run beside sealing now say nothing about the days to come.
    /// Quarantined sectors are still owed, so a date without them would be too early.
    #[must_use]
    pub fn for_dates(snapshot: &'s Snapshot) -> Self {
        Self { with_quarantined: true, ..Self::new(snapshot, &HashMap::new()) }
    }

    /// `taken`: resources of each machine that leases and fresh assignments of other steps take.
    #[must_use]
    pub fn new(snapshot: &'s Snapshot, taken: &HashMap<MachineId, Cost>) -> Self {
        let mut sizes: Vec<i64> = snapshot.commitments.iter().map(|o| o.sector_bytes).collect();
        sizes.extend(snapshot.sizes.iter());
        sizes.sort_unstable();
        sizes.dedup();
        let epoch = snapshot.epoch_seconds;
        let seconds = |epochs: i64| whole(epochs * epoch);
        let mut fleet = Fleet {
            delays: Delays {
                message: seconds(MESSAGE_EPOCHS),
                seed: seconds(SEED_EPOCHS),
                c1: 60,
                ticket: seconds(TICKET_EPOCHS),
                prove: seconds(PROVE_EPOCHS),
            },
            kinds: sizes.iter().map(|size| kind(*size)).collect(),
            ..Fleet::default()
        };
        let pool = fleet.pools.push(Pool { moves: sizes.iter().map(|size| moves(snapshot, *size)).collect() });
        let of_sectors = snapshot.tasks.iter().filter_map(|t| Some((t.sector?, t)));
        let (on_the_way, tasks): (HashMap<_, _>, HashMap<_, _>) = of_sectors.partition(|(_, task)| task.kind == TaskKind::Move);
        let held = scratch_held(snapshot, &tasks, &on_the_way);
        let rooms = rooms_for_new(snapshot);
        let mut machines = HashMap::new();
        for view in &snapshot.machines {
            let used = taken.get(&view.id).copied().unwrap_or_default();
            let scratch = scratch_of(view, held.get(&view.id).copied().unwrap_or(0));
            let store = rooms.get(&view.id).map_or(0, |bytes| whole(*bytes / MIB));
            let class = fleet.classes.push(class_of(view, &used, (scratch, store), snapshot, &sizes));
            let machine = Machine { pool, class, down: Vec::new(), drains: !view.takes_new };
            machines.insert(view.id, fleet.machines.push(machine));
        }
        Self { snapshot, fleet, sizes, machines, tasks, on_the_way, with_quarantined: false }
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
        for view in self.snapshot.machines.iter().filter(|m| m.moves == FileMoves::NotNow) {
            let machine = self.machines.get(&view.id).copied().unwrap_or(MachineIx::NONE);
            world.keep_still(machine, Self::now() + whole(TRANSFER_PAUSE / SECOND));
        }
        let (mut orders, mut sectors) = (Vec::new(), Vec::new());
        for commitment in &self.snapshot.commitments {
            let known: Vec<(&SectorView, Progress)> = commitment
                .sectors
                .iter()
                .filter(|s| !out.contains(&s.id))
                .filter_map(|s| self.progress(s).map(|p| (s, p)))
                .collect();
            let count = i64::try_from(known.len()).unwrap_or(0) + commitment.held;
            let Some(order) = self.order(commitment.id, commitment.sector_bytes, count, commitment.promised_at) else { continue };
            let id = world.add_order(order);
            orders.push((id, commitment));
            for (view, progress) in known {
                sectors.extend(world.resume(id, progress).map(|s| (s, view)));
            }
        }
        world.keep_to(self.previous_plan(&sectors));
        Simulation { world, orders, sectors }
    }

    fn previous_plan(&self, sectors: &[(SectorIx, &SectorView)]) -> PreviousPlan {
        // A sector that has its ticket does not give way to an equal one that has none yet.
        let ticketed = |s: &SectorView| s.state == SectorState::PreCommit1 && self.task_of(s.id).is_some();
        let some_wait: HashSet<SectorId> = (self.snapshot.commitments.iter().filter(|o| o.sectors.iter().any(ticketed)))
            .flat_map(|o| o.sectors.iter().filter(|s| !ticketed(s)).map(|s| s.id))
            .collect();
        let planned_begin = sectors.iter().filter(|(_, view)| !some_wait.contains(&view.id)).filter_map(|(id, view)| {
            let planned_begin = view.planned_begin?;
            Some((self.at(planned_begin.at), *id, *self.machines.get(&planned_begin.machine)?))
        });
        PreviousPlan::of(self.fleet.machines.len(), planned_begin.collect())
    }

    /// A new order as the planner sees it. `None`: nothing to do, or a size that nobody seals here.
    #[must_use]
    pub fn order(&self, id: i64, sector_bytes: i64, sectors: i64, promised_at: Micros) -> Option<Order> {
        let kind = KindIx::of(self.sizes.iter().position(|s| *s == sector_bytes)?);
        let n = u32::try_from(sectors).ok().filter(|n| *n > 0)?;
        let now = Self::now();
        // The promise is that sectors count, which takes a first WindowPoSt after activation.
        let due = self.at(promised_at.saturating_sub(FIRST_POST));
        Some(Order { id, pool: Some(PoolIx(0)), kind, n, release: now, step: 0, due, weight: 1, known: now })
    }

    /// The planner's clock now.
    #[must_use]
    pub const fn now() -> Secs {
        PAST
    }

    fn at(&self, moment: Micros) -> Secs {
        let seconds = (moment - self.snapshot.now) / SECOND;
        whole(seconds.clamp(i64::from(-PAST), 20 * 365 * 86_400)).saturating_add(PAST)
    }

    /// The longest usual duration of any step here.
    #[must_use]
    pub fn longest_step(&self) -> Micros {
        let all = self.fleet.classes.iter().flat_map(|class| class.durations.iter());
        i64::from(all.map(|d| d.p1.max(d.p2).max(d.c2)).max().unwrap_or(0)) * SECOND
    }

    /// The real time of a moment on the planner's clock.
    #[must_use]
    pub fn moment(&self, at: Secs) -> Micros {
        self.snapshot.now.saturating_add(i64::from(at - PAST).saturating_mul(SECOND))
    }

    #[must_use]
    pub fn machine_id(&self, machine: MachineIx) -> Option<MachineId> {
        self.snapshot.machines.get(machine.at()).map(|view| view.id)
    }

    /// The task of a sector that waits for a machine.
    #[must_use]
    pub fn task_of(&self, sector: SectorId) -> Option<TaskId> {
        let waits = |t: &&&TaskView| t.leased_to.is_none() && !self.on_the_way.contains_key(&sector);
        self.tasks.get(&sector).filter(waits).map(|t| t.id)
    }

    fn does_pc2(&self, machine: Option<MachineId>) -> bool {
        let machine = machine.and_then(|id| self.machines.get(&id));
        machine.is_some_and(|m| self.fleet.class(*m).durations.iter().any(|d| d.p2 > 0))
    }

    /// A sector's progress; `None`: a person decides about it, or its machine is gone.
    fn progress(&self, sector: &SectorView) -> Option<Progress> {
        let task = self.tasks.get(&sector.id);
        let machine = |id: Option<MachineId>| id.and_then(|id| self.machines.get(&id)).copied();
        let running = task.and_then(|t| Some((machine(t.leased_to)?, self.at(t.started_at))));
        let avoid = machine(task.and_then(|t| t.avoid)).unwrap_or(MachineIx::NONE);
        let changed = self.at(sector.changed_at);
        let delays = self.fleet.delays;
        // A sector that no longer needs its files goes on, even if their machine is lost.
        let home = machine(sector.machine).or(running.map(|(on, _)| on)).or(self.machines.values().min().copied());
        let now = Self::now();
        Some(match sector.state {
            SectorState::Planned => Progress::Waiting { avoid },
            SectorState::Quarantined if self.with_quarantined => Progress::Waiting { avoid },
            SectorState::PreCommit1 => match running {
                Some((on, since)) => Progress::PreCommit1 { on, since },
                None => Progress::Waiting { avoid },
            },
            SectorState::PreCommit2 => {
                // The state changed when PC1 ended, and the ticket was drawn before PC1 began.
                let pc1 =
                    machine(sector.machine).map_or(0, |m| self.fleet.class(m).durations.iter().map(|d| d.p1).max().unwrap_or(0));
                let began = changed - pc1;
                let fetch = self.on_the_way.get(&sector.id).and_then(|t| Some((machine(t.leased_to)?, self.at(t.started_at))));
                match (running, fetch) {
                    (Some((on, since)), _) => Progress::PreCommit2 { on, began, since },
                    (None, Some((to, since))) => Progress::Moving { from: machine(sector.machine)?, to, began, since },
                    (None, None) if sector.fetched && self.does_pc2(sector.machine) => {
                        Progress::Bound { on: machine(sector.machine)?, began }
                    }
                    (None, None) => Progress::Layers { on: machine(sector.machine)?, began, until: self.at(sector.moves_at) },
                }
            }
            SectorState::PreCommitting => Progress::Seed { on: home?, until: now + delays.message + delays.seed + delays.c1 },
            SectorState::WaitSeed => Progress::Seed { on: home?, until: (changed + delays.seed).max(now) + delays.c1 },
            SectorState::Commit1 => Progress::Seed { on: home?, until: now + delays.c1 },
            SectorState::Commit2 => match running {
                Some((at, since)) => Progress::Commit2 { on: home?, at, since },
                None => Progress::Sealed { on: home?, avoid },
            },
            SectorState::Verifying | SectorState::ProveCommitting => Progress::Proved { on: home?, until: now + delays.message },
            _ => return None,
        })
    }
}

fn need(step: TaskKind, sector_bytes: i64, gpus: i32) -> Need {
    let cost = Cost::of(step, sector_bytes);
    Need { cores: whole(cost.cores), memory: mib(cost.memory_bytes), gpus }
}

fn kind(sector_bytes: i64) -> Kind {
    let full = mib(Cost::of(TaskKind::PreCommit1, sector_bytes).scratch_bytes);
    Kind {
        p1: need(TaskKind::PreCommit1, sector_bytes, 0),
        p2: need(TaskKind::PreCommit2, sector_bytes, 1),
        c2: need(TaskKind::Commit2, sector_bytes, 1),
        scratch_full: full,
        scratch_keep: mib(sector_bytes).min(full),
        stored: mib(sector_bytes),
    }
}

/// How many sectors' files one machine fetches or sends at a time.
const MOVES_AT_ONCE: i32 = 2;

/// How files move in this fleet. `None`: they do not, because no two machines share their files.
fn moves(snapshot: &Snapshot, sector_bytes: i64) -> Option<Moves> {
    let take_part = snapshot.machines.iter().filter(|m| m.moves != FileMoves::Never).count();
    let layers = whole(snapshot.history.usual_seconds(TaskKind::Move, sector_bytes));
    let sealed = keepers(snapshot).next().map(|_| whole(snapshot.history.usual_seconds(TaskKind::Store, sector_bytes)));
    (take_part > 1).then_some(Moves { layers, sealed })
}

/// Whether a machine should do a step. Storage machines do not seal. Cores do not do a step that a
/// GPU can do, unless the GPU's machine cannot get at the files or has no disk for them.
fn is_asked_for(step: TaskKind, (view, size): (&MachineView, i64), snapshot: &Snapshot) -> bool {
    if view.keeps {
        return false;
    }
    if step == TaskKind::PreCommit1 || view.gpus > 0 {
        return true;
    }
    let cost = Cost::of(step, size);
    let shows = |m: &MachineView| m.moves != FileMoves::Never;
    let reaches = |gpu: &MachineView| step == TaskKind::Commit2 || (shows(view) && shows(gpu));
    let holds = |m: &MachineView| m.disk_bytes - m.stored_bytes >= Cost::of(TaskKind::PreCommit1, size).scratch_bytes;
    let has_room = |m: &MachineView| step == TaskKind::Commit2 || holds(m);
    let with_gpu = |m: &&MachineView| m.gpus > 0 && !m.keeps && m.takes_new && m.fits(&cost) && has_room(m);
    !snapshot.machines.iter().chain(&snapshot.lately_lost).filter(with_gpu).any(reaches)
}

/// A machine's class. Steps that it is too small or not meant for have duration 0, so they are
/// never planned there.
fn class_of(view: &MachineView, used: &Cost, (scratch, store): (i32, i32), snapshot: &Snapshot, sizes: &[i64]) -> Class {
    let seconds = |step, size: i64| {
        let cost = Cost::of(step, size);
        let fits = view.fits(&cost) && mib(cost.scratch_bytes) <= scratch;
        if fits && is_asked_for(step, (view, size), snapshot) {
            whole(snapshot.history.seconds(step, size, view.quick_as))
        } else {
            0
        }
    };
    let durations = sizes.iter().map(|size| Durations {
        p1: seconds(TaskKind::PreCommit1, *size),
        p2: seconds(TaskKind::PreCommit2, *size),
        c2: seconds(TaskKind::Commit2, *size),
    });
    // A machine without GPUs does GPU steps on its cores.
    let gpus = if view.gpus > 0 { view.gpus } else { view.cores.max(1) };
    Class {
        name: view.name.clone(),
        cores: whole((view.cores - used.cores).max(0)),
        memory: mib((view.memory_bytes - used.memory_bytes).max(0)),
        gpus: whole(gpus),
        scratch,
        store,
        nic: match view.moves {
            FileMoves::Never => 0,
            _ if view.keeps => whole(i64::try_from(TO_ONE).unwrap_or(1)),
            _ => MOVES_AT_ONCE,
        },
        durations: durations.collect::<Table<KindIx, Durations>>(),
    }
}

/// Free bytes on storage machines, less the sealed sectors that still have to come from other
/// machines. Those are taken from the emptiest.
fn rooms_for_new(snapshot: &Snapshot) -> HashMap<MachineId, i64> {
    let mut rooms = rooms(snapshot);
    let waits = snapshot.machines.iter().filter(|m| !m.keeps && m.moves != FileMoves::Never);
    let mut coming: i64 = waits.map(|m| m.stored_bytes).sum();
    let mut emptiest: Vec<&mut i64> = rooms.values_mut().collect();
    emptiest.sort_unstable_by_key(|room| std::cmp::Reverse(**room));
    for room in emptiest {
        let here = coming.min(*room).max(0);
        *room -= here;
        coming -= here;
    }
    rooms
}

/// Bytes of sealed sectors that the disks of working machines have space for, beside everything
/// that is owed. Each disk counts for the size that fills most of it. Where PC2 is done, the last
/// sector's scratch becomes its place.
#[must_use]
pub fn disk_left(snapshot: &Snapshot) -> i64 {
    let places = |m: &MachineView, size: i64| {
        let Kind { scratch_full, scratch_keep, .. } = kind(size);
        // Layers come from other machines, or are made here.
        let begins = if m.moves == FileMoves::Never { TaskKind::PreCommit1 } else { TaskKind::PreCommit2 };
        let fits_step = |step| m.fits(&Cost::of(step, size)) && is_asked_for(step, (m, size), snapshot);
        let fits = m.takes_new && fits_step(begins) && fits_step(TaskKind::PreCommit2);
        let left = i64::from(mib(m.disk_bytes - m.stored_bytes - m.leftover_bytes)) - i64::from(scratch_full - scratch_keep);
        if fits { left.max(0) / i64::from(scratch_keep.max(1)) } else { 0 }
    };
    let room_of = |m: &MachineView| snapshot.sizes.iter().map(|size| places(m, *size) * size).max().unwrap_or(0);
    let kept: i64 = rooms(snapshot).into_values().map(|room| room.max(0)).sum();
    let room = kept + snapshot.machines.iter().map(room_of).sum::<i64>();
    // A draining machine finishes its own sectors on its own disk, unless another machine keeps them.
    let all_stay = keepers(snapshot).next().is_none();
    let elsewhere = |at: Option<MachineId>| all_stay && snapshot.machines.iter().any(|m| Some(m.id) == at && !m.takes_new);
    let comes = |o: &Commitment| o.held + i64::try_from(o.sectors.iter().filter(|s| !elsewhere(s.machine)).count()).unwrap_or(0);
    let commitment: i64 = snapshot.commitments.iter().map(|o| comes(o) * o.sector_bytes).sum();
    (room - commitment).max(0)
}

/// MiB for sealing: the space that is free now and that sectors in the pipeline will give back. It
/// is at most the space that sealed sectors leave on the disk, because a sector that has just begun
/// has written nothing yet.
fn scratch_of(view: &MachineView, held: i32) -> i32 {
    let left = (view.disk_bytes - view.stored_bytes - view.leftover_bytes).max(0);
    mib(view.disk_free_bytes.max(0)).saturating_add(held).min(mib(left))
}

/// MiB that sectors in the pipeline hold on each machine.
fn scratch_held(
    snapshot: &Snapshot,
    tasks: &HashMap<SectorId, &TaskView>,
    on_the_way: &HashMap<SectorId, &TaskView>,
) -> HashMap<MachineId, i32> {
    let mut held: HashMap<MachineId, i32> = HashMap::new();
    let mut hold = |machine: Option<MachineId>, holds: i32| {
        if let Some(machine) = machine {
            let sum = held.entry(machine).or_default();
            *sum = sum.saturating_add(holds);
        }
    };
    for (sector, size) in snapshot.commitments.iter().flat_map(|o| o.sectors.iter().map(move |s| (s, o.sector_bytes))) {
        let kind = kind(size);
        let holds = match sector.state {
            // A PC1 that no machine runs will begin from nothing.
            SectorState::PreCommit1 if tasks.get(&sector.id).is_none_or(|task| task.leased_to.is_none()) => 0,
            SectorState::PreCommit1
            | SectorState::PreCommit2
            | SectorState::PreCommitting
            | SectorState::WaitSeed
            | SectorState::Commit1 => kind.scratch_full,
            SectorState::Commit2 | SectorState::Verifying | SectorState::ProveCommitting => kind.scratch_keep,
            _ => 0,
        };
        hold(sector.machine, holds);
        hold(on_the_way.get(&sector.id).and_then(|task| task.leased_to), kind.scratch_full);
    }
    held
}
