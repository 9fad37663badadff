//! Facts that follow from the fleet and the policy alone.

use crate::{Durations, KindIx, MachineIx, Policy, Secs, model::fleet::Step, sim::world::World};

impl World<'_> {
    /// Derives everything that depends on the fleet alone.
    pub(crate) fn survey(&mut self) {
        let fleet = self.fleet;
        self.quickest = fleet
            .kinds
            .keys()
            .map(|kind| self.quickest_steps(kind))
            .collect();
        self.tails = fleet.kinds.keys().map(|kind| self.tail(kind)).collect();
        self.choice = (self.several(Step::P1), self.several(Step::C2));
        for pool in self.pools.iter_mut() {
            // By the first sector size: classes have the same order for all sizes.
            pool.gpu_machines
                .sort_by_key(|m| fleet.class(*m).durations.iter().next().map_or(0, |d| d.p2));
            for (place, machine) in (0..).zip(&pool.gpu_machines) {
                self.machines[*machine].gpu_place = place;
            }
        }
        self.share_gpus();
        self.measure_paces();
        self.set_policy(self.policy);
    }

    pub(crate) fn several(&self, step: Step) -> bool {
        let can = |m: &MachineIx| {
            self.fleet
                .class(*m)
                .durations
                .iter()
                .any(|d| d.of(step) > 0)
        };
        self.present()
            .filter(|m| can(m) && !self.fleet.machines[*m].drains)
            .nth(1)
            .is_some()
    }

    pub(crate) fn quickest_steps(&self, kind: KindIx) -> Durations {
        let least = |step| {
            self.present()
                .map(|m| self.fleet.duration(m, kind, step))
                .filter(|d| *d > 0)
                .min()
                .unwrap_or(0)
        };
        Durations {
            p1: least(Step::P1),
            p2: least(Step::P2),
            c2: least(Step::C2),
        }
    }

    /// Least seconds from the start of each step to activation.
    pub(crate) fn tail(&self, kind: KindIx) -> Durations {
        let (delays, quickest) = (self.fleet.delays, self.quickest[kind]);
        let layers = self
            .fleet
            .pools
            .iter()
            .filter_map(|p| p.moves[kind].map(|m| m.layers))
            .min()
            .unwrap_or(0);
        let c2 = quickest.c2 + delays.message;
        let p2 = quickest.p2 + delays.message + delays.seed + delays.c1 + c2;
        Durations {
            p1: quickest.p1 + layers + p2,
            p2,
            c2,
        }
    }

    /// Uses `policy` from now on.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
        self.ranked_until = Secs::MIN;
        self.mark_dirty();
        for pool in self.fleet.pools.keys() {
            self.pools[pool].most_wip = policy
                .gate
                .map_or(i32::MAX, |gate| self.most_wip(pool, gate));
        }
    }
}
