//! Keeps to the previous plan, so that an operator who looks again an hour later finds the same
//! plan, although steps took a little more or less time than usual.
//!
//! This costs nothing. No sector waits for its planned place, goes before a more urgent one, or
//! goes to a slower machine. The previous plan only decides which of a group's equal sectors fills
//! a slot, and which of equally fast machines a sector goes to.

use crate::{
    GroupIx, MachineIx, Secs, SectorIx, model::fleet::Step, model::previous_plan::PreviousPlan,
    model::sector::State, sim::world::World,
};

/// How many sectors of a machine's previous plan are searched for one of the right group.
const SEEN: usize = 256;

impl World<'_> {
    /// Sectors that begin within `seconds` if every step takes its usual time.
    #[must_use]
    pub fn begins_within(&self, seconds: Secs) -> PreviousPlan {
        let mut simulated = self.clone();
        simulated.expect_usual();
        simulated.run_until(self.now.saturating_add(seconds));
        let waiting = self
            .sectors
            .pairs()
            .filter(|(_, sector)| sector.state == State::Wait);
        let begins = waiting
            .filter_map(|(id, _)| {
                simulated
                    .sectors
                    .get(id)
                    .map(|sector| (sector.row.s1, id, sector.row.m1))
            })
            .filter(|(_, _, machine)| machine.is_some());
        PreviousPlan::of(self.fleet.machines.len(), begins.collect())
    }

    /// Keeps to the plan `drawing` from now on.
    pub fn keep_to(&mut self, drawing: PreviousPlan) {
        self.drawn = drawing;
    }

    /// A sector's machine in the previous plan, if it can begin there now and as fast as on `best`.
    pub(crate) fn planned_place(&mut self, sector: SectorIx, best: MachineIx) -> Option<MachineIx> {
        let machine = *self.drawn.places.get(&sector)?;
        let kind = self.kind(sector);
        let as_quick = self.fleet.duration(machine, kind, Step::P1)
            <= self.fleet.duration(best, kind, Step::P1);
        (as_quick && self.may_begin(sector, machine)).then_some(machine)
    }

    /// The sector of `group` that was planned on `machine`, if it can begin there.
    pub(crate) fn planned_on(&mut self, machine: MachineIx, group: GroupIx) -> Option<SectorIx> {
        self.drop_begun(machine)?;
        (0..self.drawn.queues[machine].len().min(SEEN)).find_map(|at| {
            let (_, sector) = *self.drawn.queues[machine].get(at)?;
            let waits = self
                .sectors
                .get(sector)
                .is_some_and(|s| s.state == State::Wait && s.group == group);
            (waits && self.may_begin(sector, machine)).then_some(sector)
        })
    }

    /// Drops sectors that have begun from the head of a machine's previous plan. `None`: no sector
    /// is left there.
    fn drop_begun(&mut self, machine: MachineIx) -> Option<()> {
        loop {
            let (_, first) = *self.drawn.queues.get(machine)?.front()?;
            if self
                .sectors
                .get(first)
                .is_some_and(|sector| sector.state == State::Wait)
            {
                return Some(());
            }
            self.drawn.queues[machine].pop_front();
        }
    }

    fn may_begin(&mut self, sector: SectorIx, machine: MachineIx) -> bool {
        let (group, avoid) = (self.sectors[sector].group, self.sectors[sector].avoid);
        let state = &self.groups[group];
        let (hint, order) = (state.hint, &self.orders[state.order]);
        let pool = order.pool.or(hint.only);
        let is_there =
            sector.0 < state.first + self.arrived(group, self.now) && order.known <= self.now;
        let here = pool.is_none_or(|pool| pool == self.fleet.pool(machine));
        let meant = hint.on.is_none_or(|on| on == machine) && (avoid != machine || !self.choice.0);
        is_there && here && meant && self.p1_fits(machine, self.kind(sector))
    }
}
