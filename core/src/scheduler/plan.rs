//! Which machine does what now.
//!
//! Proofs that are due and the small steps beside sealing are placed first, where they fit best. What is left of each machine goes
//! to the planner, which plays the house on from now: what it begins at once is assigned.

use std::collections::HashMap;

use super::{
    House, MachineView, Snapshot, TaskView,
    planner::{Aim, Budget, World, improve},
};
use crate::{
    ids::{MachineId, SectorId, TaskId},
    sealing::{Cost, SectorState, TaskKind},
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
        _ => 3,
    }
}

/// Steps that the planner plays.
const fn is_played(kind: TaskKind) -> bool {
    matches!(kind, TaskKind::PreCommit1 | TaskKind::PreCommit2 | TaskKind::Commit2)
}

/// Assigns ready tasks to machines with room. If some sector would be late that way, other orders of work are tried within `budget`,
/// and the best one is followed. The same snapshot and answers of `budget` give the same plan; nothing that runs is moved, and
/// nothing that has not begun is bound.
#[must_use]
pub fn plan(snapshot: &Snapshot, budget: Option<&mut dyn Budget>) -> Vec<Assignment> {
    let mut assignments = beside_sealing(snapshot);
    let house = House::new(snapshot, &taken(snapshot, &assignments));
    let mut played = house.world();
    if let Some(budget) = budget
        && is_late(&played.world)
        && let Some(found) = improve(&played.world, Aim::Open, 1, budget)
    {
        played.world.adopt(&found);
    }
    let now = House::now();
    played.world.run_until(now + 1);
    for (sector, view) in &played.sectors {
        let Some(row) = played.world.sectors.get(*sector).map(|s| s.row) else { continue };
        let Some(task) = house.task_of(view.id) else { continue };
        let begun = match view.state {
            SectorState::PreCommit1 if row.s1 == now => row.m1,
            SectorState::PreCommit2 if row.s2 == now => row.m2,
            SectorState::Commit2 if row.s3 == now => row.m3,
            _ => continue,
        };
        assignments.extend(house.machine_id(begun).map(|machine| Assignment { task, machine }));
    }
    assignments
}

fn is_late(world: &World<'_>) -> bool {
    let mut usual = world.clone();
    usual.run() && usual.cost().tardiness > 0
}

/// Sectors that wait for nothing but a ticket and whose PC1 begins within `seconds`: tickets age, so they are drawn late.
#[must_use]
pub fn starting_soon(snapshot: &Snapshot, seconds: i32) -> Vec<SectorId> {
    let house = House::new(snapshot, &taken(snapshot, &[]));
    let mut played = house.world();
    played.world.run_until(House::now() + seconds);
    let begun = |sector| played.world.sectors.get(sector).is_some_and(|s| s.row.s1 >= House::now());
    let planned = played.sectors.iter().filter(|(_, view)| view.state == SectorState::Planned);
    planned.filter(|(sector, _)| begun(*sector)).map(|(_, view)| view.id).collect()
}

/// What steps beside sealing take of each machine.
pub(super) fn taken(snapshot: &Snapshot, fresh: &[Assignment]) -> HashMap<MachineId, Cost> {
    let mut taken: HashMap<MachineId, Cost> = HashMap::new();
    for task in snapshot.tasks.iter().filter(|t| !is_played(t.kind)) {
        let given = fresh.iter().find(|a| a.task == task.id).map(|a| a.machine);
        if let Some(machine) = task.leased_to.or(given) {
            let cost = taken.entry(machine).or_default();
            cost.cores += task.cost.cores;
            cost.memory_bytes += task.cost.memory_bytes;
            cost.scratch_bytes += task.cost.scratch_bytes;
        }
    }
    taken
}

