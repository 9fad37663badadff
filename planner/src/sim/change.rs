//! Changes of a fleet while it seals: machines come, drain and break down. What runs goes on where it is; only what has
//! not begun is decided anew. And what is over may be forgotten.

use crate::{
    Fleet, Key, MachineIx, Need, SectorIx,
    model::sector::State,
    sim::world::{SHUT, World},
};

impl<'f> World<'f> {
    /// Goes on with `fleet`: the old one with more machines behind, or with other durations, store-keeping, planned windows or
    /// draining machines. Cores, memory, GPUs and disks of the machines that were there
    /// stay as they were. What follows from that is decided at the next [`World::step`]; a [`crate::improve`] before it keeps new
    /// machines out of its plan only if they would do harm.
    pub fn change_fleet(&mut self, fleet: &'f Fleet) {
        let known = self.machines.len();
        self.fleet = fleet;
        for machine in fleet.machines.keys() {
            if machine.at() >= known {
                self.add_machine(machine);
                self.newcomers.push(machine);
                continue;
            }
            self.machines[machine].next_down = 0;
            self.wake_after_windows(machine);
        }
        self.survey();
        self.pause_at(self.now);
    }

    /// The machine is lost with everything on it that is not stored; it is back after a repair. What follows from that is decided
    /// at the next [`World::step`].
    pub fn break_down(&mut self, machine: MachineIx) {
        self.fail(machine);
        self.pause_at(self.now);
    }

    /// Drops the sectors of the oldest orders that are stored, all of them: a world that is played on for weeks carries no history.
    /// The outcome of those orders can no longer be asked for.
    pub fn forget_stored(&mut self) {
        let over =
            |world: &Self, order| world.sectors_of(order).all(|s| world.sectors.get(s).is_none_or(|s| s.state == State::Stored));
        let first = self.orders.keys().find(|order| !over(self, *order));
        self.sectors.forget(first.map_or(SectorIx::of(self.sectors.len()), |order| SectorIx(self.firsts[order])));
    }

    /// Keeps newcomers that nothing has begun on out, or lets them in.
    pub(crate) fn shut_newcomers(&mut self, shut: bool) {
        for at in 0..self.newcomers.len() {
            let Some(machine) = self.newcomers.get(at).copied() else { break };
            let is_shut = self.machines[machine].dead_until == SHUT;
            if shut && self.is_idle(machine) {
                self.machines[machine].dead_until = SHUT;
            } else if !shut && is_shut {
                self.machines[machine].dead_until = self.now;
                self.list_free(machine);
            }
        }
        if !self.newcomers.is_empty() {
            self.survey();
        }
    }

    fn is_idle(&self, machine: MachineIx) -> bool {
        let (room, class) = (&self.machines[machine], self.fleet.class(machine));
        let Need { cores, memory, gpus } = room.free;
        let all = (class.cores, class.memory, class.gpus, class.scratch, class.nic, class.store);
        (cores, memory, gpus, room.scratch, room.nic, room.store) == all && room.bound == 0
    }
}
