//! Transfers of sector files: from the machine that did PC1 to one with a GPU, and on to the
//! machine that stores them.

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    clock::{DAY, HOUR, MINUTE, Micros, SECOND},
    fleet::{
        self, Machine, Offer, Pass,
        protocol::{FailureLevel, Hardware, MoveInput, Outcome, ReportRequest, StoredSector, Usage},
    },
    scheduler::{self, Assignment},
    sealing::{self, Sector, SectorState, TaskHead, TaskKind},
    store::{AnyConnection, Database, DbFault, schema},
};

use crate::{
    books::buy,
    support::{self, NOW, counts, hardware, machine, on_both, read_up_to, shop},
};

/// A sector whose PC1 is done on the first machine. The first machine serves its files to the
/// second, which has a GPU.
struct Fixture<'d> {
    db: &'d Database,
    sector: Sector,
    first: Machine,
    /// The key of the first machine.
    key: String,
    second: Machine,
}

fn beat(conn: &mut AnyConnection, machine: &Machine, gpus: usize, now: Micros) -> Result<(), DbFault> {
    let hardware = Hardware { gpus: vec!["a GPU".into(); gpus], ..hardware() };
    fleet::heartbeat(conn, machine, &hardware, now)?;
    let url = format!("http://{}", machine.name);
    assert!(fleet::offer(conn, machine, Offer { files_url: Some(&url), keeps: machine.name == "keeper" })?);
    Ok(())
}

/// Sends a heartbeat every minute for these machines only.
fn heard(conn: &mut AnyConnection, machines: &[(&Machine, usize)], until: Micros) -> Result<(), DbFault> {
    for minute in 1..=(until - NOW) / MINUTE {
        for (machine, gpus) in machines {
            beat(conn, machine, *gpus, NOW + minute * MINUTE)?;
        }
    }
    Ok(())
}

fn fixture(db: &Database) -> Fixture<'_> {
    let (_, plan, user) = shop(db, 10);
    let contract = buy(db, &plan, user.id, 1, "key");
    buy(db, &plan, user.id, 3, "others");
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
        Ok::<_, DbFault>(Fixture { db, sector, first, key, second: second.clone() })
    })
    .unwrap()
}

fn done() -> Outcome {
    support::done(serde_json::json!({}))
}

impl Fixture<'_> {
    fn dispatch(&self, now: Micros) -> Vec<Assignment> {
        self.db.transact(|conn| Ok::<_, DbFault>(scheduler::dispatch(conn, now, HOUR)?)).unwrap()
    }

    fn open(&self, kind: &str) -> Option<TaskHead> {
        let open = self.db.read(|conn| Ok::<_, DbFault>(sealing::open_tasks(conn)?)).unwrap();
        open.into_iter().find(|t| t.kind.name() == kind)
    }

    fn sector(&self) -> Sector {
        self.db.read(|conn| Ok::<_, DbFault>(sealing::sector_by_id(conn, self.sector.id)?)).unwrap()
    }

    /// Reports as the machine that holds the lease.
    fn report(&self, task: &TaskHead, outcome: Outcome, now: Micros) -> bool {
        let report = ReportRequest { task: task.id.0, fence: task.fence, outcome, usage: Usage::default() };
        self.db.transact(|conn| sealing::report(conn, task.machine_id.unwrap(), &report, now)).unwrap()
    }

    /// The input of the only lease that a machine is offered.
    fn told(&self, machine: &Machine) -> MoveInput {
        let answer = self.db.transact(|conn| Ok::<_, DbFault>(sealing::leases_of(conn, machine.id, &[], NOW + HOUR)?)).unwrap();
        serde_json::from_str(answer.leases[0].input.get()).unwrap()
    }
}

