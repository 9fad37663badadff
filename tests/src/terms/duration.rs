//! The end of a contract and its extension for missing power.

use sealyard_core::{
    capacity,
    catalog::{Shortfall, Starts, Terms},
    contracts::{self, Contract},
    ids::{PoolId, SectorId},
    ledger::{self, AccountSpec, Lot},
    sealing::{self, Sector},
    store::{Database, DbFault},
    yields,
};

use super::{DAY, WIN, run};
use crate::{
    books::{TIME, buy, chain, close_all, counts, posted, sectors},
    support::{NOW, SECTOR, on_both, plan_with, shop, sound},
};

/// Terms that run from the activation on.
fn from_power_on() -> Terms {
    Terms {
        starts: Starts::PowerOn,
        ..Terms::standard(0)
    }
}

/// One win on each of the first days.
fn daily_wins(days: i64) -> Vec<(i64, &'static str)> {
    (0..days).map(|day| (day * DAY + 7, WIN)).collect()
}

/// Activates all sectors of a contract and starts its term at this epoch.
fn activate(db: &Database, contract: &Contract, epoch: i64) {
    db.write(|conn| contracts::mark_active(conn, contract.id, TIME.micros(epoch)))
        .unwrap();
    run(
        db,
        &format!(
            "UPDATE sectors SET state = 'active' WHERE contract_id = {}",
            contract.id
        ),
    );
}

fn now_is(db: &Database, contract: &Contract) -> Contract {
    db.read(|conn| contracts::by_public_id(conn, &contract.public_id).map_err(DbFault::from))
        .unwrap()
        .unwrap()
}

fn lots(db: &Database, contract: &Contract) -> Vec<Lot> {
    let mut lots = db
        .read(|conn| {
            ledger::lots_of_contract(conn, contract.id, 0..i64::MAX, i64::MAX)
                .map_err(DbFault::from)
        })
        .unwrap();
    lots.reverse();
    lots
}

fn sector(db: &Database, id: SectorId) -> Sector {
    db.read(|conn| sealing::sector_by_id(conn, id).map_err(DbFault::from))
        .unwrap()
}

fn owned(db: &Database, pool: PoolId) -> capacity::Capacity {
    db.read(|conn| capacity::capacity(conn, pool).map_err(DbFault::from))
        .unwrap()
}

#[test]
fn an_ended_contract_earns_nothing_and_its_sectors_pass_to_the_operator() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let plan = plan_with(db, &pool, 2, from_power_on());
        let contract = buy(db, &plan, ada.id, 1, "ada");
        // The term runs from noon of the first day: a half, a whole and a half day.
        activate(db, &contract, DAY / 2);
        chain(
            db,
            pool.id,
            &[(sectors(db, &contract)[0], DAY / 2)],
            &daily_wins(4),
            4 * DAY,
        );
        assert_eq!(close_all(db, pool.id), 4);
        let gross: Vec<i64> = lots(db, &contract)
            .iter()
            .map(|lot| lot.gross_nano)
            .collect();
        assert_eq!(
            gross,
            [1_000_000_000, 1_000_000_000, 500_000_000, 0],
            "all the power is its own until noon of the third day"
        );
        assert_eq!(
            posted(db, &AccountSpec::OperatorYield(pool.id)),
            1_500_000_000
        );
        assert_eq!(now_is(db, &contract).state.name(), "ended");
        let capacity = owned(db, pool.id);
        assert_eq!(
            (capacity.sold, capacity.own_use, capacity.free),
            (0, SECTOR, 9 * SECTOR),
            "the capacity is not for sale while the sector lives"
        );
        sound(db);
        db.transact(|conn| contracts::end(conn, contract.id, NOW))
            .unwrap();
        let capacity = owned(db, pool.id);
        assert_eq!(
            (capacity.own_use, capacity.free, capacity.holds()),
            (0, 10 * SECTOR, true)
        );
    });
}

#[test]
fn unsealed_sectors_are_given_up_at_the_end_and_their_bytes_sold_again() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let plan = plan_with(db, &pool, 2, from_power_on());
        let contract = buy(db, &plan, ada.id, 2, "ada");
        activate(db, &contract, 0);
        let [counted, stuck] = sectors(db, &contract)[..] else {
            panic!("two sectors")
        };
        run(
            db,
            &format!("UPDATE sectors SET state = 'quarantined' WHERE id = {stuck}"),
        );
        chain(db, pool.id, &[(counted, 0)], &daily_wins(3), 3 * DAY);
        assert_eq!(close_all(db, pool.id), 3);
        let state = |id| sector(db, id).state.name();
        assert_eq!((state(stuck), state(counted)), ("expired", "active"));
        assert_eq!(
            owned(db, pool.id).free,
            8 * SECTOR,
            "one sector is still alive"
        );
        let gone = sector(db, counted);
        db.transact(|conn| sealing::mark_on_chain(conn, gone.clone(), sealing::OnChain::Gone, NOW))
            .unwrap();
        assert_eq!(owned(db, pool.id).free, 10 * SECTOR);
        sound(db);
    });
}

/// The sector is faulty for half of the first day and for two thirds of the third.
fn fail_twice(db: &Database, sector: &Sector) {
    let (pool, number, contract) = (sector.pool_id, sector.number, Some(sector.contract_id));
    db.write(|conn| {
        yields::power_off(conn, pool, number, 1000)?;
        yields::power_on(conn, &[counts(pool, number, contract, 2440)])?;
        yields::power_off(conn, pool, number, 2 * DAY)?;
        yields::power_on(conn, &[counts(pool, number, contract, 2 * DAY + 1920)])?;
        // The operator's own sector earns, so missing power has a price.
        yields::power_on(conn, &[counts(pool, 99, None, 0)])
    })
    .unwrap();
}

/// For each day, the epochs that extend the contract and whether missing power was paid.
fn added_and_paid(db: &Database, contract: &Contract) -> Vec<(i64, i64, bool)> {
    lots(db, contract)
        .iter()
        .map(|lot| {
            (
                lot.day - TIME.day(0),
                lot.added_epochs,
                lot.compensation_nano > 0,
            )
        })
        .collect()
}

#[test]
fn missing_power_extends_the_contract_up_to_its_limit_and_is_paid_beyond() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let terms = Terms {
            shortfall: Shortfall::AddedDays { most: 1 },
            ..from_power_on()
        };
        let plan = plan_with(db, &pool, 3, terms);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        // Power is owed from the first whole day on.
        activate(db, &contract, -1);
        let faulty = sectors(db, &contract)[0];
        chain(db, pool.id, &[(faulty, 0)], &daily_wins(6), 6 * DAY);
        fail_twice(db, &sector(db, faulty));
        assert_eq!(close_all(db, pool.id), 6);
        assert_eq!(
            added_and_paid(db, &contract),
            [
                (0, 1440, false),
                (1, 0, false),
                (2, 1440, true),
                (3, 0, false),
                (4, 0, false),
                (5, 0, false)
            ],
            "480 epochs of the third day exceed the one day that can be added"
        );
        let contract = now_is(db, &contract);
        assert_eq!(
            (contract.ends_at, contract.added_epochs),
            (Some(TIME.micros(4 * DAY - 1)), DAY)
        );
        assert_eq!(contract.state.name(), "ended");
        let earning: Vec<bool> = lots(db, &contract)
            .iter()
            .map(|lot| lot.gross_nano > 0)
            .collect();
        assert_eq!(
            earning,
            [true, true, true, true, false, false],
            "the term has three days and one added day"
        );
        sound(db);
    });
}
