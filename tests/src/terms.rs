//! The terms of a contract beyond the split of a day: its end, its extension, and the investor's
//! own pledge.

use sealyard_core::{
    accounts::{self, NewUser, Registration, Role},
    capacity,
    catalog::{self, NewPlan, Plan, Pledge, Shortfall, Starts, Terms},
    clock::Micros,
    contracts::{self, Contract},
    ids::{PoolId, UserId},
    ledger::{self, AccountSpec, Lot, Transfer},
    money::Fiat,
    orders::{self, PlaceError, PlaceOrder},
    sealing,
    store::{AnyConnection, Database, DbFault},
    yields::{self, CorrectionError, Flow, FlowKind},
};

use crate::{
    books::{Spoilt, TIME, buy, chain, close_all, counts, posted, sectors},
    support::{NOW, SECTOR, on_both, shop},
};

const DAY: i64 = 2880;
const WIN: &str = "1000000000000000000";

fn plan(db: &Database, pool: &capacity::Pool, days: i64, terms: Terms) -> Plan {
    let price = Fiat { minor: 2500, currency: "USD".into() };
    let new = NewPlan::of_sectors(pool, "Special", days, price, terms, NOW);
    db.write(|conn| catalog::create_plan(conn, &new)).unwrap()
}

/// Activates all sectors of a contract and starts its term at this epoch.
fn activate(db: &Database, contract: &Contract, epoch: i64) {
    db.write(|conn| contracts::mark_active(conn, contract.id, TIME.micros(epoch))).unwrap();
    run(db, &format!("UPDATE sectors SET state = 'active' WHERE contract_id = {}", contract.id));
}

fn run(db: &Database, sql: &str) {
    let run = |conn: &mut AnyConnection| {
        sealyard_core::on_conn!(conn, |c| diesel::RunQueryDsl::execute(diesel::sql_query(sql), c)).map_err(DbFault::from)
    };
    db.transact(run).unwrap();
}

fn now_is(db: &Database, contract: &Contract) -> Contract {
    db.read(|conn| contracts::by_public_id(conn, &contract.public_id).map_err(DbFault::from)).unwrap().unwrap()
}

fn lots(db: &Database, contract: &Contract) -> Vec<Lot> {
    let mut lots =
        db.read(|conn| ledger::lots_of_contract(conn, contract.id, 0..i64::MAX, i64::MAX).map_err(DbFault::from)).unwrap();
    lots.reverse();
    lots
}

/// The audit may only report missing coverage, because these tests record no chain days.
fn sound(db: &Database) {
    assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
    let found = db.read(yields::audit).unwrap().map(|difference| difference.to_string());
    assert!(found.as_ref().is_none_or(|said| said.starts_with("coverage > ")), "{found:?}");
}

fn owned(db: &Database, pool: PoolId) -> capacity::Capacity {
    db.read(|conn| capacity::capacity(conn, pool).map_err(DbFault::from)).unwrap()
}

#[test]
fn an_ended_contract_earns_nothing_and_its_sectors_pass_to_the_operator() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let plan = plan(db, &pool, 2, Terms { starts: Starts::PowerOn, ..Terms::standard(0) });
        let contract = buy(db, &plan, ada.id, 1, "ada");
        // The term runs from noon of the first day: a half, a whole and a half day.
        activate(db, &contract, DAY / 2);
        let wins: Vec<(i64, &str)> = (0..4).map(|day| (day * DAY + 7, WIN)).collect();
        chain(db, pool.id, &[(sectors(db, &contract)[0], DAY / 2)], &wins, 4 * DAY);
        assert_eq!(close_all(db, pool.id), 4);
        let gross: Vec<i64> = lots(db, &contract).iter().map(|lot| lot.gross_nano).collect();
        assert_eq!(gross, [1_000_000_000, 1_000_000_000, 500_000_000, 0], "all the power is its own until noon of the third day");
        assert_eq!(posted(db, &AccountSpec::OperatorYield(pool.id)), 1_500_000_000);
        assert_eq!(now_is(db, &contract).state.name(), "ended");
        let capacity = owned(db, pool.id);
        assert_eq!(
            (capacity.sold, capacity.own_use, capacity.free),
            (0, SECTOR, 9 * SECTOR),
            "the capacity is not for sale while the sector lives"
        );
        sound(db);
        db.transact(|conn| contracts::end(conn, contract.id, NOW)).unwrap();
        let capacity = owned(db, pool.id);
        assert_eq!((capacity.own_use, capacity.free, capacity.holds()), (0, 10 * SECTOR, true));
    });
}

