//! What one event costs a fleet that is busy, and how steady its plan is while nothing happens.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use anyhow::ensure;
use sealyard_core::scheduler::planner::{
    Dice, Fleet, Key, Luck, MachineIx, Odds, Order, OrderIx, Policy, PoolIx, Secs, SectorIx, State, World, log_normal,
};

use super::{ReplanOptions, instance, schedule::processor};

const HOUR: Secs = 3600;
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
    let mut dice = Dice::new(options.seed);
    let events: Vec<Kind> = (0..options.events).filter_map(|at| KINDS.get(at % KINDS.len())).map(|(kind, _)| *kind).collect();
    let fleets = fleets(&loaded.fleet, &events, &mut dice);
    let mut world = World::new(&loaded.fleet, Policy::default());
    for order in &loaded.orders {
        world.add_order(order.clone());
    }
    let all = world.left();
    while world.left() > all / 4 * 3 {
        ensure!(world.step(), "{} sectors can never be sealed on this fleet", world.left());
    }
    let steady = world.clone();
    let mut changed = fleets.iter();
    let mut took: Vec<(Kind, Duration)> = Vec::new();
    for kind in events {
        let before = processor();
        match kind {
            Kind::Completion => {}
            Kind::Order => {
                let order = order(&loaded.orders, &mut dice, world.now);
                world.add_order(order);
            }
            Kind::Failure => world.break_down(MachineIx::of(dice.below(loaded.fleet.machines.len()))),
            Kind::Drain | Kind::NewMachine => changed.by_ref().take(1).for_each(|fleet| world.change_fleet(fleet)),
        }
        world.step();
        took.push((kind, processor().saturating_sub(before)));
        // Some of the fleet's own events lie between two that come from outside.
        for _ in 0..50 {
            world.step();
        }
    }
    println!("{} sectors on {} machines, {} still to store", all, loaded.fleet.machines.len(), steady.left());
    for (kind, name) in KINDS {
        report(name, took.iter().filter(|(k, _)| *k == kind).map(|(_, d)| *d).collect());
    }
    report("all", took.into_iter().map(|(_, d)| d).collect());
    for noise in [0, options.noise] {
        let [sectors, counts] = churn(&steady, noise, options.seed);
        println!(
            "churn in {CHURN_HOURS} quiet hours, steps vary by {noise} %: of the sectors to begin within a day {sectors} ‰ an hour, \
             where those of one order count as alike {counts} ‰"
        );
    }
    Ok(())
}

/// The fleet after each drain and each arrival of a machine.
fn fleets(first: &Fleet, events: &[Kind], dice: &mut Dice) -> Vec<Fleet> {
    let changes = events.iter().filter(|kind| matches!(kind, Kind::Drain | Kind::NewMachine));
    let fleets = changes.scan(first.clone(), |fleet, kind| {
        let machine = MachineIx::of(dice.below(first.machines.len()));
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

/// One like those of the instance, known and startable now.
fn order(like: &[Order], dice: &mut Dice, now: Secs) -> Order {
    let usual =
        Order { id: -1, pool: Some(PoolIx(0)), kind: Key::of(0), n: 1, release: now, step: 0, due: now, weight: 1, known: now };
    let Some(order) = like.get(dice.below(like.len())) else { return usual };
    Order { release: now, known: now, due: now + (order.due - order.release), ..order.clone() }
}

fn report(name: &str, mut took: Vec<Duration>) {
    took.sort_unstable();
    let at = |permille: usize| took.get((took.len() * permille).div_ceil(1000).saturating_sub(1)).map_or(0, Duration::as_micros);
    println!("{name:>11}: {:>6} events, µs of processor time: p50 {}, p99 {}, most {}", took.len(), at(500), at(990), at(1000));
}

/// Of the sectors that the plan begins within a day, the share, per mille, that the plan of an hour later begins on another machine:
/// sector by sector of those that are not begun by then, and counted as sectors of an order on a machine. Until they begin, those of
/// one order are alike.
fn churn(from: &World<'_>, noise: i64, seed: u64) -> [u64; 2] {
    let mut real = from.clone();
    if noise > 0 {
        let odds = Odds { spread: log_normal(noise * 10), between_failures: 0, between_gas: 0, ..Odds::default() };
        real.redraw(Luck { dice: Dice::new(seed), odds: Arc::new(odds) });
    }
    let mut tallies = [(0, 0); 2];
    let mut before = planned(&real);
    for _ in 0..CHURN_HOURS {
        real.run_until(real.now + HOUR);
        let after = planned(&real);
        for (tally, (same, all)) in tallies.iter_mut().zip([same_sectors(&before, &after), same_counts(&real, &before, &after)]) {
            *tally = (tally.0 + all - same, tally.1 + all);
        }
        before = after;
    }
    tallies.map(|(moved, all)| moved * 1000 / all.max(1))
}

type Planned = Vec<(SectorIx, MachineIx)>;

/// Sectors in both plans, and how many of them are on the same machine.
fn same_sectors(before: &Planned, after: &Planned) -> (u64, u64) {
    let (mut same, mut all) = (0, 0);
    for (sector, machine) in after {
        let was = before.binary_search_by_key(sector, |(s, _)| *s).ok().and_then(|at| before.get(at));
        same += u64::from(was.is_some_and(|(_, was)| was == machine));
        all += u64::from(was.is_some());
    }
    (same, all)
}

/// The same of sectors of an order on a machine. What has begun meanwhile was planned where it began.
fn same_counts(real: &World<'_>, before: &Planned, after: &Planned) -> (u64, u64) {
    let mut counts: BTreeMap<(OrderIx, MachineIx), [i64; 2]> = BTreeMap::new();
    let mut add = |(sector, machine): (SectorIx, MachineIx), more: [i64; 2]| {
        let [was, is] = counts.entry((real.order_of(sector), machine)).or_default();
        (*was, *is) = (*was + more[0], *is + more[1]);
    };
    for (sector, machine) in before {
        add((*sector, *machine), [1, 0]);
        let begun = real.sectors.get(*sector).map_or(MachineIx::NONE, |s| s.row.m1);
        if begun.is_some() {
            add((*sector, begun), [-1, 0]);
        }
    }
    after.iter().for_each(|planned| add(*planned, [0, 1]));
    let sum = |of: fn(&[i64; 2]) -> i64| counts.values().map(|count| u64::try_from(of(count)).unwrap_or(0)).sum::<u64>();
    let same = sum(|[was, is]| (*was).min(*is));
    (same, sum(|[was, _]| *was).min(sum(|[_, is]| *is)))
}

/// Sectors that are not begun, and where the plan begins them within a day.
fn planned(world: &World<'_>) -> Planned {
    let waiting: Vec<SectorIx> = world.sectors.pairs().filter(|(_, s)| s.state == State::Wait).map(|(id, _)| id).collect();
    let mut played = world.clone();
    played.expect_usual();
    played.run_until(world.now + 24 * HOUR);
    let begun = waiting.into_iter().filter_map(|id| played.sectors.get(id).map(|s| (id, s.row.m1)));
    begun.filter(|(_, machine)| machine.is_some()).collect()
}
