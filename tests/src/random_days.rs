//! Random days: power that begins and fails, random wins, costs, and terms of every kind. Not one
//! attoFIL is lost.

use sealyard_core::{
    catalog::{self, NewPlan, Plan, Pledge, Shortfall, Starts, Terms},
    contracts,
    ledger::{self, AccountSpec},
    money::Fiat,
    sealing,
    store::{Database, DbFault},
    yields::{self, Flow, FlowKind},
};

use crate::{
    books::{TIME, buy, chain, close_all, counts, posted, sectors, win},
    support::{NOW, investor, on_both, shop},
};

const RANDOM_DAYS: i64 = 9;

/// Random days with activations, faults, recoveries, unsold sectors and random wins.
#[test]
fn random_days_conserve_every_attofil_and_pass_the_audit() {
    use proptest::{prelude::*, test_runner::TestRunner};

    let epochs = 0..RANDOM_DAYS * 2880;
    let intervals = prop::collection::vec((epochs.clone(), 1..4000i64, 0..3000i64), 6);
    let wins = prop::collection::vec((epochs.clone(), 1u64..u64::MAX), 0..30);
    let mut runner = TestRunner::new(ProptestConfig { cases: 6, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&(intervals, wins, epochs), |(intervals, wins, own_from)| {
            on_both(|db| live_and_audit(db, &intervals, &wins, own_from));
            Ok(())
        })
        .unwrap();
}

fn live_and_audit(db: &Database, intervals: &[(i64, i64, i64)], wins: &[(i64, u64)], own_from: i64) {
    let (pool, plan, ada) = shop(db, 10);
    let bob = db.write(|conn| Ok(investor(conn, "bob@example.org"))).unwrap();
    let [bearing, short] = other_plans(db, &pool);
    let contracts = [buy(db, &plan, ada.id, 2, "a"), buy(db, &bearing, bob.id, 1, "b"), buy(db, &short, ada.id, 3, "c")];
    let sold: Vec<_> = contracts.iter().flat_map(|contract| sectors(db, contract)).collect();
    let end = RANDOM_DAYS * 2880;
    chain(db, pool.id, &[], &[], end);
    db.write(|conn| {
        for (sector, (start, faulty_after, for_epochs)) in sold.iter().zip(intervals) {
            let row = sealing::sector_by_id(conn, *sector)?;
            yields::power_on(conn, &[counts(pool.id, row.number, Some(row.contract_id), *start)])?;
            yields::power_off(conn, pool.id, row.number, start + faulty_after)?;
            // Some sectors recover.
            if for_epochs % 2 == 0 {
                yields::power_on(
                    conn,
                    &[counts(pool.id, row.number, Some(row.contract_id), start + faulty_after + for_epochs + 1)],
                )?;
            }
        }
        yields::power_on(conn, &[counts(pool.id, 99, None, own_from)])?;
        // The last contract ends within these days.
        let since = intervals.iter().skip(3).map(|(start, ..)| *start).max().unwrap_or_default();
        contracts::mark_active(conn, contracts[2].id, TIME.micros(since))?;
        for (epoch, reward) in wins {
            let fee = |kind: FlowKind, part: u64| Flow {
                pool_id: pool.id,
                kind,
                subject: 5,
                epoch: *epoch,
                atto: (reward / part).to_string(),
            };
            yields::record_flows(conn, &[fee(FlowKind::DailyFee, 7)])?;
            yields::record_flows(conn, &[fee(FlowKind::FaultFee, 11)])?;
            yields::record_win(conn, &win(pool.id, *epoch, &reward.to_string(), epoch * 1_000_003))?;
        }
        Ok(())
    })
    .unwrap();
    assert!(close_all(db, pool.id) > 0);
    let days = db.read(|conn| yields::days(conn, pool.id, i64::MAX).map_err(DbFault::from)).unwrap();
    let first = days.last().unwrap().first_epoch;
    let won = db.read(|conn| yields::wins(conn, pool.id, first, end).map_err(DbFault::from)).unwrap();
    let won = won.iter().flat_map(|win| [&win.reward_atto, &win.tips_atto]);
    let won: i128 = won.map(|atto| atto.parse::<i128>().unwrap()).sum();
    let posted_nano: i128 = days.iter().map(|day| i128::from(day.posted_nano)).sum();
    assert_eq!(posted_nano * 1_000_000_000 + i128::from(days[0].carry_atto), won, "every attoFIL is posted or carried");
    assert_eq!(posted(db, &AccountSpec::ChainRewards(pool.id)), -i64::try_from(posted_nano).unwrap());
    assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
    let found = db.read(yields::audit).unwrap().map(|difference| difference.path);
    assert!(found.as_ref().is_none_or(|path| path.starts_with("coverage > ")), "{found:?}");
}

/// One plan whose contracts bear costs and are extended for missing power, and one that runs for
/// two days from its activation.
fn other_plans(db: &Database, pool: &sealyard_core::capacity::Pool) -> [Plan; 2] {
    let bearing = Terms {
        daily_fee_bp: 10_000,
        faults_bp: 5000,
        gas_bp: 2500,
        pledge: Pledge::OperatorFor { charge_bp: 500 },
        shortfall: Shortfall::AddedDays { most: 2 },
        ..Terms::standard(1234)
    };
    let short = Terms { starts: Starts::PowerOn, shortfall: Shortfall::AddedDays { most: 1 }, ..Terms::standard(0) };
    let price = Fiat { minor: 2500, currency: "USD".into() };
    [(bearing, 210), (short, 2)].map(|(terms, days)| {
        let new = NewPlan::of_sectors(pool, "Other", days, price.clone(), terms, NOW);
        db.write(|conn| catalog::create_plan(conn, &new)).unwrap()
    })
}
