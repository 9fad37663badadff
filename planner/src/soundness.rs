//! Invariants of every world at every moment, checked over random fleets, orders, failures and
//! clock jumps.

use std::sync::Arc;

use crate::{
    model::failure::{FailureModel, Rng, Sampler, StepFailures, log_normal},
    model::fleet::{Class, Delays, Durations, Fleet, Kind, Machine, Moves, Need, Order, Pool},
    model::policy::{Policy, Rule},
    model::sector::{Sector, State},
    model::table::{ClassIx, Key, KindIx, MachineIx, OrderIx, PoolIx, Table},
    search::{Aim, Rounds, improve},
    sim::world::World,
};

const HOUR: i32 = 3600;
const DAY: i32 = 24 * HOUR;

fn between(rng: &mut Rng, from: i32, to: i32) -> i32 {
    from + i32::try_from(rng.below(usize::try_from(to - from + 1).unwrap())).unwrap()
}

/// Two sizes; one or two pools; in each, one to three PC1 machines with little scratch and one to
/// three machines with GPUs. When both kinds fill up, layers on one can wait for space on the
/// other.
fn fleet(rng: &mut Rng) -> Fleet {
    let kind = |scale: i32| Kind {
        p1: Need { cores: 4, memory: 64 * scale, gpus: 0 },
        p2: Need { cores: 6, memory: 16 * scale, gpus: 1 },
        c2: Need { cores: 6, memory: 150, gpus: 1 },
        scratch_full: 500 * scale,
        scratch_keep: 33 * scale,
        stored: 33 * scale,
    };
    let mut fleet = Fleet {
        delays: Delays { message: 120, seed: 4500, c1: 60, ticket: 113_400, prove: 30 * DAY },
        kinds: [kind(1), kind(2)].into_iter().collect(),
        ..Fleet::default()
    };
    let sealed = (rng.below(3) > 0).then_some(300);
    let moves = (rng.below(4) > 0).then_some(Moves { layers: 1200, sealed });
    for _ in 0..=rng.below(2) {
        let pool = fleet.pools.push(Pool { moves: fleet.kinds.iter().map(|_| moves).collect() });
        for _ in 0..=rng.below(3) {
            let alone = moves.is_none();
            let class = class(rng, alone);
            add_machine(rng, &mut fleet, pool, class);
        }
        for _ in 0..=rng.below(3) {
            let class = gpu_class(rng, moves.is_none() || sealed.is_none());
            add_machine(rng, &mut fleet, pool, class);
        }
    }
    fleet
}

fn class(rng: &mut Rng, with_gpu: bool) -> Class {
    let gpus = if with_gpu { 1 } else { 0 };
    let p1 = between(rng, 2, 5) * HOUR;
    let (p2, c2) = if with_gpu { (900, 1200) } else { (0, 0) };
    let of = |scale: i32| Durations { p1: p1 * scale, p2: p2 * scale, c2: c2 * scale };
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
    let of = |scale: i32| Durations { p1: p1 * scale, p2: 900 * scale, c2: 1200 * scale };
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
    let down = if rng.below(4) == 0 { vec![(from, from + between(rng, 1, 30) * HOUR)] } else { Vec::new() };
    fleet.machines.push(Machine { pool, class, down, drains: false });
}

fn order(rng: &mut Rng, fleet: &Fleet, now: i32) -> Order {
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

fn failure_model(rng: &mut Rng) -> Arc<FailureModel> {
    let between_failures = between(rng, 1, 20) * DAY;
    let step_failures = StepFailures { p1: between(rng, 0, 60), p2: between(rng, 0, 60), c2: between(rng, 0, 60) };
    Arc::new(FailureModel { spread: log_normal(250), between_failures, step_failures, ..FailureModel::default() })
}

fn policy(rng: &mut Rng) -> Policy {
    let rule = [Rule::Fifo, Rule::Edd, Rule::Wmdd, Rule::Atc][rng.below(4)];
    let gate = (rng.below(2) == 0).then_some(2 * HOUR);
    let burst = (rng.below(2) == 0).then_some(HOUR);
    Policy { rule, gate, burst, spread: rng.below(2) == 0, reserve: rng.below(2) == 0, ..Policy::default() }
}

/// Resources of one machine that a world's sectors hold.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Used {
    need: Need,
    scratch: i32,
    nic: i32,
    store: i32,
    bound: i32,
}

impl Used {
    fn run(&mut self, need: &Need) {
        self.need.cores += need.cores;
        self.need.memory += need.memory;
        self.need.gpus += need.gpus;
    }
}

