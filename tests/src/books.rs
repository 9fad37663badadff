//! From the chain's records to the books: a day closes once, whole, and adds up.

use std::collections::HashMap;

use sealyard_core::{
    clock::{DAY, Month},
    contracts::Contract,
    ids::{PoolId, SectorId},
    ledger::{self, AccountSpec, Asset, LedgerError, Transfer},
    orders::{self, Paid, PlaceOrder},
    sealing, statements,
    store::{Database, DbFault},
    units::ChainTime,
    yields::{self, Win},
};

use crate::support::{NOW, SECTOR, investor, on_both, shop};

/// 2026-10-30T00:00Z at epoch 0, 2,880 epochs a day.
const TIME: ChainTime = ChainTime { genesis_at: 1_793_318_400, epoch_seconds: 30 };

fn buy(db: &Database, plan: &sealyard_core::catalog::Plan, user: sealyard_core::ids::UserId, units: i64, key: &str) -> Contract {
    db.transact(|conn| {
        let order = orders::place(conn, &PlaceOrder { user, plan, units, request_key: key, shown: None }, NOW).unwrap();
        orders::open_payment(conn, order.id, "stripe", key, "http://pay", NOW)?;
        let paid = Paid { rail: "stripe", rail_ref: key, minor: order.amount_minor, currency: "usd" };
        Ok::<_, DbFault>(orders::fulfil(conn, &paid, NOW).unwrap().unwrap())
    })
    .unwrap()
}

/// All sectors of `contracts` count from the given epochs on, and the chain is read up to `next`.
fn chain(db: &Database, pool: PoolId, starts: &[(SectorId, i64)], wins: &[(i64, &str)], next: i64) {
    db.transact(|conn| {
        yields::init_cursor(conn, pool, TIME, 0)?;
        for (sector, epoch) in starts {
            yields::power_on(conn, pool, *sector, *epoch, SECTOR)?;
        }
        for (epoch, reward) in wins {
            let win = Win { pool_id: pool, epoch: *epoch, cid: "c".into(), win_count: 1, reward_atto: (*reward).into() };
            yields::record_win(conn, &win)?;
        }
        let cursor = yields::cursor(conn, pool)?.unwrap();
        assert!(yields::advance_cursor(conn, &cursor, next, next, "cid")?);
        Ok::<_, DbFault>(())
    })
    .unwrap();
}

fn close_all(db: &Database, pool: PoolId) -> usize {
    let mut closed = 0;
    while db.transact(|conn| yields::close_day(conn, pool, NOW)).unwrap().is_some() {
        closed += 1;
    }
    closed
}

fn posted(db: &Database, spec: &AccountSpec) -> i64 {
    db.read(|conn| ledger::balance(conn, spec).map_err(DbFault::from)).unwrap().posted
}

fn sectors(db: &Database, contract: &Contract) -> Vec<SectorId> {
    db.read(|conn| Ok::<_, DbFault>(sealing::of_contract(conn, contract.id)?.into_iter().map(|s| s.id).collect())).unwrap()
}

#[test]
fn a_day_is_split_by_power_and_time_to_the_last_atto() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let bob = db.transact(|conn| Ok::<_, DbFault>(investor(conn, "bob@example.org"))).unwrap();
        let (first, second) = (buy(db, &plan, ada.id, 2, "ada"), buy(db, &plan, bob.id, 1, "bob"));
        let mut starts: Vec<_> = sectors(db, &first).into_iter().map(|id| (id, 0)).collect();
        // Bob's sector counts for half the day: 2 + 0.5 shares.
        starts.push((sectors(db, &second)[0], 1440));
        chain(db, pool.id, &starts, &[(10, "3560000000000000000"), (2000, "1440000000000000001")], 2880);
        assert_eq!(close_all(db, pool.id), 1);

        let day = &db.read(|conn| yields::days(conn, pool.id, 1).map_err(DbFault::from)).unwrap()[0];
        assert_eq!((day.posted_nano, day.carry_atto, day.wins), (5_000_000_000, 1, 2));
        // Ada: 4 FIL gross, 20 % fee, 3.2 net, a quarter at once. Bob: a quarter of it.
        assert_eq!(posted(db, &AccountSpec::Available(ada.id)), 800_000_000);
        assert_eq!(posted(db, &AccountSpec::Vesting(ada.id)), 2_400_000_000);
        assert_eq!(posted(db, &AccountSpec::Available(bob.id)), 200_000_000);
        assert_eq!(posted(db, &AccountSpec::Fees(pool.id)), 1_000_000_000);
        assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
    });
}

