//! Failed steps and machine breakdowns: which work is lost, and where a sector continues.

use crate::{
    HOUR, MachineIx, Secs, SectorIx,
    model::{
        failure::Sampler,
        fleet::Step,
        sector::{Sector, State},
    },
    sim::{
        agenda::{Ending, Event},
        world::{SHUT, World},
    },
};

impl World<'_> {
    /// Lets `sampler` draw everything that is still to come. A running step's new end is drawn
    /// given that it has not ended yet.
    pub fn resample(&mut self, sampler: Sampler) {
        self.sampler = Some(sampler);
        for (at, event) in self.agenda.drain() {
            match event {
                Event::Fail(_) => {}
                Event::Wake(machine) if self.machines[machine].dead_until > self.now => {}
                Event::Ends(ending, sector, attempt) if self.sectors[sector].attempt == attempt => {
                    let ends = self.resampled(ending, sector, at);
                    self.agenda.push(ends, event);
                }
                _ => self.agenda.push(at, event),
            }
        }
        for machine in self.fleet.machines.keys() {
            let dead_until = self.machines[machine].dead_until;
            let dead = dead_until > self.now && dead_until != SHUT;
            let up = if dead {
                self.now.saturating_add(self.repair_time())
            } else {
                self.now
            };
            if dead {
                self.machines[machine].dead_until = up;
                self.agenda.push(up, Event::Wake(machine));
            }
            self.next_failure(machine, up);
        }
        self.draw_gas();
    }

    /// Lets everything that is still to begin take its usual time, without breakdowns.
    pub fn expect_usual(&mut self) {
        self.sampler = None;
        for (at, event) in self.agenda.drain() {
            if !matches!(event, Event::Fail(_)) {
                self.agenda.push(at, event);
            }
        }
    }

    fn resampled(&mut self, ending: Ending, sector: SectorIx, at: Secs) -> Secs {
        let row = self.sectors[sector].row;
        let (machine, start, step) = match ending {
            Ending::P1 => (row.m1, row.s1, Step::P1),
            Ending::P2 => (row.m2, row.s2, Step::P2),
            Ending::C2 => (row.m3, row.s3, Step::C2),
            _ => return at,
        };
        let usual = self.fleet.duration(machine, self.kind(sector), step);
        let now = self.now;
        let drawn = (0..30)
            .map(|_| start.saturating_add(self.drawn(usual)))
            .find(|ends| *ends > now);
        // It takes longer than any step known, so it may end at any time.
        let ends = drawn.unwrap_or(self.now.saturating_add(usual / 20 + 30));
        let row = &mut self.sectors[sector].row;
        match step {
            Step::P1 => row.e1 = ends,
            Step::P2 => row.e2 = ends,
            Step::C2 => row.e3 = ends,
        }
        ends
    }

    fn next_failure(&mut self, machine: MachineIx, from: Secs) {
        let Some(sampler) = &mut self.sampler else {
            return;
        };
        if sampler.failure_model.between_failures > 0 {
            let at = from.saturating_add(sampler.rng.wait(sampler.failure_model.between_failures));
            self.agenda.push(at, Event::Fail(machine));
        }
    }

    fn draw_gas(&mut self) {
        let Some(sampler) = &mut self.sampler else {
            return;
        };
        if sampler.failure_model.between_gas <= 0 {
            return;
        }
        let mut at = self.now;
        self.gas_blocked.retain(|(from, _)| *from <= at);
        for _ in 0..40 {
            let from = at.saturating_add(sampler.rng.wait(sampler.failure_model.between_gas));
            at = from.saturating_add(sampler.rng.wait(sampler.failure_model.gas) + 60);
            self.gas_blocked.push((from, at));
        }
    }

    pub(crate) fn fail_by_chance(&mut self, machine: MachineIx) {
        self.fail(machine);
        let up = self.machines[machine].dead_until;
        self.next_failure(machine, if up == SHUT { self.now } else { up });
    }

    /// Breaks a machine down. Its running work and its unstored sectors are lost. If it is down
    /// already, it stays down until the later repair is over. A machine that is kept out has
    /// nothing to lose.
    pub(crate) fn fail(&mut self, machine: MachineIx) {
        let dead_until = self.machines[machine].dead_until;
        if dead_until == SHUT {
            return;
        }
        let repaired = self.now.saturating_add(self.repair_time()).max(dead_until);
        self.machines[machine].dead_until = repaired;
        self.agenda.push(repaired, Event::Wake(machine));
        for sector in self.sectors.keys() {
            self.fail_sector(sector, machine);
        }
        self.machines[machine].waiting.clear();
    }

    fn repair_time(&mut self) -> Secs {
        self.sampler.as_mut().map_or(6 * HOUR, |sampler| {
            sampler.rng.wait(sampler.failure_model.repair).max(600)
        })
    }

    fn fail_sector(&mut self, sector: SectorIx, machine: MachineIx) {
        let Sector { state, row, .. } = self.sectors[sector];
        let touched = [row.m1, row.m2, row.m3, row.ms].contains(&machine);
        if touched
            && !matches!(state, State::Wait | State::Stored)
            && !self.fall_back(sector, machine)
        {
            self.lose_attempt(sector, machine);
        }
    }

    /// Has another machine repeat the work that `machine` did for a sector whose files lie
    /// elsewhere. False: they lie on `machine`.
    fn fall_back(&mut self, sector: SectorIx, machine: MachineIx) -> bool {
        let Sector { state, row, .. } = self.sectors[sector];
        let kind = &self.fleet.kinds[self.kind(sector)];
        match state {
            State::C2 if row.m3 == machine && row.m2 != machine => {
                self.give(machine, kind.c2, false);
                let row = &mut self.sectors[sector].row;
                (row.m3, row.s3, row.e3) = (MachineIx::NONE, -1, -1);
                self.want_c2(sector, true);
            }
            State::Moving if row.m2 == machine => {
                self.give_nics(row.m1, row.m2);
                self.give_scratch(machine, kind.scratch_full);
                self.machines[machine].bound -= 1;
                let row = &mut self.sectors[sector].row;
                (row.m2, row.xs, row.xe) = (MachineIx::NONE, -1, -1);
                self.have_layers(sector, true);
            }
            State::Active if row.ms == machine && row.m2 != machine => {
                self.give_nics(row.m2, row.ms);
                self.machines[machine].store += kind.stored;
                let row = &mut self.sectors[sector].row;
                (row.ms, row.ys, row.ye) = (MachineIx::NONE, -1, -1);
                self.pools[self.fleet.pool(machine)]
                    .to_store
                    .push_back(sector);
                self.list_free(machine);
            }
            _ => return false,
        }
        // The step's end event no longer counts.
        let attempt = &mut self.sectors[sector].attempt;
        *attempt = attempt.wrapping_add(1);
        true
    }
}
