//! Urgent orders do not keep another one waiting for ever.

use super::fleets::between;
use crate::{
    DAY, HOUR, Secs,
    model::failure::Rng,
    model::fleet::{Class, Delays, Durations, Fleet, Kind, Machine, Need, Order, Pool},
    model::policy::{Policy, Rule},
    model::table::{Key, KindIx, PoolIx},
    sim::world::World,
};

/// One machine that does everything, with four slots for PC1.
fn four_slots() -> Fleet {
    let need = |cores, memory, gpus| Need {
        cores,
        memory,
        gpus,
    };
    let mut fleet = Fleet {
        delays: Delays {
            ticket: 113_400,
            prove: 30 * DAY,
            ..Delays::default()
        },
        ..Fleet::default()
    };
    fleet.kinds.push(Kind {
        p1: need(4, 64, 0),
        p2: need(1, 16, 1),
        c2: need(1, 16, 1),
        scratch_full: 100,
        scratch_keep: 33,
        stored: 33,
    });
    let pool = fleet.pools.push(Pool {
        moves: [None].into_iter().collect(),
    });
    let durations = Durations {
        p1: 4 * HOUR,
        p2: 300,
        c2: 300,
    };
    let class = fleet.classes.push(Class {
        name: "one".into(),
        cores: 18,
        memory: 1000,
        gpus: 1,
        scratch: 1 << 30,
        store: 0,
        nic: 1,
        durations: [durations].into_iter().collect(),
    });
    fleet.machines.push(Machine {
        pool,
        class,
        down: Vec::new(),
        drains: false,
    });
    fleet
}

fn urgent(at: Secs, weight: i64) -> Order {
    Order {
        id: 0,
        pool: Some(PoolIx::of(0)),
        kind: KindIx(0),
        n: 4,
        release: at,
        step: 0,
        due: at + 6 * HOUR,
        weight,
        known: at,
    }
}

/// When an order without urgency begins, while urgent ones keep coming; −1: not within 100 days.
fn begins(fleet: &Fleet, rule: Rule, rng: &mut Rng) -> Secs {
    let policy = Policy {
        rule,
        gate: None,
        ..Policy::default()
    };
    let mut world = World::new(fleet, policy);
    world.add_order(urgent(0, 8));
    let patient = world.add_order(Order {
        n: 1,
        due: 7 * DAY,
        ..urgent(1, 1)
    });
    let mut at = 2;
    while world.open[patient] > 0 && world.now < 100 * DAY {
        world.add_order(urgent(at, i64::from(between(rng, 4, 8))));
        // Four sectors every four hours take all of the four slots.
        at += 4 * HOUR;
        world.run_until(at);
    }
    let sector = world.sectors_of(patient).next().unwrap();
    world.sectors[sector].row.s1
}

/// One order without urgency begins in the end, although a stream of urgent orders fills the fleet
/// for ever.
#[test]
fn no_order_starves() {
    let mut rng = Rng::new(7);
    let fleet = four_slots();
    for (rule, days) in [
        (Rule::Fifo, 1),
        (Rule::Edd, 8),
        (Rule::Wmdd, 40),
        (Rule::Atc, 40),
    ] {
        let begun = begins(&fleet, rule, &mut rng);
        assert!(
            begun >= 0 && begun <= days * DAY,
            "{rule:?} lets it wait {} h",
            begun / HOUR
        );
    }
}