#[test]
fn a_day_closes_once_whoever_tries() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &[(5, "1000000000000000000")], 2880);
        let closed: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..6).map(|_| scope.spawn(|| close_all(db, pool.id))).collect();
            tries.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(closed, 1);
        assert_eq!(close_all(db, pool.id), 0, "again is no change");
        assert_eq!(posted(db, &AccountSpec::Available(ada.id)), 200_000_000);
    });
}

#[test]
fn a_day_that_is_not_fully_read_does_not_close() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &[], 2879);
        assert_eq!(close_all(db, pool.id), 0);
    });
}

#[test]
fn everything_vests_in_the_end_and_the_sum_is_exact() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        let days = 185;
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &[(5, "1234567891000000000")], days * 2880);
        assert_eq!(close_all(db, pool.id), usize::try_from(days).unwrap());
        // 1,234,567,891 nanoFIL, 20 % fee rounded down.
        let net = 1_234_567_891 - 246_913_578;
        assert_eq!(posted(db, &AccountSpec::Vesting(ada.id)), 0);
        assert_eq!(posted(db, &AccountSpec::Available(ada.id)), net);
        assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
    });
}

#[test]
fn a_months_statement_says_what_the_ledger_says_and_is_made_once() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        // 30 October to the end of November: 33 days.
        let wins: Vec<(i64, &str)> = (0..33).map(|day| (day * 2880 + 7, "777777777777777777")).collect();
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &wins, 33 * 2880);
        assert_eq!(close_all(db, pool.id), 33);
        let month: Month = "2026-11".parse().unwrap();
        for _ in 0..2 {
            db.transact(|conn| statements::produce(conn, ada.id, month, NOW)).unwrap();
        }
        let list = db.read(|conn| statements::of_user(conn, ada.id).map_err(DbFault::from)).unwrap();
        assert_eq!(list.len(), 1);
        let model = list[0].parsed().unwrap();
        let (_, end) = month.days().unwrap();
        let until_end = |spec: &AccountSpec| db.read(|conn| ledger::movements(conn, spec, end).map_err(DbFault::from)).unwrap();
        assert_eq!(model.available.closing, until_end(&AccountSpec::Available(ada.id)));
        assert_eq!(model.vesting.closing, until_end(&AccountSpec::Vesting(ada.id)));
        assert_eq!(model.days.len(), 30);
        let by_day: i64 = model.days.iter().map(|d| d.to_available + d.vested).sum();
        assert_eq!(by_day, model.available.closing - model.available.opening);
        let line = &model.contracts[0];
        assert_eq!(line.gross - line.fee, line.net);
        assert!(model.available.opening > 0, "the two days of October are the opening balance");
    });
}

