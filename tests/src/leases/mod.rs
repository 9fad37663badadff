//! Machines: enrolment, leases and fences. Two machines never hold the same task, and a result with
//! an old fence is rejected.

mod fences;
mod files;
mod grants;
mod machines;
mod proofs;

use sealyard_core::{
    fleet::{
        Machine,
        protocol::{FailureLevel, Outcome, ReportRequest, Usage},
    },
    ids::ContractId,
    sealing::{self, Sector, TaskHead},
    store::{AnyConnection, Database, DbFault, DbResult},
};

use crate::{
    books::buy,
    support::{self, NOW, shop},
};

fn begin_all(conn: &mut AnyConnection, contract: ContractId) -> DbResult<()> {
    for sector in sealing::of_contract(conn, contract)? {
        sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, NOW)?;
    }
    Ok(())
}

/// A sold sector whose PC1 waits for a machine.
fn sector_in_pc1(db: &Database) -> (Sector, TaskHead) {
    let (_, plan, user) = shop(db, 10);
    let contract = buy(db, &plan, user.id, 1, "key");
    db.write(|conn| {
        let sector = sealing::of_contract(conn, contract.id)?.remove(0);
        sealing::begin_sealing(conn, sector.clone(), &"11".repeat(32), 7, NOW)?;
        let task = sealing::open_tasks(conn)?.remove(0);
        Ok((sealing::sector_by_id(conn, sector.id)?, task))
    })
    .unwrap()
}

fn assign(db: &Database, task: &TaskHead, machine: &Machine) -> bool {
    db.write(|conn| sealing::assign(conn, task.id, machine.id, NOW, NOW + 10))
        .unwrap()
}

fn report(db: &Database, machine: &Machine, task: i64, fence: i64, outcome: Outcome) -> bool {
    let request = ReportRequest {
        task,
        fence,
        outcome,
        usage: Usage::default(),
    };
    db.transact(|conn| sealing::report(conn, machine.id, &request, NOW))
        .unwrap()
}

fn done() -> Outcome {
    support::done(serde_json::json!({}))
}

fn failed(level: FailureLevel, reason: &str) -> Outcome {
    Outcome::Failed {
        level,
        reason: reason.into(),
    }
}

fn open_tasks(db: &Database) -> Vec<TaskHead> {
    db.read(|conn| sealing::open_tasks(conn).map_err(DbFault::from))
        .unwrap()
}

fn state(db: &Database, sector: &Sector) -> String {
    db.read(|conn| sealing::sector_by_id(conn, sector.id).map_err(DbFault::from))
        .unwrap()
        .state
        .name()
        .to_owned()
}
