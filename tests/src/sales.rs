//! Buying: holds, payments, expiry. Nothing is sold twice, and no payment counts twice.

use std::sync::atomic::{AtomicUsize, Ordering};

use sealyard_core::{
    capacity,
    catalog::Plan,
    clock::{DAY, Micros},
    contracts,
    fleet::{self, Draining, Machine, protocol::Hardware},
    ids::{PoolId, UserId},
    ledger::{self, AccountSpec, LedgerError},
    orders::{self, Order, Paid, PayError, PlaceError, PlaceOrder},
    scheduler,
    sealing::{self, Cost, TaskKind},
    store::{AnyConnection, Database, DbFault},
};

use crate::support::{NOW, SECTOR, hardware, machine, on_both, shop};

fn place(
    db: &Database,
    user: UserId,
    plan: &Plan,
    units: i64,
    key: &str,
) -> Result<Order, PlaceError> {
    db.transact(|conn| {
        orders::place(
            conn,
            &PlaceOrder {
                user,
                plan,
                units,
                request_key: key,
                shown: None,
            },
            NOW,
        )
    })
}

fn open_payment(db: &Database, order: &Order) {
    db.write(|conn| {
        orders::open_payment(
            conn,
            order.id,
            "stripe",
            &order.public_id,
            "http://pay",
            NOW,
        )
    })
    .unwrap();
}

fn pay(db: &Database, order: &Order, minor: i64) -> Result<Option<contracts::Contract>, PayError> {
    let paid = Paid {
        rail: "stripe",
        rail_ref: &order.public_id,
        minor,
        currency: "usd",
    };
    db.transact(|conn| orders::fulfil(conn, &paid, NOW))
}

fn sound(db: &Database, pool: PoolId) -> capacity::Capacity {
    let (findings, capacity) = db
        .read(|conn| Ok::<_, DbFault>((ledger::check(conn)?, capacity::capacity(conn, pool)?)))
        .unwrap();
    assert_eq!(findings, [], "the books must balance");
    assert!(capacity.holds(), "{capacity:?}");
    capacity
}

#[test]
fn a_paid_order_becomes_one_contract_with_its_sectors() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 10);
        let order = place(db, user.id, &plan, 3, "key-1").unwrap();
        assert_eq!(sound(db, pool.id).held, 3 * SECTOR);
        open_payment(db, &order);
        let contract = pay(db, &order, 7500).unwrap().unwrap();
        let sectors = db
            .read(|conn| sealing::of_contract(conn, contract.id).map_err(DbFault::from))
            .unwrap();
        assert_eq!(
            sectors.iter().map(|s| s.number).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        let capacity = sound(db, pool.id);
        assert_eq!(
            (capacity.free, capacity.held, capacity.sold),
            (7 * SECTOR, 0, 3 * SECTOR)
        );
    });
}

#[test]
fn a_form_submitted_twice_places_one_order() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 10);
        let first = place(db, user.id, &plan, 2, "same").unwrap();
        let second = place(db, user.id, &plan, 2, "same").unwrap();
        assert_eq!(first.id, second.id);
        assert_eq!(sound(db, pool.id).held, 2 * SECTOR);
    });
}

#[test]
fn a_payment_reported_many_times_at_once_counts_once() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 10);
        let order = place(db, user.id, &plan, 2, "key").unwrap();
        open_payment(db, &order);
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| pay(db, &order, 5000).unwrap());
            }
        });
        assert_eq!(sound(db, pool.id).sold, 2 * SECTOR);
        let contracts = db
            .read(|conn| contracts::of_user(conn, user.id).map_err(DbFault::from))
            .unwrap();
        assert_eq!(contracts.len(), 1);
    });
}

#[test]
fn a_wrong_amount_sells_nothing() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 10);
        let order = place(db, user.id, &plan, 2, "key").unwrap();
        open_payment(db, &order);
        assert!(matches!(
            pay(db, &order, 4999),
            Err(PayError::WrongAmount { .. })
        ));
        let unknown = Paid {
            rail: "stripe",
            rail_ref: "cs_other",
            minor: 5000,
            currency: "usd",
        };
        assert!(matches!(
            db.transact(|conn| orders::fulfil(conn, &unknown, NOW)),
            Err(PayError::Unknown { .. })
        ));
        assert_eq!(sound(db, pool.id).sold, 0);
    });
}

