//! Sectors' files on their way from the machine that did PC1 to one with a GPU.

use diesel::{ExpressionMethods, RunQueryDsl};
use sealyard_core::{
    clock::{DAY, HOUR, MINUTE, Micros, SECOND},
    fleet::{
        self, Machine, Pass,
        protocol::{FailureLevel, Hardware, MoveInput, Outcome, ReportRequest, StoredSector, Usage},
    },
    scheduler::{self, Assignment},
    sealing::{self, Sector, SectorState, TaskHead},
    store::{AnyConnection, Database, DbFault, schema},
};

use crate::{
    books::buy,
    support::{NOW, hardware, machine, on_both, shop},
};

/// A sector whose PC1 was done on the first machine, which shows its files to the second one, which has a GPU.
struct House<'d> {
    db: &'d Database,
    sector: Sector,
    first: Machine,
    /// The first one's.
    key: String,
    second: Machine,
}

fn beat(conn: &mut AnyConnection, machine: &Machine, gpus: usize, now: Micros) -> Result<(), DbFault> {
    let hardware = Hardware { gpus: vec!["a GPU".into(); gpus], ..hardware() };
    fleet::heartbeat(conn, machine, &hardware, now)?;
    Ok(fleet::offer_files(conn, machine, Some(&format!("http://{}", machine.name)))?)
}

/// These are heard every minute, and the others are not.
fn heard(conn: &mut AnyConnection, machines: &[(&Machine, usize)], until: Micros) -> Result<(), DbFault> {
    for minute in 1..=(until - NOW) / MINUTE {
        for (machine, gpus) in machines {
            beat(conn, machine, *gpus, NOW + minute * MINUTE)?;
        }
    }
    Ok(())
}

fn house(db: &Database) -> House<'_> {
    let (_, plan, user) = shop(db, 10);
    let contract = buy(db, &plan, user.id, 1, "key");
    let second = machine(db, "second");
    db.transact(|conn| {
        let token = fleet::new_token(conn, "first", NOW, NOW + DAY)?;
        let key = fleet::enrol(conn, &token, &hardware(), NOW).unwrap().key;
        let first = fleet::by_key(conn, &key)?.unwrap();
        beat(conn, &first, 0, NOW)?;
        beat(conn, &second, 1, NOW)?;
        let sector = sealing::of_contract(conn, contract.id)?.remove(0);
        sealing::begin_sealing(conn, sector.clone(), &"11".repeat(32), 7, NOW)?;
        let pc1 = sealing::open_tasks(conn)?.remove(0);
        assert!(sealing::assign(conn, pc1.id, first.id, NOW, NOW + HOUR)?);
        let report = ReportRequest { task: pc1.id.0, fence: 1, outcome: done(), usage: Usage::default() };
        assert!(sealing::report(conn, first.id, &report, NOW).unwrap());
        Ok::<_, DbFault>(House { db, sector, first, key, second: second.clone() })
    })
    .unwrap()
}

fn done() -> Outcome {
    Outcome::Done { output: serde_json::json!({}) }
}

impl House<'_> {
    fn dispatch(&self, now: Micros) -> Vec<Assignment> {
        self.db.transact(|conn| Ok::<_, DbFault>(scheduler::dispatch(conn, now, HOUR)?)).unwrap()
    }

    fn open(&self, kind: &str) -> Option<TaskHead> {
        let open = self.db.read(|conn| Ok::<_, DbFault>(sealing::open_tasks(conn)?)).unwrap();
        open.into_iter().find(|t| t.kind == kind)
    }

    fn sector(&self) -> Sector {
        self.db.read(|conn| Ok::<_, DbFault>(sealing::sector_by_id(conn, self.sector.id)?)).unwrap()
    }

    fn report(&self, task: &TaskHead, outcome: Outcome, now: Micros) -> bool {
        let report = ReportRequest { task: task.id.0, fence: task.fence, outcome, usage: Usage::default() };
        self.db.transact(|conn| sealing::report(conn, self.second.id, &report, now)).unwrap()
    }
}

