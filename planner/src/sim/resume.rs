//! Sectors that are already in the pipeline when a plan is made.

use crate::{
    MachineIx, OrderIx, Secs, SectorIx,
    model::fleet::Step,
    model::sector::{Sector, State},
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
        self.groups[group].begun += 1;
        self.place(sector, progress);
        Some(sector)
    }

    fn place(&mut self, sector: SectorIx, progress: Progress) {
        match progress {
            Progress::Waiting { avoid } => self.wait_to_begin(sector, avoid),
            Progress::PreCommit1 { on, since } => {
                self.begin(sector, on, since);
                self.run_on(sector, (on, Step::P1), since);
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
            Progress::Moving {
                from,
                to,
                began,
                since,
            } => {
                self.begin(sector, from, began);
                self.move_on(sector, from, to, since);
            }
            Progress::PreCommit2 { on, began, since } => {
                self.begin(sector, on, began);
                self.pools[self.fleet.pool(on)].wip -= 1;
                self.sectors[sector].row.m2 = on;
                self.run_on(sector, (on, Step::P2), since);
            }
            Progress::Seed { on, until } => self.wait_for_seed(sector, on, until),
            Progress::Sealed { on, avoid } => {
                self.keep(sector, on);
                self.sectors[sector].avoid = avoid;
                self.sectors[sector].row.c1e = self.now;
                self.want_c2(sector, false);
            }
            Progress::Commit2 { on, at, since } => {
                self.keep(sector, on);
                self.sectors[sector].row.m3 = at;
                self.run_on(sector, (at, Step::C2), since);
            }
            Progress::Proved { on, until } => self.land(sector, on, until),
        }
    }

    /// Lets a sector begin when its turn comes, elsewhere if it can.
    fn wait_to_begin(&mut self, sector: SectorIx, avoid: MachineIx) {
        let group = self.sectors[sector].group;
        self.sectors[sector].avoid = avoid;
        self.groups[group].again.push(sector);
        self.agenda.push(self.now, crate::Event::Open(group));
    }

    /// Records that PC1 began on this machine some time ago.
    fn begin(&mut self, sector: SectorIx, on: MachineIx, began: Secs) {
        let kind = self.kind(sector);
        self.machines[on].scratch -= self.fleet.kinds[kind].scratch_full;
        self.pools[self.fleet.pool(on)].wip += 1;
        let row = &mut self.sectors[sector].row;
        (row.m1, row.s1) = (on, began);
    }

    /// Records that all of the sector's files lie on this machine, until C1 is done.
    fn wait_for_seed(&mut self, sector: SectorIx, on: MachineIx, until: Secs) {
        self.hold(sector, on, self.fleet.kinds[self.kind(sector)].scratch_full);
        self.sectors[sector].row.c1e = until.max(self.now);
        self.sectors[sector].state = State::Seed;
        self.at_end(until, Ending::C1, sector);
    }

    /// Records that the files that are left after C1 lie on this machine.
    fn keep(&mut self, sector: SectorIx, on: MachineIx) {
        self.hold(sector, on, self.fleet.kinds[self.kind(sector)].scratch_keep);
    }

    fn hold(&mut self, sector: SectorIx, on: MachineIx, scratch: i32) {
        self.machines[on].scratch -= scratch;
        let row = &mut self.sectors[sector].row;
        (row.m1, row.m2) = (on, on);
    }

    /// Lets a sector whose proof is made become active at `until`.
    fn land(&mut self, sector: SectorIx, on: MachineIx, until: Secs) {
        self.keep(sector, on);
        let ends = until.max(self.now);
        self.sectors[sector].state = State::Landing;
        self.sectors[sector].row.e3 = ends;
        self.at_end(ends, Ending::Landed, sector);
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
        self.sectors[sector].row.e1 = since;
        let usual = self.leave(sector, from, to);
        let ends = ends(since, usual, self.now);
        let row = &mut self.sectors[sector].row;
        (row.xs, row.xe) = (since, ends);
        self.at_end(ends, Ending::Move, sector);
    }

    /// Continues a step.
    fn run_on(&mut self, sector: SectorIx, (on, step): (MachineIx, Step), since: Secs) {
        let kind = self.kind(sector);
        self.take(on, self.fleet.kinds[kind].need(step), step == Step::P1);
        let ends = ends(since, self.fleet.duration(on, kind, step), self.now);
        let Sector { state, row, .. } = &mut self.sectors[sector];
        let ending = match step {
            Step::P1 => {
                (*state, row.s1, row.e1) = (State::P1, since, ends);
                Ending::P1
            }
            Step::P2 => {
                (*state, row.s2, row.e2) = (State::P2, since, ends);
                Ending::P2
            }
            Step::C2 => {
                (*state, row.s3, row.e3) = (State::C2, since, ends);
                Ending::C2
            }
        };
        self.at_end(ends, ending, sector);
    }
}

/// When something that began at `since` and usually takes `usual` ends. If it has taken longer
/// already, it may end at any time.
fn ends(since: Secs, usual: Secs, now: Secs) -> Secs {
    since
        .saturating_add(usual)
        .max(now.saturating_add(usual / 20 + 30))
}
