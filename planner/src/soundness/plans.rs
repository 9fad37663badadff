//! Plans are repeatable, kept to, and never worse than what they began from.

use std::sync::Arc;

use super::{
    fleets::{failure_model, fleet, world},
    invariants::assert_sound,
};
use crate::{
    DAY,
    budget::Rounds,
    model::failure::{FailureModel, Rng, Sampler},
    model::policy::Policy,
    model::previous_plan::PreviousPlan,
    model::sector::Row,
    search::{Aim, improve},
    sim::world::World,
};

fn rows(world: &World<'_>) -> Vec<Row> {
    world.sectors.iter().map(|sector| sector.row).collect()
}

#[test]
fn a_search_is_deterministic_and_never_worse_than_its_start() {
    for seed in 0..60 {
        let mut rng = Rng::new(1000 + seed);
        let fleet = fleet(&mut rng);
        let Some(world) = world(&fleet, &mut rng, Policy::default()) else {
            continue;
        };
        let search = || improve(&world, Aim::Exact, seed, &mut Rounds::most(150));
        let mut plain = world.clone();
        let Some(found) = plain.run().then(search).flatten() else {
            continue;
        };
        assert!(
            found.cost <= plain.cost(),
            "seed {seed}: {:?} is worse than {:?}",
            found.cost,
            plain.cost()
        );
        let again = search().unwrap();
        assert_eq!(rows(&found.world), rows(&again.world), "seed {seed}");
        let mut followed = world.clone();
        followed.adopt(&found);
        assert!(followed.run());
        assert_eq!(
            rows(&found.world),
            rows(&followed),
            "seed {seed}: what was promised is what is played"
        );
        assert_sound(&followed);
    }
}

/// How many sectors begin elsewhere than in the `previous` plan, when steps take other times.
fn begun_elsewhere(
    mut real: World<'_>,
    seed: u64,
    previous: &PreviousPlan,
    model: &Arc<FailureModel>,
) -> usize {
    real.resample(Sampler {
        rng: Rng::new(seed),
        failure_model: Arc::clone(model),
    });
    real.run_until(40 * DAY);
    assert_sound(&real);
    assert!(real.run(), "seed {seed}");
    previous
        .rows()
        .filter(|(sector, machine, _)| real.sectors[*sector].row.m1 != *machine)
        .count()
}

#[test]
fn a_world_keeps_to_its_plan_and_other_durations_change_little_of_it() {
    let (mut drawn, mut moved, mut moved_without) = (0, 0, 0);
    for seed in 0..120 {
        let mut rng = Rng::new(70_000 + seed);
        let fleet = fleet(&mut rng);
        let Some(plain) = world(&fleet, &mut rng, Policy::default()) else {
            continue;
        };
        let drawing = plain.begins_within(20 * DAY);
        let mut held = plain.clone();
        held.keep_to(drawing.clone());
        let (mut as_planned, mut as_held) = (plain.clone(), held.clone());
        assert_eq!((as_planned.run(), as_held.run()), (true, true));
        // Attempts wasted by an expired ticket do not follow the previous plan.
        assert!(
            !as_planned.wasted.is_empty() || rows(&as_planned) == rows(&as_held),
            "seed {seed}"
        );
        let model = failure_model(&mut rng);
        drawn += drawing.rows().count();
        moved += begun_elsewhere(held, seed, &drawing, &model);
        moved_without += begun_elsewhere(plain, seed, &drawing, &model);
    }
    assert!(
        drawn > 1000 && moved * 4 < moved_without * 3,
        "of {drawn} {moved} begin elsewhere, {moved_without} without"
    );
}