fn used(world: &World<'_>) -> Table<MachineIx, Used> {
    let mut used: Table<MachineIx, Used> = world.fleet.machines.iter().map(|_| Used::default()).collect();
    for id in world.sectors.keys() {
        let (row, state) = (world.sectors[id].row, world.sectors[id].state);
        let kind = &world.fleet.kinds[world.kind(id)];
        match state {
            State::Wait => {}
            State::P1 => {
                used[row.m1].run(&kind.p1);
                used[row.m1].scratch += kind.scratch_full;
            }
            State::Layers => used[row.m1].scratch += kind.scratch_full,
            State::Moving => {
                for machine in [row.m1, row.m2] {
                    used[machine].scratch += kind.scratch_full;
                    used[machine].nic += 1;
                }
                used[row.m2].bound += 1;
            }
            State::Bound => {
                used[row.m2].scratch += kind.scratch_full;
                used[row.m2].bound += 1;
            }
            State::P2 => {
                used[row.m2].run(&kind.p2);
                used[row.m2].scratch += kind.scratch_full;
            }
            State::Seed => used[row.m2].scratch += kind.scratch_full,
            State::WaitC2 | State::Landing => used[row.m2].scratch += kind.scratch_keep,
            State::C2 => {
                used[row.m2].scratch += kind.scratch_keep;
                used[row.m3].run(&kind.c2);
            }
            State::Active => {
                used[row.m2].scratch += kind.scratch_keep;
                if row.ms.is_some() && row.ms != row.m2 {
                    used[row.m2].nic += 1;
                    used[row.ms].nic += 1;
                }
            }
            State::Stored if world.stays(id) => used[row.m2].scratch += kind.scratch_keep,
            State::Stored => {}
        }
        if row.ys >= 0 && row.ye > row.ys {
            used[row.ms].store += kind.stored;
        }
    }
    used
}

fn assert_sound(world: &World<'_>) {
    let used = used(world);
    for machine in world.fleet.machines.keys() {
        let (class, room, used) = (world.fleet.class(machine), &world.machines[machine], &used[machine]);
        let free = Used {
            need: Need {
                cores: class.cores - used.need.cores,
                memory: class.memory - used.need.memory,
                gpus: class.gpus - used.need.gpus,
            },
            scratch: class.scratch - used.scratch,
            nic: class.nic - used.nic,
            store: class.store - used.store,
            bound: used.bound,
        };
        let kept = Used { need: room.free, scratch: room.scratch, nic: room.nic, store: room.store, bound: room.bound };
        assert_eq!(kept, free, "at {}: machine {} counts otherwise than its sectors do", world.now, machine.0);
        let least = [free.need.cores, free.need.memory, free.need.gpus, free.scratch, free.nic, free.store];
        assert!(least.iter().all(|left| *left >= 0), "at {}: machine {} is over its capacity: {free:?}", world.now, machine.0);
        let waiting = room.waiting.iter().filter(|s| world.sectors[**s].state == State::Bound).count();
        assert_eq!(waiting, room.waiting.len(), "a sector waits for a GPU that is not bound there");
    }
    for (order, open) in world.open.pairs() {
        let unfinished = world.sectors_of(order).filter(|s| !matches!(world.sectors[*s].state, State::Active | State::Stored));
        assert_eq!(u32::try_from(unfinished.count()).unwrap(), *open, "order {} counts its open sectors wrongly", order.0);
    }
    let left = world.sectors.iter().filter(|s| s.state != State::Stored).count();
    assert_eq!(u64::try_from(left).unwrap(), world.left);
}

/// Machines that have been draining since `since` have begun no PC1 and no C2 after it.
fn assert_spared(world: &World<'_>, since: i32) {
    let drains = |machine: MachineIx| machine.is_some() && world.fleet.machines[machine].drains;
    for (id, Sector { state, row, .. }) in world.sectors.pairs() {
        let begun = (*state == State::P1 && drains(row.m1) && row.s1 > since)
            || (*state == State::C2 && drains(row.m3) && row.s3 > since);
        assert!(!begun, "at {}: sector {} has begun {state:?} on a machine that drains", world.now, id.0);
    }
}

