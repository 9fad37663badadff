//! What the planner sees, and how it is read from the store.

use crate::{
    capacity::pools,
    fleet::machines,
    ids::{MachineId, TaskId},
    sealing::{Cost, TaskKind, open_tasks},
    store::{AnyConnection, DbResult},
};

#[derive(Clone, Debug)]
pub struct MachineView {
    pub id: MachineId,
    /// Draining machines finish what they store and get nothing else.
    pub takes_new: bool,
    pub cores: i64,
    pub memory_bytes: i64,
    pub disk_free_bytes: i64,
}

#[derive(Clone, Debug)]
pub struct TaskView {
    pub id: TaskId,
    pub kind: TaskKind,
    pub cost: Cost,
    pub due_at: i64,
    pub pinned_to: Option<MachineId>,
    pub avoid: Option<MachineId>,
    /// Where it runs already.
    pub leased_to: Option<MachineId>,
}

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub machines: Vec<MachineView>,
    pub tasks: Vec<TaskView>,
}

/// Machines that are not lost, and tasks that are not done.
pub fn load(conn: &mut AnyConnection) -> DbResult<Snapshot> {
    let sizes: std::collections::HashMap<_, _> = pools(conn)?.into_iter().map(|p| (p.id, p.sector_bytes)).collect();
    let machines = machines(conn)?
        .into_iter()
        .filter(|m| m.state != "lost")
        .map(|m| MachineView {
            id: m.id,
            takes_new: m.state == "active",
            cores: m.cores,
            memory_bytes: m.memory_bytes,
            disk_free_bytes: m.disk_free_bytes,
        })
        .collect();
    let tasks = open_tasks(conn)?
        .into_iter()
        .filter_map(|task| {
            let kind = task.kind()?;
            Some(TaskView {
                id: task.id,
                kind,
                cost: Cost::of(kind, *sizes.get(&task.pool_id)?),
                due_at: task.due_at,
                pinned_to: task.pinned_to,
                avoid: task.avoid,
                leased_to: task.machine_id.filter(|_| task.state == "leased"),
            })
        })
        .collect();
    Ok(Snapshot { machines, tasks })
}
