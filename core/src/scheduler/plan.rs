//! Earliest due first, best fit. Proofs that are due come before all sealing, and of a machine's steps the later ones first, so
//! that sectors finish before new ones start.

use std::collections::HashMap;

use super::{MachineView, Snapshot, TaskView};
use crate::{
    ids::{MachineId, TaskId},
    sealing::{Cost, TaskKind},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub task: TaskId,
    pub machine: MachineId,
}

/// What is left of a machine.
#[derive(Clone, Copy)]
struct Room {
    cores: i64,
    memory: i64,
    scratch: i64,
}

impl Room {
    fn of(machine: &MachineView) -> Self {
        Self { cores: machine.cores, memory: machine.memory_bytes, scratch: machine.disk_free_bytes }
    }

    fn fits(&self, cost: &Cost) -> bool {
        cost.cores <= self.cores && cost.memory_bytes <= self.memory && cost.scratch_bytes <= self.scratch
    }

    fn take(&mut self, cost: &Cost) {
        self.cores -= cost.cores;
        self.memory -= cost.memory_bytes;
        self.scratch -= cost.scratch_bytes;
    }
}

/// Later steps have the lower rank.
const fn rank(kind: TaskKind) -> u8 {
    match kind {
        TaskKind::WindowPost => 0,
        TaskKind::Vanilla => 1,
        TaskKind::Finalize => 2,
        TaskKind::Commit2 => 3,
        TaskKind::Commit1 => 4,
        TaskKind::PreCommit2 => 5,
        TaskKind::PreCommit1 => 6,
    }
}

/// Assigns ready tasks to machines with room. The same snapshot always gives the same plan; nothing that runs is moved.
#[must_use]
pub fn plan(snapshot: &Snapshot) -> Vec<Assignment> {
    let mut rooms: HashMap<MachineId, Room> = snapshot.machines.iter().map(|m| (m.id, Room::of(m))).collect();
    for task in &snapshot.tasks {
        if let Some(room) = task.leased_to.and_then(|machine| rooms.get_mut(&machine)) {
            room.take(&task.cost);
        }
    }
    let mut ready: Vec<&TaskView> = snapshot.tasks.iter().filter(|t| t.leased_to.is_none()).collect();
    ready.sort_by_key(|t| (!t.kind.is_proving(), t.due_at, rank(t.kind), t.id));
    // Avoiding a machine makes sense while there is another one.
    let choice = snapshot.machines.iter().filter(|m| m.takes_new).count() > 1;
    let mut assignments = Vec::new();
    for task in ready {
        let best = snapshot
            .machines
            .iter()
            .filter(|m| may_run(task, m, choice))
            .filter_map(|m| rooms.get(&m.id).filter(|room| room.fits(&task.cost)).map(|room| (m.id, *room)))
            // Best fit: proofs go where most is idle, sealing where least is left over.
            .min_by_key(|(id, room)| (if task.kind == TaskKind::Commit2 { -room.cores } else { room.cores }, room.memory, *id));
        if let Some((machine, _)) = best {
            if let Some(room) = rooms.get_mut(&machine) {
                room.take(&task.cost);
            }
            assignments.push(Assignment { task: task.id, machine });
        }
    }
    assignments
}

fn may_run(task: &TaskView, machine: &MachineView, choice: bool) -> bool {
    match task.pinned_to {
        Some(only) => only == machine.id,
        None => machine.takes_new && (task.avoid != Some(machine.id) || !choice),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn machine(id: i64, cores: i64) -> MachineView {
        MachineView { id: MachineId(id), takes_new: true, cores, memory_bytes: 8 << 30, disk_free_bytes: 1 << 40 }
    }

    fn task(id: i64, kind: TaskKind, due_at: i64) -> TaskView {
        let cost = Cost::of(kind, 2048);
        TaskView { id: TaskId(id), kind, cost, due_at, pinned_to: None, avoid: None, leased_to: None }
    }

    #[test]
    fn due_proofs_come_first_and_the_earliest_due_order_next() {
        let machines = vec![machine(1, 1)];
        let tasks = vec![task(1, TaskKind::PreCommit1, 10), task(2, TaskKind::PreCommit1, 5), task(3, TaskKind::Vanilla, 99)];
        assert_eq!(plan(&Snapshot { machines, tasks }), [Assignment { task: TaskId(3), machine: MachineId(1) }]);
        let machines = vec![machine(1, 1)];
        let tasks = vec![task(1, TaskKind::PreCommit1, 10), task(2, TaskKind::PreCommit1, 5)];
        assert_eq!(plan(&Snapshot { machines, tasks }), [Assignment { task: TaskId(2), machine: MachineId(1) }]);
    }

    #[test]
    fn a_pinned_task_waits_for_its_machine_and_an_avoided_one_is_avoided() {
        let mut pinned = task(1, TaskKind::PreCommit2, 1);
        pinned.pinned_to = Some(MachineId(2));
        let mut avoiding = task(2, TaskKind::PreCommit1, 2);
        avoiding.avoid = Some(MachineId(1));
        let only_first = Snapshot { machines: vec![machine(1, 4)], tasks: vec![pinned.clone(), avoiding.clone()] };
        assert_eq!(plan(&only_first), [Assignment { task: TaskId(2), machine: MachineId(1) }], "there is no other machine");
        let both = Snapshot { machines: vec![machine(1, 4), machine(2, 4)], tasks: vec![pinned, avoiding] };
        assert!(plan(&both).iter().all(|a| a.machine == MachineId(2)));
        assert_eq!(plan(&both).len(), 2);
    }

    #[test]
    fn a_draining_machine_gets_only_what_it_stores() {
        let mut draining = machine(1, 4);
        draining.takes_new = false;
        let mut stored = task(1, TaskKind::Commit1, 1);
        stored.pinned_to = Some(MachineId(1));
        let snapshot = Snapshot { machines: vec![draining], tasks: vec![stored, task(2, TaskKind::PreCommit1, 1)] };
        assert_eq!(plan(&snapshot), [Assignment { task: TaskId(1), machine: MachineId(1) }]);
    }

    proptest! {
        #[test]
        fn no_machine_is_over_its_capacity(
            cores in prop::collection::vec(1..5i64, 1..5),
            kinds in prop::collection::vec((0..7usize, 0..3i64, prop::bool::ANY), 0..40),
        ) {
            let machines: Vec<_> = (1..).zip(&cores).map(|(id, c)| machine(id, *c)).collect();
            let mut tasks = Vec::new();
            for (id, (kind, due, leased)) in (0..).zip(&kinds) {
                let mut view = task(id, TaskKind::ALL[*kind], *due);
                if *leased && !tasks.iter().any(|t: &TaskView| t.leased_to.is_some()) {
                    view.leased_to = Some(MachineId(1));
                }
                tasks.push(view);
            }
            let snapshot = Snapshot { machines, tasks };
            let assignments = plan(&snapshot);
            prop_assert_eq!(&assignments, &plan(&snapshot));
            for machine in &snapshot.machines {
                let here = |t: &&TaskView| {
                    t.leased_to == Some(machine.id) || assignments.contains(&Assignment { task: t.id, machine: machine.id })
                };
                let used: i64 = snapshot.tasks.iter().filter(here).map(|t| t.cost.cores).sum();
                prop_assert!(used <= machine.cores);
            }
            let mut seen: Vec<_> = assignments.iter().map(|a| a.task).collect();
            seen.dedup();
            prop_assert_eq!(seen.len(), assignments.len());
        }
    }
}
