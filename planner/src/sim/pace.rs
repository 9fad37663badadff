//! Throughput of machines.

use crate::{
    Durations, KindIx, MachineIx, PoolIx, Secs, Table, model::fleet::Step, sim::world::World,
};

/// Throughput of machines for one sector size, in sectors per [`SPAN`] seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Pace {
    pub p1: i64,
    /// PC2 and C2 together.
    pub both: i64,
    /// PC2 alone, and C2 alone.
    pub p2: i64,
    pub c2: i64,
}

impl Pace {
    pub fn add(&mut self, more: Self) {
        self.p1 += more.p1;
        self.both += more.both;
        self.p2 += more.p2;
        self.c2 += more.c2;
    }
}

pub(crate) const SPAN: i64 = 1 << 20;

impl World<'_> {
    pub(crate) fn pace_of(&self, machine: MachineIx, kind: KindIx) -> Pace {
        let class = self.fleet.class(machine);
        let Durations { p1, p2, c2 } = class.durations[kind];
        let slots = self.fleet.kinds[kind].p1_slots(class.cores, class.memory, class.scratch);
        let pace = |units: i32, seconds: Secs| {
            if seconds > 0 {
                SPAN * i64::from(units) / i64::from(seconds)
            } else {
                0
            }
        };
        Pace {
            p1: pace(slots, p1),
            both: pace(class.gpus, p2 + c2),
            p2: pace(class.gpus, p2),
            c2: pace(class.gpus, c2),
        }
    }

    /// Measures the throughput of each pool.
    pub(crate) fn measure_paces(&mut self) {
        let mut all: Table<PoolIx, Table<KindIx, Pace>> =
            self.fleet.pools.iter().map(|_| self.by_kind()).collect();
        for machine in self.present() {
            for (kind, pace) in self
                .fleet
                .kinds
                .keys()
                .zip(all[self.fleet.pool(machine)].iter_mut())
            {
                pace.add(self.pace_of(machine, kind));
            }
        }
        self.pools
            .iter_mut()
            .zip(all.iter())
            .for_each(|(state, paces)| state.paces.clone_from(paces));
    }

    /// How many sectors a pool's GPUs can do during one PC1 and the gate.
    pub(crate) fn most_wip(&self, pool: PoolIx, gate: Secs) -> i32 {
        let Some(kind) = self.fleet.kinds.keys().next() else {
            return i32::MAX;
        };
        let there = self.present().filter(|m| self.fleet.pool(*m) == pool);
        let p1 = there
            .map(|m| self.fleet.duration(m, kind, Step::P1))
            .max()
            .unwrap_or(0);
        i32::try_from(self.pools[pool].paces[kind].both * i64::from(p1 + gate) / SPAN + 2)
            .unwrap_or(i32::MAX)
    }

    /// Time that all GPUs of a pool together need for a sector; in [`SPAN`]ths of a second.
    fn gpu_share(&self, pool: PoolIx, kind: KindIx) -> i64 {
        match self.pools[pool].paces[kind].both {
            0 => 0,
            pace => SPAN * SPAN / pace,
        }
    }

    pub(crate) fn moment(&self) -> i64 {
        i64::from(self.now) * SPAN
    }

    /// Counts a PC1 that begins in a pool.
    pub(crate) fn count_begun(&mut self, pool: PoolIx, kind: KindIx) {
        let (now, share) = (self.moment(), self.gpu_share(pool, kind));
        let state = &mut self.pools[pool];
        state.wip += 1;
        state.fed_until = state.fed_until.max(now) + share;
    }

    /// Takes back a sector that is lost before PC2.
    pub(crate) fn count_lost(&mut self, pool: PoolIx, kind: KindIx) {
        let share = self.gpu_share(pool, kind);
        let state = &mut self.pools[pool];
        state.wip -= 1;
        state.fed_until -= share;
    }
}
