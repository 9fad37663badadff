//! Monthly statements: when they are made, and how they match the ledger.

use sealyard_core::{
    capacity::{self, NewPool, Pool},
    catalog::{self, NewPlan, Plan, Terms},
    clock::Month,
    jobs,
    ledger::{self, AccountSpec},
    money::Fiat,
    statements,
    store::{Database, DbFault},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{buy, chain, close_all, sectors, sold_sector};
use crate::support::{NOW, SECTOR, on_both, shop};

#[test]
fn a_monthly_statement_matches_the_ledger_and_is_made_once() {
    on_both(|db| {
        // From 30 October to the end of November there are 33 days.
        let wins: Vec<(i64, &str)> = (0..33)
            .map(|day| (day * EPOCHS_PER_DAY + 7, "777777777777777777"))
            .collect();
        let (pool, ada) = sold_sector(db, &wins, 33 * EPOCHS_PER_DAY);
        assert_eq!(close_all(db, pool), 33);
        let month: Month = "2026-11".parse().unwrap();
        for _ in 0..2 {
            db.transact(|conn| statements::produce(conn, ada, month, NOW))
                .unwrap();
        }
        let list = db
            .read(|conn| statements::of_user(conn, ada).map_err(DbFault::from))
            .unwrap();
        assert_eq!(list.len(), 1);
        let model = list[0].parsed().unwrap();
        let (_, end) = month.days().unwrap();
        let until_end = |spec: &AccountSpec| {
            db.read(|conn| ledger::movements(conn, spec, end).map_err(DbFault::from))
                .unwrap()
        };
        assert_eq!(
            model.available.closing,
            until_end(&AccountSpec::Available(ada))
        );
        assert_eq!(model.vesting.closing, until_end(&AccountSpec::Vesting(ada)));
        assert_eq!(model.days.len(), 30);
        let by_day: i64 = model.days.iter().map(|d| d.to_available + d.vested).sum();
        assert_eq!(by_day, model.available.closing - model.available.opening);
        let line = &model.contracts[0];
        assert_eq!(line.gross - line.fee, line.net);
        assert!(
            model.available.opening > 0,
            "the two days of October are the opening balance"
        );
    });
}

#[test]
fn statements_start_with_the_first_entry_and_continue_in_months_without_entries() {
    on_both(|db| {
        let win = (3 * EPOCHS_PER_DAY + 7, "777777777777777777");
        let (pool, ada) = sold_sector(db, &[win], 5 * EPOCHS_PER_DAY);
        close_all(db, pool);
        let stated = |month: &str| {
            db.transact(|conn| statements::produce(conn, ada, month.parse().unwrap(), NOW))
                .unwrap();
            let all = db
                .read(|conn| statements::of_user(conn, ada).map_err(DbFault::from))
                .unwrap();
            all.iter().any(|s| s.month == month)
        };
        assert!(!stated("2026-09"));
        assert!(
            !stated("2026-10"),
            "she has a contract, but nothing was booked yet"
        );
        assert!(stated("2026-11"), "the first win was on 2 November");
        assert!(
            stated("2027-01"),
            "a balance without movements is stated as well"
        );
    });
}

fn second_pool(db: &Database) -> (Pool, Plan) {
    db.write(|conn| {
        let pool = capacity::create_pool(conn, &NewPool::new("Second", 1001, SECTOR, NOW))?;
        capacity::grow(conn, pool.id, "initial", 10 * SECTOR, NOW).unwrap();
        capacity::set_collateral(conn, pool.id, 10, 0)?;
        let price = Fiat {
            minor: 2500,
            currency: "USD".into(),
        };
        let new = NewPlan::of_sectors(&pool, "Second", 210, price, Terms::standard(0), NOW);
        Ok((pool, catalog::create_plan(conn, &new)?))
    })
    .unwrap()
}

#[test]
fn a_statement_waits_for_every_pool_of_its_owner() {
    on_both(|db| {
        let (first, plan, ada) = shop(db, 10);
        let (second, other_plan) = second_pool(db);
        let contracts = [
            buy(db, &plan, ada.id, 1, "first"),
            buy(db, &other_plan, ada.id, 1, "second"),
        ];
        for (pool, contract) in [first.id, second.id].into_iter().zip(&contracts) {
            chain(
                db,
                pool,
                &[(sectors(db, contract)[0], 0)],
                &[(7, "777777777777777777")],
                3 * EPOCHS_PER_DAY,
            );
        }
        let asked = || {
            db.write(|conn| jobs::take(conn, 1, NOW))
                .unwrap()
                .map(|job| job.unique_key)
        };
        // 30 and 31 October, and a day of November.
        assert_eq!(
            (close_all(db, first.id), asked()),
            (3, None),
            "October is not over in the other pool"
        );
        assert_eq!(close_all(db, second.id), 3);
        assert_eq!(
            (asked(), asked()),
            (Some(format!("statement:{}:2026-10", ada.id)), None)
        );
    });
}
