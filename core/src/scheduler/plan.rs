//! Assigns steps to machines for the present moment.
//!
//! Proofs that are due and the small steps beside sealing are placed first, where they fit best.
//! The planner gets the residual capacity and simulates the fleet from now on. The steps that it
//! begins at once are assigned.

use std::collections::{HashMap, HashSet};

use sealyard_planner::{Aim, Rounds, SectorIx, improve};

use super::{FleetModel, MachineView, Snapshot, TaskView, fleet_model::Simulation};
use crate::{
    ids::{MachineId, SectorId, TaskId},
    sealing::{Cost, SectorState, TaskKind},
};

/// A machine is to do a task now. If a PC2's files are on another machine, it is to fetch them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub task: TaskId,
    pub machine: MachineId,
}

/// A machine's residual capacity. Steps beside sealing need no scratch.
#[derive(Clone, Copy)]
struct Room {
    cores: i64,
    memory: i64,
}

impl Room {
    fn of(machine: &MachineView) -> Self {
        Self { cores: machine.cores, memory: machine.memory_bytes }
    }

    /// A proof that is due needs free memory only: sharing cores is better than being late.
    fn fits(&self, task: &TaskView) -> bool {
        task.cost.memory_bytes <= self.memory && (task.kind.is_proving() || task.cost.cores <= self.cores)
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
    kind.is_transfer() || matches!(kind, TaskKind::PreCommit1 | TaskKind::PreCommit2 | TaskKind::Commit2)
}

/// Assigns ready tasks to machines with free capacity. If some sector would be late, other orders
/// of work are tried within `budget` and the best one is followed. The same snapshot and answers of
/// `budget` give the same plan. Running tasks are not moved, and tasks that do not begin now are
/// not bound to a machine.
#[must_use]
pub fn plan(snapshot: &Snapshot, budget: Option<&mut Rounds>) -> Vec<Assignment> {
    let (mut assignments, fleet_model) = placed(snapshot);
    let mut simulation = decided(&fleet_model, budget);
    let now = FleetModel::now();
    simulation.world.run_until(now + 1);
    for (sector, view) in &simulation.sectors {
        let Some(row) = simulation.world.sectors.get(*sector).map(|s| s.row) else { continue };
        let Some(task) = fleet_model.task_of(view.id) else { continue };
        let begun = match view.state {
            SectorState::PreCommit1 if row.s1 == now => row.m1,
            SectorState::PreCommit2 if row.s2 == now || row.xs == now => row.m2,
            SectorState::Commit2 if row.s3 == now => row.m3,
            _ => continue,
        };
        assignments.extend(fleet_model.machine_id(begun).map(|machine| Assignment { task, machine }));
    }
    assignments
}

/// Assignments beside sealing, and the fleet with the residual capacity.
fn placed(snapshot: &Snapshot) -> (Vec<Assignment>, FleetModel<'_>) {
    let (assignments, kept) = beside_sealing(snapshot);
    let fleet_model = FleetModel::new(snapshot, &taken(snapshot, &assignments, &kept));
    (assignments, fleet_model)
}

/// Whether some sector would be late. `Err`: sectors that can never be sealed as things are, for
/// lack of disk for example.
fn is_late(simulation: &Simulation<'_>) -> Result<bool, HashSet<SectorId>> {
    let mut usual = simulation.world.clone();
    if usual.run() {
        return Ok(usual.cost().tardiness > 0);
    }
    let is_stuck = |id: &SectorIx| usual.sectors.get(*id).is_some_and(|sector| sector.row.vc < 0);
    Err(simulation.sectors.iter().filter(|(id, _)| is_stuck(id)).map(|(_, view)| view.id).collect())
}

/// The fleet, with its order of work decided. The same snapshot gives every caller the same order:
/// a slot meant for one sector must not wait while another sector gets the ticket.
fn decided<'h>(fleet_model: &'h FleetModel<'_>, budget: Option<&mut Rounds>) -> Simulation<'h> {
    let mut simulation = fleet_model.world();
    let Some(budget) = budget else { return simulation };
    let mut late = is_late(&simulation);
    if let Err(stuck) = &late {
        // Work that cannot be done does not spoil the rest.
        simulation = fleet_model.world_without(stuck);
        late = is_late(&simulation);
    }
    if late == Ok(true)
        && let Some(found) = improve(&simulation.world, Aim::Open, 1, budget)
    {
        simulation.world.adopt(&found);
    }
    simulation
}

/// Sectors that only wait for a ticket and whose PC1 begins within `seconds`. Tickets age, so they
/// are drawn late.
#[must_use]
pub fn starting_soon(snapshot: &Snapshot, seconds: i32, budget: Option<&mut Rounds>) -> Vec<SectorId> {
    let (_, fleet_model) = placed(snapshot);
    let mut simulation = decided(&fleet_model, budget);
    simulation.world.run_until(FleetModel::now() + seconds);
    let begun = |sector| simulation.world.sectors.get(sector).is_some_and(|s| s.row.s1 >= FleetModel::now());
    let planned = simulation.sectors.iter().filter(|(_, view)| view.state == SectorState::Planned);
    planned.filter(|(sector, _)| begun(*sector)).map(|(_, view)| view.id).collect()
}

/// Resources that steps beside sealing take on each machine, including `fresh` assignments and
/// `kept` capacity.
fn taken(snapshot: &Snapshot, fresh: &[Assignment], kept: &[(MachineId, Cost)]) -> HashMap<MachineId, Cost> {
    let beside = snapshot.tasks.iter().filter(|t| !is_simulated(t.kind)).filter_map(|task| {
        let given = fresh.iter().find(|a| a.task == task.id).map(|a| a.machine);
        task.leased_to.or(given).map(|machine| (machine, task.cost))
    });
    let mut taken: HashMap<MachineId, Cost> = HashMap::new();
    for (machine, cost) in beside.chain(kept.iter().copied()) {
        let sum = taken.entry(machine).or_default();
        sum.cores += cost.cores;
        sum.memory_bytes += cost.memory_bytes;
    }
    taken
}

/// Assigns steps beside sealing: due proofs first, then later steps before earlier ones, each where
/// least is left over. Also returns the capacity to keep free: for a due proof that does not fit
/// yet, on its machine, and on one machine for the next SNARK.
fn beside_sealing(snapshot: &Snapshot) -> (Vec<Assignment>, Vec<(MachineId, Cost)>) {
    let mut rooms: HashMap<MachineId, Room> = snapshot.machines.iter().map(|m| (m.id, Room::of(m))).collect();
    for task in &snapshot.tasks {
        if let Some(room) = task.leased_to.and_then(|machine| rooms.get_mut(&machine)) {
            room.take(&task.cost);
        }
    }
    let mut ready: Vec<&TaskView> = snapshot.tasks.iter().filter(|t| t.leased_to.is_none() && !is_simulated(t.kind)).collect();
    ready.sort_by_key(|t| (!t.kind.is_proving(), t.due_at, rank(t.kind), t.id));
    let mut assignments = Vec::new();
    let mut kept = Vec::new();
    for task in ready {
        let here = snapshot.machines.iter().filter(|m| may_run(task, m));
        let ranked = |m: &&MachineView| {
            let room = rooms.get(&m.id).copied().unwrap_or(Room::of(m));
            // A machine that failed or drains only if there is no other. A SNARK preferably where a
            // GPU is.
            (
                !room.fits(task),
                task.avoid == Some(m.id),
                !m.takes_new,
                is_snark(task.kind) && m.gpus == 0,
                room.cores,
                room.memory,
                m.id,
            )
        };
        let Some(machine) = here.min_by_key(ranked) else { continue };
        match rooms.get_mut(&machine.id) {
            Some(room) if room.fits(task) => {
                room.take(&task.cost);
                assignments.push(Assignment { task: task.id, machine: machine.id });
            }
            _ if task.kind.is_proving() => kept.push((machine.id, task.cost)),
            _ => {}
        }
    }
    kept.extend(room_for_snarks(snapshot));
    (assignments, kept)
}

const fn is_snark(kind: TaskKind) -> bool {
    matches!(kind, TaskKind::WindowPost)
}

/// Keeps capacity for a WindowPoSt's SNARK on one machine, preferably one with a GPU, then the one
/// with most memory. Only if there are sectors to prove, no SNARK task is open, and PC1 fits beside
/// it.
fn room_for_snarks(snapshot: &Snapshot) -> Option<(MachineId, Cost)> {
    let largest = *snapshot.sizes.iter().max()?;
    let (snark, pc1) = (Cost::of(TaskKind::WindowPost, largest), Cost::of(TaskKind::PreCommit1, largest));
    if snapshot.machines.iter().all(|m| m.stored_bytes == 0) || snapshot.tasks.iter().any(|t| is_snark(t.kind)) {
        return None;
    }
    let both = |m: &&MachineView| m.takes_new && snark.memory_bytes + pc1.memory_bytes <= m.memory_bytes;
    let keeper = snapshot.machines.iter().filter(both).max_by_key(|m| (m.gpus > 0, m.memory_bytes, m.id))?;
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
    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::HOUR,
        scheduler::{
            Commitment, FIRST_POST, FileMoves, History, PlannedBegin,
            fixture::{GIB, NOW, commitment, machine, snapshot, task},
        },
    };

