//! Cores, memory, GPUs, disks and links of machines are taken and given back here. Also whether a
//! machine is up.

use crate::{
    KindIx, MachineIx, Secs,
    model::fleet::{Need, Step},
    sim::world::World,
};

impl World<'_> {
    pub(crate) fn list_free(&mut self, machine: MachineIx) {
        let room = &mut self.machines[machine];
        let pool = &mut self.pools[self.fleet.pool(machine)];
        pool.dirty = true;
        self.dirty = true;
        if room.can_p1 && !room.listed_p1 {
            room.listed_p1 = true;
            pool.free_p1.push(machine);
        }
        if room.can_gpu && !room.listed_gpu {
            room.listed_gpu = true;
            pool.free_gpu.push(machine);
        }
    }

    pub(crate) fn take(&mut self, machine: MachineIx, need: Need, is_p1: bool) {
        let room = &mut self.machines[machine];
        room.free.cores -= need.cores;
        room.free.memory -= need.memory;
        room.free.gpus -= need.gpus;
        if is_p1 {
            room.p1_cores -= need.cores;
            room.p1_memory -= need.memory;
        }
    }

    pub(crate) fn give(&mut self, machine: MachineIx, need: Need, is_p1: bool) {
        let back = Need {
            cores: -need.cores,
            memory: -need.memory,
            gpus: -need.gpus,
        };
        self.take(machine, back, is_p1);
        self.list_free(machine);
    }

    pub(crate) fn give_scratch(&mut self, machine: MachineIx, amount: i32) {
        self.machines[machine].scratch += amount;
        self.list_free(machine);
    }

    pub(crate) fn give_nics(&mut self, a: MachineIx, b: MachineIx) {
        for machine in [a, b] {
            self.machines[machine].nic += 1;
            self.list_free(machine);
        }
    }

    /// True when the machine is up now and no planned window begins within `seconds`.
    pub(crate) fn is_up_for(&mut self, machine: MachineIx, seconds: Secs) -> bool {
        let now = self.now;
        let room = &mut self.machines[machine];
        if room.dead_until > now {
            return false;
        }
        let down = &self.fleet.machines[machine].down;
        while down.get(room.next_down).is_some_and(|(_, to)| *to <= now) {
            room.next_down += 1;
        }
        down.get(room.next_down)
            .is_none_or(|(from, _)| *from >= now.saturating_add(seconds))
    }

    pub(crate) fn fits(&mut self, machine: MachineIx, need: Need, seconds: Secs) -> bool {
        let free = &self.machines[machine].free;
        free.cores >= need.cores
            && free.memory >= need.memory
            && free.gpus >= need.gpus
            && self.is_up_for(machine, seconds)
    }

    pub(crate) fn p1_fits(&mut self, machine: MachineIx, kind: KindIx) -> bool {
        let needs = &self.fleet.kinds[kind];
        let (cores, memory, scratch) = self.p1_room(machine);
        let seconds = self.p1_stay(machine, kind);
        let room =
            cores >= needs.p1.cores && memory >= needs.p1.memory && scratch >= needs.scratch_full;
        room && !self.fleet.machines[machine].drains
            && seconds > 0
            && self.is_up_for(machine, seconds)
    }

    /// Seconds of PC1, and of moving its layers to a GPU behind another sector's that end with it:
    /// layers that are still there when a window begins must wait until it ends. 0: not possible.
    pub(crate) fn p1_stay(&self, machine: MachineIx, kind: KindIx) -> Secs {
        match self.fleet.duration(machine, kind, Step::P1) {
            0 => 0,
            seconds => {
                seconds
                    + 2 * self.fleet.pools[self.fleet.pool(machine)].moves[kind]
                        .map_or(0, |moves| moves.layers)
            }
        }
    }

    /// Cores, memory and scratch that PC1 may take on a machine.
    pub(crate) fn p1_room(&self, machine: MachineIx) -> (i32, i32, i32) {
        let room = &self.machines[machine];
        let (mut cores, mut memory) = (room.free.cores, room.free.memory);
        if self.policy.reserve {
            cores = cores.min(room.p1_cores);
            memory = memory.min(room.p1_memory);
        }
        (cores, memory, room.scratch)
    }
}
