//! Assigns steps to machines for the present moment.
//!
//! Proofs that are due and the small steps beside sealing are placed first, where they fit best.
//! The planner gets the residual capacity and simulates the fleet from now on. The steps that it
//! begins at once are assigned.

use std::collections::HashSet;

use sealyard_planner::{Aim, MachineIx, Rounds, Row, SectorIx, improve};

use super::{FleetModel, Simulation, Snapshot, beside_sealing::Beside};
use crate::{
    ids::{MachineId, SectorId, TaskId},
    sealing::SectorState,
};

/// A machine is to do a task now. If a PC2's files are on another machine, it is to fetch them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Assignment {
    pub task: TaskId,
    pub machine: MachineId,
}

/// Assigns ready tasks to machines with free capacity. If some sector would be late, other orders
/// of work are tried within `budget` and the best one is followed. The same snapshot and answers of
/// `budget` give the same plan. Running tasks are not moved, and tasks that do not begin now are
/// not bound to a machine.
#[must_use]
pub fn plan(snapshot: &Snapshot, budget: Option<&mut Rounds>) -> Vec<Assignment> {
    let (mut assignments, fleet_model) = placed(snapshot);
    let mut simulation = decided(&fleet_model, budget);
    simulation.world.run_until(FleetModel::now() + 1);
    assignments.extend(simulation.sectors.iter().filter_map(|(sector, view)| {
        let row = simulation.world.sectors.get(*sector).map(|s| s.row)?;
        let task = fleet_model.task_of(view.id)?;
        let machine = fleet_model.machine_id(begins_on(&row, view.state)?)?;
        Some(Assignment { task, machine })
    }));
    assignments
}

/// The machine on which a sector's step begins now, or its layers begin to move.
fn begins_on(row: &Row, state: SectorState) -> Option<MachineIx> {
    let now = FleetModel::now();
    match state {
        SectorState::PreCommit1 if row.s1 == now => Some(row.m1),
        SectorState::PreCommit2 if row.s2 == now || row.xs == now => Some(row.m2),
        SectorState::Commit2 if row.s3 == now => Some(row.m3),
        _ => None,
    }
}

/// Assignments beside sealing, and the fleet with the residual capacity.
fn placed(snapshot: &Snapshot) -> (Vec<Assignment>, FleetModel<'_>) {
    let beside = Beside::of(snapshot);
    let fleet_model = FleetModel::new(snapshot, &beside.taken(snapshot));
    (beside.assignments, fleet_model)
}

/// Whether some sector would be late. `Err`: sectors that can never be sealed as things are, for
/// lack of disk for example.
fn is_late(simulation: &Simulation<'_>) -> Result<bool, HashSet<SectorId>> {
    let mut usual = simulation.world.clone();
    if usual.run() {
        return Ok(usual.cost().tardiness > 0);
    }
    let is_stuck = |id: &SectorIx| {
        usual
            .sectors
            .get(*id)
            .is_some_and(|sector| sector.row.vc < 0)
    };
    Err(simulation
        .sectors
        .iter()
        .filter(|(id, _)| is_stuck(id))
        .map(|(_, view)| view.id)
        .collect())
}