/// Proofs that are due come before all else, then later steps before earlier ones; each where least is left over.
fn beside_sealing(snapshot: &Snapshot) -> Vec<Assignment> {
    let mut rooms: HashMap<MachineId, Room> = snapshot.machines.iter().map(|m| (m.id, Room::of(m))).collect();
    for task in &snapshot.tasks {
        if let Some(room) = task.leased_to.and_then(|machine| rooms.get_mut(&machine)) {
            room.take(&task.cost);
        }
    }
    let mut ready: Vec<&TaskView> = snapshot.tasks.iter().filter(|t| t.leased_to.is_none() && !is_played(t.kind)).collect();
    ready.sort_by_key(|t| (!t.kind.is_proving(), t.due_at, rank(t.kind), t.id));
    // Avoiding a machine makes sense while there is another one.
    let choice = snapshot.machines.iter().filter(|m| m.takes_new).count() > 1;
    let mut assignments = Vec::new();
    for task in ready {
        let here = snapshot.machines.iter().filter(|m| may_run(task, m, choice));
        let fitting = here.filter_map(|m| rooms.get(&m.id).filter(|room| room.fits(&task.cost)).map(|room| (m.id, *room)));
        if let Some((machine, _)) = fitting.min_by_key(|(id, room)| (room.cores, room.memory, *id)) {
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
    use crate::{
        clock::{DAY, HOUR, Micros},
        ids::PoolId,
        scheduler::{History, Owed, SectorView, planner::Rounds},
    };

    const NOW: Micros = 1_790_000_000_000_000;
    const GIB: i64 = 1 << 30;

    fn machine(id: i64, cores: i64) -> MachineView {
        MachineView {
            id: MachineId(id),
            name: format!("m{id}"),
            takes_new: true,
            cores,
            memory_bytes: 8 * GIB,
            disk_free_bytes: 1 << 40,
            gpus: 0,
        }
    }

    fn task(id: i64, kind: TaskKind, due_at: i64) -> TaskView {
        let (cost, id) = (Cost::of(kind, 2048), TaskId(id));
        let (pinned_to, avoid, leased_to) = (None, None, None);
        TaskView { id, kind, sector: None, cost, due_at, pinned_to, avoid, leased_to, started_at: NOW }
    }

    /// A contract of one sector in PC1, promised in `days`, whose step waits.
    fn owed(id: i64, days: i64) -> (Owed, TaskView) {
        let state = SectorState::PreCommit1;
        let sector = SectorView { id: SectorId(id), number: id, state, machine: None, changed_at: NOW, setback: None };
        let promised_at = NOW + days * DAY;
        let owed = Owed { id, pool: PoolId(1), sector_bytes: 2048, promised_at, held: 0, sectors: vec![sector] };
        (owed, TaskView { sector: Some(SectorId(id)), ..task(id, TaskKind::PreCommit1, promised_at) })
    }

    fn snapshot(machines: Vec<MachineView>, contracts: Vec<(Owed, TaskView)>, beside: Vec<TaskView>) -> Snapshot {
        let (owed, mut tasks): (Vec<Owed>, Vec<TaskView>) = contracts.into_iter().unzip();
        tasks.extend(beside);
        Snapshot { now: NOW, machines, tasks, owed, sizes: vec![2048], epoch_seconds: 30, ..Snapshot::default() }
    }

    fn given(task: i64, machine: i64) -> Assignment {
        Assignment { task: TaskId(task), machine: MachineId(machine) }
    }

    #[test]
    fn due_proofs_come_first_and_the_earliest_promised_date_next() {
        let proof = task(3, TaskKind::Vanilla, 99);
        let with_proof = snapshot(vec![machine(1, 1)], vec![owed(1, 10), owed(2, 5)], vec![proof]);
        assert_eq!(plan(&with_proof, None), [given(3, 1)]);
        let without = snapshot(vec![machine(1, 1)], vec![owed(1, 10), owed(2, 5)], Vec::new());
        assert_eq!(plan(&without, None), [given(2, 1)]);
    }

    #[test]
    fn layers_wait_for_their_machine_and_an_avoided_one_is_avoided() {
        let (mut layers, mut pinned) = owed(1, 1);
        layers.sectors[0].state = SectorState::PreCommit2;
        layers.sectors[0].machine = Some(MachineId(2));
        (pinned.kind, pinned.cost, pinned.pinned_to) =
            (TaskKind::PreCommit2, Cost::of(TaskKind::PreCommit2, 2048), Some(MachineId(2)));
        let (other, mut avoiding) = owed(2, 2);
        avoiding.avoid = Some(MachineId(1));
        let both = vec![(layers, pinned), (other, avoiding)];
        let only_first = snapshot(vec![machine(1, 4)], both.clone(), Vec::new());
        assert_eq!(plan(&only_first, None), [given(2, 1)], "there is no other machine");
        let two = snapshot(vec![machine(1, 4), machine(2, 4)], both, Vec::new());
        assert_eq!(plan(&two, None), [given(1, 2), given(2, 2)]);
    }

    #[test]
    fn a_draining_machine_gets_only_what_it_stores() {
        let mut draining = machine(1, 4);
        draining.takes_new = false;
        let mut stored = task(1, TaskKind::Commit1, 1);
        stored.pinned_to = Some(MachineId(1));
        let snapshot = snapshot(vec![draining], vec![owed(2, 1)], vec![stored]);
        assert_eq!(plan(&snapshot, None), [given(1, 1)]);
    }

    #[test]
    fn what_is_late_anyway_does_not_make_everything_else_late() {
        // A sector of twenty hours whose date has passed, and one of three hours that can still be in time; there is scratch for one.
        let ((mut late, mut long), (mut owed, mut short)) = (owed(1, -1), owed(2, 0));
        (late.sector_bytes, owed.sector_bytes) = (64 * GIB, 32 * GIB);
        owed.promised_at = NOW + 6 * HOUR;
        long.cost = Cost::of(TaskKind::PreCommit1, 64 * GIB);
        short.cost = Cost::of(TaskKind::PreCommit1, 32 * GIB);
        let mut snapshot = snapshot(vec![machine(1, 16)], vec![(late, long), (owed, short)], Vec::new());
        (snapshot.machines[0].memory_bytes, snapshot.machines[0].disk_free_bytes) = (1 << 40, 1100 * GIB);
        snapshot.sizes = vec![32 * GIB, 64 * GIB];
        snapshot.history = History::of(&[(TaskKind::PreCommit1, 64 * GIB, MachineId(1), 20 * 3_600_000); 5]);
        assert_eq!(plan(&snapshot, None), [given(1, 1)], "the earlier date first");
        assert_eq!(plan(&snapshot, Some(&mut Rounds::most(20))), [given(2, 1)]);
    }

    #[test]
    fn a_ticket_is_drawn_when_its_turn_is_near() {
        let contracts = (1..=400).map(|id| {
            let (mut owed, task) = owed(id, 5);
            owed.sectors[0].state = SectorState::Planned;
            (owed, task)
        });
        let mut house = snapshot(vec![machine(1, 1)], contracts.collect(), Vec::new());
        house.tasks.clear();
        let soon = starting_soon(&house, 600);
        assert!(soon.contains(&SectorId(1)), "it can begin at once");
        assert!(soon.len() < 400, "one core does not begin 400 sectors in ten minutes: {}", soon.len());
        assert_eq!(starting_soon(&house, 600), soon);
    }

    proptest! {
        #[test]
        fn no_machine_is_over_its_capacity_and_nothing_is_given_twice(
            cores in prop::collection::vec(1..5i64, 1..5),
            contracts in prop::collection::vec((0..5usize, 0..9i64, 0..5i64), 0..30),
            beside in prop::collection::vec((0..4usize, 0..3i64), 0..8),
        ) {
            let machines: Vec<_> = (1..).zip(&cores).map(|(id, c)| machine(id, *c)).collect();
            let count = i64::try_from(machines.len()).unwrap();
            let mut room = cores.clone();
            let contracts = (1..).zip(&contracts).map(|(id, (stage, days, on))| {
                let (mut owed, mut task) = owed(id, *days);
                let (state, kind) = [
                    (SectorState::PreCommit1, TaskKind::PreCommit1),
                    (SectorState::PreCommit2, TaskKind::PreCommit2),
                    (SectorState::Commit2, TaskKind::Commit2),
                    (SectorState::WaitSeed, TaskKind::Commit2),
                    (SectorState::Planned, TaskKind::PreCommit1),
                ][*stage];
                let home = MachineId(on % count + 1);
                owed.sectors[0].state = state;
                (task.kind, task.cost) = (kind, Cost::of(kind, 2048));
                if !matches!(state, SectorState::PreCommit1 | SectorState::Planned) {
                    owed.sectors[0].machine = Some(home);
                    task.pinned_to = (kind == TaskKind::PreCommit2).then_some(home);
                }
                let left = &mut room[usize::try_from(home.0 - 1).unwrap()];
                if id % 3 == 0 && *stage < 3 && *left >= task.cost.cores {
                    *left -= task.cost.cores;
                    (task.leased_to, task.started_at) = (Some(home), NOW - HOUR);
                }
                (owed, task)
            });
            let contracts: Vec<_> = contracts.collect();
            let kinds = [TaskKind::Vanilla, TaskKind::WindowPost, TaskKind::Finalize, TaskKind::Commit1];
            let beside = (1000..).zip(&beside).map(|(id, (kind, due))| task(id, kinds[*kind], *due)).collect();
            let mut snapshot = snapshot(machines, contracts, beside);
            let silent = |t: &TaskView| {
                snapshot.owed.iter().any(|o| Some(o.sectors[0].id) == t.sector && matches!(o.sectors[0].state, SectorState::WaitSeed | SectorState::Planned))
            };
            let silent: Vec<TaskId> = snapshot.tasks.iter().filter(|t| silent(t)).map(|t| t.id).collect();
            snapshot.tasks.retain(|t| !silent.contains(&t.id));
            let assignments = plan(&snapshot, None);
            prop_assert_eq!(&assignments, &plan(&snapshot, None));
            for machine in &snapshot.machines {
                let here = |t: &&TaskView| {
                    t.leased_to == Some(machine.id) || assignments.contains(&Assignment { task: t.id, machine: machine.id })
                };
                let used: i64 = snapshot.tasks.iter().filter(here).map(|t| t.cost.cores).sum();
                prop_assert!(used <= machine.cores, "{} of {} cores of {:?}", used, machine.cores, machine.id);
            }
            let mut seen: Vec<_> = assignments.iter().map(|a| a.task).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), assignments.len());
            prop_assert!(assignments.iter().all(|a| snapshot.tasks.iter().any(|t| t.id == a.task && t.leased_to.is_none())));
        }
    }
}
