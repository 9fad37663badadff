//! Changes to a fleet while it is sealing: machines come, drain and break down. Running work stays
//! where it is; only work that has not begun is decided anew. Finished history may be forgotten.

use crate::{
    Fleet, Key, MachineIx, Need, SectorIx,
    model::sector::State,
    sim::world::{SHUT, World},
};

impl<'f> World<'f> {
    /// Continues with `fleet`: the old one with machines added at the end, or with other durations,
    /// moves, planned windows or draining machines. Cores, memory, GPUs and disks of existing
    /// machines stay as they were. The consequences are decided at the next [`World::step`].
    /// Calling [`crate::improve`] before it keeps new machines out of its plan only if they would
    /// do harm.
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

    /// Breaks a machine down: everything on it that is not stored is lost. It is back after a
    /// repair. The consequences are decided at the next [`World::step`].
    pub fn break_down(&mut self, machine: MachineIx) {
        self.fail(machine);
        self.pause_at(self.now);
    }

    /// Drops the sectors of the oldest orders, up to the first order that has a sector not yet
    /// stored, so that a world simulated for weeks carries no history. The outcome of those orders
    /// cannot be asked for any more.
    pub fn forget_stored(&mut self) {
        let over = |world: &Self, order| {
            world.sectors_of(order).all(|s| {
                world
                    .sectors
                    .get(s)
                    .is_none_or(|s| s.state == State::Stored)
            })
        };
        let first = self.orders.keys().find(|order| !over(self, *order));
        self.sectors
            .forget(first.map_or(SectorIx::of(self.sectors.len()), |order| {
                SectorIx(self.firsts[order])
            }));
    }

    /// Keeps idle newcomers out, or lets them in.
    pub(crate) fn shut_newcomers(&mut self, shut: bool) {
        for at in 0..self.newcomers.len() {
            let Some(machine) = self.newcomers.get(at).copied() else {
                break;
            };
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
        let Need {
            cores,
            memory,
            gpus,
        } = room.free;
        let all = (
            class.cores,
            class.memory,
            class.gpus,
            class.scratch,
            class.nic,
            class.store,
        );
        (cores, memory, gpus, room.scratch, room.nic, room.store) == all && room.bound == 0
    }
}