#[test]
fn unsealed_sectors_are_given_up_at_the_end_and_their_bytes_sold_again() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let plan = plan(db, &pool, 2, Terms { starts: Starts::PowerOn, ..Terms::standard(0) });
        let contract = buy(db, &plan, ada.id, 2, "ada");
        activate(db, &contract, 0);
        let [counted, stuck] = sectors(db, &contract)[..] else { panic!("two sectors") };
        run(db, &format!("UPDATE sectors SET state = 'quarantined' WHERE id = {stuck}"));
        let wins: Vec<(i64, &str)> = (0..3).map(|day| (day * DAY + 7, WIN)).collect();
        chain(db, pool.id, &[(counted, 0)], &wins, 3 * DAY);
        assert_eq!(close_all(db, pool.id), 3);
        let sector = |id| db.read(|conn| sealing::sector_by_id(conn, id).map_err(DbFault::from)).unwrap();
        assert_eq!((sector(stuck).state.name(), sector(counted).state.name()), ("expired", "active"));
        assert_eq!(owned(db, pool.id).free, 8 * SECTOR, "one sector is still alive");
        let gone = sector(counted);
        db.transact(|conn| sealing::mark_on_chain(conn, gone.clone(), sealing::OnChain::Gone, NOW)).unwrap();
        assert_eq!(owned(db, pool.id).free, 10 * SECTOR);
        sound(db);
    });
}

#[test]
fn missing_power_extends_the_contract_up_to_its_limit_and_is_paid_beyond() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let terms = Terms { shortfall: Shortfall::AddedDays { most: 1 }, starts: Starts::PowerOn, ..Terms::standard(0) };
        let plan = plan(db, &pool, 3, terms);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        // Power is owed from the first whole day on.
        activate(db, &contract, -1);
        let wins: Vec<(i64, &str)> = (0..6).map(|day| (day * DAY + 7, WIN)).collect();
        let sector = sectors(db, &contract)[0];
        chain(db, pool.id, &[(sector, 0)], &wins, 6 * DAY);
        // The sector is faulty for half of the first day and for two thirds of the third.
        let number = db.read(|conn| sealing::sector_by_id(conn, sector).map_err(DbFault::from)).unwrap().number;
        db.write(|conn| {
            yields::power_off(conn, pool.id, number, 1000)?;
            yields::power_on(conn, &[counts(pool.id, number, Some(contract.id), 2440)])?;
            yields::power_off(conn, pool.id, number, 2 * DAY)?;
            yields::power_on(conn, &[counts(pool.id, number, Some(contract.id), 2 * DAY + 1920)])?;
            // The operator's own sector earns, so missing power has a price.
            yields::power_on(conn, &[counts(pool.id, 99, None, 0)])
        })
        .unwrap();
        assert_eq!(close_all(db, pool.id), 6);
        let told: Vec<(i64, i64, bool)> =
            lots(db, &contract).iter().map(|lot| (lot.day - TIME.day(0), lot.added_epochs, lot.compensation_nano > 0)).collect();
        assert_eq!(
            told,
            [(0, 1440, false), (1, 0, false), (2, 1440, true), (3, 0, false), (4, 0, false), (5, 0, false)],
            "480 epochs of the third day exceed the one day that can be added"
        );
        let contract = now_is(db, &contract);
        assert_eq!((contract.ends_at, contract.added_epochs), (Some(TIME.micros(4 * DAY - 1)), DAY));
        assert_eq!(contract.state.name(), "ended");
        let earning: Vec<bool> = lots(db, &contract).iter().map(|lot| lot.gross_nano > 0).collect();
        assert_eq!(earning, [true, true, true, true, false, false], "the term has three days and one added day");
        sound(db);
    });
}

