//! Random worlds over time.

use std::slice;

use super::{
    fleets::{between, can_be_sealed, failure_model, fleet, order, policy, versions, world},
    invariants::{assert_sound, assert_spared},
};
use crate::{
    DAY, Secs,
    model::failure::{Rng, Sampler},
    model::fleet::Fleet,
    model::policy::Policy,
    model::table::{Key, MachineIx, OrderIx},
    sim::world::World,
};

/// The events of all worlds so far.
#[derive(Default)]
struct Tally {
    moments: u64,
    changes: u32,
    lost: u32,
    done: u32,
}

/// One world over time.
struct Trial<'f> {
    seed: u64,
    rng: Rng,
    world: World<'f>,
    orders: Vec<OrderIx>,
    versions: &'f [Fleet],
    /// Versions of the fleet that are still to come, and when the latest came.
    coming: slice::Iter<'f, Fleet>,
    changed_at: Secs,
}

impl<'f> Trial<'f> {
    fn new(seed: u64, mut rng: Rng, versions: &'f [Fleet]) -> Self {
        let mut world = World::new(&versions[0], policy(&mut rng));
        world.resample(Sampler {
            rng: Rng::new(seed + 1),
            failure_model: failure_model(&mut rng),
        });
        Self {
            seed,
            rng,
            world,
            orders: Vec::new(),
            versions,
            coming: versions[1..].iter(),
            changed_at: 0,
        }
    }

    /// Adds an order. Sometimes the fleet changes, and sometimes a machine breaks down.
    fn meddle(&mut self, tally: &mut Tally) {
        let order = order(&mut self.rng, &self.versions[0], self.world.now);
        if can_be_sealed(&self.versions[0], &order) {
            self.orders.push(self.world.add_order(order));
        }
        if self.rng.below(4) == 0
            && let Some(changed) = self.coming.next()
        {
            self.world.change_fleet(changed);
            self.changed_at = self.world.now;
            tally.changes += 1;
        }
        if self.rng.below(8) == 0 {
            // The same breakdown is reported once or twice.
            let machine = MachineIx::of(self.rng.below(self.world.fleet.machines.len()));
            (0..=self.rng.below(2)).for_each(|_| self.world.break_down(machine));
            assert_sound(&self.world);
        }
    }

    /// Lets the clock jump forward by up to five days, or not at all.
    fn jump(&mut self, tally: &mut Tally) {
        let ahead = between(&mut self.rng, 0, 5 * DAY) * i32::from(self.rng.below(3) > 0);
        let until = self.world.now + ahead;
        while self.world.next_moment().is_some_and(|at| at <= until) {
            let before = self.world.now;
            self.world.step();
            assert!(self.world.now >= before, "time goes on");
            tally.moments += 1;
            if tally.moments.is_multiple_of(16) {
                assert_sound(&self.world);
                assert_spared(&self.world, self.changed_at);
            }
        }
        self.world.run_until(until);
        if self.rng.below(4) == 0 {
            self.world.set_policy(policy(&mut self.rng));
        }
    }

    /// Every order is done in the end.
    fn finish(mut self, tally: &mut Tally) {
        let (world, seed) = (&mut self.world, self.seed);
        world.change_fleet(&self.versions[self.versions.len() - 1]);
        for id in self.orders {
            assert!(
                world.run_until_done(id),
                "seed {seed}: order {} is never done",
                id.0
            );
            assert!(world.sectors_of(id).all(|s| world.sectors[s].row.vc > 0));
            tally.done += world.orders[id].n;
        }
        assert_sound(world);
        tally.lost += world.lost;
    }
}

#[test]
fn a_million_random_moments_break_no_capacity_and_lose_no_sector() {
    let mut tally = Tally::default();
    for seed in 0.. {
        if tally.moments >= 1_000_000 {
            break;
        }
        let mut rng = Rng::new(seed);
        let versions = versions(&mut rng);
        let mut trial = Trial::new(seed, rng, &versions);
        for _ in 0..30 {
            trial.meddle(&mut tally);
            trial.jump(&mut tally);
        }
        trial.finish(&mut tally);
    }
    let Tally {
        moments,
        changes,
        lost,
        done,
    } = tally;
    println!(
        "{moments} moments, {changes} changes of fleets, {lost} attempts lost, \
         {done} sectors sealed"
    );
    let enough = done > 10_000 && lost > 1000 && changes > 500;
    assert!(
        enough,
        "{done} sectors, {lost} attempts lost, {changes} changes of fleets: too little happened"
    );
}

/// Dropping history does not change what happens next.
#[test]
fn forgetting_stored_sectors_does_not_change_what_follows() {
    let (mut forgotten, mut there) = (0, 0);
    for seed in 0..60 {
        let mut rng = Rng::new(90_000 + seed);
        let fleet = fleet(&mut rng);
        let Some(mut keeps) = world(&fleet, &mut rng, Policy::default()) else {
            continue;
        };
        keeps.resample(Sampler {
            rng: Rng::new(seed),
            failure_model: failure_model(&mut rng),
        });
        let mut forgets = keeps.clone();
        for day in 1..20 {
            keeps.run_until(day * DAY);
            forgets.run_until(day * DAY);
            forgets.forget_stored();
            let order = order(&mut rng, &fleet, day * DAY);
            assert_eq!(keeps.add_order(order.clone()), forgets.add_order(order));
            assert_eq!(
                (keeps.left(), keeps.lost),
                (forgets.left(), forgets.lost),
                "seed {seed}"
            );
            for (id, sector) in forgets.sectors.pairs() {
                assert_eq!(keeps.sectors[id].row, sector.row, "seed {seed}, day {day}");
            }
        }
        there += keeps.sectors.iter().count();
        forgotten += keeps.sectors.iter().count() - forgets.sectors.iter().count();
    }
    assert!(forgotten * 4 > there, "{forgotten} of {there}");
}
