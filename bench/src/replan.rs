//! The cost of one event in a busy fleet, and the steadiness of its plan while nothing happens.

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::ensure;
use sealyard_planner::{
    FailureModel, Fleet, Key, MachineIx, Order, Policy, PoolIx, PreviousPlan, Rng, Sampler, Secs,
    SectorIx, World, log_normal,
};

use crate::{
    DAY, HOUR, ReplanOptions,
    instance::{self, Loaded},
    process::processor,
};

/// Horizons, in hours, for which the steadiness of the plan is reported.
const HORIZONS: [Secs; 3] = [3, 12, 24];
const CHURN_HOURS: u64 = 6;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Completion,
    Order,
    Failure,
    Drain,
    NewMachine,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Completion, "completion"),
    (Kind::Order, "order"),
    (Kind::Failure, "failure"),
    (Kind::Drain, "drain"),
    (Kind::NewMachine, "new machine"),
];

pub fn run(options: &ReplanOptions) -> anyhow::Result<()> {
    let loaded = instance::load(&options.instance, false)?;
    let mut rng = Rng::new(options.seed);
    let events: Vec<Kind> = (0..options.events)
        .filter_map(|at| KINDS.get(at % KINDS.len()))
        .map(|(kind, _)| *kind)
        .collect();
    let fleets = fleets(&loaded.fleet, &events, &mut rng);
    let mut world = World::new(&loaded.fleet, Policy::default());
    for order in &loaded.orders {
        world.add_order(order.clone());
    }
    let all = world.left();
    while world.left() > all / 4 * 3 {
        ensure!(
            world.step(),
            "{} sectors can never be sealed on this fleet",
            world.left()
        );
    }
    let steady = world.clone();
    let events = Events {
        kinds: events,
        fleets: &fleets,
        loaded: &loaded,
    };
    let took = events.apply(&mut world, &mut rng);
    println!(
        "{} sectors on {} machines, {} still to store",
        all,
        loaded.fleet.machines.len(),
        steady.left()
    );
    for (kind, name) in KINDS {
        let of_kind = took.iter().filter(|(k, _)| *k == kind);
        report(name, of_kind.map(|(_, took)| *took).collect());
    }
    report("all", took.into_iter().map(|(_, took)| took).collect());
    for (noise, holds) in [(0, true), (options.noise, true), (options.noise, false)] {
        churn(&steady, noise, options.seed, holds).report(noise, holds);
    }
    Ok(())
}

/// External events, in order.
struct Events<'f> {
    kinds: Vec<Kind>,
    /// The fleet after each event that changes it.
    fleets: &'f [Fleet],
    loaded: &'f Loaded,
}

impl<'f> Events<'f> {
    /// Applies the events to a world. Returns the processor time that each took.
    fn apply(self, world: &mut World<'f>, rng: &mut Rng) -> Vec<(Kind, Duration)> {
        let mut changed = self.fleets.iter();
        let mut took = Vec::new();
        for kind in self.kinds {
            let before = processor();
            match kind {
                Kind::Completion => {}
                Kind::Order => {
                    let order = order(&self.loaded.orders, rng, world.now);
                    world.add_order(order);
                }
                Kind::Failure => {
                    let machines = self.loaded.fleet.machines.len();
                    world.break_down(MachineIx::of(rng.below(machines)));
                }
                Kind::Drain | Kind::NewMachine => {
                    if let Some(fleet) = changed.next() {
                        world.change_fleet(fleet);
                    }
                }
            }
            world.step();
            took.push((kind, processor().saturating_sub(before)));
            // Let some of the fleet's own events pass before the next external one.
            for _ in 0..50 {
                world.step();
            }
        }
        took
    }
}