#[test]
fn concurrent_buyers_cannot_oversell_a_pool() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 5);
        let sold_out = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for buyer in 0..12 {
                let (plan, sold_out) = (&plan, &sold_out);
                scope.spawn(
                    move || match place(db, user.id, plan, 1, &format!("buyer-{buyer}")) {
                        Ok(_) => {}
                        Err(PlaceError::Capacity(error)) => {
                            assert!(error.to_string().contains("0 B are left"), "{error}");
                            sold_out.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(error) => panic!("{error}"),
                    },
                );
            }
        });
        assert_eq!(sold_out.into_inner(), 7);
        let capacity = sound(db, pool.id);
        assert_eq!((capacity.held, capacity.free), (5 * SECTOR, 0));
    });
}

#[test]
fn a_late_payment_is_honoured_while_the_released_capacity_is_still_free() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 2);
        let order = place(db, user.id, &plan, 2, "key").unwrap();
        open_payment(db, &order);
        let late = order.expires_at + 1;
        assert_eq!(
            db.transact(|conn| orders::expire_due(conn, late)).unwrap(),
            1
        );
        assert_eq!(
            db.transact(|conn| orders::expire_due(conn, late)).unwrap(),
            0
        );
        assert_eq!(sound(db, pool.id).free, 2 * SECTOR);
        assert!(pay(db, &order, 5000).unwrap().is_some());
        assert_eq!(sound(db, pool.id).sold, 2 * SECTOR);
    });
}

#[test]
fn a_late_payment_moves_the_promise_and_keeps_the_first_date_on_record() {
    on_both(|db| {
        let (_, plan, user) = shop(db, 2);
        let order = place(db, user.id, &plan, 2, "key").unwrap();
        open_payment(db, &order);
        let promise = || {
            db.read(|conn| Ok::<_, DbFault>(scheduler::promise_of_order(conn, order.id)?))
                .unwrap()
                .unwrap()
        };
        let (first, late) = (promise(), order.expires_at + DAY);
        assert_eq!(
            (first.promised_at, first.moved_from),
            (order.promised_at, None)
        );
        db.transact(|conn| orders::expire_due(conn, late)).unwrap();
        let paid = Paid {
            rail: "stripe",
            rail_ref: &order.public_id,
            minor: order.amount_minor,
            currency: "usd",
        };
        assert!(
            db.transact(|conn| orders::fulfil(conn, &paid, late))
                .unwrap()
                .is_some()
        );
        let moved = promise();
        assert_eq!(
            (moved.moved_from, moved.forecast_why.as_str()),
            (Some(order.promised_at), "it was paid late")
        );
        assert!(
            moved.promised_at > order.promised_at
                && moved.promised_at <= order.promised_at + (late - order.created_at)
        );
        let months = db
            .read(|conn| Ok::<_, DbFault>(scheduler::months(conn)?))
            .unwrap();
        assert_eq!(
            months.iter().map(|m| (m.made, m.moved)).collect::<Vec<_>>(),
            [(1, 1)]
        );
    });
}

#[test]
fn a_late_payment_without_free_capacity_waits_for_its_refund() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 2);
        let order = place(db, user.id, &plan, 2, "first").unwrap();
        open_payment(db, &order);
        db.transact(|conn| orders::expire_due(conn, order.expires_at + 1))
            .unwrap();
        place(db, user.id, &plan, 2, "second").unwrap();
        assert!(pay(db, &order, 5000).unwrap().is_none());
        assert!(
            pay(db, &order, 5000).unwrap().is_none(),
            "a second report changes nothing"
        );
        let state = db
            .read(|conn| orders::by_public_id(conn, &order.public_id).map_err(DbFault::from))
            .unwrap()
            .unwrap()
            .state;
        assert_eq!(state.name(), "refund_due");
        let back = || {
            db.transact(|conn| orders::refunded(conn, &order, user.id, NOW))
                .unwrap()
        };
        assert!(back() && !back(), "it is refunded once");
        assert!(
            pay(db, &order, 5000).unwrap().is_none(),
            "a late report changes nothing"
        );
        let rail = AccountSpec::Rail {
            rail: "stripe".into(),
            currency: "USD".into(),
        };
        let left = db
            .read(|conn| ledger::balance(conn, &rail).map_err(DbFault::from))
            .unwrap();
        assert_eq!(left.posted, 0, "the refund has left the account");
        assert_eq!(sound(db, pool.id).sold, 0);
    });
}

