//! Recovery of faulty sectors. Before the chain is told that a sector can be proven again, the
//! machine that stores it reads it.

use serde::Deserialize;

use crate::{
    capacity::Pool,
    clock::{HOUR, Micros},
    fleet::{lost_machines, protocol::PostInput},
    ids,
    sealing::{self, NewTask, Sector, Task, TaskKind, TaskState},
    store::{AnyConnection, DbResult},
};

/// Whether a faulty sector can be proven in the coming window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readability {
    /// Its machine is reading it.
    Checking,
    Provable,
    /// No machine stores it, its machine is lost, or the stored files cannot be proven.
    Damaged,
}

#[derive(Deserialize)]
struct Checked {
    faulty: Vec<(u64, String)>,
}

/// Has a faulty sector read by its machine, once per window (which opens at epoch `opens`), and
/// returns the result so far.
pub fn readability(
    conn: &mut AnyConnection,
    pool: &Pool,
    sector: &Sector,
    opens: i64,
    now: Micros,
) -> DbResult<Readability> {
    let Some(machine) = sector.machine_id else {
        return Ok(Readability::Damaged);
    };
    if lost_machines(conn)?.contains(&machine) {
        return Ok(Readability::Damaged);
    }
    // Any randomness shows whether the replica can be proven. This one identifies the window.
    let randomness = ids::digest(&format!(
        "readability:{}:{}:{opens}",
        sector.pool_id, sector.number
    ));
    let input = PostInput {
        randomness,
        sectors: vec![sector.input(pool)],
        vanilla: Vec::new(),
    };
    let input = serde_json::to_string(&input).unwrap_or_default();
    let earlier = sealing::tasks_of_sector(conn, sector.id, TaskKind::Vanilla)?;
    let Some(check) = earlier.iter().rev().find(|t| t.input == input) else {
        let task = NewTask {
            kind: TaskKind::Vanilla,
            sector: Some(sector.id),
            post: None,
            pool: sector.pool_id,
            pinned_to: Some(machine),
            avoid: None,
            source_machine: None,
            input,
            // Due after the proofs of a window that is open.
            due_at: now + HOUR,
        };
        sealing::create_task(conn, &task, now)?;
        return Ok(Readability::Checking);
    };
    Ok(match check.state {
        TaskState::Done if is_provable(check) => Readability::Provable,
        TaskState::Done | TaskState::Failed => Readability::Damaged,
        _ => Readability::Checking,
    })
}

/// Whether the machine's report names no faulty sector.
fn is_provable(check: &Task) -> bool {
    let output = check.output.as_deref().unwrap_or_default();
    serde_json::from_slice::<Checked>(output).is_ok_and(|checked| checked.faulty.is_empty())
}
