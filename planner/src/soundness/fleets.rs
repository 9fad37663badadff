//! Random fleets, orders, failures and policies.

use std::sync::Arc;

use crate::{
    DAY, HOUR,
    model::failure::{FailureModel, Rng, StepFailures, log_normal},
    model::fleet::{
        Class, Delays, Durations, Fleet, Kind, Machine, Moves, Need, Order, Pool, Step,
    },
    model::policy::{Policy, Rule},
    model::table::{ClassIx, Key, KindIx, MachineIx, PoolIx},
    sim::world::World,
};

pub(super) fn between(rng: &mut Rng, from: i32, to: i32) -> i32 {
    from + i32::try_from(rng.below(usize::try_from(to - from + 1).unwrap())).unwrap()
}

/// Two sizes; one or two pools.
pub(super) fn fleet(rng: &mut Rng) -> Fleet {
    let mut fleet = Fleet {
        delays: Delays {
            message: 120,
            seed: 4500,
            c1: 60,
            ticket: 113_400,
            prove: 30 * DAY,
        },
        kinds: [kind(1), kind(2)].into_iter().collect(),
        ..Fleet::default()
    };
    let sealed = (rng.below(3) > 0).then_some(300);
    let moves = (rng.below(4) > 0).then_some(Moves {
        layers: 1200,
        sealed,
    });
    for _ in 0..=rng.below(2) {
        add_pool(rng, &mut fleet, moves);
    }
    fleet
}

fn kind(scale: i32) -> Kind {
    Kind {
        p1: Need {
            cores: 4,
            memory: 64 * scale,
            gpus: 0,
        },
        p2: Need {
            cores: 6,
            memory: 16 * scale,
            gpus: 1,
        },
        c2: Need {
            cores: 6,
            memory: 150,
            gpus: 1,
        },
        scratch_full: 500 * scale,
        scratch_keep: 33 * scale,
        stored: 33 * scale,
    }
}

/// One to three PC1 machines with little scratch, and one to three machines with GPUs. When both
/// kinds fill up, layers on one can wait for space on the other.
fn add_pool(rng: &mut Rng, fleet: &mut Fleet, moves: Option<Moves>) {
    let pool = fleet.pools.push(Pool {
        moves: fleet.kinds.iter().map(|_| moves).collect(),
    });
    for _ in 0..=rng.below(3) {
        let class = class(rng, moves.is_none());
        add_machine(rng, fleet, pool, class);
    }
    for _ in 0..=rng.below(3) {
        let class = gpu_class(rng, moves.is_none_or(|moves| moves.sealed.is_none()));
        add_machine(rng, fleet, pool, class);
    }
}

fn class(rng: &mut Rng, with_gpu: bool) -> Class {
    let gpus = if with_gpu { 1 } else { 0 };
    let p1 = between(rng, 2, 5) * HOUR;
    let (p2, c2) = if with_gpu { (900, 1200) } else { (0, 0) };
    let of = |scale: i32| Durations {
        p1: p1 * scale,
        p2: p2 * scale,
        c2: c2 * scale,
    };
    Class {
        name: "pc1".into(),
        cores: between(rng, 8, 40),
        memory: between(rng, 300, 1000),
        gpus,
        // Sealed sectors stay where nothing can be moved.
        scratch: between(rng, 1000, 4000) + if with_gpu { 100_000 } else { 0 },
        store: 1_000_000,
        nic: between(rng, 1, 2),
        durations: [of(1), of(2)].into_iter().collect(),
    }
}

fn gpu_class(rng: &mut Rng, alone: bool) -> Class {
    let p1 = if rng.below(3) == 0 { 4 * HOUR } else { 0 };
    let of = |scale: i32| Durations {
        p1: p1 * scale,
        p2: 900 * scale,
        c2: 1200 * scale,
    };
    Class {
        name: "gpu".into(),
        cores: between(rng, 12, 24),
        memory: between(rng, 200, 400),
        gpus: between(rng, 1, 2),
        scratch: between(rng, 1000, 2200) + if alone { 100_000 } else { 0 },
        store: 1_000_000,
        nic: between(rng, 1, 2),
        durations: [of(1), of(2)].into_iter().collect(),
    }
}

fn add_machine(rng: &mut Rng, fleet: &mut Fleet, pool: PoolIx, class: Class) {
    let class: ClassIx = fleet.classes.push(class);
    let from = between(rng, 0, 5) * DAY;
    let down = if rng.below(4) == 0 {
        vec![(from, from + between(rng, 1, 30) * HOUR)]
    } else {
        Vec::new()
    };
    fleet.machines.push(Machine {
        pool,
        class,
        down,
        drains: false,
    });
}

