//! Sectors that are already in the pipeline when a plan is made.

use crate::{
    MachineIx, OrderIx, Secs, SectorIx,
    model::fleet::{Need, Step},
    model::sector::State,
    sim::agenda::Ending,
    sim::world::World,
};

/// A sector's progress. `began`: when PC1 began, from which its ticket's age counts; `since`: when
/// the present step began.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Progress {
    /// Not begun. It avoids this machine if another one can do PC1.
    Waiting {
        avoid: MachineIx,
    },
    PreCommit1 {
        on: MachineIx,
        since: Secs,
    },
    /// Its layers are on this machine and PC2 has not begun. They are not moved before `until`.
    Layers {
        on: MachineIx,
        began: Secs,
        until: Secs,
    },
    /// Its layers were fetched to this machine and wait for a GPU.
    Bound {
        on: MachineIx,
        began: Secs,
    },
    /// Its layers are being moved.
    Moving {
        from: MachineIx,
        to: MachineIx,
        began: Secs,
        since: Secs,
    },
    PreCommit2 {
        on: MachineIx,
        began: Secs,
        since: Secs,
    },
    /// PreCommit, seed and C1; done at `until`.
    Seed {
        on: MachineIx,
        until: Secs,
    },
    /// C1 is done, C2 has not begun.
    Sealed {
        on: MachineIx,
        avoid: MachineIx,
    },
    Commit2 {
        on: MachineIx,
        at: MachineIx,
        since: Secs,
    },
    /// The proof is made; the sector is active at `until`.
    Proved {
        on: MachineIx,
        until: Secs,
    },
}

impl World<'_> {
    /// Places an order's next sector at `progress`, in the order of their numbers. The order must
    /// have been added as one group. Running steps continue where they are. `None`: every sector of
    /// the order has been placed.
    pub fn resume(&mut self, order: OrderIx, progress: Progress) -> Option<SectorIx> {
        let group = self.sectors[self.sectors_of(order).next()?].group;
        let state = &self.groups[group];
        let sector = (state.begun < state.n).then_some(SectorIx(state.first + state.begun))?;
        if let Progress::Waiting { avoid } = progress {
            self.sectors[sector].avoid = avoid;
        }
        self.groups[group].begun += 1;
        let kind = self.kind(sector);
        let needs = self.fleet.kinds[kind].clone();
        match progress {
            Progress::Waiting { .. } => {
                self.groups[group].again.push(sector);
                self.agenda.push(self.now, crate::Event::Open(group));
            }
            Progress::PreCommit1 { on, since } => {
                self.begin(sector, on, since);
                self.run_on(sector, (on, Step::P1), since, needs.p1);
                self.sectors[sector].state = State::P1;
            }
            Progress::Layers { on, began, until } => {
                self.begin(sector, on, began);
                self.lie_still(sector, until);
            }
            Progress::Bound { on, began } => {
                self.begin(sector, on, began);
                self.sectors[sector].row.e1 = self.now;
                self.bind(sector, on);
            }
            Progress::Moving { from, to, began, since } => {
                self.begin(sector, from, began);
                self.sectors[sector].row.e1 = since;
                self.move_on(sector, from, to, since);
            }
            Progress::PreCommit2 { on, began, since } => {
                self.begin(sector, on, began);
                self.pools[self.fleet.pool(on)].wip -= 1;
                self.sectors[sector].row.m2 = on;
                self.run_on(sector, (on, Step::P2), since, needs.p2);
                self.sectors[sector].state = State::P2;
            }
            Progress::Seed { on, until } => {
                self.hold(sector, on, needs.scratch_full);
                self.sectors[sector].row.c1e = until.max(self.now);
                self.sectors[sector].state = State::Seed;
                self.at_end(until, Ending::C1, sector);
            }
            Progress::Sealed { on, avoid } => {
                self.hold(sector, on, needs.scratch_keep);
                self.sectors[sector].avoid = avoid;
                self.sectors[sector].row.c1e = self.now;
                self.want_c2(sector, false);
            }
            Progress::Commit2 { on, at, since } => {
                self.hold(sector, on, needs.scratch_keep);
                self.sectors[sector].row.m3 = at;
                self.run_on(sector, (at, Step::C2), since, needs.c2);
                self.sectors[sector].state = State::C2;
            }
            Progress::Proved { on, until } => {
                self.hold(sector, on, needs.scratch_keep);
                self.sectors[sector].state = State::Landing;
                self.sectors[sector].row.e3 = until.max(self.now);
                self.at_end(until.max(self.now), Ending::Landed, sector);
            }
        }
        Some(sector)
    }

    /// Records that PC1 began on this machine some time ago.
    fn begin(&mut self, sector: SectorIx, on: MachineIx, began: Secs) {
        let kind = self.kind(sector);
        self.machines[on].scratch -= self.fleet.kinds[kind].scratch_full;
        self.pools[self.fleet.pool(on)].wip += 1;
        let row = &mut self.sectors[sector].row;
        (row.m1, row.s1) = (on, began);
    }

    /// Records that the sector's remaining files lie on this machine.
    fn hold(&mut self, sector: SectorIx, on: MachineIx, scratch: i32) {
        self.machines[on].scratch -= scratch;
        let row = &mut self.sectors[sector].row;
        (row.m1, row.m2) = (on, on);
    }

    /// Lets a sector's layers wait, unmoved until then.
    fn lie_still(&mut self, sector: SectorIx, until: Secs) {
        self.sectors[sector].row.e1 = self.now;
        if until > self.now {
            self.sectors[sector].still_until = until;
            self.pause_at(until);
        }
        self.have_layers(sector, false);
    }

    /// Continues a move.
    fn move_on(&mut self, sector: SectorIx, from: MachineIx, to: MachineIx, since: Secs) {
        let usual = self.leave(sector, from, to);
        let ends = ends(since, usual, self.now);
        let row = &mut self.sectors[sector].row;
        (row.xs, row.xe) = (since, ends);
        self.at_end(ends, Ending::Move, sector);
    }

    /// Continues a step.
    fn run_on(&mut self, sector: SectorIx, (on, step): (MachineIx, Step), since: Secs, need: Need) {
        self.take(on, need, step == Step::P1);
        let usual = self.fleet.duration(on, self.kind(sector), step);
        let ends = ends(since, usual, self.now);
        let row = &mut self.sectors[sector].row;
        let ending = match step {
            Step::P1 => {
                (row.s1, row.e1) = (since, ends);
                Ending::P1
            }
            Step::P2 => {
                (row.s2, row.e2) = (since, ends);
                Ending::P2
            }
            Step::C2 => {
                (row.s3, row.e3) = (since, ends);
                Ending::C2
            }
        };
        self.at_end(ends, ending, sector);
    }
}

/// When something that began at `since` and usually takes `usual` ends. If it has taken longer
/// already, it may end at any time.
fn ends(since: Secs, usual: Secs, now: Secs) -> Secs {
    since.saturating_add(usual).max(now.saturating_add(usual / 20 + 30))
}