/// The fleet, with its order of work decided. The same snapshot gives every caller the same order:
/// a slot meant for one sector must not wait while another sector gets the ticket.
fn decided<'h>(fleet_model: &'h FleetModel<'_>, budget: Option<&mut Rounds>) -> Simulation<'h> {
    let mut simulation = fleet_model.world();
    let Some(budget) = budget else {
        return simulation;
    };
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
pub fn starting_soon(
    snapshot: &Snapshot,
    seconds: i32,
    budget: Option<&mut Rounds>,
) -> Vec<SectorId> {
    let (_, fleet_model) = placed(snapshot);
    let mut simulation = decided(&fleet_model, budget);
    simulation.world.run_until(FleetModel::now() + seconds);
    let begun = |sector| {
        simulation
            .world
            .sectors
            .get(sector)
            .is_some_and(|s| s.row.s1 >= FleetModel::now())
    };
    let planned = simulation
        .sectors
        .iter()
        .filter(|(_, view)| view.state == SectorState::Planned);
    planned
        .filter(|(sector, _)| begun(*sector))
        .map(|(_, view)| view.id)
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        clock::HOUR,
        scheduler::{
            Commitment, FIRST_POST, History, PlannedBegin, TaskView,
            fixture::{GIB, NOW, commitment, given, large_machine, machine, snapshot, task},
        },
        sealing::{Cost, TaskKind},
    };

    #[test]
    fn a_sector_begins_where_it_was_planned_unless_that_would_be_slower() {
        let mut fleet_model = snapshot(
            vec![machine(1, 2), machine(2, 2)],
            vec![commitment(1, 5), commitment(2, 6)],
            Vec::new(),
        );
        assert_eq!(plan(&fleet_model, None), [given(1, 1), given(2, 2)]);
        let expect = |fleet_model: &mut Snapshot, contract: usize, machine| {
            fleet_model.commitments[contract].sectors[0].planned_begin = Some(PlannedBegin {
                machine: MachineId(machine),
                at: NOW + HOUR,
            });
        };
        expect(&mut fleet_model, 0, 2);
        expect(&mut fleet_model, 1, 1);
        assert_eq!(plan(&fleet_model, None), [given(1, 2), given(2, 1)]);
        expect(&mut fleet_model, 0, 99);
        assert_eq!(
            plan(&fleet_model, None).len(),
            2,
            "a machine that is gone is not waited for"
        );
        expect(&mut fleet_model, 0, 2);
        let hours = |machine, hours: i64| {
            [(
                TaskKind::PreCommit1,
                2048,
                MachineId(machine),
                hours * 3_600_000,
            ); 5]
        };
        fleet_model.history = History::of(&[hours(1, 3), hours(2, 4)].concat());
        assert_eq!(
            plan(&fleet_model, None),
            [given(1, 1), given(2, 2)],
            "the first one is quicker"
        );
    }

    #[test]
    fn a_pinned_step_waits_for_its_machine_and_an_avoided_one_is_a_last_resort() {
        let (mut layers, mut pinned) = commitment(1, 1);
        layers.sectors[0].state = SectorState::PreCommit2;
        layers.sectors[0].machine = Some(MachineId(2));
        (pinned.kind, pinned.cost, pinned.pinned_to) = (
            TaskKind::PreCommit2,
            Cost::of(TaskKind::PreCommit2, 2048),
            Some(MachineId(2)),
        );
        let (other, mut avoiding) = commitment(2, 2);
        avoiding.avoid = Some(MachineId(1));
        let both = vec![(layers, pinned), (other, avoiding)];
        let only_first = snapshot(vec![machine(1, 4)], both.clone(), Vec::new());
        assert_eq!(
            plan(&only_first, None),
            [given(2, 1)],
            "there is no other machine"
        );
        let two = snapshot(vec![machine(1, 4), machine(2, 4)], both, Vec::new());
        assert_eq!(plan(&two, None), [given(1, 2), given(2, 2)]);
    }

    fn large_takes_20_hours() -> History {
        History::of(&[(TaskKind::PreCommit1, 64 * GIB, MachineId(1), 20 * 3_600_000); 5])
    }

    #[test]
    fn a_hopelessly_late_sector_does_not_make_others_late() {
        // One sector takes twenty hours and its date has passed; another takes three hours and can
        // still be in time. There is scratch for one.
        let ((mut late, mut long), (mut commitment, mut short)) =
            (commitment(1, -1), commitment(2, 0));
        (late.sector_bytes, commitment.sector_bytes) = (64 * GIB, 32 * GIB);
        commitment.promised_at = NOW + FIRST_POST + 6 * HOUR;
        long.cost = Cost::of(TaskKind::PreCommit1, 64 * GIB);
        short.cost = Cost::of(TaskKind::PreCommit1, 32 * GIB);
        let mut snapshot = snapshot(
            vec![large_machine(1, 16, 1100 * GIB)],
            vec![(late, long), (commitment, short)],
            Vec::new(),
        );
        snapshot.sizes = vec![32 * GIB, 64 * GIB];
        snapshot.history = large_takes_20_hours();
        assert_eq!(
            plan(&snapshot, None),
            [given(1, 1)],
            "the earlier date first"
        );
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
        let disk = of(64 * GIB).scratch_bytes + 40 * GIB;
        let mut fleet_model = snapshot(
            vec![large_machine(1, 16, disk)],
            vec![(late, long), (good, short), (last, never)],
            Vec::new(),
        );
        fleet_model.sizes = vec![32 * GIB, 64 * GIB];
        fleet_model.history = large_takes_20_hours();
        assert_eq!(
            plan(&fleet_model, None),
            [given(1, 1)],
            "the earlier date first"
        );
        assert_eq!(
            plan(&fleet_model, Some(&mut Rounds::most(20))),
            [given(2, 1)]
        );
    }

    #[test]
    fn a_sector_that_avoids_a_machine_does_not_block_it_for_others() {
        let (contract, avoiding) = commitment(1, 5);
        let mut second = contract.sectors[0].clone();
        second.id = SectorId(2);
        let both = Commitment {
            sectors: vec![second, contract.sectors[0].clone()],
            ..contract
        };
        let other = TaskView {
            id: TaskId(2),
            sector: Some(SectorId(2)),
            ..avoiding.clone()
        };
        let avoiding = TaskView {
            avoid: Some(MachineId(1)),
            ..avoiding
        };
        let mut fleet_model = snapshot(vec![machine(1, 3), machine(2, 1)], Vec::new(), Vec::new());
        (fleet_model.commitments, fleet_model.tasks) = (vec![both], vec![other, avoiding]);
        // The other machine is busy, with a step of its own.
        let busy = TaskView {
            leased_to: Some(MachineId(2)),
            ..task(9, TaskKind::Finalize, 1)
        };
        fleet_model.tasks.push(busy);
        assert_eq!(
            plan(&fleet_model, None),
            [given(2, 1)],
            "it waits for the other machine"
        );
        fleet_model.machines[1].memory_bytes = 1 << 20;
        let given_now: Vec<MachineId> = plan(&fleet_model, None)
            .into_iter()
            .map(|a| a.machine)
            .collect();
        assert_eq!(
            given_now,
            [MachineId(1); 2],
            "there is no other machine that could do it"
        );
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
        let machines = vec![large_machine(1, 16, 1100 * GIB)];
        let mut snapshot = snapshot(machines, Vec::new(), Vec::new());
        snapshot.commitments = vec![late, short];
        snapshot.sizes = vec![32 * GIB, 64 * GIB];
        snapshot.history = large_takes_20_hours();
        assert_eq!(
            starting_soon(&snapshot, 600, Some(&mut Rounds::most(20))),
            [SectorId(2)]
        );
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
        assert!(
            soon.len() < 400,
            "one core does not begin 400 sectors in ten minutes: {}",
            soon.len()
        );
        assert_eq!(starting_soon(&fleet_model, 600, None), soon);
    }

    /// A sector's state, and the kind of its open task.
    const STAGES: [(SectorState, TaskKind); 5] = [
        (SectorState::PreCommit1, TaskKind::PreCommit1),
        (SectorState::PreCommit2, TaskKind::PreCommit2),
        (SectorState::Commit2, TaskKind::Commit2),
        (SectorState::WaitSeed, TaskKind::Commit2),
        (SectorState::Planned, TaskKind::PreCommit1),
    ];
    const BESIDE: [TaskKind; 4] = [
        TaskKind::Vanilla,
        TaskKind::WindowPost,
        TaskKind::Finalize,
        TaskKind::Commit1,
    ];

    /// A contract of one sector whose files are on `home`. Every third one's step runs there, if
    /// the `room` left there has the cores.
    fn at_stage(
        id: i64,
        (stage, days): (usize, i64),
        home: MachineId,
        room: &mut i64,
    ) -> (Commitment, TaskView) {
        let (mut commitment, mut task) = commitment(id, days);
        let (state, kind) = STAGES[stage];
        commitment.sectors[0].state = state;
        (task.kind, task.cost) = (kind, Cost::of(kind, 2048));
        if !matches!(state, SectorState::PreCommit1 | SectorState::Planned) {
            commitment.sectors[0].machine = Some(home);
            task.pinned_to = (kind == TaskKind::PreCommit2).then_some(home);
        }
        if id % 3 == 0 && stage < 3 && *room >= task.cost.cores {
            *room -= task.cost.cores;
            (task.leased_to, task.started_at) = (Some(home), NOW - HOUR);
        }
        (commitment, task)
    }

    /// Removes the tasks of sectors that wait for the chain.
    fn without_silent(mut snapshot: Snapshot) -> Snapshot {
        let silent: Vec<SectorId> = snapshot
            .commitments
            .iter()
            .map(|o| &o.sectors[0])
            .filter(|s| matches!(s.state, SectorState::WaitSeed | SectorState::Planned))
            .map(|s| s.id)
            .collect();
        snapshot
            .tasks
            .retain(|t| t.sector.is_none_or(|sector| !silent.contains(&sector)));
        snapshot
    }

    fn check_capacity(
        snapshot: &Snapshot,
        assignments: &[Assignment],
    ) -> Result<(), TestCaseError> {
        for machine in &snapshot.machines {
            let leased: Vec<&TaskView> = snapshot
                .tasks
                .iter()
                .filter(|t| t.leased_to == Some(machine.id))
                .collect();
            let begun = snapshot
                .tasks
                .iter()
                .filter(|t| assignments.contains(&given(t.id.0, machine.id.0)));
            let here: Vec<&TaskView> = leased.iter().copied().chain(begun).collect();
            // Proofs that are due share cores with running steps.
            let sealing = here.iter().filter(|t| !t.kind.is_proving());
            let used: i64 = sealing.map(|t| t.cost.cores).sum();
            let (id, cores) = (machine.id, machine.cores);
            prop_assert!(used <= cores, "{} of {} cores of {:?}", used, cores, id);
            let memory_of =
                |tasks: &[&TaskView]| -> i64 { tasks.iter().map(|t| t.cost.memory_bytes).sum() };
            let memory = memory_of(&here);
            let most = machine.memory_bytes.max(memory_of(&leased));
            prop_assert!(memory <= most, "{} bytes of {:?}", memory, id);
        }
        Ok(())
    }

    proptest! {
        #[test]
        fn no_machine_exceeds_its_capacity_and_no_task_is_assigned_twice(
            cores in prop::collection::vec(1..5i64, 1..5),
            contracts in prop::collection::vec((0..5usize, 0..9i64, 0..5i64), 0..30),
            beside in prop::collection::vec((0..4usize, 0..3i64), 0..8),
        ) {
            let machines: Vec<_> = (1..).zip(&cores).map(|(id, c)| machine(id, *c)).collect();
            let mut room = cores.clone();
            let contracts = (1..).zip(&contracts).map(|(id, (stage, days, on))| {
                let at = usize::try_from(*on).unwrap() % machines.len();
                at_stage(id, (*stage, *days), machines[at].id, &mut room[at])
            });
            let contracts: Vec<_> = contracts.collect();
            let beside = (1000..)
                .zip(&beside)
                .map(|(id, (kind, due))| task(id, BESIDE[*kind], *due))
                .collect();
            let snapshot = without_silent(snapshot(machines, contracts, beside));
            let assignments = plan(&snapshot, None);
            prop_assert_eq!(&assignments, &plan(&snapshot, None));
            check_capacity(&snapshot, &assignments)?;
            let mut seen: Vec<_> = assignments.iter().map(|a| a.task).collect();
            seen.sort_unstable();
            seen.dedup();
            prop_assert_eq!(seen.len(), assignments.len());
            let waits = |task: TaskId| {
                snapshot.tasks.iter().any(|t| t.id == task && t.leased_to.is_none())
            };
            prop_assert!(assignments.iter().all(|a| waits(a.task)));
        }
    }
}
