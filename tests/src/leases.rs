//! Machines: enrolment, leases and fences. Two machines never hold the same task, and a result with
//! an old fence is rejected.

use std::sync::Mutex;

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};

use sealyard_core::{
    capacity::Pool,
    clock::{DAY, HOUR, MINUTE, Micros, SECOND},
    fleet::{
        self, Draining, EnrolError, Machine,
        protocol::{FailureLevel, Outcome, ReportRequest, Running, StoredSector, Usage},
    },
    ids::PoolId,
    jobs::{self, Failing},
    proving::{self, NewPost, PostState},
    scheduler,
    sealing::{self, Sector, SectorState, TaskHead},
    store::{AnyConnection, Database, DbFault, schema},
};

use crate::{
    books::buy,
    support::{self, NOW, all_proven, counts, hardware, machine, on_both, read_up_to, shop},
};

/// A sold sector whose PC1 waits for a machine.
fn sector_in_pc1(db: &Database) -> (Sector, TaskHead) {
    let (_, plan, user) = shop(db, 10);
    let contract = buy(db, &plan, user.id, 1, "key");
    db.write(|conn| {
        let sector = sealing::of_contract(conn, contract.id)?.remove(0);
        sealing::begin_sealing(conn, sector.clone(), &"11".repeat(32), 7, NOW)?;
        let task = sealing::open_tasks(conn)?.remove(0);
        Ok((sealing::sector_by_id(conn, sector.id)?, task))
    })
    .unwrap()
}

fn assign(db: &Database, task: &TaskHead, machine: &Machine) -> bool {
    db.write(|conn| sealing::assign(conn, task.id, machine.id, NOW, NOW + 10)).unwrap()
}

fn report(db: &Database, machine: &Machine, task: i64, fence: i64, outcome: Outcome) -> bool {
    let request = ReportRequest { task, fence, outcome, usage: Usage::default() };
    db.transact(|conn| sealing::report(conn, machine.id, &request, NOW)).unwrap()
}

fn done() -> Outcome {
    support::done(serde_json::json!({}))
}

fn state(db: &Database, sector: &Sector) -> String {
    db.read(|conn| sealing::sector_by_id(conn, sector.id).map_err(DbFault::from)).unwrap().state.name().to_owned()
}

#[test]
fn an_enrolment_token_works_once_and_only_until_it_expires() {
    on_both(|db| {
        let token = db.write(|conn| fleet::new_token(conn, "a", NOW, NOW + DAY)).unwrap();
        let enrol = |token: &str, now| db.transact(|conn| fleet::enrol(conn, token, &hardware(), now));
        assert!(matches!(enrol(&token, NOW + DAY), Err(EnrolError::TokenExpired)));
        assert!(enrol(&token, NOW).is_ok());
        assert!(matches!(enrol(&token, NOW), Err(EnrolError::TokenUsed)));
        assert!(matches!(enrol("enrol_guess", NOW), Err(EnrolError::UnknownToken)));
    });
}

#[test]
fn only_one_of_many_planners_grants_a_task() {
    on_both(|db| {
        let (_, task) = sector_in_pc1(db);
        let machines: Vec<Machine> = (0..6).map(|i| machine(db, &format!("m{i}"))).collect();
        let granted: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = machines.iter().map(|m| scope.spawn(|| assign(db, &task, m))).collect();
            tries.into_iter().map(|t| usize::from(t.join().unwrap())).sum()
        });
        assert_eq!(granted, 1);
    });
}

