//! More capacity helps.

use super::{
    fleets::{between, with_one_more, world},
    invariants::assert_sound,
};
use crate::{
    HOUR,
    budget::Rounds,
    model::failure::Rng,
    model::fleet::Fleet,
    model::policy::Policy,
    search::{Aim, Improved, improve},
    sim::world::World,
};

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
            Some(
                improve(&world, Aim::Exact, seed, &mut Rounds::most(300))?
                    .cost
                    .tardiness,
            )
        };
        let (Some(without), Some(with)) = (lateness(&small), lateness(&large)) else {
            continue;
        };
        cases += 1;
        harmed += i32::from(with > without + without / 50);
        before += without;
        after += with;
    }
    println!("{cases} cases, {harmed} more than 2 % worse, lateness {before} becomes {after}");
    assert!(
        cases > 100 && harmed * 20 < cases,
        "{harmed} of {cases} plans are more than 2 % worse"
    );
    assert!(
        after * 10 < before * 9,
        "lateness falls from {before} to {after} only"
    );
}

/// The best of 100 plans.
fn search<'f>(world: &World<'f>, seed: u64) -> Option<Improved<'f>> {
    improve(world, Aim::Exact, seed, &mut Rounds::most(100))
}

/// A machine that comes while a plan is carried out is let in only if it does no harm.
#[test]
fn a_new_machine_never_worsens_a_running_plan() {
    let (mut cases, mut before, mut after) = (0, 0, 0);
    for seed in 0..150 {
        let mut rng = Rng::new(50_000 + seed);
        let (small, large) = with_one_more(&mut rng);
        let Some(mut world) = world(&small, &mut Rng::new(seed), Policy::default()) else {
            continue;
        };
        let Some(found) = search(&world, seed) else {
            continue;
        };
        world.adopt(&found);
        let began = between(&mut rng, 0, 12) * HOUR;
        world.run_until(began);
        let mut same = world.clone();
        assert!(same.run(), "seed {seed}");
        assert_eq!(
            same.cost(),
            found.cost,
            "seed {seed}: what was planned is what happens"
        );
        world.change_fleet(&large);
        let Some(with) = search(&world, seed) else {
            panic!("seed {seed}: nothing can be sealed")
        };
        assert!(
            with.cost.tardiness <= found.cost.tardiness,
            "seed {seed}: {:?} is worse than {:?}",
            with.cost,
            found.cost
        );
        world.adopt(&with);
        assert!(world.run());
        assert_eq!(world.cost(), with.cost, "seed {seed}");
        assert_sound(&world);
        cases += 1;
        before += found.cost.tardiness;
        after += with.cost.tardiness;
    }
    println!("{cases} cases, lateness {before} becomes {after}");
    assert!(
        cases > 100 && after * 10 < before * 9,
        "{cases} cases, lateness falls from {before} to {after} only"
    );
}
