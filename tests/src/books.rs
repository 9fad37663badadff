//! From the chain's records to the books: a day closes once, completely, and its figures add up.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use diesel::{
    RunQueryDsl,
    connection::{Connection, InstrumentationEvent},
};
use sealyard_core::{
    capacity::{self, NewPool},
    catalog::{self, NewPlan, Plan, Terms},
    clock::{DAY, Month},
    contracts::Contract,
    ids::{ContractId, PoolId, SectorId, UserId},
    jobs,
    ledger::{self, AccountSpec, Asset, LedgerError, Transfer},
    money::Fiat,
    on_conn,
    orders::{self, Paid, PlaceOrder},
    sealing, statements,
    store::{AnyConnection, Database, DbFault},
    units::ChainTime,
    yields::{self, PowerOn, Win},
};

use crate::support::{NOW, SECTOR, investor, on_both, shop};

/// Epoch 0 is 2026-10-30T00:00Z, and a day has 2,880 epochs.
pub const TIME: ChainTime = ChainTime { genesis_at: 1_793_318_400, epoch_seconds: 30 };

pub fn buy(db: &Database, plan: &Plan, user: UserId, units: i64, key: &str) -> Contract {
    db.write(|conn| {
        let order = orders::place(conn, &PlaceOrder { user, plan, units, request_key: key, shown: None }, NOW).unwrap();
        orders::open_payment(conn, order.id, "stripe", key, "http://pay", NOW)?;
        let paid = Paid { rail: "stripe", rail_ref: key, minor: order.amount_minor, currency: "usd" };
        Ok(orders::fulfil(conn, &paid, NOW).unwrap().unwrap())
    })
    .unwrap()
}

/// The given sectors count from their epochs on, the wins are recorded, and the chain is read up to
/// `next`.
pub fn chain(db: &Database, pool: PoolId, starts: &[(SectorId, i64)], wins: &[(i64, &str)], next: i64) {
    db.write(|conn| {
        yields::init_cursor(conn, pool, TIME, 0)?;
        for (sector, epoch) in starts {
            let row = sealing::sector_by_id(conn, *sector)?;
            yields::power_on(conn, &[counts(pool, row.number, Some(row.contract_id), *epoch)])?;
        }
        for (epoch, reward) in wins {
            yields::record_win(conn, &win(pool, *epoch, reward, 0))?;
        }
        let cursor = yields::cursor(conn, pool)?.unwrap();
        // After half a day and a little more the chain has unlocked that day's part.
        assert!(yields::advance_cursor(conn, &cursor, next, next + 1441, "cid")?);
        Ok(())
    })
    .unwrap();
}

pub fn close_all(db: &Database, pool: PoolId) -> usize {
    let mut closed = 0;
    while db.transact(|conn| yields::close_day(conn, pool, NOW)).unwrap().is_some() {
        closed += 1;
    }
    closed
}

pub fn posted(db: &Database, spec: &AccountSpec) -> i64 {
    db.read(|conn| ledger::balance(conn, spec).map_err(DbFault::from)).unwrap().posted
}

pub fn sectors(db: &Database, contract: &Contract) -> Vec<SectorId> {
    db.read(|conn| Ok::<_, DbFault>(sealing::of_contract(conn, contract.id)?.into_iter().map(|s| s.id).collect())).unwrap()
}

