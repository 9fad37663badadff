//! Preferences of a pool's GPUs for PC2 or C2.

use crate::{
    MachineIx,
    model::fleet::Step,
    sim::pace::Pace,
    sim::world::{SHUT, World},
};

impl World<'_> {
    /// Prefers C2 on the GPUs that are relatively slowest at PC2, on as many as C2 needs to keep
    /// pace with PC2 on the others. The machine in between does both. If all are alike, there is no
    /// preference.
    pub(crate) fn share_gpus(&mut self) {
        let Some(kind) = self.fleet.kinds.keys().next() else {
            return;
        };
        for pool in self.fleet.pools.keys() {
            let mut gpus: Vec<(i64, MachineIx, Pace)> = Vec::new();
            for machine in self.pools[pool].gpu_machines.clone() {
                self.machines[machine].prefers = None;
                let pace = self.pace_of(machine, kind);
                if pace.p2 > 0 && pace.c2 > 0 && self.machines[machine].dead_until != SHUT {
                    gpus.push((pace.p2 * 1024 / pace.c2, machine, pace));
                }
            }
            gpus.sort_unstable_by_key(|(ratio, machine, _)| (*ratio, *machine));
            let (Some((least, ..)), Some((most, ..))) = (gpus.first(), gpus.last()) else {
                continue;
            };
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
                self.machines[machine].prefers = wanted;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Class, Durations, Key, Machine, Policy, PoolIx, Secs, fixture::fleet};

    /// Preferences of a pool's machines, given each one's number of GPUs and seconds of PC2 and C2.
    fn preferences(gpus: &[(i32, Secs, Secs)]) -> Vec<Option<Step>> {
        let mut fleet = fleet();
        let all = fleet.class(MachineIx::of(0)).clone();
        let classes = gpus.iter().map(|(gpus, p2, c2)| Class {
            gpus: *gpus,
            durations: [Durations {
                p1: 0,
                p2: *p2,
                c2: *c2,
            }]
            .into_iter()
            .collect(),
            ..all.clone()
        });
        fleet.classes = classes.collect();
        let machines = fleet.classes.keys().map(|class| Machine {
            pool: PoolIx::of(0),
            class,
            down: Vec::new(),
            drains: false,
        });
        fleet.machines = machines.collect();
        let world = World::new(&fleet, Policy::default());
        fleet
            .machines
            .keys()
            .map(|machine| world.machines[machine].prefers)
            .collect()
    }

    #[test]
    fn each_gpu_prefers_the_step_at_which_it_is_relatively_fast() {
        let (quick, slow) = ((2, 600, 420), (1, 780, 900));
        assert_eq!(
            preferences(&[slow, quick, slow]),
            [Some(Step::P2), None, Some(Step::P2)],
            "the quick one does all C2 and some PC2"
        );
        let few = preferences(&[quick, quick, quick, slow]);
        assert_eq!(
            few,
            [Some(Step::C2), None, Some(Step::P2), Some(Step::P2)],
            "PC2 needs some of the quick ones"
        );
        assert_eq!(preferences(&[slow, slow, slow]), [None; 3], "all alike");
        assert_eq!(
            preferences(&[slow, (1, 840, 960)]),
            [None; 2],
            "nearly alike"
        );
    }
}