/// Whether every pool that the order may go to can do all of its steps in an empty fleet.
fn can_be_sealed(fleet: &Fleet, order: &Order) -> bool {
    let kind = &fleet.kinds[order.kind];
    fleet.pools.keys().filter(|p| order.pool.is_none_or(|only| only == *p)).all(|pool| {
        let here = || fleet.machines.keys().filter(move |m| fleet.pool(*m) == pool);
        let fits = |m: MachineIx, need: &Need, seconds: i32| {
            let class = fleet.class(m);
            seconds > 0 && class.cores >= need.cores && class.memory >= need.memory && class.gpus >= need.gpus
        };
        let d = |m: MachineIx| fleet.class(m).durations[order.kind];
        let p1 = |m: MachineIx| fits(m, &kind.p1, d(m).p1) && fleet.class(m).scratch >= kind.scratch_full;
        let p2 = |m: MachineIx| fits(m, &kind.p2, d(m).p2) && fleet.class(m).scratch >= kind.scratch_full;
        let c2 = here().any(|m| fits(m, &kind.c2, d(m).c2));
        let moves = fleet.pools[pool].moves[order.kind].is_some();
        c2 && here().any(p1) && here().filter(|m| p1(*m)).all(|m| p2(m) || (moves && here().any(p2)))
    })
}

/// One fleet over time: machines come, start and stop draining, get faster and slower, and get
/// planned windows. In the end none drains.
fn versions(rng: &mut Rng) -> Vec<Fleet> {
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

#[test]
fn a_million_random_moments_break_no_capacity_and_lose_no_sector() {
    let mut moments = 0_u64;
    let (mut lost, mut done, mut changes) = (0, 0, 0);
    for seed in 0.. {
        if moments >= 1_000_000 {
            break;
        }
        let mut rng = Rng::new(seed);
        let versions = versions(&mut rng);
        let fleet = &versions[0];
        let mut coming = versions[1..].iter();
        let mut world = World::new(fleet, policy(&mut rng));
        world.resample(Sampler { rng: Rng::new(seed + 1), failure_model: failure_model(&mut rng) });
        let (mut ids, mut changed_at): (Vec<OrderIx>, i32) = (Vec::new(), 0);
        for _ in 0..30 {
            let order = order(&mut rng, fleet, world.now);
            if can_be_sealed(fleet, &order) {
                ids.push(world.add_order(order));
            }
            if let Some(changed) = (rng.below(4) == 0).then(|| coming.next()).flatten() {
                world.change_fleet(changed);
                (changes, changed_at) = (changes + 1, world.now);
            }
            if rng.below(8) == 0 {
                // The same breakdown is reported once or twice.
                let machine = MachineIx::of(rng.below(world.fleet.machines.len()));
                (0..=rng.below(2)).for_each(|_| world.break_down(machine));
                assert_sound(&world);
            }
            // The clock jumps forward by up to five days, or not at all.
            let until = world.now + between(&mut rng, 0, 5 * DAY) * i32::from(rng.below(3) > 0);
            while world.next_moment().is_some_and(|at| at <= until) {
                let before = world.now;
                world.step();
                assert!(world.now >= before, "time goes on");
                moments += 1;
                if moments.is_multiple_of(16) {
                    assert_sound(&world);
                    assert_spared(&world, changed_at);
                }
            }
            world.run_until(until);
            if rng.below(4) == 0 {
                world.set_policy(policy(&mut rng));
            }
        }
        world.change_fleet(&versions[versions.len() - 1]);
        for id in ids {
            assert!(world.run_until_done(id), "seed {seed}: order {} is never done", id.0);
            assert!(world.sectors_of(id).all(|s| world.sectors[s].row.vc > 0));
            done += world.orders[id].n;
        }
        assert_sound(&world);
        lost += world.lost;
    }
    println!("{moments} moments, {changes} changes of fleets, {lost} attempts lost, {done} sectors sealed");
    let enough = done > 10_000 && lost > 1000 && changes > 500;
    assert!(enough, "{done} sectors, {lost} attempts lost, {changes} changes of fleets: too little happened");
}

/// A world with some orders, all known at the beginning.
fn world<'f>(fleet: &'f Fleet, rng: &mut Rng, policy: Policy) -> Option<World<'f>> {
    let mut world = World::new(fleet, policy);
    for _ in 0..=rng.below(8) {
        let order = order(rng, fleet, 0);
        if can_be_sealed(fleet, &order) {
            world.add_order_in_groups(order, 4);
        }
    }
    (!world.sectors.is_empty()).then_some(world)
}