    fn given(task: i64, machine: i64) -> Assignment {
        Assignment { task: TaskId(task), machine: MachineId(machine) }
    }

    #[test]
    fn due_proofs_come_first_and_then_the_earliest_promise() {
        let proof = task(3, TaskKind::Vanilla, 99);
        let with_proof = snapshot(vec![machine(1, 1)], vec![commitment(1, 10), commitment(2, 5)], vec![proof]);
        assert_eq!(plan(&with_proof, None), [given(3, 1)]);
        let without = snapshot(vec![machine(1, 1)], vec![commitment(1, 10), commitment(2, 5)], Vec::new());
        assert_eq!(plan(&without, None), [given(2, 1)]);
    }

    #[test]
    fn a_sector_begins_where_it_was_planned_unless_that_would_be_slower() {
        let mut fleet_model = snapshot(vec![machine(1, 2), machine(2, 2)], vec![commitment(1, 5), commitment(2, 6)], Vec::new());
        assert_eq!(plan(&fleet_model, None), [given(1, 1), given(2, 2)]);
        let expect = |fleet_model: &mut crate::scheduler::Snapshot, contract: usize, machine| {
            fleet_model.commitments[contract].sectors[0].planned_begin =
                Some(PlannedBegin { machine: MachineId(machine), at: NOW + HOUR });
        };
        expect(&mut fleet_model, 0, 2);
        expect(&mut fleet_model, 1, 1);
        assert_eq!(plan(&fleet_model, None), [given(1, 2), given(2, 1)]);
        expect(&mut fleet_model, 0, 99);
        assert_eq!(plan(&fleet_model, None).len(), 2, "a machine that is gone is not waited for");
        expect(&mut fleet_model, 0, 2);
        let hours = |machine, hours: i64| [(TaskKind::PreCommit1, 2048, MachineId(machine), hours * 3_600_000); 5];
        fleet_model.history = History::of(&[hours(1, 3), hours(2, 4)].concat());
        assert_eq!(plan(&fleet_model, None), [given(1, 1), given(2, 2)], "the first one is quicker");
    }

