//! Starts and ends of steps, and the resources that a sector holds between them.

use crate::{
    KindIx, MachineIx, Secs, SectorIx,
    model::{
        fleet::Step,
        sector::{Row, Sector, State},
        table::QueueIx,
    },
    sim::{
        agenda::{Ending, Event},
        world::World,
    },
};

impl World<'_> {
    pub(crate) fn end(&mut self, ending: Ending, sector: SectorIx) {
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
                self.machines[row.m2].waiting.push(sector);
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
            Ending::Store => self.store(sector),
        }
    }

    /// The sealed file has been moved, or stays.
    fn store(&mut self, sector: SectorIx) {
        let row = self.sectors[sector].row;
        if row.m2 != row.ms {
            self.give_nics(row.m2, row.ms);
        }
        if !self.stays(sector) {
            self.give_scratch(row.m2, self.fleet.kinds[self.kind(sector)].scratch_keep);
        }
        self.sectors[sector].state = State::Stored;
        self.left -= 1;
    }

    /// Whether a stored sector stays on the disk that it was made on, in what was its scratch.
    pub(crate) fn stays(&self, sector: SectorIx) -> bool {
        let row = self.sectors[sector].row;
        row.ye == row.ys
    }

    pub(crate) fn have_layers(&mut self, sector: SectorIx, first: bool) {
        self.sectors[sector].state = State::Layers;
        let machine = self.sectors[sector].row.m1;
        let id = self.queue(sector, machine);
        let queue = &mut self.queues[id];
        if first {
            queue.layers.push_front(sector)
        } else {
            queue.layers.push_back(sector)
        }
        let pool = &mut self.pools[self.fleet.pool(machine)];
        if !queue.listed_layers {
            queue.listed_layers = true;
            pool.layers.push(id);
        }
        pool.dirty = true;
    }

    pub(crate) fn want_c2(&mut self, sector: SectorIx, first: bool) {
        self.sectors[sector].state = State::WaitC2;
        let machine = self.sectors[sector].row.m2;
        let id = self.queue(sector, machine);
        let queue = &mut self.queues[id];
        if first {
            queue.c2.push_front(sector)
        } else {
            queue.c2.push_back(sector)
        }
        let pool = &mut self.pools[self.fleet.pool(machine)];
        if !queue.listed_c2 {
            queue.listed_c2 = true;
            pool.c2.push(id);
        }
        pool.dirty = true;
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
        self.pools[self.fleet.pool(machine)]
            .to_store
            .push_back(sector);
    }

    /// An active sector is lost before it is stored: it is owed again.
    fn deactivate(&mut self, sector: SectorIx) {
        let row = self.sectors[sector].row;
        if row.ms.is_some() {
            self.machines[row.ms].store += self.fleet.kinds[self.kind(sector)].stored;
            if row.ms != row.m2 {
                self.give_nics(row.m2, row.ms);
            }
        }
        let order = self.order_of(sector);
        self.open[order] += 1;
    }

    /// Begins a lost attempt again, with a fresh ticket.
    pub(crate) fn restart(&mut self, sector: SectorIx) {
        let state = &mut self.sectors[sector];
        state.row = Row::EMPTY;
        // Never 0, so the sector never counts as fresh again.
        state.attempt = state.attempt.wrapping_add(1).max(1);
        state.state = State::Wait;
        let group = state.group;
        self.groups[group].again.push(sector);
        self.list_group(group);
    }

    pub(crate) fn at_end(&mut self, at: Secs, ending: Ending, sector: SectorIx) {
        let attempt = self.sectors[sector].attempt;
        self.agenda.push(at, Event::Ends(ending, sector, attempt));
    }

    pub(crate) fn start_p1(&mut self, sector: SectorIx, machine: MachineIx, kind: KindIx) {
        let needs = &self.fleet.kinds[kind];
        self.take(machine, needs.p1, true);
        self.machines[machine].scratch -= needs.scratch_full;
        let ends = self.now + self.drawn(self.fleet.duration(machine, kind, Step::P1));
        let state = &mut self.sectors[sector];
        state.state = State::P1;
        (state.row.m1, state.row.s1, state.row.e1) = (machine, self.now, ends);
        self.at_end(ends, Ending::P1, sector);
        self.count_begun(self.fleet.pool(machine), kind);
    }

    pub(crate) fn bind(&mut self, sector: SectorIx, machine: MachineIx) {
        let from = self.sectors[sector].row.m1;
        if machine == from {
            self.machines[machine].bound += 1;
            self.sectors[sector].row.m2 = machine;
            self.sectors[sector].state = State::Bound;
            self.machines[machine].waiting.push(sector);
            return self.list_free(machine);
        }
        let ends = self.now + self.leave(sector, from, machine);
        let row = &mut self.sectors[sector].row;
        (row.xs, row.xe) = (self.now, ends);
        self.at_end(ends, Ending::Move, sector);
    }

    /// Starts the layers' move to the machine that they are bound to. Returns the seconds that it
    /// usually takes.
    pub(crate) fn leave(&mut self, sector: SectorIx, from: MachineIx, to: MachineIx) -> Secs {
        let kind = self.kind(sector);
        self.machines[from].nic -= 1;
        let room = &mut self.machines[to];
        room.bound += 1;
        room.nic -= 1;
        room.scratch -= self.fleet.kinds[kind].scratch_full;
        let state = &mut self.sectors[sector];
        (state.state, state.row.m2) = (State::Moving, to);
        self.fleet.pools[self.fleet.pool(from)].moves[kind].map_or(0, |m| m.layers)
    }

    /// The queue's oldest sector that still waits in `state`.
    pub(crate) fn oldest(&mut self, queue: QueueIx, state: State) -> Option<SectorIx> {
        let queue = &mut self.queues[queue];
        let queue = if state == State::Layers {
            &mut queue.layers
        } else {
            &mut queue.c2
        };
        while let Some(sector) = queue.front() {
            if self.sectors[*sector].state == state {
                return Some(*sector);
            }
            queue.pop_front();
        }
        None
    }

    /// Restarts a sector whose attempt is lost because PC1 or PC2 failed on `machine`, or the
    /// machine did.
    pub(crate) fn lose_attempt(&mut self, sector: SectorIx, machine: MachineIx) {
        if self.lose(sector, machine) {
            self.lost += 1;
            self.restart(sector);
        }
    }

    /// Releases the resources of an attempt whose files lie on `machine`. False: they lie
    /// elsewhere.
    pub(crate) fn lose(&mut self, sector: SectorIx, machine: MachineIx) -> bool {
        let Sector { state, row, .. } = self.sectors[sector];
        let kind = &self.fleet.kinds[self.kind(sector)];
        match state {
            State::P1 if row.m1 == machine => self.give(machine, kind.p1, true),
            State::Moving if row.m1 == machine => {
                self.give_nics(row.m1, row.m2);
                self.give_scratch(row.m2, kind.scratch_full);
                self.machines[row.m2].bound -= 1;
            }
            State::Bound if row.m2 == machine => self.machines[machine].bound -= 1,
            State::Layers if row.m1 == machine => {}
            State::P2 if row.m2 == machine => self.give(machine, kind.p2, false),
            State::C2 if row.m2 == machine => self.give(row.m3, kind.c2, false),
            State::Active if row.m2 == machine => self.deactivate(sector),
            State::Seed | State::WaitC2 | State::Landing if row.m2 == machine => {}
            _ => return false,
        }
        let begun = matches!(
            state,
            State::P1 | State::Layers | State::Moving | State::Bound
        );
        if begun {
            self.count_lost(self.fleet.pool(machine), self.kind(sector));
        }
        let full = begun || matches!(state, State::P2 | State::Seed);
        self.give_scratch(
            machine,
            if full {
                kind.scratch_full
            } else {
                kind.scratch_keep
            },
        );
        true
    }
}
