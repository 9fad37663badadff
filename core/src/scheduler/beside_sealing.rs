//! Places proofs that are due and the small steps beside sealing, each where it fits best.

use std::collections::HashMap;

use super::{Assignment, MachineView, Snapshot, TaskView};
use crate::{
    ids::MachineId,
    sealing::{Cost, TaskKind},
};

/// Steps beside sealing that begin now, and the capacity that has to stay free.
pub(super) struct Beside {
    pub assignments: Vec<Assignment>,
    /// For a due proof that does not fit yet, on its machine, and on one machine for the next
    /// SNARK.
    kept: Vec<(MachineId, Cost)>,
}

impl Beside {
    /// Due proofs first, then later steps before earlier ones, each where least is left over.
    pub(super) fn of(snapshot: &Snapshot) -> Self {
        let mut rooms = free_rooms(snapshot);
        let (mut assignments, mut kept) = (Vec::new(), Vec::new());
        for task in ready(snapshot) {
            let Some(machine) = best_machine(snapshot, task, &rooms).map(|m| m.id) else {
                continue;
            };
            match rooms.get_mut(&machine) {
                Some(room) if room.fits(task) => {
                    room.take(&task.cost);
                    assignments.push(Assignment {
                        task: task.id,
                        machine,
                    });
                }
                _ if task.kind.is_proving() => kept.push((machine, task.cost)),
                _ => {}
            }
        }
        kept.extend(room_for_snarks(snapshot));
        Self { assignments, kept }
    }

    /// Resources that steps beside sealing take on each machine: leased ones, those that begin now,
    /// and those that capacity is kept for.
    pub(super) fn taken(&self, snapshot: &Snapshot) -> HashMap<MachineId, Cost> {
        let begun = |task: &TaskView| {
            let given = self.assignments.iter().find(|a| a.task == task.id);
            given.map(|a| a.machine)
        };
        let beside = snapshot
            .tasks
            .iter()
            .filter(|t| !is_simulated(t.kind))
            .filter_map(|task| {
                let machine = task.leased_to.or(begun(task))?;
                Some((machine, task.cost))
            });
        let mut taken: HashMap<MachineId, Cost> = HashMap::new();
        for (machine, cost) in beside.chain(self.kept.iter().copied()) {
            let sum = taken.entry(machine).or_default();
            sum.cores += cost.cores;
            sum.memory_bytes += cost.memory_bytes;
        }
        taken
    }
}

/// A machine's residual capacity. Steps beside sealing need no scratch.
#[derive(Clone, Copy)]
struct Room {
    cores: i64,
    memory: i64,
}

impl Room {
    fn of(machine: &MachineView) -> Self {
        Self {
            cores: machine.cores,
            memory: machine.memory_bytes,
        }
    }

    /// A proof that is due needs free memory only: sharing cores is better than being late.
    fn fits(&self, task: &TaskView) -> bool {
        task.cost.memory_bytes <= self.memory
            && (task.kind.is_proving() || task.cost.cores <= self.cores)
    }

    fn take(&mut self, cost: &Cost) {
        self.cores -= cost.cores;
        self.memory -= cost.memory_bytes;
    }
}

/// Later steps have lower ranks, so they go first.
const fn rank(kind: TaskKind) -> u8 {
    match kind {
        TaskKind::WindowPost => 0,
        TaskKind::Vanilla => 1,
        TaskKind::Finalize => 2,
        _ => 3,
    }
}

/// Whether the planner simulates this kind of task, transfers included.
fn is_simulated(kind: TaskKind) -> bool {
    kind.is_transfer()
        || matches!(
            kind,
            TaskKind::PreCommit1 | TaskKind::PreCommit2 | TaskKind::Commit2
        )
}

/// Each machine's capacity, less what runs there.
fn free_rooms(snapshot: &Snapshot) -> HashMap<MachineId, Room> {
    let mut rooms: HashMap<MachineId, Room> = snapshot
        .machines
        .iter()
        .map(|m| (m.id, Room::of(m)))
        .collect();
    for task in &snapshot.tasks {
        if let Some(room) = task.leased_to.and_then(|machine| rooms.get_mut(&machine)) {
            room.take(&task.cost);
        }
    }
    rooms
}

/// Steps beside sealing that wait for a machine, the most urgent first.
fn ready(snapshot: &Snapshot) -> Vec<&TaskView> {
    let mut ready: Vec<&TaskView> = snapshot
        .tasks
        .iter()
        .filter(|t| t.leased_to.is_none() && !is_simulated(t.kind))
        .collect();
    ready.sort_by_key(|t| (!t.kind.is_proving(), t.due_at, rank(t.kind), t.id));
    ready
}