#[test]
fn files_move_to_the_gpu_machine_and_pc2_follows() {
    on_both(|db| {
        let fixture = fixture(db);
        assert_eq!(fixture.dispatch(NOW).len(), 1);
        let fetch = fixture.open("move").unwrap();
        assert_eq!((fetch.state.name(), fetch.machine_id), ("leased", Some(fixture.second.id)));
        let input = fixture.told(&fixture.second);
        let sector = StoredSector { miner: 1000, number: u64::try_from(fixture.sector.number).unwrap() };
        assert_eq!((input.sector.number, input.from.as_str()), (sector.number, "http://first"));
        assert!(Pass::read(&input.pass, sector, &fixture.key, NOW).is_some(), "the first machine accepts the pass");
        assert_eq!(fixture.dispatch(NOW + SECOND), [], "the files are already in transit");
        assert_eq!(fixture.sector().machine_id, Some(fixture.first.id), "they stay at the source until they arrive");
        assert!(fixture.report(&fetch, done(), NOW));
        assert!(fixture.report(&fetch, done(), NOW), "a repeated report is accepted");
        assert_eq!(fixture.sector().machine_id, Some(fixture.second.id));
        let pc2 = fixture.open("pc2").unwrap();
        assert_eq!(fixture.dispatch(NOW + 2 * SECOND), [Assignment { task: pc2.id, machine: fixture.second.id }]);
        assert_eq!(fixture.open("pc2").unwrap().machine_id, Some(fixture.second.id));
        let over = |of: &Machine| db.read(|conn| Ok::<_, DbFault>(sealing::not_needed(conn, of.id, &[sector], NOW)?)).unwrap();
        read_up_to(db, fixture.sector.pool_id, 2880);
        assert_eq!((over(&fixture.first), over(&fixture.second)), (vec![sector], vec![]), "the first machine can delete it");
    });
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed { level: FailureLevel::Temporary, reason: reason.into() }
}

#[test]
fn a_failed_transfer_is_retried_later_without_blaming_the_sector() {
    on_both(|db| {
        let fixture = fixture(db);
        let mut now = NOW;
        for tried in 0..7 {
            assert_eq!(fixture.dispatch(now).len(), 1, "{tried}");
            let fetch = fixture.open("move").unwrap();
            assert!(fixture.report(&fetch, failed("no route to host"), now));
            let pause = ((10 * MINUTE) << tried).min(HOUR);
            assert_eq!(fixture.dispatch(now + pause - MINUTE), [], "no retry before the pause is over");
            now += pause + MINUTE;
        }
        let sector = fixture.sector();
        assert_eq!((sector.state, sector.failures, sector.machine_id), (SectorState::PreCommit2, 0, Some(fixture.first.id)));
    });
}

/// Reports a transfer of another sector from the first machine to the second with this outcome.
fn transfer(fixture: &Fixture<'_>, at: usize, outcome: &Outcome, now: Micros) {
    fixture
        .db
        .transact(|conn| {
            let other = sealing::all_sectors(conn, 9)?.into_iter().filter(|s| s.id != fixture.sector.id).nth(at).unwrap();
            let fetch = sealing::NewTask {
                kind: TaskKind::Move,
                sector: Some(other.id),
                post: None,
                pool: other.pool_id,
                pinned_to: Some(fixture.second.id),
                avoid: Some(fixture.first.id),
                input: "{}".into(),
                due_at: now,
            };
            let task = sealing::create_task(conn, &fetch, now)?;
            assert!(sealing::assign(conn, task, fixture.second.id, now, now + HOUR)?);
            let report = ReportRequest { task: task.0, fence: 1, outcome: outcome.clone(), usage: Usage::default() };
            assert!(sealing::report(conn, fixture.second.id, &report, now).unwrap());
            Ok::<_, DbFault>(())
        })
        .unwrap();
}

#[test]
fn layers_are_made_again_when_only_their_transfer_keeps_failing() {
    on_both(|db| {
        let fixture = fixture(db);
        let mut now = NOW;
        for tried in 0..3 {
            fixture.dispatch(now);
            let fetch = fixture.open("move").unwrap();
            assert!(fixture.report(&fetch, failed("Input/output error"), now));
            transfer(&fixture, 0, &done(), now + MINUTE);
            now += ((10 * MINUTE) << tried) + MINUTE;
        }
        let sector = fixture.sector();
        assert_eq!((sector.state, sector.failures, sector.machine_id), (SectorState::Planned, 1, None));
        assert!(sector.reason.unwrap().contains("Input/output error"));
    });
}

#[test]
fn machines_are_blamed_when_several_transfers_fail_and_none_succeeds() {
    on_both(|db| {
        let fixture = fixture(db);
        let blamed = |now| db.read(|conn| Ok::<_, DbFault>(sealing::setbacks(conn, now)?)).unwrap();
        for at in 0..3 {
            assert!(blamed(NOW + MINUTE).machines.is_empty(), "{at} failures may be chance");
            transfer(&fixture, at, &failed("no route to host"), NOW);
        }
        let mut both = blamed(NOW + MINUTE).machines;
        both.sort_unstable();
        assert_eq!(both, [fixture.second.id, fixture.first.id]);
        assert_eq!(blamed(NOW + MINUTE).sectors.len(), 3);
        assert!(blamed(NOW + 11 * MINUTE).machines.is_empty() && blamed(NOW + 11 * MINUTE).sectors.is_empty());
        transfer(&fixture, 0, &done(), NOW + MINUTE);
        assert!(blamed(NOW + 2 * MINUTE).machines.is_empty(), "one success clears both machines");
    });
}