    #[test]
    fn a_pinned_step_waits_for_its_machine_and_an_avoided_one_is_a_last_resort() {
        let (mut layers, mut pinned) = commitment(1, 1);
        layers.sectors[0].state = SectorState::PreCommit2;
        layers.sectors[0].machine = Some(MachineId(2));
        (pinned.kind, pinned.cost, pinned.pinned_to) =
            (TaskKind::PreCommit2, Cost::of(TaskKind::PreCommit2, 2048), Some(MachineId(2)));
        let (other, mut avoiding) = commitment(2, 2);
        avoiding.avoid = Some(MachineId(1));
        let both = vec![(layers, pinned), (other, avoiding)];
        let only_first = snapshot(vec![machine(1, 4)], both.clone(), Vec::new());
        assert_eq!(plan(&only_first, None), [given(2, 1)], "there is no other machine");
        let two = snapshot(vec![machine(1, 4), machine(2, 4)], both, Vec::new());
        assert_eq!(plan(&two, None), [given(1, 2), given(2, 2)]);
    }

    /// Two machines that share their files, the second with a GPU. The first has the layers of 32
    /// GiB sectors.
    fn split(sectors: i64) -> Snapshot {
        let layers = |id| {
            let (mut commitment, mut pc2) = commitment(id, id);
            commitment.sector_bytes = 32 * GIB;
            (commitment.sectors[0].state, commitment.sectors[0].machine) = (SectorState::PreCommit2, Some(MachineId(1)));
            let cost = Cost::of(TaskKind::PreCommit2, 32 * GIB);
            (pc2.kind, pc2.cost, pc2.pinned_to) = (TaskKind::PreCommit2, cost, Some(MachineId(1)));
            (commitment, pc2)
        };
        let mut fleet_model = snapshot(vec![machine(1, 32), machine(2, 32)], (1..=sectors).map(layers).collect(), Vec::new());
        for machine in &mut fleet_model.machines {
            let disk = 3000 * GIB;
            (machine.memory_bytes, machine.disk_bytes, machine.disk_free_bytes) = (1 << 40, disk, disk);
            machine.moves = FileMoves::Now;
        }
        fleet_model.machines[1].gpus = 1;
        fleet_model.sizes = vec![32 * GIB];
        fleet_model
    }