fn flow(pool: PoolId, kind: FlowKind, number: i64, epoch: i64, nano: i64) -> Flow {
    Flow { pool_id: pool, kind, subject: number, epoch, atto: format!("{nano}000000000") }
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

fn place(db: &Database, plan: &Plan, user: UserId, units: i64, key: &str, now: Micros) -> Result<orders::Order, PlaceError> {
    db.transact(|conn| orders::place(conn, &PlaceOrder { user, plan, units, request_key: key, shown: None }, now))
}

#[test]
fn an_investors_pledge_is_taken_with_the_order_and_returned_with_the_chains() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let terms = Terms { pledge: Pledge::Investor { terminations_bp: 5000 }, ..Terms::standard(0) };
        let plan = plan(db, &pool, 200, terms);
        run(db, "UPDATE pools SET pledge_nano = NULL");
        let unknown = place(db, &plan, ada.id, 2, "unknown", NOW);
        assert!(matches!(unknown, Err(PlaceError::Collateral)), "the pledge of a sector is not known yet: {unknown:?}");
        db.write(|conn| capacity::set_collateral(conn, pool.id, 100, 2_000)).unwrap();
        give(db, pool.id, ada.id, 10_000);
        let balance = |spec: &AccountSpec| db.read(|conn| ledger::balance(conn, spec).map_err(DbFault::from)).unwrap();
        let (available, pledged) = (AccountSpec::Available(ada.id), AccountSpec::Pledged(ada.id));

        let too_much = place(db, &plan, ada.id, 6, "too much", NOW).unwrap_err().to_string();
        assert!(too_much.contains("a pledge of 0.000012000 FIL of your own; you have 0.000010000 FIL"), "{too_much}");
        place(db, &plan, ada.id, 3, "not paid", NOW).unwrap();
        assert_eq!(balance(&available).free(), 4_000, "the pledge is held");
        db.transact(|conn| orders::expire_due(conn, NOW + sealyard_core::clock::DAY)).unwrap();
        assert_eq!(balance(&available).free(), 10_000, "the hold of an unpaid order is released");

        let contract = buy(db, &plan, ada.id, 2, "ada");
        assert_eq!((posted(db, &available), posted(db, &pledged)), (6_000, 4_000));
        let numbers: Vec<i64> = db
            .read(|conn| Ok::<_, DbFault>(sealing::of_contract(conn, contract.id)?.into_iter().map(|s| s.number).collect()))
            .unwrap();
        chain(db, pool.id, &[], &[], 4 * DAY);
        db.write(|conn| {
            for flow in [
                // The operator pays what the second sector costs beyond the pledge.
                flow(pool.id, FlowKind::PledgeIn, numbers[0], 10, 1_500),
                flow(pool.id, FlowKind::PledgeIn, numbers[1], 20, 2_300),
                flow(pool.id, FlowKind::PledgeBack, numbers[0], 2 * DAY, 1_500),
                flow(pool.id, FlowKind::PledgeBack, numbers[1], 3 * DAY, 2_300),
                flow(pool.id, FlowKind::TerminationFee, numbers[1], 3 * DAY, 701),
            ] {
                yields::record_flows(conn, &[flow])?;
            }
            // The operator's sector makes days close from here on.
            yields::power_on(conn, &[counts(pool.id, 99, None, 0)])
        })
        .unwrap();
        assert_eq!(close_all(db, pool.id), 4);
        // Half of the fee, rounded down to 350, is kept.
        assert_eq!((posted(db, &available), posted(db, &pledged)), (10_000 - 350, 0));
        assert_eq!(posted(db, &AccountSpec::OperatorYield(pool.id)), 350);
        let kinds: Vec<(String, i64)> = db
            .read(|conn| ledger::entries(conn, &pledged, 0..i64::MAX, i64::MAX).map_err(DbFault::from))
            .unwrap()
            .into_iter()
            .map(|entry| (entry.kind, entry.amount))
            .collect();
        let told = |kind: &str| kinds.iter().filter(|(of, _)| of == kind).map(|(_, amount)| *amount).collect::<Vec<_>>();
        assert_eq!(told("pledge"), [4_000]);
        assert_eq!(told("pledge_not_needed"), [-500]);
        assert_eq!((told("pledge_returned").iter().sum::<i64>(), told("pledge_kept")), (-3_150, vec![-350]));
        sound(db);
        // The audit derives what is due from the chain.
        let spoilt = db.transact(|conn| {
            sealyard_core::on_conn!(conn, |c| diesel::RunQueryDsl::execute(
                diesel::sql_query(
                    "UPDATE chain_flows SET atto = '1400000000000' WHERE kind = 'pledge_in' AND atto = '1500000000000'"
                ),
                c
            ))?;
            let found = yields::audit(conn).unwrap().map(|found| found.path);
            Err::<(), _>(Spoilt(found))
        });
        let Err(Spoilt(Some(path))) = spoilt else { panic!("the difference was not found") };
        assert!(path.contains("transfer pledge-"), "{path}");
    });
}