pub(super) fn order(rng: &mut Rng, fleet: &Fleet, now: i32) -> Order {
    let release = now + between(rng, 0, 12) * HOUR;
    Order {
        id: 0,
        pool: (rng.below(3) > 0).then(|| PoolIx::of(rng.below(fleet.pools.len()))),
        kind: KindIx::of(rng.below(2)),
        n: u32::try_from(between(rng, 1, 25)).unwrap(),
        release,
        step: between(rng, 0, 1) * 600,
        due: release + between(rng, 0, 6) * DAY,
        weight: i64::from(between(rng, 1, 8)),
        known: now,
    }
}

pub(super) fn failure_model(rng: &mut Rng) -> Arc<FailureModel> {
    let between_failures = between(rng, 1, 20) * DAY;
    let step_failures = StepFailures {
        p1: between(rng, 0, 60),
        p2: between(rng, 0, 60),
        c2: between(rng, 0, 60),
    };
    Arc::new(FailureModel {
        spread: log_normal(250),
        between_failures,
        step_failures,
        ..FailureModel::default()
    })
}

pub(super) fn policy(rng: &mut Rng) -> Policy {
    let rule = [Rule::Fifo, Rule::Edd, Rule::Wmdd, Rule::Atc][rng.below(4)];
    let gate = (rng.below(2) == 0).then_some(2 * HOUR);
    let burst = (rng.below(2) == 0).then_some(HOUR);
    Policy {
        rule,
        gate,
        burst,
        spread: rng.below(2) == 0,
        reserve: rng.below(2) == 0,
        ..Policy::default()
    }
}

/// Whether every pool that the order may go to can do all of its steps in an empty fleet.
pub(super) fn can_be_sealed(fleet: &Fleet, order: &Order) -> bool {
    fleet
        .pools
        .keys()
        .filter(|pool| order.pool.is_none_or(|only| only == *pool))
        .all(|pool| can_be_sealed_in(fleet, pool, order.kind))
}

fn can_be_sealed_in(fleet: &Fleet, pool: PoolIx, kind: KindIx) -> bool {
    let here = || {
        let all = fleet.machines.keys();
        all.filter(move |m| fleet.pool(*m) == pool)
    };
    let needs = &fleet.kinds[kind];
    let fits = |m: MachineIx, step: Step| {
        let (class, need) = (fleet.class(m), needs.need(step));
        fleet.duration(m, kind, step) > 0
            && class.cores >= need.cores
            && class.memory >= need.memory
            && class.gpus >= need.gpus
            && (step == Step::C2 || class.scratch >= needs.scratch_full)
    };
    let p2 = |m: MachineIx| fits(m, Step::P2);
    let moves = fleet.pools[pool].moves[kind].is_some();
    here().any(|m| fits(m, Step::C2))
        && here().any(|m| fits(m, Step::P1))
        && here()
            .filter(|m| fits(*m, Step::P1))
            .all(|m| p2(m) || (moves && here().any(p2)))
}

/// One fleet over time: machines come, start and stop draining, get faster and slower, and get
/// planned windows. In the end none drains.
pub(super) fn versions(rng: &mut Rng) -> Vec<Fleet> {
    let mut versions = vec![fleet(rng)];
    for _ in 0..between(rng, 2, 8) {
        let mut next = versions[versions.len() - 1].clone();
        let one = MachineIx::of(rng.below(next.machines.len()));
        match rng.below(5) {
            0 => drop(next.machines.push(next.machines[one].clone())),
            1 => next.machines.iter_mut().for_each(|m| m.drains = false),
            2 => {
                let class = next.machines[one].class;
                let permille = between(rng, 700, 1400);
                for steps in next.classes[class].durations.iter_mut() {
                    for step in [&mut steps.p1, &mut steps.p2, &mut steps.c2] {
                        *step = *step * permille / 1000;
                    }
                }
            }
            3 => {
                let from = between(rng, 0, 40) * DAY;
                next.machines[one].down = vec![(from, from + between(rng, 1, 30) * HOUR)];
            }
            _ => next.machines[one].drains = true,
        }
        versions.push(next);
    }
    let mut last = versions[versions.len() - 1].clone();
    last.machines.iter_mut().for_each(|m| m.drains = false);
    versions.push(last);
    versions
}

/// A fleet, and the same fleet with one of its machines twice.
pub(super) fn with_one_more(rng: &mut Rng) -> (Fleet, Fleet) {
    let small = fleet(rng);
    let mut large = small.clone();
    let like = MachineIx::of(rng.below(small.machines.len()));
    large.machines.push(small.machines[like].clone());
    (small, large)
}

/// A world with some orders, all known at the beginning.
pub(super) fn world<'f>(fleet: &'f Fleet, rng: &mut Rng, policy: Policy) -> Option<World<'f>> {
    let mut world = World::new(fleet, policy);
    for _ in 0..=rng.below(8) {
        let order = order(rng, fleet, 0);
        if can_be_sealed(fleet, &order) {
            world.add_order_in_groups(order, 4);
        }
    }
    (!world.sectors.is_empty()).then_some(world)
}
