//! Small fleets and orders for the planner's tests.

use crate::{
    Class, ClassIx, DAY, Delays, Durations, Fleet, HOUR, Key, Kind, KindIx, Machine, Moves, Need,
    Order, Pool, PoolIx, Secs,
};

/// One machine that does everything.
pub(crate) fn fleet() -> Fleet {
    let moves = Moves {
        layers: 360,
        sealed: Some(60),
    };
    let pool = Pool {
        moves: [Some(moves)].into_iter().collect(),
    };
    let machine = Machine {
        pool: PoolIx::of(0),
        class: ClassIx::of(0),
        down: Vec::new(),
        drains: false,
    };
    Fleet {
        delays: Delays {
            message: 120,
            seed: 4500,
            c1: 60,
            ticket: DAY,
            prove: 30 * DAY,
        },
        kinds: [kind()].into_iter().collect(),
        pools: [pool].into_iter().collect(),
        classes: [class()].into_iter().collect(),
        machines: [machine].into_iter().collect(),
        ..Fleet::default()
    }
}

fn kind() -> Kind {
    let need = |cores, gpus| Need {
        cores,
        memory: 64,
        gpus,
    };
    Kind {
        p1: need(4, 0),
        p2: need(8, 1),
        c2: need(8, 1),
        scratch_full: 480,
        scratch_keep: 48,
        stored: 34,
    }
}

fn class() -> Class {
    let durations = Durations {
        p1: 4 * HOUR,
        p2: 900,
        c2: 900,
    };
    Class {
        name: "all".into(),
        cores: 40,
        memory: 1024,
        gpus: 1,
        scratch: 5000,
        store: 100_000,
        nic: 2,
        durations: [durations].into_iter().collect(),
    }
}

/// Two pools, each with one machine that does everything: ten PC1 steps of 4 h at a time, or eight
/// while room is kept for a GPU step. The second machine is down until `second_down`.
pub(crate) fn two_pools(second_down: Secs) -> Fleet {
    let mut fleet = fleet();
    let second = fleet.pools.iter().next().unwrap().clone();
    let pool = fleet.pools.push(second);
    fleet.machines.push(Machine {
        pool,
        class: ClassIx::of(0),
        down: vec![(0, second_down)],
        drains: false,
    });
    fleet
}

pub(crate) fn order(pool: Option<usize>, n: u32, due: Secs) -> Order {
    let pool = pool.map(PoolIx::of);
    Order {
        id: 0,
        pool,
        kind: KindIx::of(0),
        n,
        release: 0,
        step: 0,
        due,
        weight: 1,
        known: 0,
    }
}
