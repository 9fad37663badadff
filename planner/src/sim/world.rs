//! The fleet and everything in it at one moment, and how that changes.
//!
//! A sector passes `Wait` → PC1 on `m1` → its layers move to `m2` (or stay) → PC2 → PreCommit,
//! seed, C1 → C2 on `m3` → ProveCommit. After that its sealed file moves to a machine with storage.

use std::collections::VecDeque;

use crate::{
    GroupIx, Key, KindIx, MachineIx, OrderIx, PoolIx, Secs, SectorIx, Table,
    model::failure::Sampler,
    model::fleet::{Class, Durations, Fleet, Need, Order, Step},
    model::policy::{Policy, Urgency},
    model::previous_plan::PreviousPlan,
    model::sector::{Row, Sector, State},
    model::table::QueueIx,
    sim::agenda::{Agenda, Event},
    sim::pace::Pace,
    sim::passes::Admission,
    sim::passes::Moving,
};

/// A search's hint for a group.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct SearchHint {
    /// PC1 does not begin before then.
    pub hold: Secs,
    /// PC2, and C2, do not begin before then: a GPU may be worth keeping for a step that comes
    /// soon.
    pub hold_p2: Secs,
    pub hold_c2: Secs,
    /// Under a rule: treated as if due this much earlier.
    pub lead: Secs,
    /// Under keys: how many places later it goes on GPUs.
    pub shift: i64,
    /// PC1 on this machine only.
    pub on: Option<MachineIx>,
    /// The only pool for a group whose order may go to any.
    pub only: Option<PoolIx>,
}

/// Sectors of one order that are treated alike.
#[derive(Clone, Debug)]
pub(crate) struct SectorGroup {
    pub order: OrderIx,
    pub first: u32,
    pub n: u32,
    /// When the data of its first sector arrives.
    pub release: Secs,
    pub key: i64,
    pub gpu_key: i64,
    pub hint: SearchHint,
    /// How many sectors have been taken from the front.
    pub begun: u32,
    /// Sectors that begin again because their attempt was lost.
    pub again: Vec<SectorIx>,
    pub queue: QueueIx,
    pub listed: bool,
}

