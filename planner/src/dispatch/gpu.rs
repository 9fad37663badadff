//! C2 and PC2 on free GPUs.

use crate::{
    MachineIx, PoolIx, SectorIx,
    model::{fleet::Step, policy::Urgency, sector::State, table::QueueIx},
    sim::{agenda::Ending, world::World},
};

/// Work for a GPU: a queue's oldest C2, either not on GPUs that prefer PC2 or on any, or a PC2 that
/// waits on one machine.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum GpuWork {
    C2(QueueIx),
    C2Anywhere(QueueIx),
    P2(SectorIx),
}

impl World<'_> {
    /// Starts C2 and PC2 on free GPUs, the most urgent first.
    pub(crate) fn gpu_pass(&mut self, pool: PoolIx) {
        if self.pools[pool].free_gpu.is_empty() {
            return;
        }
        let mut free = std::mem::take(&mut self.pools[pool].free_gpu);
        let now = self.now;
        free.retain(|machine| {
            let room = &mut self.machines[*machine];
            room.listed_gpu = room.free.gpus > 0 && room.dead_until <= now;
            room.listed_gpu
        });
        let mut work: Vec<(Urgency, GpuWork)> = Vec::new();
        if !free.is_empty() {
            let unwanted = free
                .iter()
                .any(|m| self.machines[*m].prefers == Some(Step::P2));
            self.rank_c2(pool, unwanted, &mut work);
            self.rank_p2(&free, &mut work);
            work.sort_unstable();
        }
        for (_, what) in work {
            if free.is_empty() {
                break;
            }
            match what {
                GpuWork::P2(sector) => self.try_p2(sector, &mut free),
                GpuWork::C2(queue) => while self.try_c2(queue, &mut free, true) {},
                GpuWork::C2Anywhere(queue) => while self.try_c2(queue, &mut free, false) {},
            }
        }
        // No machine was listed meanwhile, because starting a step releases nothing.
        self.pools[pool].free_gpu = free;
    }

    fn rank_p2(&self, free: &[MachineIx], work: &mut Vec<(Urgency, GpuWork)>) {
        for machine in free {
            let room = &self.machines[*machine];
            for sector in &room.waiting {
                let group = self.sectors[*sector].group;
                if self.groups[group].hint.hold_p2 > self.now {
                    continue;
                }
                let mut urgency = self.layers_urgency(group, *sector);
                if room.prefers == Some(Step::C2) {
                    urgency = self.on_wrong_gpu(urgency);
                }
                work.push((urgency, GpuWork::P2(*sector)));
            }
        }
    }

    fn rank_c2(&mut self, pool: PoolIx, unwanted: bool, work: &mut Vec<(Urgency, GpuWork)>) {
        let mut queues = std::mem::take(&mut self.pools[pool].c2);
        queues.retain(|queue| {
            let some = self.oldest(*queue, State::WaitC2).is_some();
            self.queues[*queue].listed_c2 = some;
            some
        });
        for queue in queues
            .iter()
            .filter(|queue| self.groups[self.queues[**queue].group].hint.hold_c2 <= self.now)
        {
            let urgency = self.urgency(self.queues[*queue].group, Step::C2);
            work.push((urgency, GpuWork::C2(*queue)));
            if unwanted {
                work.push((self.on_wrong_gpu(urgency), GpuWork::C2Anywhere(*queue)));
            }
        }
        self.pools[pool].c2 = queues;
    }

    fn drop_if_busy(&mut self, machine: MachineIx, free: &mut Vec<MachineIx>) {
        if self.machines[machine].free.gpus == 0 {
            self.machines[machine].listed_gpu = false;
            free.retain(|m| *m != machine);
        }
    }

    fn try_p2(&mut self, sector: SectorIx, free: &mut Vec<MachineIx>) {
        let machine = self.sectors[sector].row.m2;
        let kind = self.kind(sector);
        let (need, seconds) = (
            self.fleet.kinds[kind].p2,
            self.fleet.duration(machine, kind, Step::P2),
        );
        if !free.contains(&machine) || !self.fits(machine, need, seconds) {
            return;
        }
        self.take(machine, need, false);
        let ends = self.now + self.drawn(seconds);
        let state = &mut self.sectors[sector];
        state.state = State::P2;
        (state.row.s2, state.row.e2) = (self.now, ends);
        self.at_end(ends, Ending::P2, sector);
        let room = &mut self.machines[machine];
        room.waiting.retain(|s| *s != sector);
        room.bound -= 1;
        self.pools[self.fleet.pool(machine)].wip -= 1;
        self.drop_if_busy(machine, free);
    }

    fn try_c2(&mut self, queue: QueueIx, free: &mut Vec<MachineIx>, where_wanted: bool) -> bool {
        let Some(sector) = self.oldest(queue, State::WaitC2) else {
            return false;
        };
        let kind = self.kind(sector);
        let need = self.fleet.kinds[kind].c2;
        let avoid = if self.choice.1 {
            self.sectors[sector].avoid
        } else {
            MachineIx::NONE
        };
        let mut best = None;
        for machine in free.iter().copied().filter(|m| *m != avoid) {
            if self.fleet.machines[machine].drains
                || (where_wanted && self.machines[machine].prefers == Some(Step::P2))
            {
                continue;
            }
            let seconds = self.fleet.duration(machine, kind, Step::C2);
            let rank = (seconds, self.machines[machine].waiting.len(), machine);
            if seconds > 0 && best.is_none_or(|b| rank < b) && self.fits(machine, need, seconds) {
                best = Some(rank);
                if rank.0 <= self.quickest[kind].c2 && rank.1 == 0 {
                    break;
                }
            }
        }
        let Some((seconds, _, machine)) = best else {
            return false;
        };
        self.take(machine, need, false);
        let ends = self.now + self.drawn(seconds);
        let state = &mut self.sectors[sector];
        state.state = State::C2;
        (state.row.m3, state.row.s3, state.row.e3) = (machine, self.now, ends);
        self.at_end(ends, Ending::C2, sector);
        self.queues[queue].c2.pop_front();
        self.drop_if_busy(machine, free);
        !free.is_empty()
    }
}
