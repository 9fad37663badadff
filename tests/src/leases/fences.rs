//! A lease is extended, lost and passed on. Its fence tells one holder from the next.

use sealyard_core::{
    clock::{HOUR, MINUTE},
    fleet::{
        self, Machine,
        protocol::{FailureLevel, Running},
    },
    sealing,
    store::{AnyConnection, DbFault},
};

use super::{assign, done, failed, open_tasks, report, sector_in_pc1, state};
use crate::support::{NOW, hardware, machine, on_both};

#[test]
fn a_result_with_an_old_fence_is_rejected() {
    on_both(|db| {
        let (sector, task) = sector_in_pc1(db);
        let (slow, quick) = (machine(db, "slow"), machine(db, "quick"));
        assert!(assign(db, &task, &slow));
        // The lease expires, and another machine gets the task.
        db.write(|conn| sealing::expire_leases(conn, NOW + 11))
            .unwrap();
        assert!(assign(db, &task, &quick));
        assert!(
            !report(db, &slow, task.id.0, 1, done()),
            "the first lease has expired"
        );
        assert!(
            !report(db, &slow, task.id.0, 2, done()),
            "the fence of another machine's lease is not accepted"
        );
        assert_eq!(state(db, &sector), "pre_commit_1");
        assert!(report(db, &quick, task.id.0, 2, done()));
        assert_eq!(state(db, &sector), "pre_commit_2");
        assert!(
            report(db, &quick, task.id.0, 2, done()),
            "a repeated report is accepted"
        );
        let pc2s = open_tasks(db)
            .iter()
            .filter(|t| t.kind.name() == "pc2")
            .count();
        assert_eq!(pc2s, 1, "a repeated report creates no second task");
    });
}

#[test]
fn a_heartbeat_extends_live_leases_and_stops_lost_ones() {
    on_both(|db| {
        let (_, task) = sector_in_pc1(db);
        let machine = machine(db, "m");
        assert!(assign(db, &task, &machine));
        let beat = |running: &[Running], until| {
            db.write(|conn| sealing::leases_of(conn, machine.id, running, until))
                .unwrap()
        };
        let offered = beat(&[], NOW + 10);
        assert_eq!((offered.leases.len(), offered.leases[0].fence), (1, 1));
        let running = [Running {
            task: task.id.0,
            fence: 1,
            progress: "pc1".into(),
        }];
        assert!(beat(&running, NOW + 100).leases.is_empty());
        assert_eq!(
            db.write(|conn| sealing::expire_leases(conn, NOW + 50))
                .unwrap(),
            0
        );
        assert_eq!(
            db.write(|conn| sealing::expire_leases(conn, NOW + 101))
                .unwrap(),
            1
        );
        assert_eq!(beat(&running, NOW + 200).stop, [task.id.0]);
    });
}

#[test]
fn leases_are_not_taken_away_while_no_machine_can_be_heard() {
    on_both(|db| {
        let (_, task) = sector_in_pc1(db);
        let (works, other) = (machine(db, "works"), machine(db, "other"));
        assert!(assign(db, &task, &works));
        let speak = |machine: &Machine, now| {
            db.write(|conn| fleet::heartbeat(conn, machine, &hardware(), now))
        };
        let expired = |now| db.write(|conn| sealing::expire_leases(conn, now)).unwrap();
        let lost = |now| {
            db.write(|conn| fleet::mark_lost(conn, 10 * MINUTE, now))
                .unwrap()
        };
        speak(&works, NOW).unwrap();
        speak(&other, NOW).unwrap();
        assert_eq!(
            expired(NOW + 20 * MINUTE),
            0,
            "no machine was heard for twenty minutes"
        );
        let night = NOW + 9 * HOUR;
        db.write(|conn| fleet::look(conn, night)).unwrap();
        assert_eq!(
            (expired(night), lost(night).len()),
            (0, 0),
            "no machine was heard for a night"
        );
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
        assert!(
            gone.contains(&works.id) && !gone.contains(&other.id),
            "only one machine is silent now"
        );
        assert_eq!(expired(NOW + 32 * MINUTE), 1);
    });
}

#[test]
fn a_sector_that_fails_on_two_machines_ends_in_quarantine_with_its_reason() {
    on_both(|db| {
        let (sector, _) = sector_in_pc1(db);
        let (a, b) = (machine(db, "a"), machine(db, "b"));
        let broken = || failed(FailureLevel::Permanent, "the disk is broken");
        for round in 0..2 {
            let task = open_tasks(db).remove(0);
            let machine = if task.avoid == Some(a.id) { &b } else { &a };
            assert!(assign(db, &task, machine), "round {round}");
            assert!(report(db, machine, task.id.0, 1, broken()));
        }
        let sector = db
            .read(|conn| sealing::sector_by_id(conn, sector.id).map_err(DbFault::from))
            .unwrap();
        assert_eq!(
            (sector.state.name(), sector.reason.as_deref()),
            ("quarantined", Some("the disk is broken"))
        );
        assert!(open_tasks(db).is_empty());
        // A person releases it, and the old failures no longer count.
        let again = || {
            db.write(|conn| sealing::release(conn, sector.id, NOW))
                .unwrap()
        };
        assert!(again() && !again());
        assert_eq!(state(db, &sector), "planned");
        let ready = |conn: &mut AnyConnection| {
            let sector = sealing::sector_by_id(conn, sector.id)?;
            sealing::begin_sealing(conn, sector, &"33".repeat(32), 9, NOW)?;
            Ok::<_, DbFault>(sealing::open_tasks(conn)?.remove(0))
        };
        let task = db.transact(ready).unwrap();
        assert!(assign(db, &task, &b));
        assert!(report(db, &b, task.id.0, 1, broken()));
        assert_eq!(state(db, &sector), "pre_commit_1");
    });
}