impl SectorGroup {
    /// Whether all its sectors have begun.
    pub fn is_spent(&self) -> bool {
        self.begun == self.n && self.again.is_empty()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct SectorQueue {
    pub group: GroupIx,
    pub layers: VecDeque<SectorIx>,
    pub c2: VecDeque<SectorIx>,
    pub listed_layers: bool,
    pub listed_c2: bool,
}

impl SectorQueue {
    const fn of(group: GroupIx) -> Self {
        Self {
            group,
            layers: VecDeque::new(),
            c2: VecDeque::new(),
            listed_layers: false,
            listed_c2: false,
        }
    }
}

/// A machine's residual capacity, and the work that waits there.
#[derive(Clone, Debug)]
pub(crate) struct MachineState {
    pub free: Need,
    pub gpus: i32,
    /// Its place among its pool's machines with GPUs, fastest first.
    pub gpu_place: u32,
    /// Cores and memory that PC1 may still take if capacity for a GPU step is kept.
    pub p1_cores: i32,
    pub p1_memory: i32,
    pub scratch: i32,
    pub nic: i32,
    pub store: i32,
    pub next_down: usize,
    pub dead_until: Secs,
    /// Number of sectors whose layers move here or wait here for a GPU.
    pub bound: i32,
    pub waiting: Vec<SectorIx>,
    /// The GPU step that it is better at than the pool's other machines.
    pub prefers: Option<Step>,
    pub can_p1: bool,
    pub can_gpu: bool,
    pub listed_p1: bool,
    pub listed_gpu: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct PoolState {
    pub layers: Vec<QueueIx>,
    pub c2: Vec<QueueIx>,
    pub to_store: VecDeque<SectorIx>,
    /// Machines that may have capacity for a PC1, and for a GPU step.
    pub free_p1: Vec<MachineIx>,
    pub free_gpu: Vec<MachineIx>,
    /// Fastest first.
    pub gpu_machines: Vec<MachineIx>,
    pub stores: Vec<MachineIx>,
    /// Number of sectors between the start of PC1 and the start of PC2.
    pub wip: i32,
    /// Something in the pool has changed since the last dispatch.
    pub dirty: bool,
    pub most_wip: i32,
    /// When its GPUs would run out of work if every PC1 had given them its layers as it began; in
    /// [`crate::sim::pace::SPAN`]ths of a second.
    pub fed_until: i64,
    /// When the pool is looked at again, because PC1 was ahead of its GPUs.
    pub looks_again: Secs,
    /// The throughput of its machines.
    pub paces: Table<KindIx, Pace>,
    /// How many seconds longer it needs than the others, as of the last ranking; 0 if nothing gives
    /// way.
    pub longer: i64,
}

/// `dead_until` of a machine that is kept out of a plan.
pub(crate) const SHUT: Secs = Secs::MAX;

#[derive(Clone, Debug)]
pub struct World<'f> {
    pub fleet: &'f Fleet,
    pub policy: Policy,
    pub now: Secs,
    pub orders: Table<OrderIx, Order>,
    pub sectors: Table<SectorIx, Sector>,
    /// Attempts that were wasted because their tickets expired.
    pub wasted: Vec<(SectorIx, Row)>,
    /// Number of sectors that are not active yet, by order.
    pub open: Table<OrderIx, u32>,
    /// Number of attempts that breakdowns and failed steps have cost.
    pub lost: u32,
    pub(crate) firsts: Table<OrderIx, u32>,
    pub(crate) groups: Table<GroupIx, SectorGroup>,
    pub(crate) queues: Table<QueueIx, SectorQueue>,
    pub(crate) machines: Table<MachineIx, MachineState>,
    pub(crate) pools: Table<PoolIx, PoolState>,
    /// Least seconds from the start of each step to activation.
    pub(crate) tails: Table<KindIx, Durations>,
    pub(crate) quickest: Table<KindIx, Durations>,
    /// Whether more than one machine can do PC1, and C2.
    pub(crate) choice: (bool, bool),
    /// Buffers that dispatches reuse.
    pub(crate) moving: Moving,
    pub(crate) admission: Admission,
    /// Something has changed since the last dispatch.
    pub(crate) dirty: bool,
    /// Machines that came during the simulation, until a plan that lets them in is adopted. Idle
    /// ones can be kept out.
    pub(crate) newcomers: Vec<MachineIx>,
    /// The previous plan: where sectors that have not begun were last expected to begin.
    pub(crate) drawn: PreviousPlan,
    pub(crate) agenda: Agenda,
    pub(crate) ready: Vec<GroupIx>,
    /// Groups that may begin, most urgent first.
    pub(crate) ranked: Vec<(Urgency, GroupIx, Option<PoolIx>)>,
    pub(crate) ranked_until: Secs,
    /// Groups that are more urgent than this skip the pacing limit; as of the last ranking.
    pub(crate) urgent_until: i64,
    /// How many of the ranked groups have nothing left to begin.
    pub(crate) spent: usize,
    pub(crate) gas_blocked: Vec<(Secs, Secs)>,
    pub(crate) sampler: Option<Sampler>,
    /// Number of sectors that are not stored yet.
    pub(crate) left: u64,
    pub(crate) batch: Vec<(u32, Event)>,
}

impl<'f> World<'f> {
    /// A fleet without machines, at moment 0.
    pub(crate) fn blank(fleet: &'f Fleet, policy: Policy) -> Self {
        Self {
            fleet,
            policy,
            now: 0,
            orders: Table::new(),
            sectors: Table::new(),
            wasted: Vec::new(),
            open: Table::new(),
            lost: 0,
            firsts: Table::new(),
            groups: Table::new(),
            queues: Table::new(),
            machines: Table::new(),
            pools: fleet.pools.iter().map(|_| PoolState::default()).collect(),
            tails: Table::new(),
            quickest: Table::new(),
            choice: (true, true),
            moving: Moving::default(),
            admission: Admission::default(),
            dirty: true,
            newcomers: Vec::new(),
            drawn: PreviousPlan::default(),
            agenda: Agenda::default(),
            ready: Vec::new(),
            ranked: Vec::new(),
            ranked_until: Secs::MIN,
            urgent_until: i64::MIN,
            spent: 0,
            gas_blocked: fleet.gas_blocked.clone(),
            sampler: None,
            left: 0,
            batch: Vec::new(),
        }
    }

    pub(crate) fn present(&self) -> impl Iterator<Item = MachineIx> {
        self.fleet
            .machines
            .keys()
            .filter(|m| self.machines[*m].dead_until != SHUT)
    }

    pub(crate) fn add_machine(&mut self, machine: MachineIx) {
        let class = self.fleet.class(machine);
        let can = |step| class.durations.iter().any(|d| d.of(step) > 0);
        let (can_p1, can_gpu) = (can(Step::P1), can(Step::P2) || can(Step::C2));
        let (cores, memory) = if can_gpu {
            self.kept_for_gpus(class)
        } else {
            (0, 0)
        };
        self.machines.push(MachineState {
            free: Need {
                cores: class.cores,
                memory: class.memory,
                gpus: class.gpus,
            },
            gpus: class.gpus,
            gpu_place: 0,
            prefers: None,
            p1_cores: class.cores - cores,
            p1_memory: class.memory - memory,
            scratch: class.scratch,
            nic: class.nic,
            store: class.store,
            next_down: 0,
            dead_until: 0,
            bound: 0,
            waiting: Vec::new(),
            can_p1,
            can_gpu,
            listed_p1: can_p1,
            listed_gpu: can_gpu,
        });
        let pool = &mut self.pools[self.fleet.pool(machine)];
        if can_p1 {
            pool.free_p1.push(machine);
        }
        if can_gpu {
            pool.free_gpu.push(machine);
            pool.gpu_machines.push(machine);
        }
        if class.store > 0 {
            pool.stores.push(machine);
        }
        self.wake_after_windows(machine);
    }

    /// Cores and memory that a machine of this class keeps for one GPU step beside PC1. If it is
    /// too small for both at once, it keeps nothing, or PC1 would never begin.
    fn kept_for_gpus(&self, class: &Class) -> (i32, i32) {
        let kinds = &self.fleet.kinds;
        let largest = |pick: fn(&Need) -> i32| {
            let each = kinds.iter().map(|kind| pick(&kind.p2).max(pick(&kind.c2)));
            each.max().unwrap_or(0)
        };
        let (cores, memory) = (largest(|need| need.cores), largest(|need| need.memory));
        let fits = |p1: Need| p1.cores + cores <= class.cores && p1.memory + memory <= class.memory;
        if kinds.iter().all(|kind| fits(kind.p1)) {
            (cores, memory)
        } else {
            (0, 0)
        }
    }

    /// Schedules an event at the end of each planned window that is not over yet.
    pub(crate) fn wake_after_windows(&mut self, machine: MachineIx) {
        let now = self.now;
        for (_, to) in self.fleet.machines[machine]
            .down
            .iter()
            .filter(|(_, to)| *to > now)
        {
            self.agenda.push(*to, Event::Wake(machine));
        }
    }

    /// Adds an order as one group of sectors.
    pub fn add_order(&mut self, order: Order) -> OrderIx {
        let n = order.n;
        self.add_order_in_groups(order, n.max(1))
    }

    /// Adds an order, in groups of up to `size` sectors that a search can treat separately.
    pub fn add_order_in_groups(&mut self, order: Order, size: u32) -> OrderIx {
        let (n, known) = (order.n, order.known.max(self.now));
        let first = u32::try_from(self.sectors.len()).unwrap_or(u32::MAX);
        let id = self.orders.push(order);
        self.firsts.push(first);
        self.open.push(n);
        self.left += u64::from(n);
        let mut from = 0;
        while from < n {
            let count = size.min(n - from);
            let group = self.add_group(id, from, count);
            self.add_sectors(group, count);
            self.agenda.push(known, Event::Open(group));
            from += count;
        }
        id
    }

    /// Adds a group of `n` sectors of an order, from its sector number `from` on.
    fn add_group(&mut self, id: OrderIx, from: u32, n: u32) -> GroupIx {
        let order = &self.orders[id];
        let places = i32::try_from(from).unwrap_or(i32::MAX);
        let release = order
            .release
            .saturating_add(order.step.saturating_mul(places));
        let queues = if order.pool.is_some() {
            1
        } else {
            self.pools.len()
        };
        let group = GroupIx::of(self.groups.len());
        let queue = QueueIx::of(self.queues.len());
        for _ in 0..queues {
            self.queues.push(SectorQueue::of(group));
        }
        self.groups.push(SectorGroup {
            order: id,
            first: self.firsts[id] + from,
            n,
            release,
            key: 0,
            gpu_key: 0,
            hint: SearchHint::default(),
            begun: 0,
            again: Vec::new(),
            queue,
            listed: false,
        })
    }

    fn add_sectors(&mut self, group: GroupIx, n: u32) {
        let sector = Sector {
            group,
            state: State::Wait,
            attempt: 0,
            avoid: MachineIx::NONE,
            still_until: 0,
            row: Row::EMPTY,
        };
        self.sectors
            .extend_with(&sector, usize::try_from(n).unwrap_or(0));
    }

    /// When the next event happens.
    #[must_use]
    pub fn next_moment(&self) -> Option<Secs> {
        self.agenda.next_moment()
    }

    /// Adds an event at a moment that the caller wants to look at.
    pub fn pause_at(&mut self, at: Secs) {
        self.agenda.push(at, Event::Pause);
    }

    /// Lets no move to or from a machine begin before `until`.
    pub fn keep_still(&mut self, machine: MachineIx, until: Secs) {
        self.machines[machine].nic -= self.fleet.class(machine).nic;
        self.agenda.push(until, Event::Moves(machine));
    }

    /// Has the next dispatch look at every pool again.
    pub(crate) fn mark_dirty(&mut self) {
        self.dirty = true;
        self.pools.iter_mut().for_each(|pool| pool.dirty = true);
    }

    /// A group's next data has arrived (or is known of), or its hold is over.
    pub(crate) fn open_group(&mut self, group: GroupIx) {
        self.list_group(group);
        if let Some(next) = self.next_arrival(group) {
            self.agenda.push(next, Event::Open(group));
        }
    }

    /// Makes dispatches look at a group that has something to begin.
    pub(crate) fn list_group(&mut self, group: GroupIx) {
        self.dirty = true;
        let state = &mut self.groups[group];
        if !state.listed && !state.is_spent() {
            state.listed = true;
            self.ready.push(group);
            self.ranked_until = Secs::MIN;
        }
    }

    /// When more of a group's sectors can start than now.
    fn next_arrival(&self, group: GroupIx) -> Option<Secs> {
        let state = &self.groups[group];
        let start = state.release.max(state.hint.hold);
        if self.now < start {
            return Some(start);
        }
        let step = self.orders[state.order].step;
        let arrived = self.arrived(group, self.now);
        (step > 0 && arrived < state.n).then(|| {
            state
                .release
                .saturating_add(step.saturating_mul(i32::try_from(arrived).unwrap_or(i32::MAX)))
        })
    }

    /// How many of a group's sectors have their data at `at`.
    pub(crate) fn arrived(&self, group: GroupIx, at: Secs) -> u32 {
        let state = &self.groups[group];
        if at < state.release.max(state.hint.hold) {
            return 0;
        }
        let step = self.orders[state.order].step;
        if step <= 0 {
            return state.n;
        }
        state.n.min(
            u32::try_from((at - state.release) / step)
                .unwrap_or(0)
                .saturating_add(1),
        )
    }

    /// The queue of a sector's group in its machine's pool.
    pub(crate) fn queue(&self, sector: SectorIx, machine: MachineIx) -> QueueIx {
        let group = &self.groups[self.sectors[sector].group];
        match self.orders[group.order].pool {
            Some(_) => group.queue,
            None => QueueIx(group.queue.0 + self.fleet.pool(machine).0),
        }
    }

    pub(crate) fn kind(&self, sector: SectorIx) -> KindIx {
        self.orders[self.order_of(sector)].kind
    }

    #[must_use]
    pub fn order_of(&self, sector: SectorIx) -> OrderIx {
        self.groups[self.sectors[sector].group].order
    }

    /// Number of sectors that are not stored yet.
    #[must_use]
    pub const fn left(&self) -> u64 {
        self.left
    }

    /// A sector's place in its order.
    #[must_use]
    pub fn place_in_order(&self, sector: SectorIx) -> u32 {
        sector.0 - self.firsts[self.order_of(sector)]
    }

    pub(crate) fn sectors_in(&self, group: GroupIx) -> impl Iterator<Item = SectorIx> + use<> {
        let state = &self.groups[group];
        (state.first..state.first + state.n).map(SectorIx)
    }

    /// The sectors of an order.
    pub fn sectors_of(&self, order: OrderIx) -> impl Iterator<Item = SectorIx> + use<> {
        let first = self.firsts[order];
        (first..first + self.orders[order].n).map(SectorIx)
    }

    /// The first moment from `at` on at which a message can be included.
    pub(crate) fn include(&self, mut at: Secs) -> Secs {
        for (from, to) in &self.gas_blocked {
            if *from <= at && at < *to {
                at = *to;
            }
        }
        at
    }

    /// When the last of an order's sectors became active; `None` while some are not.
    #[must_use]
    pub fn done_at(&self, order: OrderIx) -> Option<Secs> {
        if self.open[order] > 0 {
            return None;
        }
        self.sectors_of(order).map(|s| self.sectors[s].row.vc).max()
    }
}