#[test]
fn a_search_is_deterministic_and_never_worse_than_its_start() {
    for seed in 0..60 {
        let mut rng = Rng::new(1000 + seed);
        let fleet = fleet(&mut rng);
        let Some(world) = world(&fleet, &mut rng, Policy::default()) else { continue };
        let mut plain = world.clone();
        let Some(found) = plain.run().then(|| improve(&world, Aim::Exact, seed, &mut Rounds::most(150))).flatten() else {
            continue;
        };
        assert!(found.cost <= plain.cost(), "seed {seed}: {:?} is worse than {:?}", found.cost, plain.cost());
        let again = improve(&world, Aim::Exact, seed, &mut Rounds::most(150)).unwrap();
        let rows = |w: &World<'_>| w.sectors.iter().map(|s| s.row).collect::<Vec<_>>();
        assert_eq!(rows(&found.world), rows(&again.world), "seed {seed}");
        let mut followed = world.clone();
        followed.adopt(&found);
        assert!(followed.run());
        assert_eq!(rows(&found.world), rows(&followed), "seed {seed}: what was promised is what is played");
        assert_sound(&followed);
    }
}

/// Dropping history does not change what happens next.
#[test]
fn forgetting_stored_sectors_does_not_change_what_follows() {
    let (mut forgotten, mut there) = (0, 0);
    for seed in 0..60 {
        let mut rng = Rng::new(90_000 + seed);
        let fleet = fleet(&mut rng);
        let Some(mut keeps) = world(&fleet, &mut rng, Policy::default()) else { continue };
        keeps.resample(Sampler { rng: Rng::new(seed), failure_model: failure_model(&mut rng) });
        let mut forgets = keeps.clone();
        for day in 1..20 {
            keeps.run_until(day * DAY);
            forgets.run_until(day * DAY);
            forgets.forget_stored();
            let order = order(&mut rng, &fleet, day * DAY);
            assert_eq!(keeps.add_order(order.clone()), forgets.add_order(order));
            assert_eq!((keeps.left(), keeps.lost), (forgets.left(), forgets.lost), "seed {seed}");
            for (id, sector) in forgets.sectors.pairs() {
                assert_eq!(keeps.sectors[id].row, sector.row, "seed {seed}, day {day}");
            }
        }
        there += keeps.sectors.iter().count();
        forgotten += keeps.sectors.iter().count() - forgets.sectors.iter().count();
    }
    assert!(forgotten * 4 > there, "{forgotten} of {there}");
}

#[test]
fn a_world_keeps_to_its_plan_and_other_durations_change_little_of_it() {
    let (mut drawn, mut moved, mut moved_without) = (0, 0, 0);
    for seed in 0..120 {
        let mut rng = Rng::new(70_000 + seed);
        let fleet = fleet(&mut rng);
        let Some(plain) = world(&fleet, &mut rng, Policy::default()) else { continue };
        let drawing = plain.begins_within(20 * DAY);
        let rows = |w: &World<'_>| w.sectors.iter().map(|s| s.row).collect::<Vec<_>>();
        let (mut as_planned, mut held) = (plain.clone(), plain.clone());
        held.keep_to(drawing.clone());
        assert_eq!((as_planned.run(), held.run()), (true, true));
        // Attempts wasted by an expired ticket do not follow the previous plan.
        assert!(!as_planned.wasted.is_empty() || rows(&as_planned) == rows(&held), "seed {seed}");
        let sampler = Sampler { rng: Rng::new(seed), failure_model: failure_model(&mut rng) };
        let ends = |hold: bool| {
            let mut real = plain.clone();
            real.resample(sampler.clone());
            if hold {
                real.keep_to(drawing.clone());
            }
            real.run_until(40 * DAY);
            assert_sound(&real);
            assert!(real.run(), "seed {seed}");
            drawing.rows().filter(|(sector, machine, _)| real.sectors[*sector].row.m1 != *machine).count()
        };
        drawn += drawing.rows().count();
        moved += ends(true);
        moved_without += ends(false);
    }
    assert!(drawn > 1000 && moved * 4 < moved_without * 3, "of {drawn} {moved} begin elsewhere, {moved_without} without");
}

/// A fleet, and the same fleet with one of its machines twice.
fn with_one_more(rng: &mut Rng) -> (Fleet, Fleet) {
    let small = fleet(rng);
    let mut large = small.clone();
    let like = MachineIx::of(rng.below(small.machines.len()));
    large.machines.push(small.machines[like].clone());
    (small, large)
}