/// The machine that is to do a step, now or as soon as it has the capacity. A machine that failed
/// or drains is chosen only if there is no other. A SNARK goes preferably to a machine with a GPU.
fn best_machine<'s>(
    snapshot: &'s Snapshot,
    task: &TaskView,
    rooms: &HashMap<MachineId, Room>,
) -> Option<&'s MachineView> {
    let here = snapshot.machines.iter().filter(|m| may_run(task, m));
    here.min_by_key(|m| {
        let room = rooms.get(&m.id).copied().unwrap_or(Room::of(m));
        (
            !room.fits(task),
            task.avoid == Some(m.id),
            !m.takes_new,
            is_snark(task.kind) && m.gpus == 0,
            room.cores,
            room.memory,
            m.id,
        )
    })
}

const fn is_snark(kind: TaskKind) -> bool {
    matches!(kind, TaskKind::WindowPost)
}

/// Keeps capacity for a WindowPoSt's SNARK on one machine, preferably one with a GPU, then the one
/// with most memory. Only if there are sectors to prove, no SNARK task is open, and PC1 fits beside
/// it.
fn room_for_snarks(snapshot: &Snapshot) -> Option<(MachineId, Cost)> {
    let largest = *snapshot.sizes.iter().max()?;
    let (snark, pc1) = (
        Cost::of(TaskKind::WindowPost, largest),
        Cost::of(TaskKind::PreCommit1, largest),
    );
    if snapshot.machines.iter().all(|m| m.stored_bytes == 0)
        || snapshot.tasks.iter().any(|t| is_snark(t.kind))
    {
        return None;
    }
    let both =
        |m: &&MachineView| m.takes_new && snark.memory_bytes + pc1.memory_bytes <= m.memory_bytes;
    let keeper = snapshot
        .machines
        .iter()
        .filter(both)
        .max_by_key(|m| (m.gpus > 0, m.memory_bytes, m.id))?;
    // A proof shares cores, so none are kept.
    Some((keeper.id, Cost { cores: 0, ..snark }))
}

fn may_run(task: &TaskView, machine: &MachineView) -> bool {
    match task.pinned_to {
        Some(only) => only == machine.id,
        None => machine.takes_new || task.kind.is_proving(),
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ids::MachineId,
        scheduler::{
            fixture::{commitment, given, machine, snapshot, task},
            plan,
        },
        sealing::TaskKind,
    };

    #[test]
    fn due_proofs_come_first_and_then_the_earliest_promise() {
        let proof = task(3, TaskKind::Vanilla, 99);
        let with_proof = snapshot(
            vec![machine(1, 1)],
            vec![commitment(1, 10), commitment(2, 5)],
            vec![proof],
        );
        assert_eq!(plan(&with_proof, None), [given(3, 1)]);
        let without = snapshot(
            vec![machine(1, 1)],
            vec![commitment(1, 10), commitment(2, 5)],
            Vec::new(),
        );
        assert_eq!(plan(&without, None), [given(2, 1)]);
    }

    #[test]
    fn a_draining_machine_gets_only_steps_that_are_pinned_to_it() {
        let mut draining = machine(1, 4);
        draining.takes_new = false;
        let mut stored = task(1, TaskKind::Commit1, 1);
        stored.pinned_to = Some(MachineId(1));
        let snapshot = snapshot(vec![draining], vec![commitment(2, 1)], vec![stored]);
        assert_eq!(plan(&snapshot, None), [given(1, 1)]);
    }

    #[test]
    fn a_due_proof_reserves_its_memory_and_may_run_on_a_draining_machine() {
        let contracts = (1..=4).map(|id| commitment(id, 4 + id)).collect();
        let mut waiting = snapshot(vec![machine(1, 2), machine(2, 2)], contracts, Vec::new());
        waiting.machines[0].memory_bytes = 200 << 20;
        waiting.machines[1].memory_bytes = 300 << 20;
        let snark = task(9, TaskKind::WindowPost, 1);
        waiting.tasks.push(snark.clone());
        // A PC1 of 64 MiB runs on the only machine that is large enough for the proof.
        (
            waiting.tasks[0].leased_to,
            waiting.commitments[0].sectors[0].machine,
        ) = (Some(MachineId(2)), Some(MachineId(2)));
        assert_eq!(
            plan(&waiting, None),
            [given(2, 1), given(3, 1)],
            "nothing new is begun where the proof waits"
        );
        let mut draining = snapshot(vec![machine(1, 2)], Vec::new(), vec![snark]);
        draining.machines[0].takes_new = false;
        assert_eq!(plan(&draining, None), [given(9, 1)]);
    }
}