#[test]
fn a_correction_is_a_new_entry_in_an_open_day_naming_the_corrected_one() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let boss = db
            .write(|conn| {
                let new = NewUser { email: "boss@example.org", name: "Boss", password: "long enough", role: Role::Admin };
                Ok(accounts::register(conn, &Registration::of(&new).unwrap(), NOW).unwrap())
            })
            .unwrap();
        let contract = buy(db, &plan, ada.id, 1, "ada");
        chain(db, pool.id, &[(sectors(db, &contract)[0], 0)], &[(7, WIN)], DAY);
        assert_eq!(close_all(db, pool.id), 1);
        let available = AccountSpec::Available(ada.id);
        let had = posted(db, &available);
        let said = db.read(|conn| yields::explain(conn, ada.id, TIME.day(0))).unwrap().join("\n");
        let entry = format!("reward:{}:{}:{}", pool.id, TIME.day(0), contract.public_id);
        assert!(said.contains(&entry), "{entry} is not named in\n{said}");
        let book = |corrects: &str, nano, reason: &str| {
            let new = yields::NewCorrection { corrects, nano, reason, made_by: boss.id };
            db.transact(|conn| yields::correct(conn, &new, NOW))
        };
        for _ in 0..2 {
            let booked = book(&entry, 500, "we had the fee wrong").unwrap();
            assert_eq!((booked.corrects.as_str(), booked.reason.as_str()), (entry.as_str(), "we had the fee wrong"));
        }
        assert_eq!(posted(db, &available), had + 500, "it is booked once, at the operator's expense");
        assert_eq!(posted(db, &AccountSpec::Compensation(pool.id)), -500);
        let first = db.read(|conn| ledger::entries(conn, &available, 0..i64::MAX, i64::MAX).map_err(DbFault::from)).unwrap();
        let first = first.into_iter().find(|entry| entry.kind == "correction").unwrap();
        assert_eq!(first.effective_day, TIME.day(0) + 1, "it belongs to the open day");
        // A correction can be corrected as well, but it cannot make a balance negative.
        book(&first.transfer, -500, "it was right after all").unwrap();
        assert_eq!(posted(db, &available), had);
        assert!(matches!(book(&entry, -had - 1, "too much"), Err(CorrectionError::Ledger(_))));
        for (entry, reason) in [("reward:1:5:ctr_none", "why"), ("operator:1:5", "why"), (entry.as_str(), " ")] {
            assert!(book(entry, 1, reason).is_err(), "{entry} {reason}");
        }
        assert_eq!(posted(db, &available), had);
        sound(db);
    });
}

#[test]
fn a_pledge_taken_before_the_first_closed_day_comes_back_in_full() {
    on_both(|db| {
        let (pool, _, ada) = shop(db, 10);
        let terms = Terms { pledge: Pledge::Investor { terminations_bp: 0 }, ..Terms::standard(0) };
        let plan = plan(db, &pool, 200, terms);
        db.write(|conn| capacity::set_collateral(conn, pool.id, 100, 2_000)).unwrap();
        give(db, pool.id, ada.id, 10_000);
        let contract = buy(db, &plan, ada.id, 1, "ada");
        let number = db.read(|conn| sealing::of_contract(conn, contract.id).map_err(DbFault::from)).unwrap()[0].number;
        chain(db, pool.id, &[], &[], 3 * DAY);
        db.write(|conn| {
            yields::record_flows(conn, &[flow(pool.id, FlowKind::PledgeIn, number, 10, 1_500)])?;
            yields::record_flows(conn, &[flow(pool.id, FlowKind::PledgeBack, number, 2 * DAY, 1_500)])?;
            // The pool has its first power a day later.
            yields::power_on(conn, &[counts(pool.id, 99, None, DAY)])
        })
        .unwrap();
        assert_eq!(close_all(db, pool.id), 2);
        assert_eq!((posted(db, &AccountSpec::Available(ada.id)), posted(db, &AccountSpec::Pledged(ada.id))), (10_000, 0));
        sound(db);
    });
}
