//! The close of a day: its split, its vesting, and its behaviour when workers race or crash.

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use diesel::connection::{Connection, InstrumentationEvent};
use sealyard_core::{
    ids::{PoolId, UserId},
    ledger::{self, AccountSpec},
    on_conn,
    store::{AnyConnection, Database, DbFault},
    yields,
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{buy, chain, close_all, ledger_findings, posted, sectors, sold_sector};
use crate::support::{NOW, investor, on_both, shop};

/// Ada has two sectors that count from the first epoch on, Bob has one. On the first day the miner
/// wins 5 FIL and an attoFIL.
struct TwoInvestors {
    pool: PoolId,
    ada: UserId,
    bob: UserId,
}

impl TwoInvestors {
    /// Bob's sector counts from epoch `bob_starts` on, and the chain is read for some days.
    fn new(db: &Database, bob_starts: i64, days: i64) -> Self {
        let (pool, plan, ada) = shop(db, 10);
        let bob = db
            .write(|conn| Ok(investor(conn, "bob@example.org")))
            .unwrap();
        let (first, second) = (
            buy(db, &plan, ada.id, 2, "ada"),
            buy(db, &plan, bob.id, 1, "bob"),
        );
        let mut starts: Vec<_> = sectors(db, &first).into_iter().map(|id| (id, 0)).collect();
        starts.push((sectors(db, &second)[0], bob_starts));
        chain(
            db,
            pool.id,
            &starts,
            &[(10, "3560000000000000000"), (2000, "1440000000000000001")],
            days * EPOCHS_PER_DAY,
        );
        Self {
            pool: pool.id,
            ada: ada.id,
            bob: bob.id,
        }
    }
}

#[test]
fn a_day_is_split_by_power_and_time_to_the_last_attofil() {
    on_both(|db| {
        // Bob's sector counts for half the day: 2 + 0.5 shares.
        let TwoInvestors { pool, ada, bob } = TwoInvestors::new(db, EPOCHS_PER_DAY / 2, 1);
        assert_eq!(close_all(db, pool), 1);

        let day = &db
            .read(|conn| yields::days(conn, pool, 1).map_err(DbFault::from))
            .unwrap()[0];
        assert_eq!(
            (day.posted_nano, day.carry_atto, day.wins),
            (5_000_000_000, 1, 2)
        );
        // Ada has 4 FIL gross, 3.2 after the 20 % fee, and a quarter at once. Bob has a quarter of
        // that.
        assert_eq!(posted(db, &AccountSpec::Available(ada)), 800_000_000);
        assert_eq!(posted(db, &AccountSpec::Vesting(ada)), 2_400_000_000);
        // Half of what Bob was promised is missing. The operator pays him 1 FIL less the fee.
        assert_eq!(
            posted(db, &AccountSpec::Available(bob)),
            200_000_000 + 800_000_000
        );
        assert_eq!(posted(db, &AccountSpec::Compensation(pool)), -800_000_000);
        let said = db
            .read(|conn| yields::explain(conn, bob, day.day))
            .unwrap()
            .join("\n");
        for part in [
            "epoch 10: block c with 1 wins, 3560000000000000000 attoFIL",
            "counted from epoch 1440 on",
            "0.800000000 FIL paid",
        ] {
            assert!(said.contains(part), "{part} is missing in\n{said}");
        }
        assert_eq!(posted(db, &AccountSpec::Fees(pool)), 1_000_000_000);
        assert_eq!(ledger_findings(db), []);
    });
}

#[test]
fn a_day_closes_once_when_several_workers_try() {
    on_both(|db| {
        let (pool, ada) = sold_sector(db, &[(5, "1000000000000000000")], EPOCHS_PER_DAY);
        let closed: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..6)
                .map(|_| scope.spawn(|| close_all(db, pool)))
                .collect();
            tries.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(closed, 1);
        assert_eq!(close_all(db, pool), 0, "closing again changes nothing");
        assert_eq!(posted(db, &AccountSpec::Available(ada)), 200_000_000);
    });
}

#[test]
fn a_day_stays_open_until_it_is_fully_read() {
    on_both(|db| {
        let (pool, _) = sold_sector(db, &[], EPOCHS_PER_DAY - 1);
        assert_eq!(close_all(db, pool), 0);
    });
}

#[test]
fn every_reward_vests_in_full_and_to_the_last_nanofil() {
    on_both(|db| {
        let days = 185;
        let (pool, ada) = sold_sector(db, &[(5, "1234567891000000000")], days * EPOCHS_PER_DAY);
        assert_eq!(close_all(db, pool), usize::try_from(days).unwrap());
        // 1,234,567,891 nanoFIL, 20 % fee rounded down.
        let net = 1_234_567_891 - 246_913_578;
        assert_eq!(posted(db, &AccountSpec::Vesting(ada)), 0);
        assert_eq!(posted(db, &AccountSpec::Available(ada)), net);
        assert_eq!(ledger_findings(db), []);
    });
}

/// Makes the connection panic at the statement at which `left` reaches zero. `i64::MAX` means
/// never.
fn die_at(conn: &mut AnyConnection, left: &Arc<AtomicI64>) {
    let left = Arc::clone(left);
    let die = move |event: InstrumentationEvent<'_>| {
        if matches!(
            event,
            InstrumentationEvent::StartQuery { .. }
                | InstrumentationEvent::CommitTransaction { .. }
        ) && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::panic::resume_unwind(Box::new("the machine lost its power"));
        }
    };
    on_conn!(conn, |c| c.set_instrumentation(die));
}

/// Closes a day on a connection that dies at a statement. Returns `None` if it died, otherwise how
/// many statements it still had.
fn close_dying_at(db: &Database, pool: PoolId, statement: i64) -> Option<i64> {
    let left = Arc::new(AtomicI64::new(statement));
    let tried = std::panic::catch_unwind(AssertUnwindSafe(|| {
        db.transact(|conn| {
            die_at(conn, &left);
            yields::close_day(conn, pool, NOW)
        })
    }));
    let left = left.swap(i64::MAX, Ordering::SeqCst);
    let closed = tried.ok()?;
    assert!(closed.unwrap().is_some(), "the day closes in the end");
    Some(left)
}

#[test]
fn a_crash_at_any_sql_statement_leaves_a_day_open_or_fully_closed() {
    on_both(|db| {
        // The last day of the month also requests the statements.
        let TwoInvestors { pool, bob, .. } = TwoInvestors::new(db, 100, 2);
        let state = || {
            (
                close_state(db, pool),
                posted(db, &AccountSpec::Available(bob)),
            )
        };
        for day in 0..2 {
            for statement in 1.. {
                let before = state();
                let closed = close_dying_at(db, pool, statement);
                assert_eq!(ledger_findings(db), [], "statement {statement}");
                if let Some(left) = closed {
                    assert!(
                        left > 0 && statement > 8,
                        "day {day} died at each of {statement} statements"
                    );
                    break;
                }
                assert_eq!(
                    state(),
                    before,
                    "statement {statement} left something behind"
                );
            }
        }
        assert_eq!(
            close_state(db, pool),
            (2, 4),
            "two contracts have two lots each"
        );
    });
}

/// The number of closed days and of the lots in them.
fn close_state(db: &Database, pool: PoolId) -> (usize, usize) {
    db.read(|conn| {
        let days = yields::days(conn, pool, i64::MAX)?;
        let lots = days
            .iter()
            .map(|day| ledger::lots_on(conn, pool, day.day).map(|lots| lots.len()))
            .sum::<Result<usize, _>>()?;
        Ok::<_, DbFault>((days.len(), lots))
    })
    .unwrap()
}
