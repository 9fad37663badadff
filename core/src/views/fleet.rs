//! The fleet: machines with their work, and tokens that are not used yet.

use crate::{
    clock::Micros,
    fleet::{self, Machine, OpenToken},
    sealing,
    store::{AnyConnection, DbResult},
};

pub struct MachineView {
    pub machine: Machine,
    /// The progress of each open step, in the machine's words; empty texts for steps that have not
    /// begun.
    pub doing: Vec<String>,
    /// Sealed sectors that it stores.
    pub stored: i64,
}

pub struct FleetView {
    pub machines: Vec<MachineView>,
    pub tokens: Vec<OpenToken>,
}

pub fn fleet(conn: &mut AnyConnection, now: Micros) -> DbResult<FleetView> {
    let (open, counted) = (sealing::open_tasks(conn)?, sealing::count_sectors(conn)?);
    let machines = fleet::machines(conn)?.into_iter().map(|machine| {
        let tasks = open
            .iter()
            .filter(|task| task.machine_id == Some(machine.id));
        let stored = counted
            .iter()
            .filter(|c| c.machine == Some(machine.id) && c.state.is_on_chain());
        MachineView {
            doing: tasks
                .map(|task| task.progress.clone().unwrap_or_default())
                .collect(),
            stored: stored.map(|c| c.sectors).sum(),
            machine,
        }
    });
    Ok(FleetView {
        machines: machines.collect(),
        tokens: fleet::open_tokens(conn, now)?,
    })
}