/// Gives each machine a disk for this many sealed sectors. The scratch space of the last sector
/// becomes its place.
fn disks(db: &Database, sectors: i64) -> Vec<Machine> {
    const MIB: i64 = 1 << 20;
    let scratch = (Cost::of(TaskKind::PreCommit1, SECTOR).scratch_bytes + MIB - 1) / MIB * MIB;
    // A sealed sector takes at least a MiB.
    let small = Hardware {
        disk_bytes: scratch + (sectors - 1) * MIB,
        ..hardware()
    };
    db.write(|conn| {
        for machine in fleet::machines(conn)? {
            fleet::heartbeat(conn, &machine, &small, NOW)?;
        }
        fleet::machines(conn)
    })
    .unwrap()
}

/// Books the capacity down that no working machine has a disk for.
fn book_down(db: &Database, now: Micros) {
    let down = |conn: &mut AnyConnection| {
        let backed = scheduler::disk_left(&scheduler::load(conn, now)?);
        capacity::book_down(conn, backed, now)
    };
    db.transact(down).unwrap();
}

#[test]
fn capacity_without_a_working_machine_is_booked_down_and_not_sold() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 30);
        machine(db, "second");
        let machines = disks(db, 20);
        let book = |now| {
            book_down(db, now);
            sound(db, pool.id)
        };
        let order = place(db, user.id, &plan, 4, "first").unwrap();
        let all = book(NOW + 1);
        assert_eq!((all.free, all.held, all.down), (26 * SECTOR, 4 * SECTOR, 0));
        let drain = |how| {
            db.write(|conn| fleet::set_draining(conn, machines[1].id, how))
                .unwrap()
        };
        drain(Draining::Start);
        let half = book(NOW + 2);
        assert_eq!(
            (half.free, half.held, half.down),
            (16 * SECTOR, 4 * SECTOR, 10 * SECTOR),
            "one machine holds 20 sectors"
        );
        assert_eq!(book(NOW + 3), half, "a second booking changes nothing");
        assert!(
            matches!(
                place(db, user.id, &plan, 17, "too much"),
                Err(PlaceError::NoDate)
            ),
            "no date can be promised"
        );
        open_payment(db, &order);
        assert!(
            pay(db, &order, 10_000).unwrap().is_some(),
            "held capacity can still be paid for"
        );
        drain(Draining::Stop);
        assert!(
            matches!(
                place(db, user.id, &plan, 17, "too soon"),
                Err(PlaceError::Capacity(_))
            ),
            "capacity stays down until it is booked back"
        );
        let again = book(NOW + 4);
        assert_eq!(
            (again.free, again.sold, again.down),
            (26 * SECTOR, 4 * SECTOR, 0)
        );
    });
}

#[test]
fn a_pool_can_grow_but_shrinks_only_by_its_free_capacity() {
    on_both(|db| {
        let (pool, plan, user) = shop(db, 10);
        place(db, user.id, &plan, 4, "held").unwrap();
        let resize = |sectors: i64, now| {
            db.transact(|conn| capacity::resize(conn, &pool, sectors * SECTOR, now))
        };
        assert_eq!(resize(25, NOW + 1).unwrap(), 10 * SECTOR);
        assert_eq!(
            (sound(db, pool.id).owned, sound(db, pool.id).free),
            (25 * SECTOR, 21 * SECTOR)
        );
        assert!(matches!(
            resize(3, NOW + 2),
            Err(LedgerError::Insufficient { free, .. }) if free == 21 * SECTOR
        ));
        resize(4, NOW + 3).unwrap();
        let least = sound(db, pool.id);
        assert_eq!(
            (least.owned, least.free, least.held),
            (4 * SECTOR, 0, 4 * SECTOR)
        );
        resize(20, NOW + 4).unwrap();
        db.transact(|conn| capacity::book_down(conn, 6 * SECTOR, NOW + 5))
            .unwrap();
        resize(12, NOW + 6).unwrap();
        let rest = sound(db, pool.id);
        assert_eq!(
            (rest.free, rest.down),
            (6 * SECTOR, 2 * SECTOR),
            "capacity that is down is given back first"
        );
    });
}
