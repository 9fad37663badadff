//! Ends and starts of steps: what is given back, what is taken, and which of the waiting goes first.

use super::{
    KindIx, MachineIx, PoolIx, Secs, SectorIx,
    agenda::{Ending, Event},
    fleet::{Need, Step},
    policy::Urgency,
    sector::{Row, State},
    table::LaneIx,
    world::World,
};

/// Something for a GPU: a lane's oldest C2, where it is wanted or on any, or one machine's waiting PC2.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum GpuWork {
    C2(LaneIx),
    C2Anywhere(LaneIx),
    P2(SectorIx),
}

impl World<'_> {
    // ---- what is free

    pub(super) fn list_free(&mut self, machine: MachineIx) {
        let room = &mut self.rooms[machine];
        let pool = &mut self.pools[self.fleet.pool(machine)];
        pool.stirred = true;
        self.stirred = true;
        if room.can_p1 && !room.listed_p1 {
            room.listed_p1 = true;
            pool.free_p1.push(machine);
        }
        if room.can_gpu && !room.listed_gpu {
            room.listed_gpu = true;
            pool.free_gpu.push(machine);
        }
    }

    pub(super) fn take(&mut self, machine: MachineIx, need: Need, is_p1: bool) {
        let room = &mut self.rooms[machine];
        room.free.cores -= need.cores;
        room.free.memory -= need.memory;
        room.free.gpus -= need.gpus;
        if is_p1 {
            room.p1_cores -= need.cores;
            room.p1_memory -= need.memory;
        }
    }

    pub(super) fn give(&mut self, machine: MachineIx, need: Need, is_p1: bool) {
        let back = Need { cores: -need.cores, memory: -need.memory, gpus: -need.gpus };
        self.take(machine, back, is_p1);
        self.list_free(machine);
    }

    pub(super) fn give_scratch(&mut self, machine: MachineIx, amount: i32) {
        self.rooms[machine].scratch += amount;
        self.list_free(machine);
    }

    pub(super) fn give_nics(&mut self, a: MachineIx, b: MachineIx) {
        for machine in [a, b] {
            self.rooms[machine].nic += 1;
            self.list_free(machine);
        }
    }

    /// True when the machine is up now and no planned window begins within `seconds`.
    pub(super) fn is_up_for(&mut self, machine: MachineIx, seconds: Secs) -> bool {
        let now = self.now;
        let room = &mut self.rooms[machine];
        if room.dead_until > now {
            return false;
        }
        let down = &self.fleet.machines[machine].down;
        while down.get(room.next_down).is_some_and(|(_, to)| *to <= now) {
            room.next_down += 1;
        }
        down.get(room.next_down).is_none_or(|(from, _)| *from >= now.saturating_add(seconds))
    }

    fn fits(&mut self, machine: MachineIx, need: Need, seconds: Secs) -> bool {
        let free = &self.rooms[machine].free;
        free.cores >= need.cores && free.memory >= need.memory && free.gpus >= need.gpus && self.is_up_for(machine, seconds)
    }

    // ---- ends

    pub(super) fn end(&mut self, ending: Ending, sector: SectorIx) {
        let kind = &self.fleet.kinds[self.kind(sector)];
        let row = self.sectors[sector].row;
        match ending {
            Ending::P1 if self.step_fails(Step::P1) => self.lose_attempt(sector, row.m1),
            Ending::P2 if self.step_fails(Step::P2) => self.lose_attempt(sector, row.m2),
            Ending::C2 if self.step_fails(Step::C2) => {
                self.give(row.m3, kind.c2, false);
                self.want_c2(sector, true);
            }
            Ending::P1 => {
                self.give(row.m1, kind.p1, true);
                self.have_layers(sector, false);
            }
            Ending::Move => {
                self.give_nics(row.m1, row.m2);
                self.give_scratch(row.m1, kind.scratch_full);
                self.sectors[sector].state = State::Bound;
                self.rooms[row.m2].waiting.push(sector);
            }
            Ending::P2 => {
                self.give(row.m2, kind.p2, false);
                self.pre_commit(sector);
            }
            Ending::C1 => {
                self.give_scratch(row.m2, kind.scratch_full - kind.scratch_keep);
                self.want_c2(sector, false);
            }
            Ending::C2 => {
                self.give(row.m3, kind.c2, false);
                self.activate(sector);
            }
            Ending::Landed => self.activate(sector),
            Ending::Store => {
                if row.m2 != row.ms {
                    self.give_nics(row.m2, row.ms);
                }
                if !self.stays(sector) {
                    self.give_scratch(row.m2, kind.scratch_keep);
                }
                self.sectors[sector].state = State::Stored;
                self.left -= 1;
            }
        }
    }

    /// Whether a stored sector lies on the disk that it was made on, with scratch for its place.
    pub(super) fn stays(&self, sector: SectorIx) -> bool {
        let row = self.sectors[sector].row;
        row.ye == row.ys
    }

    pub(super) fn have_layers(&mut self, sector: SectorIx, first: bool) {
        self.sectors[sector].state = State::Layers;
        let machine = self.sectors[sector].row.m1;
        let id = self.lane(sector, machine);
        let lane = &mut self.lanes[id];
        if first {
            lane.layers.push_front(sector)
        } else {
            lane.layers.push_back(sector)
        }
        let pool = &mut self.pools[self.fleet.pool(machine)];
        if !lane.listed_layers {
            lane.listed_layers = true;
            pool.layers.push(id);
        }
        pool.stirred = true;
    }

    pub(super) fn want_c2(&mut self, sector: SectorIx, first: bool) {
        self.sectors[sector].state = State::WaitC2;
        let machine = self.sectors[sector].row.m2;
        let id = self.lane(sector, machine);
        let lane = &mut self.lanes[id];
        if first {
            lane.c2.push_front(sector)
        } else {
            lane.c2.push_back(sector)
        }
        let pool = &mut self.pools[self.fleet.pool(machine)];
        if !lane.listed_c2 {
            lane.listed_c2 = true;
            pool.c2.push(id);
        }
        pool.stirred = true;
    }

    fn pre_commit(&mut self, sector: SectorIx) {
        let delays = self.fleet.delays;
        let pc = self.include(self.now + delays.message);
        let row = &mut self.sectors[sector].row;
        if pc > row.s1.saturating_add(delays.ticket) {
            let (wasted, machine) = (*row, row.m2);
            self.wasted.push((sector, wasted));
            self.give_scratch(machine, self.fleet.kinds[self.kind(sector)].scratch_full);
            return self.restart(sector);
        }
        row.pc = pc;
        row.c1e = pc + delays.seed + delays.c1;
        let at = row.c1e;
        self.sectors[sector].state = State::Seed;
        self.at_end(at, Ending::C1, sector);
    }

    fn activate(&mut self, sector: SectorIx) {
        let vc = self.include(self.now + self.fleet.delays.message);
        self.sectors[sector].row.vc = vc;
        self.sectors[sector].state = State::Active;
        let order = self.order_of(sector);
        self.open[order] -= 1;
        let machine = self.sectors[sector].row.m2;
        self.pools[self.fleet.pool(machine)].to_store.push_back(sector);
    }

    /// The attempt is lost: a fresh ticket, from the beginning.
    pub(super) fn restart(&mut self, sector: SectorIx) {
        let state = &mut self.sectors[sector];
        state.row = Row::EMPTY;
        // Never again fresh.
        state.attempt = state.attempt.wrapping_add(1).max(1);
        state.state = State::Wait;
        let group = state.group;
        self.groups[group].again.push(sector);
        self.list_group(group);
    }

    pub(super) fn at_end(&mut self, at: Secs, ending: Ending, sector: SectorIx) {
        let attempt = self.sectors[sector].attempt;
        self.agenda.push(at, Event::Ends(ending, sector, attempt));
    }

    // ---- starts

    pub(super) fn dispatch(&mut self) {
        if !std::mem::take(&mut self.stirred) {
            return;
        }
        for pool in self.fleet.pools.keys() {
            if !std::mem::take(&mut self.pools[pool].stirred) {
                continue;
            }
            self.gpu_pass(pool);
            if !self.pools[pool].to_store.is_empty() {
                self.store_pass(pool);
            }
            if !self.pools[pool].layers.is_empty() && self.move_pass(pool) {
                self.gpu_pass(pool);
            }
        }
        self.admit();
    }

    /// The lane's oldest sector that still waits in `state`.
    pub(super) fn oldest(&mut self, lane: LaneIx, state: State) -> Option<SectorIx> {
        let lane = &mut self.lanes[lane];
        let queue = if state == State::Layers { &mut lane.layers } else { &mut lane.c2 };
        while let Some(sector) = queue.front() {
            if self.sectors[*sector].state == state {
                return Some(*sector);
            }
            queue.pop_front();
        }
        None
    }

    /// C2 and PC2 on free GPUs, the most urgent first.
    fn gpu_pass(&mut self, pool: PoolIx) {
        if self.pools[pool].free_gpu.is_empty() {
            return;
        }
        let mut free = std::mem::take(&mut self.pools[pool].free_gpu);
        let now = self.now;
        free.retain(|machine| {
            let room = &mut self.rooms[*machine];
            room.listed_gpu = room.free.gpus > 0 && room.dead_until <= now;
            room.listed_gpu
        });
        let mut work: Vec<(Urgency, GpuWork)> = Vec::new();
        if !free.is_empty() {
            let unwanted = free.iter().any(|m| self.rooms[*m].prefers == Some(Step::P2));
            self.rank_c2(pool, unwanted, &mut work);
            for machine in &free {
                for sector in &self.rooms[*machine].waiting {
                    let group = self.sectors[*sector].group;
                    if self.groups[group].wish.hold_p2 <= now {
                        let urgency = self.layers_urgency(group, *sector);
                        let wrong = self.rooms[*machine].prefers == Some(Step::C2);
                        let urgency = if wrong { self.on_wrong_gpu(urgency) } else { urgency };
                        work.push((urgency, GpuWork::P2(*sector)));
                    }
                }
            }
            work.sort_unstable();
        }
        for (_, what) in work {
            if free.is_empty() {
                break;
            }
            match what {
                GpuWork::P2(sector) => self.try_p2(sector, &mut free),
                GpuWork::C2(lane) => while self.try_c2(lane, &mut free, true) {},
                GpuWork::C2Anywhere(lane) => while self.try_c2(lane, &mut free, false) {},
            }
        }
        // Nothing was listed meanwhile: starting gives nothing back.
        self.pools[pool].free_gpu = free;
    }

    fn rank_c2(&mut self, pool: PoolIx, unwanted: bool, work: &mut Vec<(Urgency, GpuWork)>) {
        let mut lanes = std::mem::take(&mut self.pools[pool].c2);
        lanes.retain(|lane| {
            let some = self.oldest(*lane, State::WaitC2).is_some();
            self.lanes[*lane].listed_c2 = some;
            some
        });
        for lane in lanes.iter().filter(|lane| self.groups[self.lanes[**lane].group].wish.hold_c2 <= self.now) {
            let urgency = self.urgency(self.lanes[*lane].group, Step::C2);
            work.push((urgency, GpuWork::C2(*lane)));
            if unwanted {
                work.push((self.on_wrong_gpu(urgency), GpuWork::C2Anywhere(*lane)));
            }
        }
        self.pools[pool].c2 = lanes;
    }

    fn drop_if_busy(&mut self, machine: MachineIx, free: &mut Vec<MachineIx>) {
        if self.rooms[machine].free.gpus == 0 {
            self.rooms[machine].listed_gpu = false;
            free.retain(|m| *m != machine);
        }
    }

    fn try_p2(&mut self, sector: SectorIx, free: &mut Vec<MachineIx>) {
        let machine = self.sectors[sector].row.m2;
        let kind = self.kind(sector);
        let (need, seconds) = (self.fleet.kinds[kind].p2, self.fleet.duration(machine, kind, Step::P2));
        if !free.contains(&machine) || !self.fits(machine, need, seconds) {
            return;
        }
        self.take(machine, need, false);
        let ends = self.now + self.drawn(seconds);
        let state = &mut self.sectors[sector];
        state.state = State::P2;
        (state.row.s2, state.row.e2) = (self.now, ends);
        self.at_end(ends, Ending::P2, sector);
        let room = &mut self.rooms[machine];
        room.waiting.retain(|s| *s != sector);
        room.bound -= 1;
        self.pools[self.fleet.pool(machine)].wip -= 1;
        self.drop_if_busy(machine, free);
    }

    fn try_c2(&mut self, lane: LaneIx, free: &mut Vec<MachineIx>, where_wanted: bool) -> bool {
        let Some(sector) = self.oldest(lane, State::WaitC2) else { return false };
        let kind = self.kind(sector);
        let need = self.fleet.kinds[kind].c2;
        let avoid = if self.choice.1 { self.sectors[sector].avoid } else { MachineIx::NONE };
        let mut best = None;
        for machine in free.iter().copied().filter(|m| *m != avoid) {
            if self.fleet.machines[machine].drains || (where_wanted && self.rooms[machine].prefers == Some(Step::P2)) {
                continue;
            }
            let seconds = self.fleet.duration(machine, kind, Step::C2);
            let rank = (seconds, self.rooms[machine].waiting.len(), machine);
            if seconds > 0 && best.is_none_or(|b| rank < b) && self.fits(machine, need, seconds) {
                best = Some(rank);
                if rank.0 <= self.quickest[kind].c2 && rank.1 == 0 {
                    break;
                }
            }
        }
        let Some((seconds, _, machine)) = best else { return false };
        self.take(machine, need, false);
        let ends = self.now + self.drawn(seconds);
        let state = &mut self.sectors[sector];
        state.state = State::C2;
        (state.row.m3, state.row.s3, state.row.e3) = (machine, self.now, ends);
        self.at_end(ends, Ending::C2, sector);
        self.lanes[lane].c2.pop_front();
        self.drop_if_busy(machine, free);
        !free.is_empty()
    }

    /// Sealed files to machines with storage.
    fn store_pass(&mut self, pool: PoolIx) {
        let mut queue = std::mem::take(&mut self.pools[pool].to_store);
        for _ in 0..queue.len() {
            let Some(sector) = queue.pop_front() else { break };
            let state = &self.sectors[sector];
            if state.state != State::Active || state.row.ys >= 0 {
                continue;
            }
            let from = state.row.m2;
            match self.best_store(pool, sector) {
                Some((machine, seconds)) => self.start_store(sector, machine, seconds),
                None => {
                    queue.push_back(sector);
                    if self.rooms[from].nic > 0 {
                        break;
                    }
                }
            }
        }
        self.pools[pool].to_store = queue;
    }

    /// Where the sealed file goes, and the seconds that takes. Where nothing can be moved, or nobody has room for it, it stays.
    fn best_store(&mut self, pool: PoolIx, sector: SectorIx) -> Option<(MachineIx, Secs)> {
        let kind = self.kind(sector);
        let from = self.sectors[sector].row.m2;
        let stays = Some((from, 0));
        let Some(seconds) = self.fleet.pools[pool].moves_sealed(kind) else { return stays };
        let stored = self.fleet.kinds[kind].stored;
        let has_room = |m: &MachineIx| self.rooms[*m].store >= stored;
        if self.fleet.class(from).nic == 0 || !self.pools[pool].stores.iter().any(has_room) {
            return stays;
        }
        if self.rooms[from].nic <= 0 || !self.is_up_for(from, seconds) {
            return None;
        }
        let mut best = None;
        for at in 0..self.pools[pool].stores.len() {
            let Some(machine) = self.pools[pool].stores.get(at).copied() else { break };
            let room = &self.rooms[machine];
            let rank = (room.nic, room.store);
            if room.store >= stored
                && (room.nic > 0 || machine == from)
                && best.is_none_or(|(b, _)| rank > b)
                && self.is_up_for(machine, seconds)
            {
                best = Some((rank, machine));
            }
        }
        best.map(|(_, machine)| (machine, seconds))
    }

    fn start_store(&mut self, sector: SectorIx, machine: MachineIx, seconds: Secs) {
        let from = self.sectors[sector].row.m2;
        if machine != from {
            self.rooms[from].nic -= 1;
            self.rooms[machine].nic -= 1;
        }
        if seconds > 0 {
            self.rooms[machine].store -= self.fleet.kinds[self.kind(sector)].stored;
        }
        let row = &mut self.sectors[sector].row;
        (row.ms, row.ys, row.ye) = (machine, self.now, self.now + seconds);
        let ends = row.ye;
        self.at_end(ends, Ending::Store, sector);
    }

    pub(super) fn start_p1(&mut self, sector: SectorIx, machine: MachineIx, kind: KindIx) {
        let needs = &self.fleet.kinds[kind];
        self.take(machine, needs.p1, true);
        self.rooms[machine].scratch -= needs.scratch_full;
        let ends = self.now + self.drawn(self.fleet.duration(machine, kind, Step::P1));
        let state = &mut self.sectors[sector];
        state.state = State::P1;
        (state.row.m1, state.row.s1, state.row.e1) = (machine, self.now, ends);
        self.at_end(ends, Ending::P1, sector);
        self.count_begun(self.fleet.pool(machine), kind);
    }
}