    /// A transfer of a sector's files to a machine.
    fn on_the_way(sector: i64, to: i64) -> TaskView {
        let leased_to = Some(MachineId(to));
        TaskView { sector: Some(SectorId(sector)), leased_to, ..task(90 + sector, TaskKind::Move, NOW) }
    }

    #[test]
    fn a_gpu_fetches_no_more_layers_than_it_can_use_soon() {
        let mut fleet_model = split(3);
        assert_eq!(plan(&fleet_model, None), [given(1, 2), given(2, 2)], "PC2 is to be done there: one now, one next");
        fleet_model.tasks.push(on_the_way(1, 2));
        assert_eq!(plan(&fleet_model, None), [given(2, 2)]);
        fleet_model.tasks.push(on_the_way(2, 2));
        assert_eq!(plan(&fleet_model, None), []);
        // The layers have arrived.
        fleet_model.tasks.retain(|t| t.kind != TaskKind::Move);
        for at in 0..2 {
            fleet_model.tasks[at].pinned_to = Some(MachineId(2));
            let sector = &mut fleet_model.commitments[at].sectors[0];
            (sector.machine, sector.fetched) = (Some(MachineId(2)), true);
        }
        assert_eq!(plan(&fleet_model, None), [given(1, 2), given(3, 2)], "the next one comes while the first is on the GPU");
    }

    #[test]
    fn layers_stay_where_they_are_while_they_cannot_be_moved() {
        let changed = |change: fn(&mut Snapshot)| {
            let mut fleet_model = split(1);
            change(&mut fleet_model);
            plan(&fleet_model, None)
        };
        assert_eq!(changed(|h| h.machines[1].moves = FileMoves::NotNow), [], "they wait for the GPU");
        assert_eq!(changed(|h| h.machines[1].takes_new = false), [given(1, 1)], "it drains, and there is no other GPU");
        assert_eq!(changed(|h| h.machines[1].disk_free_bytes = 400 * GIB), [], "there is no room for them");
        let full = |h: &mut Snapshot| h.machines[1].stored_bytes = 2700 * GIB;
        assert_eq!(changed(full), [given(1, 1)], "what is free there belongs to sealed sectors, and will for long");
        assert_eq!(changed(|h| h.machines[0].moves = FileMoves::Never), [given(1, 1)], "cores are better than nothing");
        assert_eq!(changed(|h| h.machines[0].takes_new = false), [given(1, 2)], "what drains gives its layers away");
        let lost = |h: &mut Snapshot| h.lately_lost.extend(h.machines.pop());
        assert_eq!(changed(lost), [], "the GPU may be back soon");
        assert_eq!(changed(|h| drop(h.machines.pop())), [given(1, 1)]);
        let too_small = |h: &mut Snapshot| h.machines[1].memory_bytes = 8 * GIB;
        assert_eq!(changed(too_small), [given(1, 1)], "a GPU in a machine that is too small helps nobody");
        assert_eq!(changed(|h| h.machines[1].keeps = true), [given(1, 1)], "nor does one that keeps sectors");
        assert_eq!(changed(|h| h.machines[1].moves = FileMoves::Never), [given(1, 1)], "nor one that shows its files to nobody");
        assert_eq!(changed(|h| h.commitments[0].sectors[0].moves_at = NOW + HOUR), [], "they did not come a while ago");
    }