#[test]
fn a_day_is_split_by_power_and_time_to_the_last_attofil() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let bob = db.write(|conn| Ok(investor(conn, "bob@example.org"))).unwrap();
        let (first, second) = (buy(db, &plan, ada.id, 2, "ada"), buy(db, &plan, bob.id, 1, "bob"));
        let mut starts: Vec<_> = sectors(db, &first).into_iter().map(|id| (id, 0)).collect();
        // Bob's sector counts for half the day: 2 + 0.5 shares.
        starts.push((sectors(db, &second)[0], 1440));
        chain(db, pool.id, &starts, &[(10, "3560000000000000000"), (2000, "1440000000000000001")], 2880);
        assert_eq!(close_all(db, pool.id), 1);

        let day = &db.read(|conn| yields::days(conn, pool.id, 1).map_err(DbFault::from)).unwrap()[0];
        assert_eq!((day.posted_nano, day.carry_atto, day.wins), (5_000_000_000, 1, 2));
        // Ada has 4 FIL gross, 3.2 after the 20 % fee, and a quarter at once. Bob has a quarter of
        // that.
        assert_eq!(posted(db, &AccountSpec::Available(ada.id)), 800_000_000);
        assert_eq!(posted(db, &AccountSpec::Vesting(ada.id)), 2_400_000_000);
        // Half of what Bob was promised is missing. The operator pays him 1 FIL less the fee.
        assert_eq!(posted(db, &AccountSpec::Available(bob.id)), 200_000_000 + 800_000_000);
        assert_eq!(posted(db, &AccountSpec::Compensation(pool.id)), -800_000_000);
        let said = db.read(|conn| yields::explain(conn, bob.id, day.day)).unwrap().join("\n");
        for part in
            ["epoch 10: block c with 1 wins, 3560000000000000000 attoFIL", "counted from epoch 1440 on", "0.800000000 FIL paid"]
        {
            assert!(said.contains(part), "{part} is missing in\n{said}");
        }
        assert_eq!(posted(db, &AccountSpec::Fees(pool.id)), 1_000_000_000);
        assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
    });
}

#[test]
fn a_day_closes_once_when_several_workers_try() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &[(5, "1000000000000000000")], 2880);
        let closed: usize = std::thread::scope(|scope| {
            let tries: Vec<_> = (0..6).map(|_| scope.spawn(|| close_all(db, pool.id))).collect();
            tries.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(closed, 1);
        assert_eq!(close_all(db, pool.id), 0, "closing again changes nothing");
        assert_eq!(posted(db, &AccountSpec::Available(ada.id)), 200_000_000);
    });
}

#[test]
fn a_day_stays_open_until_it_is_fully_read() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &[], 2879);
        assert_eq!(close_all(db, pool.id), 0);
    });
}

#[test]
fn every_reward_vests_in_full_and_to_the_last_nanofil() {
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
fn a_monthly_statement_matches_the_ledger_and_is_made_once() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        // From 30 October to the end of November there are 33 days.
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
fn statements_start_with_the_first_entry_and_continue_in_months_without_entries() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &[(3 * 2880 + 7, "777777777777777777")], 5 * 2880);
        close_all(db, pool.id);
        let stated = |month: &str| {
            db.transact(|conn| statements::produce(conn, ada.id, month.parse().unwrap(), NOW)).unwrap();
            let all = db.read(|conn| statements::of_user(conn, ada.id).map_err(DbFault::from)).unwrap();
            all.iter().any(|s| s.month == month)
        };
        assert!(!stated("2026-09"));
        assert!(!stated("2026-10"), "she has a contract, but nothing was booked yet");
        assert!(stated("2026-11"), "the first win was on 2 November");
        assert!(stated("2027-01"), "a balance without movements is stated as well");
    });
}

#[test]
fn a_statement_waits_for_every_pool_of_its_owner() {
    on_both(|db| {
        let (first, plan, ada) = shop(db, 10);
        let (second, other_plan) = db
            .write(|conn| {
                let pool = capacity::create_pool(conn, &NewPool::new("Second", 1001, SECTOR, NOW))?;
                capacity::grow(conn, pool.id, "initial", 10 * SECTOR, NOW).unwrap();
                capacity::set_collateral(conn, pool.id, 10, 0)?;
                let price = Fiat { minor: 2500, currency: "USD".into() };
                let new = NewPlan::of_sectors(&pool, "Second", 210, price, Terms::standard(0), NOW);
                Ok((pool, catalog::create_plan(conn, &new)?))
            })
            .unwrap();
        let contracts = [buy(db, &plan, ada.id, 1, "first"), buy(db, &other_plan, ada.id, 1, "second")];
        for (pool, contract) in [first.id, second.id].into_iter().zip(&contracts) {
            chain(db, pool, &[(sectors(db, contract)[0], 0)], &[(7, "777777777777777777")], 3 * 2880);
        }
        let asked = || db.write(|conn| jobs::take(conn, 1, NOW)).unwrap().map(|job| job.unique_key);
        // 30 and 31 October, and a day of November.
        assert_eq!((close_all(db, first.id), asked()), (3, None), "October is not over in the other pool");
        assert_eq!(close_all(db, second.id), 3);
        assert_eq!((asked(), asked()), (Some(format!("statement:{}:2026-10", ada.id)), None));
    });
}