/// The fleet after each drain or added machine.
fn fleets(first: &Fleet, events: &[Kind], rng: &mut Rng) -> Vec<Fleet> {
    let changes = events
        .iter()
        .filter(|kind| matches!(kind, Kind::Drain | Kind::NewMachine));
    let fleets = changes.scan(first.clone(), |fleet, kind| {
        let machine = MachineIx::of(rng.below(first.machines.len()));
        if *kind == Kind::Drain {
            fleet.machines.iter_mut().nth(machine.at())?.drains = true;
        } else {
            let row = fleet.machines.get(machine)?.clone();
            fleet.machines.push(row);
        }
        Some(fleet.clone())
    });
    fleets.collect()
}

/// An order like those of the instance, known and released now.
fn order(like: &[Order], rng: &mut Rng, now: Secs) -> Order {
    let usual = Order {
        id: -1,
        pool: Some(PoolIx(0)),
        kind: Key::of(0),
        n: 1,
        release: now,
        step: 0,
        due: now,
        weight: 1,
        known: now,
    };
    let Some(order) = like.get(rng.below(like.len())) else {
        return usual;
    };
    Order {
        release: now,
        known: now,
        due: now + (order.due - order.release),
        ..order.clone()
    }
}

fn report(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |permille: usize| {
        took.get((took.len() * permille).div_ceil(1000).saturating_sub(1))
            .map_or(0, Duration::as_micros)
    };
    println!(
        "{name:>11}: {:>6} events, µs of processor time: p50 {}, p99 {}, most {}",
        took.len(),
        at(500),
        at(990),
        at(1000)
    );
}

struct Churn {
    /// For each of [`HORIZONS`]: sectors that were planned to begin within it and, an hour later,
    /// still wait to begin. The first number counts those that are now planned on another machine,
    /// the second counts all.
    tallies: [(u64, u64); HORIZONS.len()],
    /// Weighted tardiness of the whole simulation.
    lateness: i64,
}

impl Churn {
    fn report(&self, noise: i64, holds: bool) {
        let shares = HORIZONS
            .iter()
            .zip(self.tallies)
            .map(|(hours, (moved, all))| format!("{hours} h {} ‰", moved * 1000 / all.max(1)));
        println!(
            "drawn elsewhere an hour later, {CHURN_HOURS} quiet hours, steps vary by {noise} %, \
             {}: of what begins within {}; in the end {} weight·s late",
            if holds {
                "drawings are held to"
            } else {
                "drawings are not held to"
            },
            shares.collect::<Vec<_>>().join(", "),
            self.lateness,
        );
    }

    /// Compares two plans; the second was made an hour later, `now`.
    fn count(&mut self, before: &PreviousPlan, after: &PreviousPlan, now: Secs) {
        let is: HashMap<SectorIx, MachineIx> = after
            .rows()
            .map(|(sector, machine, _)| (sector, machine))
            .collect();
        for (sector, machine, at) in before.rows() {
            let Some(is) = is.get(&sector) else { continue };
            for ((moved, all), _) in self
                .tallies
                .iter_mut()
                .zip(HORIZONS)
                .filter(|(_, hours)| at <= now + (hours - 1) * HOUR)
            {
                *all += 1;
                *moved += u64::from(*is != machine);
            }
        }
    }
}

fn churn(from: &World<'_>, noise: i64, seed: u64, holds: bool) -> Churn {
    let mut real = from.clone();
    if noise > 0 {
        let failure_model = FailureModel {
            spread: log_normal(noise * 10),
            between_failures: 0,
            between_gas: 0,
            ..FailureModel::default()
        };
        real.resample(Sampler {
            rng: Rng::new(seed),
            failure_model: Arc::new(failure_model),
        });
    }
    let mut churn = Churn {
        tallies: [(0, 0); HORIZONS.len()],
        lateness: 0,
    };
    let mut before = real.begins_within(DAY);
    for _ in 0..CHURN_HOURS {
        if holds {
            real.keep_to(before.clone());
        }
        real.run_until(real.now + HOUR);
        let after = real.begins_within(DAY);
        churn.count(&before, &after, real.now);
        before = after;
    }
    real.run();
    churn.lateness = real.cost().tardiness;
    churn
}