    #[test]
    fn cores_do_no_c2_while_a_usable_gpu_exists() {
        let mut fleet_model = split(1);
        (fleet_model.commitments[0].sectors[0].state, fleet_model.tasks[0].kind) = (SectorState::Commit2, TaskKind::Commit2);
        (fleet_model.tasks[0].pinned_to, fleet_model.tasks[0].cost) = (None, Cost::of(TaskKind::Commit2, 32 * GIB));
        assert_eq!(plan(&fleet_model, None), [given(1, 2)]);
        fleet_model.machines[1].gpus = 2;
        fleet_model.machines[1].cores = 0;
        assert_eq!(plan(&fleet_model, None), [given(1, 1)], "it is too small");
        fleet_model.machines[1].cores = 32;
        fleet_model.machines[1].takes_new = false;
        assert_eq!(plan(&fleet_model, None), [given(1, 1)], "it drains");
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
    fn a_hopelessly_late_sector_does_not_make_others_late() {
        // One sector takes twenty hours and its date has passed; another takes three hours and can
        // still be in time. There is scratch for one.
        let ((mut late, mut long), (mut commitment, mut short)) = (commitment(1, -1), commitment(2, 0));
        (late.sector_bytes, commitment.sector_bytes) = (64 * GIB, 32 * GIB);
        commitment.promised_at = NOW + FIRST_POST + 6 * HOUR;
        long.cost = Cost::of(TaskKind::PreCommit1, 64 * GIB);
        short.cost = Cost::of(TaskKind::PreCommit1, 32 * GIB);
        let mut snapshot = snapshot(vec![machine(1, 16)], vec![(late, long), (commitment, short)], Vec::new());
        let machine = &mut snapshot.machines[0];
        (machine.memory_bytes, machine.disk_bytes, machine.disk_free_bytes) = (1 << 40, 1100 * GIB, 1100 * GIB);
        snapshot.sizes = vec![32 * GIB, 64 * GIB];
        snapshot.history = History::of(&[(TaskKind::PreCommit1, 64 * GIB, MachineId(1), 20 * 3_600_000); 5]);
        assert_eq!(plan(&snapshot, None), [given(1, 1)], "the earlier date first");
        assert_eq!(plan(&snapshot, Some(&mut Rounds::most(20))), [given(2, 1)]);
    }

    #[test]
    fn a_sector_that_fits_no_disk_does_not_make_others_late() {
        // As above, and a third sector that the disk can never hold as well.
        let ((mut late, mut long), (mut good, mut short), (mut last, mut never)) =
            (commitment(1, -1), commitment(2, 0), commitment(3, 30));
        (late.sector_bytes, good.sector_bytes, last.sector_bytes) = (64 * GIB, 32 * GIB, 64 * GIB);
        good.promised_at = NOW + FIRST_POST + 6 * HOUR;
        let of = |bytes| Cost::of(TaskKind::PreCommit1, bytes);
        (long.cost, short.cost, never.cost) = (of(64 * GIB), of(32 * GIB), of(64 * GIB));
        let mut fleet_model = snapshot(vec![machine(1, 16)], vec![(late, long), (good, short), (last, never)], Vec::new());
        let disk = of(64 * GIB).scratch_bytes + 40 * GIB;
        let machine = &mut fleet_model.machines[0];
        (machine.memory_bytes, machine.disk_bytes, machine.disk_free_bytes) = (1 << 40, disk, disk);
        fleet_model.sizes = vec![32 * GIB, 64 * GIB];
        fleet_model.history = History::of(&[(TaskKind::PreCommit1, 64 * GIB, MachineId(1), 20 * 3_600_000); 5]);
        assert_eq!(plan(&fleet_model, None), [given(1, 1)], "the earlier date first");
        assert_eq!(plan(&fleet_model, Some(&mut Rounds::most(20))), [given(2, 1)]);
    }

    #[test]
    fn disk_space_is_reserved_before_a_new_step_has_written_anything() {
        let large = |id| {
            let (mut commitment, mut task) = commitment(id, 5);
            (commitment.sector_bytes, task.cost) = (32 * GIB, Cost::of(TaskKind::PreCommit1, 32 * GIB));
            (commitment, task)
        };
        let mut snapshot = snapshot(vec![machine(1, 64)], vec![large(1), large(2), large(3)], Vec::new());
        let machine = &mut snapshot.machines[0];
        (machine.memory_bytes, machine.disk_bytes, machine.disk_free_bytes) = (1 << 40, 1100 * GIB, 1100 * GIB);
        snapshot.sizes = vec![32 * GIB];
        assert_eq!(plan(&snapshot, None).len(), 2, "1100 GiB hold two of them");
        for at in 0..2 {
            snapshot.tasks[at].leased_to = Some(MachineId(1));
            snapshot.commitments[at].sectors[0].machine = Some(MachineId(1));
        }
        assert_eq!(plan(&snapshot, None), [], "both have their place");
        snapshot.machines[0].disk_free_bytes = 300 * GIB;
        let proof = task(9, TaskKind::Vanilla, 1);
        snapshot.tasks.push(TaskView { pinned_to: Some(MachineId(1)), ..proof });
        assert_eq!(plan(&snapshot, None), [given(9, 1)], "what they have written does not keep a proof from being made");
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
        (waiting.tasks[0].leased_to, waiting.commitments[0].sectors[0].machine) = (Some(MachineId(2)), Some(MachineId(2)));
        assert_eq!(plan(&waiting, None), [given(2, 1), given(3, 1)], "nothing new is begun where the proof waits");
        let mut draining = snapshot(vec![machine(1, 2)], Vec::new(), vec![snark]);
        draining.machines[0].takes_new = false;
        assert_eq!(plan(&draining, None), [given(9, 1)]);
    }

    #[test]
    fn a_sector_that_avoids_a_machine_does_not_block_it_for_others() {
        let (contract, avoiding) = commitment(1, 5);
        let mut second = contract.sectors[0].clone();
        second.id = SectorId(2);
        let both = Commitment { sectors: vec![second, contract.sectors[0].clone()], ..contract };
        let other = TaskView { id: TaskId(2), sector: Some(SectorId(2)), ..avoiding.clone() };
        let avoiding = TaskView { avoid: Some(MachineId(1)), ..avoiding };
        let mut fleet_model = snapshot(vec![machine(1, 3), machine(2, 1)], Vec::new(), Vec::new());
        (fleet_model.commitments, fleet_model.tasks) = (vec![both], vec![other, avoiding]);
        // The other machine is busy, with a step of its own.
        let busy = TaskView { leased_to: Some(MachineId(2)), ..task(9, TaskKind::Finalize, 1) };
        fleet_model.tasks.push(busy);
        assert_eq!(plan(&fleet_model, None), [given(2, 1)], "it waits for the other machine");
        fleet_model.machines[1].memory_bytes = 1 << 20;
        let given_now: Vec<MachineId> = plan(&fleet_model, None).into_iter().map(|a| a.machine).collect();
        assert_eq!(given_now, [MachineId(1); 2], "there is no other machine that could do it");
    }

    #[test]
    fn the_sector_that_begins_next_gets_the_ticket() {
        // The search begins the short sector first. By due dates alone the long one would be first.
        let ((mut late, _), (mut short, _)) = (commitment(1, -1), commitment(2, 0));
        (late.sector_bytes, short.sector_bytes) = (64 * GIB, 32 * GIB);
        short.promised_at = NOW + FIRST_POST + 6 * HOUR;
        for commitment in [&mut late, &mut short] {
            commitment.sectors[0].state = SectorState::Planned;
        }
        let mut snapshot = snapshot(vec![machine(1, 16)], Vec::new(), Vec::new());
        snapshot.commitments = vec![late, short];
        let machine = &mut snapshot.machines[0];
        (machine.memory_bytes, machine.disk_bytes, machine.disk_free_bytes) = (1 << 40, 1100 * GIB, 1100 * GIB);
        snapshot.sizes = vec![32 * GIB, 64 * GIB];
        snapshot.history = History::of(&[(TaskKind::PreCommit1, 64 * GIB, MachineId(1), 20 * 3_600_000); 5]);
        assert_eq!(starting_soon(&snapshot, 600, Some(&mut Rounds::most(20))), [SectorId(2)]);
        assert_eq!(starting_soon(&snapshot, 600, None), [SectorId(1)]);
    }

    #[test]
    fn a_ticket_is_drawn_when_its_turn_is_near() {
        let contracts = (1..=400).map(|id| {
            let (mut commitment, task) = commitment(id, 5);
            commitment.sectors[0].state = SectorState::Planned;
            (commitment, task)
        });
        let mut fleet_model = snapshot(vec![machine(1, 1)], contracts.collect(), Vec::new());
        fleet_model.tasks.clear();
        let soon = starting_soon(&fleet_model, 600, None);
        assert!(soon.contains(&SectorId(1)), "it can begin at once");
        assert!(soon.len() < 400, "one core does not begin 400 sectors in ten minutes: {}", soon.len());
        assert_eq!(starting_soon(&fleet_model, 600, None), soon);
    }

    proptest! {
        #[test]
        fn no_machine_exceeds_its_capacity_and_no_task_is_assigned_twice(
            cores in prop::collection::vec(1..5i64, 1..5),
            contracts in prop::collection::vec((0..5usize, 0..9i64, 0..5i64), 0..30),
            beside in prop::collection::vec((0..4usize, 0..3i64), 0..8),
        ) {
            let machines: Vec<_> = (1..).zip(&cores).map(|(id, c)| machine(id, *c)).collect();
            let count = i64::try_from(machines.len()).unwrap();
            let mut room = cores.clone();
            let contracts = (1..).zip(&contracts).map(|(id, (stage, days, on))| {
                let (mut commitment, mut task) = commitment(id, *days);
                let (state, kind) = [
                    (SectorState::PreCommit1, TaskKind::PreCommit1),
                    (SectorState::PreCommit2, TaskKind::PreCommit2),
                    (SectorState::Commit2, TaskKind::Commit2),
                    (SectorState::WaitSeed, TaskKind::Commit2),
                    (SectorState::Planned, TaskKind::PreCommit1),
                ][*stage];
                let home = MachineId(on % count + 1);
                commitment.sectors[0].state = state;
                (task.kind, task.cost) = (kind, Cost::of(kind, 2048));
                if !matches!(state, SectorState::PreCommit1 | SectorState::Planned) {
                    commitment.sectors[0].machine = Some(home);
                    task.pinned_to = (kind == TaskKind::PreCommit2).then_some(home);
                }
                let left = &mut room[usize::try_from(home.0 - 1).unwrap()];
                if id % 3 == 0 && *stage < 3 && *left >= task.cost.cores {
                    *left -= task.cost.cores;
                    (task.leased_to, task.started_at) = (Some(home), NOW - HOUR);
                }
                (commitment, task)
            });
            let contracts: Vec<_> = contracts.collect();
            let kinds = [TaskKind::Vanilla, TaskKind::WindowPost, TaskKind::Finalize, TaskKind::Commit1];
            let beside = (1000..).zip(&beside).map(|(id, (kind, due))| task(id, kinds[*kind], *due)).collect();
            let mut snapshot = snapshot(machines, contracts, beside);
            let silent = |t: &TaskView| {
                snapshot.commitments.iter().any(|o| Some(o.sectors[0].id) == t.sector && matches!(o.sectors[0].state, SectorState::WaitSeed | SectorState::Planned))
            };
            let silent: Vec<TaskId> = snapshot.tasks.iter().filter(|t| silent(t)).map(|t| t.id).collect();
            snapshot.tasks.retain(|t| !silent.contains(&t.id));
            let assignments = plan(&snapshot, None);
            prop_assert_eq!(&assignments, &plan(&snapshot, None));
            for machine in &snapshot.machines {
                let here = |t: &&TaskView| {
                    t.leased_to == Some(machine.id) || assignments.contains(&Assignment { task: t.id, machine: machine.id })
                };
                // Proofs that are due share cores with running steps.
                let sealing = snapshot.tasks.iter().filter(here).filter(|t| !t.kind.is_proving());
                let used: i64 = sealing.map(|t| t.cost.cores).sum();
                prop_assert!(used <= machine.cores, "{} of {} cores of {:?}", used, machine.cores, machine.id);
                let memory: i64 = snapshot.tasks.iter().filter(here).map(|t| t.cost.memory_bytes).sum();
                let before = snapshot.tasks.iter().filter(|t| t.leased_to == Some(machine.id)).map(|t| t.cost.memory_bytes).sum();
                prop_assert!(memory <= machine.memory_bytes.max(before), "{} bytes of {:?}", memory, machine.id);
            }
            let mut seen: Vec<_> = assignments.iter().map(|a| a.task).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), assignments.len());
            prop_assert!(assignments.iter().all(|a| snapshot.tasks.iter().any(|t| t.id == a.task && t.leased_to.is_none())));
        }
    }
}