#[test]
fn the_audit_finds_every_figure_that_does_not_follow_from_the_chain() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 2, "ada");
        let starts: Vec<_> = sectors(db, &contract).into_iter().zip([0, 700]).collect();
        let wins: Vec<(i64, &str)> = (0..5).map(|day| (day * 2880 + 7, "777777777777777777")).collect();
        chain(db, pool.id, &starts, &wins, 5 * 2880);
        assert_eq!(close_all(db, pool.id), 5);
        let audit = |db: &Database| db.read(yields::audit).unwrap().map(|difference| difference.to_string());
        // Withdrawable balances must be covered by what the miner can withdraw on chain.
        assert!(audit(db).unwrap().starts_with("coverage > what investors can withdraw"), "no chain day exists yet");
        let day = yields::ChainDay {
            pool_id: pool.id,
            day: TIME.day(0) + 4,
            at_epoch: 5 * 2880,
            network_version: 28,
            reward_atto: "777777777777777777".into(),
            daily_fee_atto: "0".into(),
            other_atto: "0".into(),
            balance_atto: "9000000000000000000".into(),
            locked_atto: "0".into(),
            deposits_atto: "0".into(),
            pledge_atto: "0".into(),
            fee_debt_atto: "0".into(),
            available_atto: "9000000000000000000".into(),
            raw_power: "4096".into(),
            qa_power: "4096".into(),
            fault_fee_atto: "0".into(),
            termination_fee_atto: "0".into(),
            deposits_in_atto: "0".into(),
            deposits_back_atto: "0".into(),
            deposits_lost_atto: "0".into(),
            pledge_in_atto: "0".into(),
            pledge_back_atto: "0".into(),
            locked_in_atto: "0".into(),
            unlocked_atto: "0".into(),
        };
        db.write(|conn| yields::record_chain_day(conn, &day)).unwrap();
        assert_eq!(audit(db), None);
        for (spoil, path) in [
            ("UPDATE block_wins SET reward_atto = '777777777777777778' WHERE epoch = 7", "attoFIL won"),
            ("UPDATE pool_days SET carry_atto = carry_atto + 1", "carried"),
            ("UPDATE yield_lots SET fee_nano = fee_nano + 1, available_nano = available_nano - 1", "fee"),
            ("UPDATE yield_lots SET power_epochs = '1'", "power-epochs"),
            ("UPDATE yield_lots SET released_nano = released_nano + 1 WHERE released_nano > 0", "released"),
            ("UPDATE yield_lots SET vesting_nano = vesting_nano - 1", "left to release"),
            ("UPDATE chain_days SET fault_fee_atto = '1'", "fault_fee of the chain's day"),
            ("UPDATE sector_intervals SET start_epoch = start_epoch + 1 WHERE start_epoch = 700", "power-epochs"),
        ] {
            let found = db.transact(|conn| {
                on_conn!(conn, |c| diesel::sql_query(spoil).execute(c))?;
                let found = yields::audit(conn).unwrap();
                Err::<(), _>(Spoilt(found.map(|difference| difference.path)))
            });
            let Err(Spoilt(Some(found))) = found else { panic!("{spoil} was not found") };
            assert!(found.ends_with(path), "{spoil} was found as {found}");
        }
        assert_eq!(audit(db), None, "some spoilt value was kept");
    });
}

/// An error that rolls a spoilt transaction back and carries what the audit found.
#[derive(Debug)]
pub struct Spoilt(pub Option<String>);