#[test]
fn the_ledger_refuses_what_must_never_happen() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let transfer = |id: &str, from: AccountSpec, to: AccountSpec, amount: i64| Transfer {
            id: id.into(),
            from,
            to,
            amount,
            kind: "reward",
            subject: "test".into(),
            effective_day: NOW / DAY,
            booked_at: NOW,
        };
        let post = |t: &Transfer| db.transact(|conn| ledger::post(conn, t));
        let chain = || AccountSpec::ChainRewards(pool.id);
        let available = || AccountSpec::Available(ada.id);
        post(&transfer("a", chain(), available(), 100)).unwrap();
        post(&transfer("a", chain(), available(), 100)).unwrap();
        assert_eq!(posted(db, &available()), 100, "the same id counts once");
        assert!(matches!(post(&transfer("a", chain(), available(), 101)), Err(LedgerError::Conflict(_))));
        let overdraft = transfer("b", available(), AccountSpec::Vesting(ada.id), 101);
        assert!(matches!(post(&overdraft), Err(LedgerError::Insufficient { free: 100, amount: 101, .. })));
        for amount in [0, -5] {
            assert!(matches!(post(&transfer("c", chain(), available(), amount)), Err(LedgerError::Amount(_))));
        }
        let mixed = transfer("d", chain(), AccountSpec::Free(pool.id), 1);
        assert!(matches!(post(&mixed), Err(LedgerError::Assets { .. })));
        assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
    });
}

/// Random transfers against a plain model of balances.
#[test]
fn random_histories_of_posts_holds_and_voids_agree_with_a_model() {
    use proptest::{prelude::*, test_runner::TestRunner};

    let operations = prop::collection::vec((0..4u8, 0..3i64, 1..40i64), 1..60);
    let mut runner = TestRunner::new(ProptestConfig { cases: 12, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&operations, |operations| {
            on_both(|db| play(db, &operations));
            Ok(())
        })
        .unwrap();
}

fn play(db: &Database, operations: &[(u8, i64, i64)]) {
    let (pool, _, _) = shop(db, 50);
    let spec = |n: i64| match n {
        0 => AccountSpec::Free(pool.id),
        1 => AccountSpec::OwnUse(pool.id),
        _ => AccountSpec::Down(pool.id),
    };
    assert_eq!(spec(0).asset(), Asset::Capacity(pool.id));
    let mut model: HashMap<i64, i64> = [(0, 50 * SECTOR), (1, 0), (2, 0)].into();
    let mut held: Vec<(String, i64, i64, i64)> = Vec::new();
    for (step, (what, from, amount)) in operations.iter().enumerate() {
        let (to, amount) = ((from + 1) % 3, amount * SECTOR / 4);
        let id = format!("step-{step}");
        let transfer = Transfer {
            id: id.clone(),
            from: spec(*from),
            to: spec(to),
            amount,
            kind: "capacity",
            subject: String::new(),
            effective_day: 0,
            booked_at: NOW,
        };
        let blocked: i64 = held.iter().filter(|h| h.1 == *from).map(|h| h.3).sum();
        let enough = model[from] - blocked >= amount;
        let pending = |id: &str| ledger::Pending { id: id.to_owned(), effective_day: 0, booked_at: NOW };
        match what {
            0 => {
                assert_eq!(db.transact(|c| ledger::post(c, &transfer)).is_ok(), enough);
                if enough {
                    *model.get_mut(from).unwrap() -= amount;
                    *model.get_mut(&to).unwrap() += amount;
                }
            }
            1 => {
                assert_eq!(db.transact(|c| ledger::hold(c, &transfer)).is_ok(), enough);
                if enough {
                    held.push((id, *from, to, amount));
                }
            }
            2 if !held.is_empty() => {
                let (id, from, to, amount) = held.remove(0);
                db.transact(|c| ledger::complete(c, &pending(&id))).unwrap();
                assert!(db.transact(|c| ledger::void(c, &pending(&id))).is_err(), "a settled hold cannot be voided");
                *model.get_mut(&from).unwrap() -= amount;
                *model.get_mut(&to).unwrap() += amount;
            }
            _ if !held.is_empty() => {
                let (id, ..) = held.remove(0);
                db.transact(|c| ledger::void(c, &pending(&id))).unwrap();
            }
            _ => {}
        }
    }
    for (n, balance) in &model {
        assert_eq!(posted(db, &spec(*n)), *balance);
    }
    assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
}
