//! Proofs of partitions whose sectors are on several machines.

use sealyard_core::{
    capacity::Pool,
    clock::{DAY, HOUR, MINUTE, Micros},
    fleet::{self, Machine},
    ids::PoolId,
    proving::{self, NewPost, PostState, WindowPost},
    sealing::{self, TaskHead},
    store::{Database, DbFault},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{assign, begin_all, open_tasks, report};
use crate::{
    books::buy,
    support::{self, NOW, all_proven, hardware, machine, on_both, shop},
};

/// Begins the proof of a partition whose sectors are on two machines, and returns the vanilla
/// tasks.
fn vanilla_tasks(
    db: &Database,
    pool: PoolId,
    sectors: &[i64],
    round: i64,
    due_at: Micros,
) -> Vec<TaskHead> {
    db.write(|conn| {
        let open_epoch = EPOCHS_PER_DAY * round;
        let new = NewPost {
            pool,
            deadline: 0,
            partition: 0,
            open_epoch,
            close_epoch: open_epoch + 60,
            challenge_epoch: open_epoch - 20,
            randomness: "22".repeat(32),
            sectors: sectors.to_vec(),
            due_at,
        };
        assert!(proving::begin(conn, &new, NOW)?);
        assert!(
            !proving::begin(conn, &new, NOW)?,
            "the proof of a partition is begun once"
        );
        let open = sealing::open_tasks(conn)?;
        Ok(open
            .into_iter()
            .filter(|t| t.kind.name() == "vanilla")
            .collect())
    })
    .unwrap()
}

/// Two sectors, each on its own machine.
fn on_two_machines(db: &Database) -> (Pool, [Machine; 2], Vec<i64>) {
    let (pool, plan, user) = shop(db, 10);
    let machines = [machine(db, "a"), machine(db, "b")];
    let contract = buy(db, &plan, user.id, 2, "key");
    let sectors = db.write(|conn| {
        begin_all(conn, contract.id)?;
        for (task, machine) in sealing::open_tasks(conn)?.iter().zip(&machines) {
            assert!(sealing::assign(conn, task.id, machine.id, NOW, NOW + 10)?);
        }
        sealing::of_contract(conn, contract.id)
    });
    (
        pool,
        machines,
        sectors.unwrap().iter().map(|s| s.number).collect(),
    )
}

fn machine_of<'m>(task: &TaskHead, machines: &'m [Machine]) -> &'m Machine {
    machines
        .iter()
        .find(|m| Some(m.id) == task.pinned_to)
        .unwrap()
}

fn task_of<'t>(machine: &Machine, tasks: &'t [TaskHead]) -> &'t TaskHead {
    tasks
        .iter()
        .find(|t| t.pinned_to == Some(machine.id))
        .unwrap()
}

/// The machine takes its vanilla task and proves all its sectors.
fn prove(db: &Database, task: &TaskHead, machine: &Machine) {
    assert!(assign(db, task, machine));
    assert!(report(db, machine, task.id.0, 1, all_proven(db, task.id)));
}

fn posts(db: &Database, state: PostState) -> Vec<WindowPost> {
    db.read(|conn| proving::in_state(conn, state).map_err(DbFault::from))
        .unwrap()
}

/// Marks every closed window as missed, and returns their number.
fn miss_all(db: &Database, pool: PoolId) -> usize {
    db.write(|conn| {
        let mut missed = 0;
        for post in proving::closed(conn, pool, 9999)? {
            missed += usize::from(proving::miss(conn, &post, NOW)?);
        }
        Ok(missed)
    })
    .unwrap()
}

#[test]
fn a_silent_machine_costs_a_proof_only_its_own_sectors() {
    on_both(|db| {
        let (pool, [heard, silent], numbers) = on_two_machines(db);
        let due = NOW + 40 * MINUTE;
        let without = |now| {
            db.write(|conn| proving::go_on_without_silent(conn, pool.id, now))
                .unwrap()
        };
        let tasks = vanilla_tasks(db, pool.id, &numbers, 1, due);
        prove(db, task_of(&heard, &tasks), &heard);
        assert_eq!(
            without(NOW + 21 * MINUTE),
            0,
            "the silent machine still has time"
        );
        assert_eq!(
            without(NOW + 23 * MINUTE),
            1,
            "the remaining time is needed for the SNARK"
        );
        let post = posts(db, PostState::Proving).remove(0);
        assert_eq!(
            (post.skipped_numbers(), post.sector_numbers()),
            (vec![numbers[1]], numbers.clone())
        );
        assert!(
            !assign(db, task_of(&silent, &tasks), &silent),
            "the task of the silent machine is closed"
        );

        db.write(|conn| {
            fleet::heartbeat(conn, &heard, &hardware(), NOW + DAY)?;
            assert!(fleet::mark_lost(conn, HOUR, NOW + DAY)?.contains(&silent.id));
            Ok(())
        })
        .unwrap();
        let tasks = vanilla_tasks(db, pool.id, &numbers, 2, due);
        assert_eq!(
            without(NOW + 6 * MINUTE),
            0,
            "it may return before the others are ready"
        );
        prove(db, task_of(&heard, &tasks), &heard);
        assert_eq!(
            (without(NOW + 4 * MINUTE), without(NOW + 6 * MINUTE)),
            (0, 1)
        );
        let before = open_tasks(db).len();
        assert_eq!(miss_all(db, pool.id), 2);
        assert_eq!(
            before - open_tasks(db).len(),
            2,
            "the tasks of closed windows are withdrawn"
        );
    });
}

#[test]
fn an_invalid_snark_is_made_again_by_another_machine() {
    on_both(|db| {
        let (pool, machines, numbers) = on_two_machines(db);
        for task in vanilla_tasks(db, pool.id, &numbers, 1, NOW) {
            prove(db, &task, machine_of(&task, &machines));
        }
        let snark = || {
            open_tasks(db)
                .into_iter()
                .find(|t| t.kind.name() == "window_post")
        };
        let first = snark().unwrap();
        assert!(assign(db, &first, &machines[0]));
        assert!(report(db, &machines[0], first.id.0, 1, support::snark()));
        let post = posts(db, PostState::Proven).remove(0);
        db.write(|conn| proving::rejected(conn, post.id, NOW))
            .unwrap();
        let second = snark().unwrap();
        assert_eq!(second.avoid, Some(machines[0].id));
        let input = |id| {
            db.read(|conn| Ok::<_, DbFault>(sealing::task_by_id(conn, id)?.input))
                .unwrap()
        };
        assert_eq!(input(second.id), input(first.id));
    });
}

#[test]
fn the_snark_follows_when_machines_report_their_parts_at_the_same_moment() {
    on_both(|db| {
        let (pool, machines, numbers) = on_two_machines(db);
        for round in 1..=15 {
            let tasks = vanilla_tasks(db, pool.id, &numbers, round, NOW);
            assert_eq!(tasks.len(), 2, "each machine has a vanilla task");
            std::thread::scope(|scope| {
                for task in &tasks {
                    let machine = machine_of(task, &machines);
                    assert!(assign(db, task, machine));
                    scope.spawn(move || {
                        assert!(report(db, machine, task.id.0, 1, all_proven(db, task.id)))
                    });
                }
            });
            let proving = posts(db, PostState::Proving);
            assert_eq!(
                i64::try_from(proving.len()).unwrap(),
                round,
                "the SNARK task is missing in some round"
            );
        }
    });
}