impl From<diesel::result::Error> for Spoilt {
    fn from(error: diesel::result::Error) -> Self {
        panic!("{error}")
    }
}

impl From<sealyard_core::store::StoreError> for Spoilt {
    fn from(error: sealyard_core::store::StoreError) -> Self {
        panic!("{error}")
    }
}

impl sealyard_core::store::Retry for Spoilt {
    fn database_error(&self) -> Option<&diesel::result::Error> {
        None
    }
}

pub fn win(pool: PoolId, epoch: i64, reward: &str, tips: i64) -> Win {
    let (reward_atto, tips_atto) = (reward.to_owned(), tips.to_string());
    Win { pool_id: pool, epoch, cid: "c".into(), win_count: 1, reward_atto, tips_atto }
}

/// A sector whose power counts from an epoch on.
pub fn counts(pool: PoolId, number: i64, contract: Option<ContractId>, start_epoch: i64) -> PowerOn {
    let (pledge_atto, daily_fee_atto) = ("0".to_owned(), "0".to_owned());
    PowerOn { pool_id: pool, number, contract_id: contract, start_epoch, qa_power: SECTOR, pledge_atto, daily_fee_atto }
}

/// Makes the connection panic at the statement at which `left` reaches zero. `i64::MAX` means
/// never.
fn die_at(conn: &mut AnyConnection, left: &Arc<AtomicI64>) {
    let left = Arc::clone(left);
    let die = move |event: InstrumentationEvent<'_>| {
        if matches!(event, InstrumentationEvent::StartQuery { .. } | InstrumentationEvent::CommitTransaction { .. })
            && left.fetch_sub(1, Ordering::SeqCst) == 1
        {
            std::panic::resume_unwind(Box::new("the machine lost its power"));
        }
    };
    on_conn!(conn, |c| c.set_instrumentation(die));
}

#[test]
fn a_crash_at_any_sql_statement_leaves_a_day_open_or_fully_closed() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let bob = db.write(|conn| Ok(investor(conn, "bob@example.org"))).unwrap();
        let (first, second) = (buy(db, &plan, ada.id, 2, "ada"), buy(db, &plan, bob.id, 1, "bob"));
        let mut starts: Vec<_> = sectors(db, &first).into_iter().map(|id| (id, 0)).collect();
        starts.push((sectors(db, &second)[0], 100));
        // The last day of the month also requests the statements.
        chain(db, pool.id, &starts, &[(10, "3560000000000000000"), (2000, "1440000000000000001")], 2 * 2880);
        for day in 0..2 {
            let mut statement = 1;
            loop {
                let before = (close_state(db, pool.id), posted(db, &AccountSpec::Available(bob.id)));
                let left = Arc::new(AtomicI64::new(statement));
                let tried = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                    db.transact(|conn| {
                        die_at(conn, &left);
                        yields::close_day(conn, pool.id, NOW)
                    })
                }));
                let left = left.swap(i64::MAX, Ordering::SeqCst);
                assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), [], "statement {statement}");
                match tried {
                    Ok(closed) => {
                        assert!(closed.unwrap().is_some(), "the day closes in the end");
                        assert!(left > 0 && statement > 8, "day {day} died at each of {statement} statements");
                        break;
                    }
                    Err(_) => {
                        let after = (close_state(db, pool.id), posted(db, &AccountSpec::Available(bob.id)));
                        assert_eq!(after, before, "statement {statement} left something behind");
                    }
                }
                statement += 1;
            }
        }
        assert_eq!(close_state(db, pool.id), (2, 4), "two contracts have two lots each");
    });
}

/// The number of closed days and of the lots in them.
fn close_state(db: &Database, pool: PoolId) -> (usize, usize) {
    db.read(|conn| {
        let days = yields::days(conn, pool, i64::MAX)?;
        let lots =
            days.iter().map(|day| ledger::lots_on(conn, pool, day.day).map(|lots| lots.len())).sum::<Result<usize, _>>()?;
        Ok::<_, DbFault>((days.len(), lots))
    })
    .unwrap()
}

