//! What is better done where. How long each pool needs for what is bound to it: there, orders for any pool give way. Which GPUs
//! are better used for PC2, and which for C2.

use super::{
    Durations, KindIx, MachineIx, PoolIx, Secs, Table,
    fleet::Step,
    world::{SHUT, World},
};

/// What a pool's machines can do of a sector size, in sectors per [`Pace::SPAN`] seconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pace {
    pub p1: i64,
    /// PC2 and C2.
    pub gpu: i64,
    /// PC2 alone, and C2 alone.
    pub p2: i64,
    pub c2: i64,
}

impl Pace {
    const SPAN: i64 = 1 << 20;

    const fn seconds(n: i64, pace: i64) -> i64 {
        n.saturating_mul(Self::SPAN) / if pace > 0 { pace } else { 1 }
    }
}

impl World<'_> {
    /// GPU work of a pool, in sectors, during one PC1 and the gate.
    pub(super) fn most_wip(&self, pool: PoolIx, gate: Secs) -> i32 {
        let Some(kind) = self.fleet.kinds.keys().next() else { return i32::MAX };
        let (mut gpu, mut p1) = (0, 0);
        for machine in self.present().filter(|m| self.fleet.pool(*m) == pool) {
            gpu += self.pace_of(machine, kind).gpu;
            p1 = p1.max(self.fleet.duration(machine, kind, Step::P1));
        }
        i32::try_from(gpu * i64::from(p1 + gate) / Pace::SPAN + 2).unwrap_or(i32::MAX)
    }

    fn pace_of(&self, machine: MachineIx, kind: KindIx) -> Pace {
        let class = self.fleet.class(machine);
        let Durations { p1, p2, c2 } = class.durations[kind];
        let slots = self.fleet.kinds[kind].p1_slots(class.cores, class.memory, class.scratch);
        let pace = |units: i32, seconds: Secs| if seconds > 0 { Pace::SPAN * i64::from(units) / i64::from(seconds) } else { 0 };
        Pace { p1: pace(slots, p1), gpu: pace(class.gpus, p2 + c2), p2: pace(class.gpus, p2), c2: pace(class.gpus, c2) }
    }

    /// Which GPUs of a pool are better used for C2: those that need relatively longest for PC2, as many as it takes for C2 to keep
    /// pace with PC2 on the others. The machine in between does both, and where all are alike there is nothing to prefer.
    pub(super) fn share_gpus(&mut self) {
        let Some(kind) = self.fleet.kinds.keys().next() else { return };
        for pool in self.fleet.pools.keys() {
            let mut gpus: Vec<(i64, MachineIx, Pace)> = Vec::new();
            for machine in self.pools[pool].gpu_machines.clone() {
                self.rooms[machine].prefers = None;
                let pace = self.pace_of(machine, kind);
                if pace.p2 > 0 && pace.c2 > 0 && self.rooms[machine].dead_until != SHUT {
                    gpus.push((pace.p2 * 1024 / pace.c2, machine, pace));
                }
            }
            gpus.sort_unstable_by_key(|(ratio, machine, _)| (*ratio, *machine));
            let (Some((least, ..)), Some((most, ..))) = (gpus.first(), gpus.last()) else { continue };
            if most - least < least / 8 {
                continue;
            }
            let (mut c2, mut p2) = (0, gpus.iter().map(|(.., pace)| pace.p2).sum::<i64>());
            let mut wanted = Some(Step::C2);
            for (_, machine, pace) in gpus {
                p2 -= pace.p2;
                if wanted == Some(Step::C2) && c2 + pace.c2 > p2 {
                    wanted = None;
                } else if wanted.is_none() {
                    wanted = Some(Step::P2);
                }
                c2 += pace.c2;
                self.rooms[machine].prefers = wanted;
            }
        }
    }

    pub(super) fn measure_paces(&mut self) {
        if self.pools.len() < 2 {
            return;
        }
        let none: Table<KindIx, Pace> = self.fleet.kinds.iter().map(|_| Pace::default()).collect();
        let mut all: Table<PoolIx, Table<KindIx, Pace>> = self.fleet.pools.iter().map(|_| none.clone()).collect();
        for machine in self.present() {
            for (kind, pace) in self.fleet.kinds.keys().zip(all[self.fleet.pool(machine)].iter_mut()) {
                let more = self.pace_of(machine, kind);
                *pace = Pace { p1: pace.p1 + more.p1, gpu: pace.gpu + more.gpu, p2: pace.p2 + more.p2, c2: pace.c2 + more.c2 };
            }
        }
        for (state, paces) in self.pools.iter_mut().zip(all.iter()) {
            state.paces.clone_from(paces);
        }
    }

    /// How much longer than another each pool needs, at the scarcer of PC1 and GPUs, for what has begun there and what can go
    /// nowhere else. What has begun counts as of the first sector size.
    pub(super) fn measure_drains(&mut self) {
        let mut work: Table<PoolIx, (i64, i64)> = Table::new();
        for state in self.pools.iter() {
            let proving: usize = state.c2.iter().map(|lane| self.lanes[*lane].c2.len()).sum();
            let pace = state.paces.iter().next().copied().unwrap_or_default();
            let proving = Pace::seconds(i64::try_from(proving).unwrap_or(i64::MAX), pace.c2);
            work.push((0, Pace::seconds(i64::from(state.wip), pace.gpu).saturating_add(proving)));
        }
        for group in &self.ready {
            let state = &self.groups[*group];
            let order = &self.orders[state.order];
            let Some(pool) = order.pool else { continue };
            let waiting = i64::from(state.n - state.begun) + i64::try_from(state.again.len()).unwrap_or(0);
            let pace = self.pools[pool].paces[order.kind];
            let (p1, gpu) = &mut work[pool];
            *p1 = p1.saturating_add(Pace::seconds(waiting, pace.p1));
            *gpu = gpu.saturating_add(Pace::seconds(waiting, pace.gpu));
        }
        let drains: Table<PoolIx, i64> = work.iter().map(|(p1, gpu)| *p1.max(gpu)).collect();
        let at_work: Vec<PoolIx> = drains.keys().filter(|pool| self.is_at_work(*pool)).collect();
        for state in self.pools.iter_mut() {
            state.longer.clear();
        }
        for kind in self.fleet.kinds.keys() {
            let can = |pool: &&PoolIx| self.pools[**pool].paces.get(kind).is_some_and(|pace| pace.p1 > 0 && pace.gpu > 0);
            let least = at_work.iter().filter(can).map(|pool| drains[*pool]).min();
            for (pool, drain) in drains.pairs() {
                self.pools[pool].longer.push(least.map_or(0, |least| (drain - least).max(0)));
            }
        }
    }

    /// Some machine for PC1 and some with GPUs are up.
    fn is_at_work(&self, pool: PoolIx) -> bool {
        let is_up = |machine: MachineIx| {
            let windows = &self.fleet.machines[machine].down;
            self.rooms[machine].dead_until <= self.now && !windows.iter().any(|(from, to)| (*from..*to).contains(&self.now))
        };
        let mut there = self.fleet.machines.keys().filter(|m| self.fleet.pool(*m) == pool);
        there.any(|m| self.rooms[m].can_p1 && is_up(m)) && self.pools[pool].gpu_machines.iter().any(|m| is_up(*m))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::super::{
        fleet::{Class, Delays, Fleet, Kind, Machine, Moves, Need, Order, Pool},
        policy::Policy,
        table::{ClassIx, Key},
    };
    use super::*;

    const HOUR: Secs = 3600;

    /// Two pools with one machine that does everything each; the second is down until then.
    pub(in super::super) fn fleet(second_down: Secs) -> Fleet {
        let need = |cores, gpus| Need { cores, memory: 64, gpus };
        let kind = Kind { p1: need(4, 0), p2: need(8, 1), c2: need(8, 1), scratch_full: 480, scratch_keep: 48, stored: 34 };
        let class = Class {
            name: "all".into(),
            cores: 40,
            memory: 1024,
            gpus: 1,
            scratch: 5000,
            store: 100_000,
            nic: 2,
            durations: [Durations { p1: 4 * HOUR, p2: 900, c2: 900 }].into_iter().collect(),
        };
        let machine = |pool, down| Machine { pool: PoolIx::of(pool), class: ClassIx::of(0), down };
        let pool = || Pool { moves: [Some(Moves { layers: 360, sealed: 60 })].into_iter().collect() };
        Fleet {
            delays: Delays { message: 120, seed: 4500, c1: 60, ticket: 86_400, prove: 30 * 86_400 },
            kinds: [kind].into_iter().collect(),
            pools: [pool(), pool()].into_iter().collect(),
            classes: [class].into_iter().collect(),
            machines: [machine(0, Vec::new()), machine(1, vec![(0, second_down)])].into_iter().collect(),
            ..Fleet::default()
        }
    }

    /// Sectors of an order for any pool that went to each, beside as many that can only go to the first.
    fn parts(second_down: Secs, due: Secs) -> [usize; 2] {
        let fleet = fleet(second_down);
        let mut world = World::new(&fleet, Policy::default());
        let order = |pool: Option<usize>, due| Order {
            id: 0,
            pool: pool.map(PoolIx::of),
            kind: KindIx::of(0),
            n: 30,
            release: 0,
            step: 0,
            due,
            weight: 1,
            known: 0,
        };
        world.add_order(order(Some(0), 200 * HOUR));
        let any = world.add_order(order(None, due));
        assert!(world.run());
        let in_first = world.sectors_of(any).filter(|s| fleet.pool(world.sectors[*s].row.m1) == PoolIx::of(0)).count();
        [in_first, 30 - in_first]
    }

    #[test]
    fn what_can_go_anywhere_gives_way_to_what_is_bound_unless_that_makes_it_late() {
        assert_eq!(
            parts(0, 199 * HOUR),
            [0, 30],
            "though due a little earlier: the first pool has enough to do with what is bound to it"
        );
        let [in_first, in_second] = parts(0, HOUR);
        assert!(in_first >= 8 && in_second >= 8, "what is late goes first in both: {in_first} and {in_second}");
        assert_eq!(parts(500 * HOUR, 200 * HOUR), [30, 0], "a pool that is down has nothing to do, but is no place to wait for");
    }

    /// What the machines of a pool with GPUs of these times (number of GPUs, seconds of PC2, of C2) are better used for.
    fn preferences(gpus: &[(i32, Secs, Secs)]) -> Vec<Option<Step>> {
        let mut fleet = fleet(0);
        let all = fleet.class(MachineIx::of(0)).clone();
        let classes = gpus.iter().map(|(gpus, p2, c2)| Class {
            gpus: *gpus,
            durations: [Durations { p1: 0, p2: *p2, c2: *c2 }].into_iter().collect(),
            ..all.clone()
        });
        fleet.classes = classes.collect();
        let machines = fleet.classes.keys().map(|class| Machine { pool: PoolIx::of(0), class, down: Vec::new() });
        fleet.machines = machines.collect();
        let world = World::new(&fleet, Policy::default());
        fleet.machines.keys().map(|machine| world.rooms[machine].prefers).collect()
    }

    #[test]
    fn gpus_do_what_they_are_relatively_quick_at() {
        let (quick, slow) = ((2, 600, 420), (1, 780, 900));
        assert_eq!(
            preferences(&[slow, quick, slow]),
            [Some(Step::P2), None, Some(Step::P2)],
            "the quick one does all C2 and some PC2"
        );
        let few = preferences(&[quick, quick, quick, slow]);
        assert_eq!(few, [Some(Step::C2), None, Some(Step::P2), Some(Step::P2)], "PC2 needs some of the quick ones");
        assert_eq!(preferences(&[slow, slow, slow]), [None; 3], "all alike");
        assert_eq!(preferences(&[slow, (1, 840, 960)]), [None; 2], "nearly alike");
    }
}
