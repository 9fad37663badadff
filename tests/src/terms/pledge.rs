//! An investor's own pledge: taken with the order, returned as the chain returns it.

use diesel::RunQueryDsl;
use sealyard_core::{
    capacity,
    catalog::{Plan, Pledge, Terms},
    clock,
    contracts::Contract,
    ids::{PoolId, UserId},
    ledger::{self, AccountSpec, Balance, Transfer},
    on_conn,
    orders::{self, PlaceError, PlaceOrder},
    sealing,
    store::{Database, DbFault},
    yields::{self, Flow, FlowKind},
};

use super::{DAY, run};
use crate::{
    books::{Spoilt, TIME, buy, chain, close_all, counts, posted},
    support::{NOW, on_both, plan_with, shop, sound},
};

fn flow(pool: PoolId, kind: FlowKind, number: i64, epoch: i64, nano: i64) -> Flow {
    Flow {
        pool_id: pool,
        kind,
        subject: number,
        epoch,
        atto: format!("{nano}000000000"),
    }
}

fn give(db: &Database, pool: PoolId, user: UserId, nano: i64) {
    let transfer = Transfer {
        id: "gift".into(),
        from: AccountSpec::ChainRewards(pool),
        to: AccountSpec::Available(user),
        amount: nano,
        kind: "reward",
        subject: "test".into(),
        effective_day: TIME.day(0),
        booked_at: NOW,
    };
    db.transact(|conn| ledger::post(conn, &transfer)).unwrap();
}

fn place(
    db: &Database,
    plan: &Plan,
    user: UserId,
    units: i64,
    key: &str,
) -> Result<orders::Order, PlaceError> {
    let order = PlaceOrder {
        user,
        plan,
        units,
        request_key: key,
        shown: None,
    };
    db.transact(|conn| orders::place(conn, &order, NOW))
}

/// Terms under which the investor pledges and bears this part of termination fees.
fn own_pledge(terminations_bp: i64) -> Terms {
    Terms {
        pledge: Pledge::Investor { terminations_bp },
        ..Terms::standard(0)
    }
}

fn balance(db: &Database, spec: &AccountSpec) -> Balance {
    db.read(|conn| ledger::balance(conn, spec).map_err(DbFault::from))
        .unwrap()
}

/// The numbers of a contract's sectors on the chain.
fn numbers(db: &Database, contract: &Contract) -> Vec<i64> {
    let sectors = db
        .read(|conn| sealing::of_contract(conn, contract.id).map_err(DbFault::from))
        .unwrap();
    sectors.into_iter().map(|sector| sector.number).collect()
}

fn assert_unknown_pledge_is_not_sold(db: &Database, plan: &Plan, user: UserId) {
    run(db, "UPDATE pools SET pledge_nano = NULL");
    let unknown = place(db, plan, user, 2, "unknown");
    assert!(
        matches!(unknown, Err(PlaceError::Collateral)),
        "the pledge of a sector is not known yet: {unknown:?}"
    );
}

/// An order takes no more than the investor has, and holds it only until the order expires.
fn assert_unpaid_orders_only_hold(db: &Database, plan: &Plan, user: UserId) {
    let available = AccountSpec::Available(user);
    let too_much = place(db, plan, user, 6, "too much")
        .unwrap_err()
        .to_string();
    assert!(
        too_much.contains("a pledge of 0.000012000 FIL of your own; you have 0.000010000 FIL"),
        "{too_much}"
    );
    place(db, plan, user, 3, "not paid").unwrap();
    assert_eq!(balance(db, &available).free(), 4_000, "the pledge is held");
    db.transact(|conn| orders::expire_due(conn, NOW + clock::DAY))
        .unwrap();
    assert_eq!(
        balance(db, &available).free(),
        10_000,
        "the hold of an unpaid order is released"
    );
}

/// The chain takes and returns the pledge of two sectors, and keeps a fee for one of them.
fn pledge_and_return(db: &Database, pool: PoolId, numbers: &[i64]) {
    chain(db, pool, &[], &[], 4 * DAY);
    db.write(|conn| {
        for flow in [
            // The operator pays what the second sector costs beyond the pledge.
            flow(pool, FlowKind::PledgeIn, numbers[0], 10, 1_500),
            flow(pool, FlowKind::PledgeIn, numbers[1], 20, 2_300),
            flow(pool, FlowKind::PledgeBack, numbers[0], 2 * DAY, 1_500),
            flow(pool, FlowKind::PledgeBack, numbers[1], 3 * DAY, 2_300),
            flow(pool, FlowKind::TerminationFee, numbers[1], 3 * DAY, 701),
        ] {
            yields::record_flows(conn, &[flow])?;
        }
        // The operator's sector makes days close from here on.
        yields::power_on(conn, &[counts(pool, 99, None, 0)])
    })
    .unwrap();
}