#[test]
fn layers_with_an_expired_ticket_begin_again_unless_in_transit() {
    on_both(|db| {
        let fixture = fixture(db);
        let renew = || db.transact(|conn| Ok::<_, DbFault>(sealing::renew_ticket(conn, fixture.sector.id, NOW)?)).unwrap();
        fixture.dispatch(NOW);
        assert!(!renew(), "the layers are in transit");
        assert!(fixture.report(&fixture.open("move").unwrap(), failed("no route to host"), NOW));
        assert!(renew());
        assert_eq!((fixture.sector().state, fixture.sector().failures), (SectorState::Planned, 0));
        assert!(fixture.open("pc2").is_none());
    });
}

#[test]
fn a_machine_that_falls_silent_during_a_transfer_loses_it_to_another() {
    on_both(|db| {
        let fixture = fixture(db);
        let third = machine(db, "third");
        assert_eq!(fixture.dispatch(NOW).len(), 1);
        let fetch = fixture.open("move").unwrap();
        let later = NOW + 20 * MINUTE;
        db.transact(|conn| {
            heard(conn, &[(&fixture.first, 0), (&third, 1)], later)?;
            assert!(sealing::give_up_lost(conn, 10 * MINUTE, later)?.contains(&fixture.second.id));
            Ok::<_, DbFault>(())
        })
        .unwrap();
        assert!(fixture.open("move").is_none());
        assert_eq!((fixture.sector().state, fixture.sector().machine_id), (SectorState::PreCommit2, Some(fixture.first.id)));
        assert!(!fixture.report(&fetch, done(), later), "the report comes too late");
        assert_eq!(fixture.dispatch(later).len(), 1);
        assert_eq!(fixture.open("move").unwrap().machine_id, Some(third.id));
    });
}

#[test]
fn a_sector_begins_again_when_its_files_are_lost_in_transit() {
    on_both(|db| {
        let fixture = fixture(db);
        assert_eq!(fixture.dispatch(NOW).len(), 1);
        let fetch = fixture.open("move").unwrap();
        let later = NOW + 20 * MINUTE;
        db.transact(|conn| {
            heard(conn, &[(&fixture.second, 1)], later)?;
            assert!(sealing::give_up_lost(conn, 10 * MINUTE, later)?.contains(&fixture.first.id));
            Ok::<_, DbFault>(())
        })
        .unwrap();
        assert_eq!((fixture.sector().state, fixture.sector().machine_id), (SectorState::Planned, None));
        assert!(fixture.open("move").is_none() && fixture.open("pc2").is_none());
        assert!(!fixture.report(&fetch, done(), later));
        assert_eq!(fixture.sector().machine_id, None, "files from a machine that has been lost since are not used");
    });
}

#[test]
fn a_machine_that_serves_no_files_seals_its_sectors_to_the_end() {
    on_both(|db| {
        let fixture = fixture(db);
        for url in [None, Some("ftp://first")] {
            db.transact(|conn| {
                let first = fleet::by_key(conn, &fixture.key)?.unwrap();
                Ok::<_, DbFault>(fleet::offer(conn, &first, Offer { files_url: url, keeps: false })?)
            })
            .unwrap();
        }
        fixture.dispatch(NOW);
        assert!(fixture.open("move").is_none());
        assert_eq!(fixture.open("pc2").unwrap().machine_id, Some(fixture.first.id));
    });
}

/// Marks the sector as sealed, with its files on the second machine, and adds a third machine that
/// stores sealed sectors.
fn sealed(fixture: &Fixture<'_>) -> Machine {
    let keeper = machine(fixture.db, "keeper");
    fixture
        .db
        .transact(|conn| {
            use schema::sectors as s;
            beat(conn, &keeper, 0, NOW)?;
            let values = (s::state.eq("active"), s::machine_id.eq(fixture.second.id), s::activation.eq(10), s::comm_r.eq("33"));
            diesel::update(s::table.find(fixture.sector.id)).set((values, s::expiration.eq(900_000))).execute(conn)?;
            Ok::<_, DbFault>(())
        })
        .unwrap();
    counts(fixture.db, fixture.sector.pool_id, fixture.sector.number);
    keeper
}