#[test]
fn the_ledger_refuses_invalid_transfers() {
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
        assert_eq!(posted(db, &available()), 100, "a transfer id counts once");
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

/// Compares the amounts released to investors, at the moment each day closes, with the protocol's
/// own vesting table. There is no service fee, so the investors get everything that was won.
#[test]
fn the_books_never_release_more_than_the_chain_has_unlocked() {
    use fvm_shared::econ::TokenAmount;
    use proptest::{prelude::*, test_runner::TestRunner};
    use sealyard_core::{
        money::{BasisPoints, NanoFil},
        yields::{Day, Member, Rates, Vesting, attribute},
    };
    use sealyard_filecoin::economics::VestingTable;

    const DAYS: i64 = 190;
    let none = BasisPoints(0);
    let rates = Rates {
        fee: none,
        pledge_charge: none,
        daily_fee: none,
        fault_fee: none,
        gas: none,
        available: BasisPoints(2500),
        made_up: yields::MadeUp::Not,
    };
    let members = |weights: &[u64]| -> Vec<Member> {
        weights.iter().map(|w| Member { power: u128::from(*w) + 1, missing: 0, bytes: 1, epochs_left: 0, rates }).collect()
    };
    // Wins of the first days: day, epoch within the day, attoFIL.
    let wins = prop::collection::vec((0..8i64, 0..2880i64, 1u64..u64::MAX), 1..24);
    let cases = (wins, prop::collection::vec(0..1000u64, 1..6), 0..2880i64);
    let mut runner = TestRunner::new(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&cases, |(mut wins, weights, period_start)| {
            wins.sort_unstable();
            let members = members(&weights);
            let mut chain = VestingTable::new(period_start);
            let (mut free_on_chain, mut free_in_books, mut carry) = (TokenAmount::default(), 0i64, 0i64);
            let mut vesting = vec![Vesting::default(); members.len()];
            let mut locked: Vec<Vec<i64>> = Vec::new();
            let mut next = 0;
            for day in 0..DAYS {
                let closes = (day + 1) * 2880 + 1441;
                // The chain goes on until the day closes, so the first wins of the next day come
                // before that.
                while let Some((_, _, reward)) = wins.get(next).filter(|(on, epoch, _)| on * 2880 + epoch < closes) {
                    let epoch = wins[next].0 * 2880 + wins[next].1;
                    free_on_chain += chain.unlock(epoch).unwrap();
                    free_on_chain += chain.award(epoch, &TokenAmount::from_atto(*reward)).unwrap();
                    next += 1;
                }
                free_on_chain += chain.unlock(closes).unwrap();
                let won: i128 = wins.iter().filter(|(on, ..)| *on == day).map(|w| i128::from(w.2)).sum();
                let (total, rest) = NanoFil::from_atto(won + i128::from(carry)).unwrap();
                carry = rest;
                let (shares, _) = attribute(&Day { total: total.0, raw_power: 1, ..Day::default() }, &members).unwrap();
                let ending = usize::try_from(day - 180).ok().and_then(|at| locked.get(at)).cloned();
                for (at, share) in shares.iter().enumerate() {
                    let released;
                    let ends = ending.as_ref().map_or(0, |lots| lots[at]);
                    (released, vesting[at]) = vesting[at].day(share.locked, ends, 180);
                    free_in_books += share.available + released;
                }
                locked.push(shares.iter().map(|s| s.locked).collect());
                // The chain's rounding of each win can hide one attoFIL.
                let hidden = TokenAmount::from_atto(u64::try_from(next).unwrap());
                prop_assert!(TokenAmount::from_nano(free_in_books) <= free_on_chain.clone() + hidden, "day {}", day);
            }
            prop_assert!(vesting.iter().all(|v| *v == Vesting::default()), "everything is released in the end");
            Ok(())
        })
        .unwrap();
}

/// Random transfers against a plain model of balances.
#[test]
fn random_ledger_histories_agree_with_a_plain_model() {
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
