//! Machines and loops: enrolment, breakdowns, draining, and loops that fail for a while.

use sealyard_core::{
    clock::{DAY, HOUR, SECOND},
    fleet::{self, Draining, EnrolError},
    jobs::{self, Failing},
    store::{AnyConnection, DbFault},
};

use crate::support::{NOW, hardware, machine, on_both};

#[test]
fn an_enrolment_token_works_once_and_only_until_it_expires() {
    on_both(|db| {
        let token = db
            .write(|conn| fleet::new_token(conn, "a", NOW, NOW + DAY))
            .unwrap();
        let enrol =
            |token: &str, now| db.transact(|conn| fleet::enrol(conn, token, &hardware(), now));
        assert!(matches!(
            enrol(&token, NOW + DAY),
            Err(EnrolError::TokenExpired)
        ));
        assert!(enrol(&token, NOW).is_ok());
        assert!(matches!(enrol(&token, NOW), Err(EnrolError::TokenUsed)));
        assert!(matches!(
            enrol("enrol_guess", NOW),
            Err(EnrolError::UnknownToken)
        ));
    });
}

#[test]
fn breakdowns_last_from_the_last_heartbeat_to_the_next() {
    on_both(|db| {
        let (silent, heard) = (machine(db, "a"), machine(db, "b"));
        db.write(|conn| {
            fleet::heartbeat(conn, &heard, &hardware(), NOW + DAY)?;
            assert_eq!(fleet::mark_lost(conn, DAY / 2, NOW + DAY)?, [silent.id]);
            assert!(
                fleet::mark_lost(conn, DAY / 2, NOW + DAY)?.is_empty(),
                "a lost machine is reported once"
            );
            let lost = fleet::breakdowns(conn, NOW - DAY, NOW + DAY)?;
            assert_eq!(
                (lost.watched, lost.failures, lost.repaired),
                (DAY, 1, 0),
                "only the other machine is watched since"
            );
            let again = fleet::machines(conn)?.remove(0);
            fleet::heartbeat(conn, &again, &hardware(), NOW + DAY)?;
            let over = fleet::breakdowns(conn, NOW - DAY, NOW + 2 * DAY)?;
            assert_eq!(
                (over.watched, over.failures, over.repaired, over.repair),
                (3 * DAY, 1, 1, DAY)
            );
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
            assert!(
                fleet::mark_lost(conn, HOUR, NOW + DAY)?.is_empty(),
                "a lost machine is reported once, draining or not"
            );
            let lost = now(conn)?;
            fleet::heartbeat(conn, &lost, &hardware(), NOW + 2 * DAY)?;
            assert!(
                now(conn)?.is_draining() && !now(conn)?.is_lost(),
                "it is back and still draining"
            );
            assert_eq!(fleet::mark_lost(conn, HOUR, NOW + 3 * DAY)?, [silent.id]);
            assert_eq!(
                fleet::breakdowns(conn, NOW - DAY, NOW + 3 * DAY)?.failures,
                2
            );
            fleet::set_draining(conn, silent.id, Draining::Stop)?;
            assert!(
                now(conn)?.is_lost(),
                "ending the drain does not bring a lost machine back"
            );
            Ok(())
        })
        .unwrap();
    });
}

#[test]
fn a_failing_loop_is_shown_with_its_start_and_error_until_it_works() {
    on_both(|db| {
        let failing = || {
            db.read(|conn| Ok::<_, DbFault>(jobs::failing(conn)?))
                .unwrap()
        };
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
        let expected = Failing {
            name: "chain".into(),
            since: NOW + SECOND,
            error: "a wrong answer".into(),
        };
        assert_eq!(failing(), [expected]);
        turn(None, NOW + 3 * SECOND);
        assert_eq!(failing(), Vec::new());
    });
}