/// The statement of the pledge names each movement by its cause.
fn assert_pledge_entries(db: &Database, pledged: &AccountSpec) {
    let entries = db
        .read(|conn| ledger::entries(conn, pledged, 0..i64::MAX, i64::MAX).map_err(DbFault::from))
        .unwrap();
    let told = |kind: &str| {
        entries
            .iter()
            .filter(|entry| entry.kind == kind)
            .map(|entry| entry.amount)
            .collect::<Vec<_>>()
    };
    assert_eq!(told("pledge"), [4_000]);
    assert_eq!(told("pledge_not_needed"), [-500]);
    assert_eq!(
        (
            told("pledge_returned").iter().sum::<i64>(),
            told("pledge_kept")
        ),
        (-3_150, vec![-350])
    );
}

/// The audit derives what is due from the chain.
fn assert_audit_finds_a_changed_pledge(db: &Database) {
    let spoilt = db.transact(|conn| {
        on_conn!(conn, |c| diesel::sql_query(
            "UPDATE chain_flows SET atto = '1400000000000' \
             WHERE kind = 'pledge_in' AND atto = '1500000000000'"
        )
        .execute(c))?;
        let found = yields::audit(conn).unwrap().map(|found| found.path);
        Err::<(), _>(Spoilt(found))
    });
    let Err(Spoilt(Some(path))) = spoilt else {
        panic!("the difference was not found")
    };
    assert!(path.contains("transfer pledge-"), "{path}");
}

#[test]
fn an_investors_pledge_is_taken_with_the_order_and_returned_with_the_chains() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let plan = plan_with(db, &pool, 200, own_pledge(5000));
        assert_unknown_pledge_is_not_sold(db, &plan, ada.id);
        db.write(|conn| capacity::set_collateral(conn, pool.id, 100, 2_000))
            .unwrap();
        give(db, pool.id, ada.id, 10_000);
        assert_unpaid_orders_only_hold(db, &plan, ada.id);

        let (available, pledged) = (AccountSpec::Available(ada.id), AccountSpec::Pledged(ada.id));
        let contract = buy(db, &plan, ada.id, 2, "ada");
        assert_eq!(
            (posted(db, &available), posted(db, &pledged)),
            (6_000, 4_000)
        );
        pledge_and_return(db, pool.id, &numbers(db, &contract));
        assert_eq!(close_all(db, pool.id), 4);
        // Half of the fee, rounded down to 350, is kept.
        assert_eq!(
            (posted(db, &available), posted(db, &pledged)),
            (10_000 - 350, 0)
        );
        assert_eq!(posted(db, &AccountSpec::OperatorYield(pool.id)), 350);
        assert_pledge_entries(db, &pledged);
        sound(db);
        assert_audit_finds_a_changed_pledge(db);
    });
}

#[test]
fn a_pledge_taken_before_the_first_closed_day_comes_back_in_full() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let plan = plan_with(db, &pool, 200, own_pledge(0));
        db.write(|conn| capacity::set_collateral(conn, pool.id, 100, 2_000))
            .unwrap();
        give(db, pool.id, ada.id, 10_000);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        let number = numbers(db, &contract)[0];
        chain(db, pool.id, &[], &[], 3 * DAY);
        db.write(|conn| {
            yields::record_flows(
                conn,
                &[flow(pool.id, FlowKind::PledgeIn, number, 10, 1_500)],
            )?;
            yields::record_flows(
                conn,
                &[flow(pool.id, FlowKind::PledgeBack, number, 2 * DAY, 1_500)],
            )?;
            // The pool has its first power a day later.
            yields::power_on(conn, &[counts(pool.id, 99, None, DAY)])
        })
        .unwrap();
        assert_eq!(close_all(db, pool.id), 2);
        assert_eq!(
            (
                posted(db, &AccountSpec::Available(ada.id)),
                posted(db, &AccountSpec::Pledged(ada.id))
            ),
            (10_000, 0)
        );
        sound(db);
    });
}