/// 64 planners work at once, each with its own connection. Their clocks differ, and leases expire
/// and are granted again.
#[test]
fn each_task_has_one_lease_at_a_time_and_a_growing_fence_under_64_planners() {
    on_both(|db| {
        let (_, plan, user) = shop(db, 40);
        machine(db, "second");
        let contract = buy(db, &plan, user.id, 30, "many");
        db.write(|conn| {
            for sector in sealing::of_contract(conn, contract.id)? {
                sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, NOW)?;
            }
            Ok(())
        })
        .unwrap();
        // Each grant with the fence that its planner saw.
        let grants: Mutex<Vec<(i64, i64)>> = Mutex::default();
        std::thread::scope(|scope| {
            for planner in 0..64_i64 {
                let grants = &grants;
                scope.spawn(move || {
                    for round in 0..4 {
                        let now = NOW + (round * 64 + planner * 7 % 64) * SECOND;
                        let given = db.write(|conn| {
                            sealing::expire_leases(conn, now)?;
                            let given = scheduler::dispatch(conn, now, 20 * SECOND)?;
                            let open = sealing::open_tasks(conn)?;
                            for machine in fleet::machines(conn)? {
                                let running =
                                    open.iter().filter(|t| t.state.name() == "leased" && t.machine_id == Some(machine.id));
                                assert!(
                                    i64::try_from(running.count()).unwrap() <= machine.cores,
                                    "{} runs more tasks than it has cores",
                                    machine.name
                                );
                            }
                            let fence = |id| open.iter().find(|t| t.id == id).map(|t| t.fence).unwrap();
                            Ok(given.into_iter().map(|a| (a.task.0, fence(a.task))).collect::<Vec<_>>())
                        });
                        grants.lock().unwrap().extend(given.unwrap());
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
        let open = db.read(|conn| sealing::open_tasks(conn).map_err(DbFault::from)).unwrap();
        for task in open {
            let fences: Vec<i64> = grants.iter().filter(|(id, _)| *id == task.id.0).map(|(_, fence)| *fence).collect();
            assert_eq!(fences, (1..=task.fence).collect::<Vec<_>>(), "each grant raises the fence by one");
        }
    });
}

#[test]
fn a_result_with_an_old_fence_is_rejected() {
    on_both(|db| {
        let (sector, task) = sector_in_pc1(db);
        let (slow, quick) = (machine(db, "slow"), machine(db, "quick"));
        assert!(assign(db, &task, &slow));
        // The lease expires, and another machine gets the task.
        db.write(|conn| sealing::expire_leases(conn, NOW + 11)).unwrap();
        assert!(assign(db, &task, &quick));
        assert!(!report(db, &slow, task.id.0, 1, done()), "the first lease has expired");
        assert!(!report(db, &slow, task.id.0, 2, done()), "the fence of another machine's lease is not accepted");
        assert_eq!(state(db, &sector), "pre_commit_1");
        assert!(report(db, &quick, task.id.0, 2, done()));
        assert_eq!(state(db, &sector), "pre_commit_2");
        assert!(report(db, &quick, task.id.0, 2, done()), "a repeated report is accepted");
        let open = db.read(|conn| sealing::open_tasks(conn).map_err(DbFault::from)).unwrap();
        assert_eq!(open.iter().filter(|t| t.kind.name() == "pc2").count(), 1, "a repeated report creates no second task");
    });
}

#[test]
fn a_heartbeat_extends_live_leases_and_stops_lost_ones() {
    on_both(|db| {
        let (_, task) = sector_in_pc1(db);
        let machine = machine(db, "m");
        assert!(assign(db, &task, &machine));
        let beat = |running: &[Running], until| db.write(|conn| sealing::leases_of(conn, machine.id, running, until)).unwrap();
        let offered = beat(&[], NOW + 10);
        assert_eq!((offered.leases.len(), offered.leases[0].fence), (1, 1));
        let running = [Running { task: task.id.0, fence: 1, progress: "pc1".into() }];
        assert!(beat(&running, NOW + 100).leases.is_empty());
        assert_eq!(db.write(|conn| sealing::expire_leases(conn, NOW + 50)).unwrap(), 0);
        assert_eq!(db.write(|conn| sealing::expire_leases(conn, NOW + 101)).unwrap(), 1);
        assert_eq!(beat(&running, NOW + 200).stop, [task.id.0]);
    });
}

#[test]
fn planned_begins_are_kept_until_the_sectors_begin() {
    on_both(|db| {
        let (_, plan, user) = shop(db, 10);
        let second = machine(db, "second");
        let contract = buy(db, &plan, user.id, 6, "key");
        let keep = |now| {
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
        };
        let (moved, first) = keep(NOW);
        assert!(moved == 0 && first.len() == 6 && first.iter().all(Option::is_some), "{first:?}");
        assert!(first.contains(&Some(second.id)));
        assert_eq!(keep(NOW + 1), (0, first.clone()), "an unchanged fleet keeps its plan");
        db.write(|conn| fleet::set_draining(conn, second.id, Draining::Start)).unwrap();
        let (moved, after) = keep(NOW + 2);
        let there = first.iter().filter(|at| **at == Some(second.id)).count();
        assert!(moved == there && !after.contains(&Some(second.id)), "{first:?} became {after:?}");
        db.write(|conn| {
            for sector in sealing::of_contract(conn, contract.id)? {
                sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, NOW)?;
            }
            scheduler::dispatch(conn, NOW + 3, HOUR)?;
            Ok(())
        })
        .unwrap();
        let begun = keep(NOW + 10 * SECOND).1.iter().filter(|at| at.is_none()).count();
        assert!(begun > 0, "a sector that has begun has no planned begin");
    });
}

#[test]
fn files_are_dropped_only_when_the_sector_is_sealed_elsewhere_or_over() {
    on_both(|db| {
        let (sector, task) = sector_in_pc1(db);
        let (a, b) = (machine(db, "a"), machine(db, "b"));
        let here = StoredSector { miner: 1000, number: u64::try_from(sector.number).unwrap() };
        let all = [StoredSector { miner: 1001, ..here }, here, StoredSector { number: 999, ..here }];
        let over = |of: &Machine| db.read(|conn| sealing::not_needed(conn, of.id, &all, NOW).map_err(DbFault::from)).unwrap();
        let read_up_to = |epoch: i64| read_up_to(db, sector.pool_id, epoch);
        assert_eq!(over(&a), [], "nothing is dropped before the chain is read");
        read_up_to(2880);
        assert_eq!(over(&a), [here], "files of unfinished attempts can go, and files of unknown sectors stay");
        assert!(assign(db, &task, &a));
        assert_eq!((over(&a), over(&b)), (vec![], vec![here]), "it is being sealed on the first machine");
        let expire = |conn: &mut AnyConnection| Ok::<_, DbFault>(sealing::expire_leases(conn, NOW + HOUR)?);
        assert!(db.transact(expire).unwrap() == 1 && assign(db, &task, &b));
        assert_eq!((over(&a), over(&b)), (vec![here], vec![]), "another machine has taken over the task of the first");
        let outcome = Outcome::Failed { level: FailureLevel::Abort, reason: "damaged".into() };
        assert!(report(db, &b, task.id.0, 2, outcome));
        assert_eq!((over(&a), over(&b)), (vec![here], vec![here]));
        let becomes = |state: SectorState, activation: Option<i64>| {
            use schema::sectors as s;
            let values =
                (s::state.eq(state.name()), s::machine_id.eq(a.id), s::activation.eq(activation), s::expiration.eq(5000));
            db.write(|conn| diesel::update(s::table.find(sector.id)).set(values).execute(conn)).unwrap();
        };
        for state in SectorState::ALL.into_iter().filter(|s| *s != SectorState::Expired) {
            becomes(state, Some(100));
            assert_eq!(over(&a), [], "{state:?}");
            let stays = state.is_on_chain() || matches!(state, SectorState::ProveCommitting | SectorState::Quarantined);
            assert_eq!(over(&b).is_empty(), stays, "{state:?}: sectors on chain keep all their copies");
        }
        becomes(SectorState::Expired, Some(100));
        assert_eq!(over(&a), [], "the chain has not been read up to its expiration");
        read_up_to(5001);
        assert_eq!(over(&a), [here]);
        becomes(SectorState::Expired, None);
        read_up_to(2880);
        assert_eq!(over(&a), [here], "it was never on chain");
        becomes(SectorState::Planned, None);
        assert_eq!(over(&b), [here]);
        counts(db, sector.pool_id, sector.number);
        assert_eq!(over(&b), [], "the chain counts it, whatever the sector row says");
    });
}

#[test]
fn leases_are_not_taken_away_while_no_machine_can_be_heard() {
    on_both(|db| {
        let (_, task) = sector_in_pc1(db);
        let (works, other) = (machine(db, "works"), machine(db, "other"));
        assert!(assign(db, &task, &works));
        let speak = |machine: &Machine, now| db.write(|conn| fleet::heartbeat(conn, machine, &hardware(), now));
        let expired = |now| db.write(|conn| sealing::expire_leases(conn, now)).unwrap();
        let lost = |now| db.write(|conn| fleet::mark_lost(conn, 10 * MINUTE, now)).unwrap();
        speak(&works, NOW).unwrap();
        speak(&other, NOW).unwrap();
        assert_eq!(expired(NOW + 20 * MINUTE), 0, "no machine was heard for twenty minutes");
        let night = NOW + 9 * HOUR;
        db.write(|conn| fleet::look(conn, night)).unwrap();
        assert_eq!((expired(night), lost(night).len()), (0, 0), "no machine was heard for a night");
        speak(&other, NOW + 20 * MINUTE).unwrap();
        assert_eq!(
            (expired(NOW + 20 * MINUTE), lost(NOW + 20 * MINUTE).len()),
            (0, 0),
            "the first machine to be heard may not be the only one alive"
        );
        for minute in 21..=32 {
            speak(&other, NOW + minute * MINUTE).unwrap();
        }
        let gone = lost(NOW + 32 * MINUTE);
        assert!(gone.contains(&works.id) && !gone.contains(&other.id), "only one machine is silent now");
        assert_eq!(expired(NOW + 32 * MINUTE), 1);
    });
}

#[test]
fn a_sector_that_fails_on_two_machines_ends_in_quarantine_with_its_reason() {
    on_both(|db| {
        let (sector, _) = sector_in_pc1(db);
        let (a, b) = (machine(db, "a"), machine(db, "b"));
        for round in 0..2 {
            let task = db.read(|conn| sealing::open_tasks(conn).map_err(DbFault::from)).unwrap().remove(0);
            let machine = if task.avoid == Some(a.id) { &b } else { &a };
            assert!(assign(db, &task, machine), "round {round}");
            let outcome = Outcome::Failed { level: FailureLevel::Permanent, reason: "the disk is broken".into() };
            assert!(report(db, machine, task.id.0, 1, outcome));
        }
        let sector = db.read(|conn| sealing::sector_by_id(conn, sector.id).map_err(DbFault::from)).unwrap();
        assert_eq!((sector.state.name(), sector.reason.as_deref()), ("quarantined", Some("the disk is broken")));
        assert!(db.read(|conn| sealing::open_tasks(conn).map_err(DbFault::from)).unwrap().is_empty());
        // A person releases it, and the old failures no longer count.
        let again = || db.write(|conn| sealing::release(conn, sector.id, NOW)).unwrap();
        assert!(again() && !again());
        assert_eq!(state(db, &sector), "planned");
        let ready = |conn: &mut AnyConnection| {
            let sector = sealing::sector_by_id(conn, sector.id)?;
            sealing::begin_sealing(conn, sector, &"33".repeat(32), 9, NOW)?;
            Ok::<_, DbFault>(sealing::open_tasks(conn)?.remove(0))
        };
        let task = db.transact(ready).unwrap();
        assert!(assign(db, &task, &b));
        let outcome = Outcome::Failed { level: FailureLevel::Permanent, reason: "the disk is broken".into() };
        assert!(report(db, &b, task.id.0, 1, outcome));
        assert_eq!(state(db, &sector), "pre_commit_1");
    });
}

/// Begins the proof of a partition whose sectors are on two machines, and returns the vanilla
/// tasks.
fn vanilla_tasks(db: &Database, pool: PoolId, sectors: &[i64], round: i64, due_at: Micros) -> Vec<TaskHead> {
    db.write(|conn| {
        let new = NewPost {
            pool,
            deadline: 0,
            partition: 0,
            open_epoch: 2880 * round,
            close_epoch: 2880 * round + 60,
            challenge_epoch: 2880 * round - 20,
            randomness: "22".repeat(32),
            sectors: sectors.to_vec(),
            due_at,
        };
        assert!(proving::begin(conn, &new, NOW)?);
        assert!(!proving::begin(conn, &new, NOW)?, "the proof of a partition is begun once");
        let open = sealing::open_tasks(conn)?;
        Ok(open.into_iter().filter(|t| t.kind.name() == "vanilla").collect())
    })
    .unwrap()
}

/// Two sectors, each on its own machine.
fn on_two_machines(db: &Database) -> (Pool, [Machine; 2], Vec<i64>) {
    let (pool, plan, user) = shop(db, 10);
    let machines = [machine(db, "a"), machine(db, "b")];
    let contract = buy(db, &plan, user.id, 2, "key");
    let sectors = db.write(|conn| {
        for sector in sealing::of_contract(conn, contract.id)? {
            sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, NOW)?;
        }
        for (task, machine) in sealing::open_tasks(conn)?.iter().zip(&machines) {
            assert!(sealing::assign(conn, task.id, machine.id, NOW, NOW + 10)?);
        }
        sealing::of_contract(conn, contract.id)
    });
    (pool, machines, sectors.unwrap().iter().map(|s| s.number).collect())
}

#[test]
fn a_silent_machine_costs_a_proof_only_its_own_sectors() {
    on_both(|db| {
        let (pool, [heard, silent], numbers) = on_two_machines(db);
        let due = NOW + 40 * MINUTE;
        let without = |now| db.write(|conn| proving::go_on_without_silent(conn, pool.id, now)).unwrap();
        let posts = |state| db.read(|conn| proving::in_state(conn, state).map_err(DbFault::from)).unwrap();
        let read = |task: &TaskHead| {
            assert!(assign(db, task, &heard));
            assert!(report(db, &heard, task.id.0, 1, all_proven(db, task.id)));
        };
        let tasks = vanilla_tasks(db, pool.id, &numbers, 1, due);
        let of = |machine: &Machine, tasks: &[TaskHead]| tasks.iter().find(|t| t.pinned_to == Some(machine.id)).cloned().unwrap();
        read(&of(&heard, &tasks));
        assert_eq!(without(NOW + 21 * MINUTE), 0, "the silent machine still has time");
        assert_eq!(without(NOW + 23 * MINUTE), 1, "the remaining time is needed for the SNARK");
        let post = posts(PostState::Proving).remove(0);
        assert_eq!((post.skipped_numbers(), post.sector_numbers()), (vec![numbers[1]], numbers.clone()));
        assert!(!assign(db, &of(&silent, &tasks), &silent), "the task of the silent machine is closed");

        db.write(|conn| {
            fleet::heartbeat(conn, &heard, &hardware(), NOW + DAY)?;
            assert!(fleet::mark_lost(conn, HOUR, NOW + DAY)?.contains(&silent.id));
            Ok(())
        })
        .unwrap();
        let tasks = vanilla_tasks(db, pool.id, &numbers, 2, due);
        assert_eq!(without(NOW + 6 * MINUTE), 0, "it may return before the others are ready");
        read(&of(&heard, &tasks));
        assert_eq!((without(NOW + 4 * MINUTE), without(NOW + 6 * MINUTE)), (0, 1));
        let open = |conn: &mut AnyConnection| Ok::<_, DbFault>(sealing::open_tasks(conn)?.len());
        let before = db.read(open).unwrap();
        assert_eq!(miss_all(db, pool.id), 2);
        assert_eq!(before - db.read(open).unwrap(), 2, "the tasks of closed windows are withdrawn");
    });
}

#[test]
fn an_invalid_snark_is_made_again_by_another_machine() {
    on_both(|db| {
        let (pool, machines, numbers) = on_two_machines(db);
        for task in vanilla_tasks(db, pool.id, &numbers, 1, NOW) {
            let machine = machines.iter().find(|m| Some(m.id) == task.pinned_to).unwrap();
            assert!(assign(db, &task, machine));
            assert!(report(db, machine, task.id.0, 1, all_proven(db, task.id)));
        }
        let snark = || {
            db.read(|conn| Ok::<_, DbFault>(sealing::open_tasks(conn)?))
                .unwrap()
                .into_iter()
                .find(|t| t.kind.name() == "window_post")
        };
        let first = snark().unwrap();
        assert!(assign(db, &first, &machines[0]));
        assert!(report(db, &machines[0], first.id.0, 1, support::snark()));
        let post = db.read(|conn| proving::in_state(conn, PostState::Proven).map_err(DbFault::from)).unwrap().remove(0);
        db.write(|conn| proving::rejected(conn, post.id, NOW)).unwrap();
        let second = snark().unwrap();
        assert_eq!(second.avoid, Some(machines[0].id));
        let input = |id| db.read(|conn| Ok::<_, DbFault>(sealing::task_by_id(conn, id)?.input)).unwrap();
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
                    let machine = machines.iter().find(|m| Some(m.id) == task.pinned_to).unwrap();
                    assert!(assign(db, task, machine));
                    scope.spawn(move || assert!(report(db, machine, task.id.0, 1, all_proven(db, task.id))));
                }
            });
            let proving = db.read(|conn| proving::in_state(conn, PostState::Proving).map_err(DbFault::from)).unwrap();
            assert_eq!(i64::try_from(proving.len()).unwrap(), round, "the SNARK task is missing in some round");
        }
    });
}

