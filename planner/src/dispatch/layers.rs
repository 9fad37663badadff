//! Moves layers to GPUs.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, binary_heap::PeekMut},
};

use crate::{
    KindIx, MachineIx, PoolIx, Secs, SectorIx,
    model::fleet::Step,
    model::policy::Urgency,
    model::sector::State,
    model::table::{Key, QueueIx},
    sim::passes::{Moving, Target},
    sim::world::World,
};

/// How many layers of one queue may find no machine (all are busy or closed) before the pass leaves
/// the rest of the queue.
const STUCK: usize = 200;

impl World<'_> {
    /// Binds layers to GPU machines, as late as possible: at most two for each GPU are on their way
    /// or waiting. Returns whether any were bound.
    pub(crate) fn move_pass(&mut self, pool: PoolIx) -> bool {
        let mut pass = std::mem::take(&mut self.moving);
        pass.open = self.pools[pool]
            .gpu_machines
            .iter()
            .filter(|m| self.is_target(**m))
            .count();
        let moved = pass.open > 0 && self.move_queues(pool, &mut pass);
        pass.of_kind.clear();
        self.moving = pass;
        moved
    }

    fn is_target(&self, machine: MachineIx) -> bool {
        let room = &self.machines[machine];
        room.bound < 2 * room.gpus && room.dead_until <= self.now
    }

    fn move_queues(&mut self, pool: PoolIx, pass: &mut Moving) -> bool {
        let mut queues = std::mem::take(&mut self.pools[pool].layers);
        let mut ranked: Vec<(Urgency, QueueIx)> = Vec::with_capacity(queues.len());
        queues.retain(|queue| {
            let oldest = self.oldest(*queue, State::Layers);
            ranked.extend(
                oldest.map(|s| (self.layers_urgency(self.queues[*queue].group, s), *queue)),
            );
            self.queues[*queue].listed_layers = oldest.is_some();
            oldest.is_some()
        });
        self.pools[pool].layers = queues;
        ranked.sort_unstable();
        let mut moved = false;
        for (_, queue) in ranked {
            moved |= self.move_queue(queue, pass);
            if pass.open == 0 {
                break;
            }
        }
        moved
    }

    fn move_queue(&mut self, queue: QueueIx, pass: &mut Moving) -> bool {
        let mut layers = std::mem::take(&mut self.queues[queue].layers);
        let mut stuck: Vec<SectorIx> = Vec::new();
        let mut moved = false;
        while let Some(sector) = layers.pop_front() {
            if self.sectors[sector].state != State::Layers {
                continue;
            }
            match self.best_target(sector, pass) {
                Some(machine) => {
                    self.bind(sector, machine);
                    moved = true;
                    pass.open -= usize::from(!self.is_target(machine));
                    if pass.open == 0 {
                        break;
                    }
                }
                None => {
                    stuck.push(sector);
                    if stuck.len() > STUCK {
                        break;
                    }
                }
            }
        }
        for sector in stuck.into_iter().rev() {
            layers.push_front(sector);
        }
        self.queues[queue].layers = layers;
        moved
    }

    /// The machine where PC2 would end first, counting the layers that are bound there.
    fn best_target(&mut self, sector: SectorIx, pass: &mut Moving) -> Option<MachineIx> {
        let kind = self.kind(sector);
        let from = self.sectors[sector].row.m1;
        let moves = self.fleet.pools[self.fleet.pool(from)].moves[kind];
        let near = (self.machines[from].can_gpu && self.is_target(from))
            .then(|| self.target(from, kind))
            .flatten();
        let lies_still = self.sectors[sector].still_until > self.now;
        let can_leave = moves.filter(|m| {
            !lies_still && self.machines[from].nic > 0 && self.is_up_for(from, m.layers)
        });
        let Some(moves) = can_leave else {
            return near.map(|(.., machine)| machine);
        };
        let far = self.best_far(from, kind, moves.layers, pass);
        // Of two equally good machines, the one that comes first in the pool.
        [near, far]
            .into_iter()
            .flatten()
            .min()
            .map(|(.., machine)| machine)
    }

    fn best_far(
        &mut self,
        from: MachineIx,
        kind: KindIx,
        seconds: Secs,
        pass: &mut Moving,
    ) -> Option<Target> {
        let full = self.fleet.kinds[kind].scratch_full;
        if pass.of_kind.is_empty() {
            pass.of_kind.resize_with(self.fleet.kinds.len(), || None);
        }
        let targets = pass.of_kind.get_mut(kind.at())?;
        let targets = targets.get_or_insert_with(|| self.targets(self.fleet.pool(from), kind));
        let mut own = None;
        let mut found = None;
        while let Some(mut top) = targets.peek_mut() {
            let Reverse(target) = *top;
            let (ends, place, machine) = target;
            let room = &self.machines[machine];
            let is_open = room.nic > 0 && room.scratch >= full && self.is_target(machine);
            match self.target(machine, kind) {
                Some(_) if machine == from => own = Some(PeekMut::pop(top)),
                Some(now) if is_open && now != target => *top = Reverse(now),
                Some(_) if is_open && self.is_up_for(machine, seconds) => {
                    found = Some((ends + seconds, place, machine));
                    break;
                }
                // No capacity is released during the pass, so a machine without any can be dropped.
                _ => _ = PeekMut::pop(top),
            }
        }
        targets.extend(own);
        found
    }

    fn targets(&self, pool: PoolIx, kind: KindIx) -> BinaryHeap<Reverse<Target>> {
        let takes = |m: &&MachineIx| self.is_target(**m) && !self.fleet.machines[**m].drains;
        let open = self.pools[pool].gpu_machines.iter().filter(takes);
        open.filter_map(|m| self.target(*m, kind))
            .map(Reverse)
            .collect()
    }

    fn target(&self, machine: MachineIx, kind: KindIx) -> Option<Target> {
        let room = &self.machines[machine];
        let seconds = self.fleet.duration(machine, kind, Step::P2);
        let before = (room.bound + room.gpus - room.free.gpus).max(0);
        // A GPU that is better at C2 counts as half a PC2 slower.
        let unwanted = if room.prefers == Some(Step::C2) {
            seconds / 2
        } else {
            0
        };
        let ends = seconds + before.saturating_mul(seconds) / room.gpus.max(1) + unwanted;
        (seconds > 0).then_some((ends, room.gpu_place, machine))
    }
}