#[test]
fn files_go_to_the_machine_with_the_gpu_and_pc2_follows_them() {
    on_both(|db| {
        let house = house(db);
        assert_eq!(house.dispatch(NOW).len(), 1);
        let fetch = house.open("move").unwrap();
        assert_eq!((fetch.state.as_str(), fetch.machine_id), ("leased", Some(house.second.id)));
        let leases = db.transact(|conn| Ok::<_, DbFault>(sealing::leases_of(conn, house.second.id, &[], NOW + HOUR)?)).unwrap();
        let input: MoveInput = serde_json::from_value(leases.leases[0].input.clone()).unwrap();
        let sector = StoredSector { miner: 1000, number: u64::try_from(house.sector.number).unwrap() };
        assert_eq!((input.sector, input.from.as_str()), (sector, "http://first"));
        assert!(Pass::read(&input.pass, sector, &house.key, NOW).is_some(), "the first one lets it in");
        assert_eq!(house.dispatch(NOW + SECOND), [], "it is on its way");
        assert_eq!(house.sector().machine_id, Some(house.first.id), "what has not arrived is where it was");
        assert!(house.report(&fetch, done(), NOW));
        assert!(house.report(&fetch, done(), NOW), "told twice");
        assert_eq!(house.sector().machine_id, Some(house.second.id));
        let pc2 = house.open("pc2").unwrap();
        assert_eq!(house.dispatch(NOW + 2 * SECOND), [Assignment { task: pc2.id, machine: house.second.id }]);
        assert_eq!(house.open("pc2").unwrap().machine_id, Some(house.second.id));
        let over = |of: &Machine| db.read(|conn| Ok::<_, DbFault>(sealing::not_needed(conn, of.id, &[sector], NOW)?)).unwrap();
        chain_is_read(db, &house);
        assert_eq!((over(&house.first), over(&house.second)), (vec![sector], vec![]), "the first one's copy can go");
    });
}

fn chain_is_read(db: &Database, house: &House<'_>) {
    use schema::chain_cursors as c;
    let begin = (c::pool_id.eq(house.sector.pool_id), c::genesis_at.eq((NOW - DAY) / SECOND), c::epoch_seconds.eq(30));
    let read = (c::next_epoch.eq(2880), c::head_epoch.eq(2880), c::last_cid.eq(""), c::network.eq("test"));
    db.transact(|conn| Ok::<_, DbFault>(diesel::insert_into(c::table).values((begin, read)).execute(conn)?)).unwrap();
}

#[test]
fn a_transfer_that_fails_is_tried_again_later_and_is_no_fault_of_the_sectors() {
    on_both(|db| {
        let house = house(db);
        let mut now = NOW;
        for _ in 0..7 {
            assert_eq!(house.dispatch(now).len(), 1);
            let fetch = house.open("move").unwrap();
            let outcome = Outcome::Failed { level: FailureLevel::Temporary, reason: "no route to host".into() };
            assert!(house.report(&fetch, outcome, now));
            assert_eq!(house.dispatch(now + 9 * MINUTE), [], "not at once");
            now += 11 * MINUTE;
        }
        let sector = house.sector();
        assert_eq!((sector.state(), sector.failures, sector.machine_id), (SectorState::PreCommit2, 0, Some(house.first.id)));
    });
}

#[test]
fn a_machine_that_goes_silent_while_it_fetches_is_not_waited_for() {
    on_both(|db| {
        let house = house(db);
        let third = machine(db, "third");
        assert_eq!(house.dispatch(NOW).len(), 1);
        let fetch = house.open("move").unwrap();
        let later = NOW + 20 * MINUTE;
        db.transact(|conn| {
            heard(conn, &[(&house.first, 0), (&third, 1)], later)?;
            assert!(sealing::give_up_lost(conn, 10 * MINUTE, later)?.contains(&house.second.id));
            Ok::<_, DbFault>(())
        })
        .unwrap();
        assert!(house.open("move").is_none());
        assert_eq!((house.sector().state(), house.sector().machine_id), (SectorState::PreCommit2, Some(house.first.id)));
        assert!(!house.report(&fetch, done(), later), "it comes too late");
        assert_eq!(house.dispatch(later).len(), 1);
        assert_eq!(house.open("move").unwrap().machine_id, Some(third.id));
    });
}

#[test]
fn a_sector_whose_files_are_lost_on_their_way_begins_again() {
    on_both(|db| {
        let house = house(db);
        assert_eq!(house.dispatch(NOW).len(), 1);
        let fetch = house.open("move").unwrap();
        let later = NOW + 20 * MINUTE;
        db.transact(|conn| {
            heard(conn, &[(&house.second, 1)], later)?;
            assert!(sealing::give_up_lost(conn, 10 * MINUTE, later)?.contains(&house.first.id));
            Ok::<_, DbFault>(())
        })
        .unwrap();
        assert_eq!((house.sector().state(), house.sector().machine_id), (SectorState::Planned, None));
        assert!(house.open("move").is_none() && house.open("pc2").is_none());
        assert!(!house.report(&fetch, done(), later));
        assert_eq!(house.sector().machine_id, None, "files that came from a machine that is lost by now are of no use");
    });
}

#[test]
fn who_shows_its_files_to_nobody_seals_to_the_end() {
    on_both(|db| {
        let house = house(db);
        for url in [None, Some("ftp://first")] {
            db.transact(|conn| {
                let first = fleet::by_key(conn, &house.key)?.unwrap();
                Ok::<_, DbFault>(fleet::offer_files(conn, &first, url)?)
            })
            .unwrap();
        }
        house.dispatch(NOW);
        assert!(house.open("move").is_none());
        assert_eq!(house.open("pc2").unwrap().machine_id, Some(house.first.id));
    });
}