#[test]
fn breakdowns_last_from_the_last_heartbeat_to_the_next() {
    on_both(|db| {
        let (silent, heard) = (machine(db, "a"), machine(db, "b"));
        db.write(|conn| {
            fleet::heartbeat(conn, &heard, &hardware(), NOW + DAY)?;
            assert_eq!(fleet::mark_lost(conn, DAY / 2, NOW + DAY)?, [silent.id]);
            assert!(fleet::mark_lost(conn, DAY / 2, NOW + DAY)?.is_empty(), "a lost machine is reported once");
            let lost = fleet::breakdowns(conn, NOW - DAY, NOW + DAY)?;
            assert_eq!((lost.watched, lost.failures, lost.repaired), (DAY, 1, 0), "only the other machine is watched since");
            let again = fleet::machines(conn)?.remove(0);
            fleet::heartbeat(conn, &again, &hardware(), NOW + DAY)?;
            let over = fleet::breakdowns(conn, NOW - DAY, NOW + 2 * DAY)?;
            assert_eq!((over.watched, over.failures, over.repaired, over.repair), (3 * DAY, 1, 1, DAY));
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn a_draining_machine_keeps_draining_after_it_is_lost_and_returns() {
    on_both(|db| {
        let silent = machine(db, "a");
        let now = |conn: &mut AnyConnection| fleet::machines(conn).map(|mut all| all.remove(0));
        db.write(|conn| {
            assert_eq!(fleet::mark_lost(conn, HOUR, NOW + DAY)?, [silent.id]);
            fleet::set_draining(conn, silent.id, Draining::Start)?;
            assert!(fleet::mark_lost(conn, HOUR, NOW + DAY)?.is_empty(), "a lost machine is reported once, draining or not");
            let lost = now(conn)?;
            fleet::heartbeat(conn, &lost, &hardware(), NOW + 2 * DAY)?;
            assert!(now(conn)?.is_draining() && !now(conn)?.is_lost(), "it is back and still draining");
            assert_eq!(fleet::mark_lost(conn, HOUR, NOW + 3 * DAY)?, [silent.id]);
            assert_eq!(fleet::breakdowns(conn, NOW - DAY, NOW + 3 * DAY)?.failures, 2);
            fleet::set_draining(conn, silent.id, Draining::Stop)?;
            assert!(now(conn)?.is_lost(), "ending the drain does not bring a lost machine back");
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn a_failing_loop_is_shown_with_its_start_and_error_until_it_works() {
    on_both(|db| {
        let failing = || db.read(|conn| Ok::<_, DbFault>(jobs::failing(conn)?)).unwrap();
        let turn = |error: Option<&str>, now| {
            db.write(|conn| {
                assert!(jobs::claim(conn, "chain", "one", now + SECOND, now)?);
                jobs::note_turn(conn, "chain", error, now)
            })
            .unwrap();
        };
        turn(None, NOW);
        assert_eq!(failing(), Vec::new());
        turn(Some("no answer"), NOW + SECOND);
        turn(Some("a wrong answer"), NOW + 2 * SECOND);
        let expected = Failing { name: "chain".into(), since: NOW + SECOND, error: "a wrong answer".into() };
        assert_eq!(failing(), [expected]);
        turn(None, NOW + 3 * SECOND);
        assert_eq!(failing(), Vec::new());
    });
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
