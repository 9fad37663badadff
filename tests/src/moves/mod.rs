//! Transfers of sector files: from the machine that did PC1 to one with a GPU, and on to the
//! machine that stores them.

mod layers;
mod storage;

use sealyard_core::{
    clock::{DAY, HOUR, MINUTE, Micros},
    fleet::{
        self, Machine, Offer,
        protocol::{
            FailureLevel, Hardware, MoveInput, Outcome, ReportRequest, StoredSector, Usage,
        },
    },
    scheduler::{self, Assignment},
    sealing::{self, Sector, TaskHead},
    store::{AnyConnection, Database, DbFault},
};

use crate::{
    books::buy,
    support::{self, NOW, hardware, machine, shop},
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

fn beat(
    conn: &mut AnyConnection,
    machine: &Machine,
    gpus: usize,
    now: Micros,
) -> Result<(), DbFault> {
    let hardware = Hardware {
        gpus: vec!["a GPU".into(); gpus],
        ..hardware()
    };
    fleet::heartbeat(conn, machine, &hardware, now)?;
    let url = format!("http://{}", machine.name);
    assert!(fleet::offer(
        conn,
        machine,
        Offer {
            files_url: Some(&url),
            keeps: machine.name == "keeper"
        }
    )?);
    Ok(())
}

/// Sends a heartbeat every minute for these machines only.
fn heard(
    conn: &mut AnyConnection,
    machines: &[(&Machine, usize)],
    until: Micros,
) -> Result<(), DbFault> {
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
        let report = ReportRequest {
            task: pc1.id.0,
            fence: 1,
            outcome: done(),
            usage: Usage::default(),
        };
        assert!(sealing::report(conn, first.id, &report, NOW).unwrap());
        Ok::<_, DbFault>(Fixture {
            db,
            sector,
            first,
            key,
            second: second.clone(),
        })
    })
    .unwrap()
}

fn done() -> Outcome {
    support::done(serde_json::json!({}))
}

fn failed(reason: &str) -> Outcome {
    Outcome::Failed {
        level: FailureLevel::Temporary,
        reason: reason.into(),
    }
}

impl Fixture<'_> {
    fn dispatch(&self, now: Micros) -> Vec<Assignment> {
        self.db
            .transact(|conn| Ok::<_, DbFault>(scheduler::dispatch(conn, now, HOUR)?))
            .unwrap()
    }

    fn open(&self, kind: &str) -> Option<TaskHead> {
        let open = self
            .db
            .read(|conn| Ok::<_, DbFault>(sealing::open_tasks(conn)?))
            .unwrap();
        open.into_iter().find(|t| t.kind.name() == kind)
    }

    fn sector(&self) -> Sector {
        self.db
            .read(|conn| Ok::<_, DbFault>(sealing::sector_by_id(conn, self.sector.id)?))
            .unwrap()
    }

    /// Reports as the machine that holds the lease.
    fn report(&self, task: &TaskHead, outcome: Outcome, now: Micros) -> bool {
        let report = ReportRequest {
            task: task.id.0,
            fence: task.fence,
            outcome,
            usage: Usage::default(),
        };
        self.db
            .transact(|conn| sealing::report(conn, task.machine_id.unwrap(), &report, now))
            .unwrap()
    }

    /// The input of the only lease that a machine is offered.
    fn told(&self, machine: &Machine) -> MoveInput {
        let answer = self
            .db
            .transact(|conn| {
                Ok::<_, DbFault>(sealing::leases_of(conn, machine.id, &[], NOW + HOUR)?)
            })
            .unwrap();
        serde_json::from_str(answer.leases[0].input.get()).unwrap()
    }

    fn stored(&self) -> StoredSector {
        StoredSector {
            miner: 1000,
            number: u64::try_from(self.sector.number).unwrap(),
        }
    }

    /// The copies of the sector that this machine can delete.
    fn not_needed(&self, on: &Machine, now: Micros) -> Vec<StoredSector> {
        let stored = [self.stored()];
        self.db
            .read(|conn| Ok::<_, DbFault>(sealing::not_needed(conn, on.id, &stored, now)?))
            .unwrap()
    }
}
