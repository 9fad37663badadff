//! Layers move to the GPU machine, and failed transfers are retried, blamed or given up.

use sealyard_core::{
    clock::{HOUR, MINUTE, Micros, SECOND},
    fleet::{
        self, Offer, Pass,
        protocol::{Outcome, ReportRequest, Usage},
    },
    scheduler::Assignment,
    sealing::{self, SectorState, TaskKind},
    store::DbFault,
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{Fixture, done, failed, fixture, heard};
use crate::support::{NOW, machine, on_both, read_up_to};

#[test]
fn files_move_to_the_gpu_machine_and_pc2_follows() {
    on_both(|db| {
        let fixture = fixture(db);
        assert_eq!(fixture.dispatch(NOW).len(), 1);
        let fetch = fixture.open("move").unwrap();
        assert_eq!(
            (fetch.state.name(), fetch.machine_id),
            ("leased", Some(fixture.second.id))
        );
        let input = fixture.told(&fixture.second);
        let sector = fixture.stored();
        assert_eq!(
            (input.sector.number, input.from.as_str()),
            (sector.number, "http://first")
        );
        assert!(
            Pass::read(&input.pass, sector, &fixture.key, NOW).is_some(),
            "the first machine accepts the pass"
        );
        assert_eq!(
            fixture.dispatch(NOW + SECOND),
            [],
            "the files are already in transit"
        );
        assert_eq!(
            fixture.sector().machine_id,
            Some(fixture.first.id),
            "they stay at the source until they arrive"
        );
        assert!(fixture.report(&fetch, done(), NOW));
        assert!(
            fixture.report(&fetch, done(), NOW),
            "a repeated report is accepted"
        );
        assert_eq!(fixture.sector().machine_id, Some(fixture.second.id));
        let pc2 = fixture.open("pc2").unwrap();
        assert_eq!(
            fixture.dispatch(NOW + 2 * SECOND),
            [Assignment {
                task: pc2.id,
                machine: fixture.second.id
            }]
        );
        assert_eq!(
            fixture.open("pc2").unwrap().machine_id,
            Some(fixture.second.id)
        );
        read_up_to(db, fixture.sector.pool_id, EPOCHS_PER_DAY);
        let over = [&fixture.first, &fixture.second].map(|on| fixture.not_needed(on, NOW));
        assert_eq!(
            over,
            [vec![sector], vec![]],
            "the first machine can delete it"
        );
    });
}

#[test]
fn a_failed_transfer_is_retried_later_without_blaming_the_sector() {
    on_both(|db| {
        let fixture = fixture(db);
        let mut now = NOW;
        for tried in 0..7 {
            assert_eq!(fixture.dispatch(now).len(), 1, "{tried}");
            let fetch = fixture.open("move").unwrap();
            assert!(fixture.report(&fetch, failed("no route to host"), now));
            let pause = ((10 * MINUTE) << tried).min(HOUR);
            assert_eq!(
                fixture.dispatch(now + pause - MINUTE),
                [],
                "no retry before the pause is over"
            );
            now += pause + MINUTE;
        }
        let sector = fixture.sector();
        assert_eq!(
            (sector.state, sector.failures, sector.machine_id),
            (SectorState::PreCommit2, 0, Some(fixture.first.id))
        );
    });
}

/// Reports a transfer of another sector from the first machine to the second with this outcome.
fn transfer(fixture: &Fixture<'_>, at: usize, outcome: &Outcome, now: Micros) {
    fixture
        .db
        .transact(|conn| {
            let other = sealing::all_sectors(conn, 9)?
                .into_iter()
                .filter(|s| s.id != fixture.sector.id)
                .nth(at)
                .unwrap();
            let fetch = sealing::NewTask {
                kind: TaskKind::Move,
                sector: Some(other.id),
                post: None,
                pool: other.pool_id,
                pinned_to: Some(fixture.second.id),
                avoid: None,
                source_machine: Some(fixture.first.id),
                input: "{}".into(),
                due_at: now,
            };
            let task = sealing::create_task(conn, &fetch, now)?;
            assert!(sealing::assign(
                conn,
                task,
                fixture.second.id,
                now,
                now + HOUR
            )?);
            let report = ReportRequest {
                task: task.0,
                fence: 1,
                outcome: outcome.clone(),
                usage: Usage::default(),
            };
            assert!(sealing::report(conn, fixture.second.id, &report, now).unwrap());
            Ok::<_, DbFault>(())
        })
        .unwrap();
}

#[test]
fn layers_are_made_again_when_only_their_transfer_keeps_failing() {
    on_both(|db| {
        let fixture = fixture(db);
        let mut now = NOW;
        for tried in 0..3 {
            fixture.dispatch(now);
            let fetch = fixture.open("move").unwrap();
            assert!(fixture.report(&fetch, failed("Input/output error"), now));
            transfer(&fixture, 0, &done(), now + MINUTE);
            now += ((10 * MINUTE) << tried) + MINUTE;
        }
        let sector = fixture.sector();
        assert_eq!(
            (sector.state, sector.failures, sector.machine_id),
            (SectorState::Planned, 1, None)
        );
        assert!(sector.reason.unwrap().contains("Input/output error"));
    });
}

#[test]
fn machines_are_blamed_when_several_transfers_fail_and_none_succeeds() {
    on_both(|db| {
        let fixture = fixture(db);
        let blamed = |now| {
            db.read(|conn| Ok::<_, DbFault>(sealing::setbacks(conn, now)?))
                .unwrap()
        };
        for at in 0..3 {
            assert!(
                blamed(NOW + MINUTE).machines.is_empty(),
                "{at} failures may be chance"
            );
            transfer(&fixture, at, &failed("no route to host"), NOW);
        }
        let mut both = blamed(NOW + MINUTE).machines;
        both.sort_unstable();
        assert_eq!(both, [fixture.second.id, fixture.first.id]);
        assert_eq!(blamed(NOW + MINUTE).sectors.len(), 3);
        assert!(
            blamed(NOW + 11 * MINUTE).machines.is_empty()
                && blamed(NOW + 11 * MINUTE).sectors.is_empty()
        );
        transfer(&fixture, 0, &done(), NOW + MINUTE);
        assert!(
            blamed(NOW + 2 * MINUTE).machines.is_empty(),
            "one success clears both machines"
        );
    });
}

#[test]
fn layers_with_an_expired_ticket_begin_again_unless_in_transit() {
    on_both(|db| {
        let fixture = fixture(db);
        let renew = || {
            db.transact(|conn| {
                Ok::<_, DbFault>(sealing::renew_ticket(conn, fixture.sector.id, NOW)?)
            })
            .unwrap()
        };
        fixture.dispatch(NOW);
        assert!(!renew(), "the layers are in transit");
        assert!(fixture.report(
            &fixture.open("move").unwrap(),
            failed("no route to host"),
            NOW
        ));
        assert!(renew());
        assert_eq!(
            (fixture.sector().state, fixture.sector().failures),
            (SectorState::Planned, 0)
        );
        assert!(fixture.open("pc2").is_none());
    });
}

#[test]
fn a_machine_that_falls_silent_during_a_transfer_loses_it_to_another() {
    on_both(|db| {
        let fixture = fixture(db);
        let third = machine(db, "third");
        assert_eq!(fixture.dispatch(NOW).len(), 1);
        let fetch = fixture.open("move").unwrap();
        let later = NOW + 20 * MINUTE;
        db.transact(|conn| {
            heard(conn, &[(&fixture.first, 0), (&third, 1)], later)?;
            assert!(sealing::give_up_lost(conn, 10 * MINUTE, later)?.contains(&fixture.second.id));
            Ok::<_, DbFault>(())
        })
        .unwrap();
        assert!(fixture.open("move").is_none());
        assert_eq!(
            (fixture.sector().state, fixture.sector().machine_id),
            (SectorState::PreCommit2, Some(fixture.first.id))
        );
        assert!(
            !fixture.report(&fetch, done(), later),
            "the report comes too late"
        );
        assert_eq!(fixture.dispatch(later).len(), 1);
        assert_eq!(fixture.open("move").unwrap().machine_id, Some(third.id));
    });
}

#[test]
fn a_sector_begins_again_when_its_files_are_lost_in_transit() {
    on_both(|db| {
        let fixture = fixture(db);
        assert_eq!(fixture.dispatch(NOW).len(), 1);
        let fetch = fixture.open("move").unwrap();
        let later = NOW + 20 * MINUTE;
        db.transact(|conn| {
            heard(conn, &[(&fixture.second, 1)], later)?;
            assert!(sealing::give_up_lost(conn, 10 * MINUTE, later)?.contains(&fixture.first.id));
            Ok::<_, DbFault>(())
        })
        .unwrap();
        assert_eq!(
            (fixture.sector().state, fixture.sector().machine_id),
            (SectorState::Planned, None)
        );
        assert!(fixture.open("move").is_none() && fixture.open("pc2").is_none());
        assert!(!fixture.report(&fetch, done(), later));
        assert_eq!(
            fixture.sector().machine_id,
            None,
            "files from a machine that has been lost since are not used"
        );
    });
}

#[test]
fn a_machine_that_serves_no_files_seals_its_sectors_to_the_end() {
    on_both(|db| {
        let fixture = fixture(db);
        for url in [None, Some("ftp://first")] {
            db.transact(|conn| {
                let first = fleet::by_key(conn, &fixture.key)?.unwrap();
                Ok::<_, DbFault>(fleet::offer(
                    conn,
                    &first,
                    Offer {
                        files_url: url,
                        keeps: false,
                    },
                )?)
            })
            .unwrap();
        }
        fixture.dispatch(NOW);
        assert!(fixture.open("move").is_none());
        assert_eq!(
            fixture.open("pc2").unwrap().machine_id,
            Some(fixture.first.id)
        );
    });
}
