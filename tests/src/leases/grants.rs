//! Planners grant each task once, and keep the begins that they have planned.

use std::sync::Mutex;

use sealyard_core::{
    clock::{HOUR, SECOND},
    fleet::{self, Draining, Machine},
    ids::MachineId,
    scheduler,
    sealing::{self, TaskHead},
    store::{AnyConnection, Database, DbFault},
};

use super::{assign, begin_all, open_tasks, sector_in_pc1};
use crate::{
    books::buy,
    support::{NOW, machine, on_both, shop},
};

#[test]
fn only_one_of_many_planners_grants_a_task() {
    on_both(|db| {
        let (_, task) = sector_in_pc1(db);
        let machines: Vec<Machine> = (0..6).map(|i| machine(db, &format!("m{i}"))).collect();
        let granted: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = machines
                .iter()
                .map(|m| scope.spawn(|| assign(db, &task, m)))
                .collect();
            tries
                .into_iter()
                .map(|t| usize::from(t.join().unwrap()))
                .sum()
        });
        assert_eq!(granted, 1);
    });
}

/// One turn of a planner. Returns each grant with the fence that the planner saw.
fn grant(db: &Database, now: i64) -> Vec<(i64, i64)> {
    db.write(|conn| {
        sealing::expire_leases(conn, now)?;
        let given = scheduler::dispatch(conn, now, 20 * SECOND)?;
        let open = sealing::open_tasks(conn)?;
        for machine in fleet::machines(conn)? {
            assert_cores_suffice(&machine, &open);
        }
        let fence = |id| open.iter().find(|t| t.id == id).map(|t| t.fence).unwrap();
        Ok(given
            .into_iter()
            .map(|a| (a.task.0, fence(a.task)))
            .collect())
    })
    .unwrap()
}

fn assert_cores_suffice(machine: &Machine, open: &[TaskHead]) {
    let running = open
        .iter()
        .filter(|t| t.state.name() == "leased" && t.machine_id == Some(machine.id));
    assert!(
        i64::try_from(running.count()).unwrap() <= machine.cores,
        "{} runs more tasks than it has cores",
        machine.name
    );
}

/// 64 planners work at once, each with its own connection. Their clocks differ, and leases expire
/// and are granted again.
#[test]
fn each_task_has_one_lease_at_a_time_and_a_growing_fence_under_64_planners() {
    on_both(|db| {
        let (_, plan, user) = shop(db, 40);
        machine(db, "second");
        let contract = buy(db, &plan, user.id, 30, "many");
        db.write(|conn| begin_all(conn, contract.id)).unwrap();
        let grants: Mutex<Vec<(i64, i64)>> = Mutex::default();
        std::thread::scope(|scope| {
            for planner in 0..64_i64 {
                let grants = &grants;
                scope.spawn(move || {
                    for round in 0..4 {
                        let now = NOW + (round * 64 + planner * 7 % 64) * SECOND;
                        let given = grant(db, now);
                        grants.lock().unwrap().extend(given);
                    }
                });
            }
        });
        let mut grants = grants.into_inner().unwrap();
        let count = grants.len();
        grants.sort_unstable();
        grants.dedup();
        assert_eq!(grants.len(), count, "a fence was given twice");
        assert!(count > 16, "only {count} grants: leases did not expire");
        for task in open_tasks(db) {
            let fences: Vec<i64> = grants
                .iter()
                .filter(|(id, _)| *id == task.id.0)
                .map(|(_, fence)| *fence)
                .collect();
            assert_eq!(
                fences,
                (1..=task.fence).collect::<Vec<_>>(),
                "each grant raises the fence by one"
            );
        }
    });
}

/// Plans the fleet again. Returns how many begins have moved to another machine, and the planned
/// machine of each sector, none if it has begun.
fn keep_plan(db: &Database, now: i64) -> (usize, Vec<Option<MachineId>>) {
    let keep = |conn: &mut AnyConnection| {
        let snapshot = scheduler::load(conn, now)?;
        let moved = scheduler::keep_plan(conn, &snapshot, &scheduler::outlook(&snapshot))?;
        let snapshot = scheduler::load(conn, now)?;
        let drawn = snapshot.commitments[0]
            .sectors
            .iter()
            .map(|s| s.planned_begin.map(|drawn| drawn.machine))
            .collect::<Vec<_>>();
        Ok::<_, DbFault>((moved, drawn))
    };
    db.transact(keep).unwrap()
}

#[test]
fn planned_begins_are_kept_until_the_sectors_begin() {
    on_both(|db| {
        let (_, plan, user) = shop(db, 10);
        let second = machine(db, "second");
        let contract = buy(db, &plan, user.id, 6, "key");
        let keep = |now| keep_plan(db, now);
        let (moved, first) = keep(NOW);
        assert!(
            moved == 0 && first.len() == 6 && first.iter().all(Option::is_some),
            "{first:?}"
        );
        assert!(first.contains(&Some(second.id)));
        assert_eq!(
            keep(NOW + 1),
            (0, first.clone()),
            "an unchanged fleet keeps its plan"
        );
        db.write(|conn| fleet::set_draining(conn, second.id, Draining::Start))
            .unwrap();
        let (moved, after) = keep(NOW + 2);
        let there = first.iter().filter(|at| **at == Some(second.id)).count();
        assert!(
            moved == there && !after.contains(&Some(second.id)),
            "{first:?} became {after:?}"
        );
        db.write(|conn| {
            begin_all(conn, contract.id)?;
            scheduler::dispatch(conn, NOW + 3, HOUR)?;
            Ok(())
        })
        .unwrap();
        let begun = keep(NOW + 10 * SECOND)
            .1
            .iter()
            .filter(|at| at.is_none())
            .count();
        assert!(begun > 0, "a sector that has begun has no planned begin");
    });
}