/// In any scheduler of this kind more capacity can make a plan worse (Graham's anomaly, 1969). The
/// search keeps this small and rare.
#[test]
fn one_more_machine_helps_and_seldom_harms() {
    let (mut cases, mut harmed, mut before, mut after) = (0, 0, 0, 0);
    for seed in 0..150 {
        let mut rng = Rng::new(50_000 + seed);
        let (small, large) = with_one_more(&mut rng);
        let lateness = |fleet: &Fleet| {
            let world = world(fleet, &mut Rng::new(seed), Policy::default())?;
            Some(improve(&world, Aim::Exact, seed, &mut Rounds::most(300))?.cost.tardiness)
        };
        let (Some(without), Some(with)) = (lateness(&small), lateness(&large)) else { continue };
        cases += 1;
        harmed += i32::from(with > without + without / 50);
        before += without;
        after += with;
    }
    println!("{cases} cases, {harmed} more than 2 % worse, lateness {before} becomes {after}");
    assert!(cases > 100 && harmed * 20 < cases, "{harmed} of {cases} plans are more than 2 % worse");
    assert!(after * 10 < before * 9, "lateness falls from {before} to {after} only");
}

/// A machine that comes while a plan is carried out is let in only if it does no harm.
#[test]
fn a_new_machine_never_worsens_a_running_plan() {
    let (mut cases, mut before, mut after) = (0, 0, 0);
    for seed in 0..150 {
        let mut rng = Rng::new(50_000 + seed);
        let (small, large) = with_one_more(&mut rng);
        let Some(mut world) = world(&small, &mut Rng::new(seed), Policy::default()) else { continue };
        let Some(found) = improve(&world, Aim::Exact, seed, &mut Rounds::most(100)) else { continue };
        world.adopt(&found);
        let began = between(&mut rng, 0, 12) * HOUR;
        world.run_until(began);
        let mut same = world.clone();
        assert!(same.run(), "seed {seed}");
        assert_eq!(same.cost(), found.cost, "seed {seed}: what was planned is what happens");
        world.change_fleet(&large);
        let Some(with) = improve(&world, Aim::Exact, seed, &mut Rounds::most(100)) else {
            panic!("seed {seed}: nothing can be sealed")
        };
        assert!(with.cost.tardiness <= found.cost.tardiness, "seed {seed}: {:?} is worse than {:?}", with.cost, found.cost);
        world.adopt(&with);
        assert!(world.run());
        assert_eq!(world.cost(), with.cost, "seed {seed}");
        assert_sound(&world);
        cases += 1;
        before += found.cost.tardiness;
        after += with.cost.tardiness;
    }
    println!("{cases} cases, lateness {before} becomes {after}");
    assert!(cases > 100 && after * 10 < before * 9, "{cases} cases, lateness falls from {before} to {after} only");
}

/// One order without urgency begins in the end, although a stream of urgent orders fills the fleet
/// for ever.
#[test]
fn no_order_starves() {
    let mut rng = Rng::new(7);
    let mut fleet = Fleet { delays: Delays { ticket: 113_400, prove: 30 * DAY, ..Delays::default() }, ..Fleet::default() };
    fleet.kinds.push(Kind {
        p1: Need { cores: 4, memory: 64, gpus: 0 },
        p2: Need { cores: 1, memory: 16, gpus: 1 },
        c2: Need { cores: 1, memory: 16, gpus: 1 },
        scratch_full: 100,
        scratch_keep: 33,
        stored: 33,
    });
    let pool = fleet.pools.push(Pool { moves: [None].into_iter().collect() });
    let durations = [Durations { p1: 4 * HOUR, p2: 300, c2: 300 }].into_iter().collect();
    let class = Class { name: "one".into(), cores: 18, memory: 1000, gpus: 1, scratch: 1 << 30, store: 0, nic: 1, durations };
    add_machine(&mut Rng::new(0), &mut fleet, pool, class);
    fleet.machines[MachineIx(0)].down.clear();
    for (rule, days) in [(Rule::Fifo, 1), (Rule::Edd, 8), (Rule::Wmdd, 40), (Rule::Atc, 40)] {
        let mut world = World::new(&fleet, Policy { rule, gate: None, ..Policy::default() });
        let urgent = |at: i32, weight| Order {
            id: 0,
            pool: Some(pool),
            kind: KindIx(0),
            n: 4,
            release: at,
            step: 0,
            due: at + 6 * HOUR,
            weight,
            known: at,
        };
        world.add_order(urgent(0, 8));
        let patient = world.add_order(Order { n: 1, due: 7 * DAY, ..urgent(1, 1) });
        let mut at = 2;
        while world.open[patient] > 0 && world.now < 100 * DAY {
            world.add_order(urgent(at, i64::from(between(&mut rng, 4, 8))));
            // Four sectors every four hours take all of the four slots.
            at += 4 * HOUR;
            world.run_until(at);
        }
        let row = world.sectors[world.sectors_of(patient).next().unwrap()].row;
        assert!(row.s1 >= 0 && row.s1 <= days * DAY, "{rule:?} lets it wait {} h", row.s1 / HOUR);
    }
}