#[test]
fn a_stored_sector_loses_its_old_copy_once_it_is_proven_from_the_new_place() {
    on_both(|db| {
        let fixture = fixture(db);
        let keeper = sealed(&fixture);
        read_up_to(db, fixture.sector.pool_id, 2880);
        fixture.dispatch(NOW);
        let fetch = fixture.open("store").unwrap();
        assert_eq!(fetch.machine_id, Some(keeper.id));
        let input = fixture.told(&keeper);
        assert_eq!((input.from.as_str(), input.sector.comm_r.as_str(), input.prove_with.len()), ("http://second", "33", 64));
        fixture.dispatch(NOW + SECOND);
        let twice = db.read(|conn| Ok::<_, DbFault>(sealing::open_tasks(conn)?)).unwrap();
        assert_eq!(twice.iter().filter(|t| t.kind.name() == "store").count(), 1, "the transfer is created once");
        assert!(fixture.report(&fetch, done(), NOW));
        assert_eq!((fixture.sector().state, fixture.sector().machine_id), (SectorState::Active, Some(keeper.id)));
        let sector = StoredSector { miner: 1000, number: u64::try_from(fixture.sector.number).unwrap() };
        let over = |of: &Machine, now| {
            db.read(|conn| Ok::<_, DbFault>(sealing::not_needed(conn, of.id, &[sector], now)?)).unwrap().len()
        };
        let read_until = |at: Micros| read_up_to(db, fixture.sector.pool_id, (at - (NOW - DAY)) / SECOND / 30);
        let becomes = |state: &str| {
            use schema::sectors as s;
            let row = s::table.find(fixture.sector.id);
            db.transact(|conn| Ok::<_, DbFault>(diesel::update(row).set(s::state.eq(state)).execute(conn)?)).unwrap();
        };
        assert_eq!(over(&fixture.second, NOW + 2 * DAY), 0, "the chain has not been read that far");
        read_until(NOW + 2 * DAY - MINUTE);
        assert_eq!(over(&fixture.second, NOW + 2 * DAY), 0, "it may not have been proven from the new place yet");
        read_until(NOW + 2 * DAY);
        becomes("faulty");
        assert_eq!(over(&fixture.second, NOW + 2 * DAY), 0, "the old copy may still save a faulty sector");
        becomes("active");
        assert_eq!(over(&fixture.second, NOW + 2 * DAY), 0, "the new machine has not reported the sector yet");
        let tell = |of: &Machine, what: StoredSector, now| {
            db.transact(|conn| Ok::<_, DbFault>(sealing::copies_seen(conn, of.id, &[what], now)?)).unwrap();
        };
        tell(&keeper, sector, NOW + 2 * DAY - HOUR);
        tell(&keeper, StoredSector { number: sector.number + 1, ..sector }, NOW + 2 * DAY);
        tell(&fixture.second, sector, NOW + 2 * DAY);
        assert_eq!(over(&fixture.second, NOW + 2 * DAY), 0, "the last report of the new machine is an hour old");
        tell(&keeper, sector, NOW + 2 * DAY - MINUTE);
        assert_eq!((over(&fixture.second, NOW + 2 * DAY), over(&keeper, NOW + 2 * DAY)), (1, 0));
        let lost = |since: Option<Micros>| {
            use schema::machines as m;
            let row = m::table.find(keeper.id);
            db.transact(|conn| Ok::<_, DbFault>(diesel::update(row).set(m::lost_since.eq(since)).execute(conn)?)).unwrap();
        };
        lost(Some(NOW));
        assert_eq!(over(&fixture.second, NOW + 2 * DAY), 0, "the new machine is lost");
        lost(None);
        assert_eq!(over(&fixture.first, NOW + 2 * DAY), 0, "no transfer from this machine is on record");
        fixture.dispatch(NOW + 2 * DAY);
        assert!(fixture.open("store").is_none(), "a stored sector is not moved again");
    });
}

#[test]
fn a_sector_that_cannot_be_stored_stays_where_it_is() {
    on_both(|db| {
        let fixture = fixture(db);
        let keeper = sealed(&fixture);
        fixture.dispatch(NOW);
        let fetch = fixture.open("store").unwrap();
        assert_eq!(fetch.machine_id, Some(keeper.id));
        assert!(fixture.report(&fetch, failed("what arrived cannot be proven"), NOW));
        let sector = fixture.sector();
        assert_eq!((sector.state, sector.failures, sector.machine_id), (SectorState::Active, 0, Some(fixture.second.id)));
        fixture.dispatch(NOW + MINUTE);
        assert!(fixture.open("store").is_none(), "no retry before the pause is over");
        fixture.dispatch(NOW + 11 * MINUTE);
        assert!(fixture.open("store").is_some());
    });
}
