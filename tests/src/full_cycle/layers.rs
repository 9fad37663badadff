//! Layers that move between machines.

use std::time::{Duration, Instant};

use sealyard_core::{
    fleet::{self, Machine},
    sealing::{self, TaskHead},
    store::{Database, DbFault},
};

use super::{ONE_AT_A_TIME, buyer, database};
use crate::fixture::Fixture;

fn wait_for_machines(db: &Database, fixture: &Fixture) {
    let started = Instant::now();
    while db
        .read(|conn| fleet::machines(conn).map_err(DbFault::from))
        .unwrap()
        .len()
        < 3
    {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "not all machines enrolled\n{}",
            fixture.shop.serve.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The work so far.
struct Progress {
    sectors: usize,
    tasks: Vec<TaskHead>,
    machines: Vec<Machine>,
}

impl Progress {
    fn of(db: &Database) -> Self {
        db.read(|conn| {
            Ok::<_, DbFault>(Self {
                sectors: sealing::all_sectors(conn, 9)?.len(),
                tasks: sealing::recent_tasks(conn, 99)?,
                machines: fleet::machines(conn)?,
            })
        })
        .unwrap()
    }

    fn done(&self, kind: &str, machine: &str) -> usize {
        let at = self
            .machines
            .iter()
            .find(|m| m.name == machine)
            .map(|m| m.id);
        self.tasks
            .iter()
            .filter(|t| t.kind.name() == kind && t.state.name() == "done" && t.machine_id == at)
            .count()
    }

    fn is_complete(&self) -> bool {
        self.sectors == 2 && self.done("pc2", "basalt") + self.done("pc2", "granite") == 2
    }
}

/// Each sealing machine does one PC1. PC2 runs on the machine with the GPU, which fetches the files
/// of the other one.
#[test]
fn layers_move_to_the_machine_with_the_gpu() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let db = database(dir.path());
    wait_for_machines(&db, &fixture);
    let _buyer = buyer(dir.path(), &fixture, "2").started();
    let started = Instant::now();
    let progress = loop {
        let progress = Progress::of(&db);
        if progress.is_complete() {
            break progress;
        }
        let failed: Vec<_> = progress
            .tasks
            .iter()
            .filter_map(|t| t.failure.as_ref())
            .collect();
        assert!(
            failed.is_empty() && started.elapsed() < Duration::from_secs(180),
            "{failed:?}\n{}",
            fixture.work.log()
        );
        std::thread::sleep(Duration::from_millis(100));
    };
    let done = |kind, machine| progress.done(kind, machine);
    assert_eq!(
        (done("pc1", "granite"), done("pc1", "basalt")),
        (1, 1),
        "{:?}",
        progress.tasks
    );
    assert_eq!(
        (done("move", "basalt"), done("pc2", "granite")),
        (1, 0),
        "{:?}",
        progress.tasks
    );
}
