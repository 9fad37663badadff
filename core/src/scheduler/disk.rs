//! Disk space: what is free for new sectors, and what sectors in the pipeline hold.

use std::collections::HashMap;

use sealyard_planner::Kind;

use super::{
    Commitment, FileMoves, MachineView, Snapshot, TaskView,
    machine_class::{is_asked_for, kind, mib},
    storing::{keepers, rooms},
};
use crate::{
    ids::{MachineId, SectorId},
    sealing::{Cost, SectorState, TaskKind},
};

/// Free bytes on storage machines, less the sealed sectors that still have to come from other
/// machines. Those are taken from the emptiest.
pub(super) fn rooms_for_new(snapshot: &Snapshot) -> HashMap<MachineId, i64> {
    let mut rooms = rooms(snapshot);
    let waits = snapshot
        .machines
        .iter()
        .filter(|m| !m.keeps && m.moves != FileMoves::Never);
    let mut coming: i64 = waits.map(|m| m.stored_bytes).sum();
    let mut emptiest: Vec<&mut i64> = rooms.values_mut().collect();
    emptiest.sort_unstable_by_key(|room| std::cmp::Reverse(**room));
    for room in emptiest {
        let here = coming.min(*room).max(0);
        *room -= here;
        coming -= here;
    }
    rooms
}

/// Bytes of sealed sectors that the disks of working machines have space for, beside everything
/// that is owed. Each disk counts for the size that fills most of it.
#[must_use]
pub fn disk_left(snapshot: &Snapshot) -> i64 {
    let room_of = |m: &MachineView| {
        let bytes = |size: &i64| places(m, *size, snapshot) * size;
        snapshot.sizes.iter().map(bytes).max().unwrap_or(0)
    };
    let kept: i64 = rooms(snapshot).into_values().map(|room| room.max(0)).sum();
    let room = kept + snapshot.machines.iter().map(room_of).sum::<i64>();
    (room - owed(snapshot)).max(0)
}

/// How many sectors of a size fit on a machine's disk, if it takes new ones and does PC2. The last
/// sector's scratch becomes its place.
fn places(machine: &MachineView, size: i64, snapshot: &Snapshot) -> i64 {
    // Layers come from other machines, or are made here.
    let begins = if machine.moves == FileMoves::Never {
        TaskKind::PreCommit1
    } else {
        TaskKind::PreCommit2
    };
    let does =
        |step| machine.fits(&Cost::of(step, size)) && is_asked_for(step, (machine, size), snapshot);
    if !machine.takes_new || !does(begins) || !does(TaskKind::PreCommit2) {
        return 0;
    }
    let Kind {
        scratch_full,
        scratch_keep,
        ..
    } = kind(size);
    let left = i64::from(mib(machine.disk_bytes
        - machine.stored_bytes
        - machine.leftover_bytes))
        - i64::from(scratch_full - scratch_keep);
    left.max(0) / i64::from(scratch_keep.max(1))
}

/// Bytes of the sectors that are owed and still need space. A draining machine finishes its own
/// sectors on its own disk, unless another machine keeps them.
fn owed(snapshot: &Snapshot) -> i64 {
    let all_stay = keepers(snapshot).next().is_none();
    let drains = |at: Option<MachineId>| {
        let mut machines = snapshot.machines.iter();
        machines.any(|m| Some(m.id) == at && !m.takes_new)
    };
    let sectors = |o: &Commitment| {
        let coming = o
            .sectors
            .iter()
            .filter(|s| !(all_stay && drains(s.machine)));
        o.held + i64::try_from(coming.count()).unwrap_or(0)
    };
    let commitments = snapshot.commitments.iter();
    commitments.map(|o| sectors(o) * o.sector_bytes).sum()
}

/// MiB for sealing: the space that is free now and that sectors in the pipeline will give back. It
/// is at most the space that sealed sectors leave on the disk, because a sector that has just begun
/// has written nothing yet.
pub(super) fn scratch_of(view: &MachineView, held: i32) -> i32 {
    let left = (view.disk_bytes - view.stored_bytes - view.leftover_bytes).max(0);
    mib(view.disk_free_bytes.max(0))
        .saturating_add(held)
        .min(mib(left))
}

/// MiB that sectors in the pipeline hold on each machine.
pub(super) fn scratch_held(
    snapshot: &Snapshot,
    tasks: &HashMap<SectorId, &TaskView>,
    on_the_way: &HashMap<SectorId, &TaskView>,
) -> HashMap<MachineId, i32> {
    let mut held: HashMap<MachineId, i32> = HashMap::new();
    let mut hold = |machine: Option<MachineId>, holds: i32| {
        if let Some(machine) = machine {
            let sum = held.entry(machine).or_default();
            *sum = sum.saturating_add(holds);
        }
    };
    for commitment in &snapshot.commitments {
        let kind = kind(commitment.sector_bytes);
        for sector in &commitment.sectors {
            let runs = tasks
                .get(&sector.id)
                .is_some_and(|task| task.leased_to.is_some());
            hold(sector.machine, scratch_in(sector.state, runs, &kind));
            let to = on_the_way.get(&sector.id).and_then(|task| task.leased_to);
            hold(to, kind.scratch_full);
        }
    }
    held
}

/// MiB that a sector in a state holds; `runs`: a machine runs its step.
const fn scratch_in(state: SectorState, runs: bool, kind: &Kind) -> i32 {
    match state {
        // A PC1 that no machine runs will begin from nothing.
        SectorState::PreCommit1 if !runs => 0,
        SectorState::PreCommit1
        | SectorState::PreCommit2
        | SectorState::PreCommitting
        | SectorState::WaitSeed
        | SectorState::Commit1 => kind.scratch_full,
        SectorState::Commit2 | SectorState::Verifying | SectorState::ProveCommitting => {
            kind.scratch_keep
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use crate::{
        ids::MachineId,
        scheduler::{
            TaskView, disk_left,
            fixture::{GIB, commitment, given, large_machine, one_disk, snapshot, task},
            plan,
        },
        sealing::{Cost, TaskKind},
    };

    #[test]
    fn disk_space_is_reserved_before_a_new_step_has_written_anything() {
        let large = |id| {
            let (mut commitment, mut task) = commitment(id, 5);
            (commitment.sector_bytes, task.cost) =
                (32 * GIB, Cost::of(TaskKind::PreCommit1, 32 * GIB));
            (commitment, task)
        };
        let mut snapshot = snapshot(
            vec![large_machine(1, 64, 1100 * GIB)],
            vec![large(1), large(2), large(3)],
            Vec::new(),
        );
        snapshot.sizes = vec![32 * GIB];
        assert_eq!(plan(&snapshot, None).len(), 2, "1100 GiB hold two of them");
        for at in 0..2 {
            snapshot.tasks[at].leased_to = Some(MachineId(1));
            snapshot.commitments[at].sectors[0].machine = Some(MachineId(1));
        }
        assert_eq!(plan(&snapshot, None), [], "both have their place");
        snapshot.machines[0].disk_free_bytes = 300 * GIB;
        let proof = task(9, TaskKind::Vanilla, 1);
        snapshot.tasks.push(TaskView {
            pinned_to: Some(MachineId(1)),
            ..proof
        });
        assert_eq!(
            plan(&snapshot, None),
            [given(9, 1)],
            "what they have written does not keep a proof from being made"
        );
    }

    #[test]
    fn a_disk_counts_only_for_sectors_that_its_machine_can_seal() {
        let mut fleet_model = one_disk(10, 0);
        assert_eq!(disk_left(&fleet_model), 11 * 32 * GIB);
        fleet_model.sizes.push(64 * GIB);
        assert_eq!(
            disk_left(&fleet_model),
            11 * 32 * GIB,
            "too small for PC1 of 64 GiB, not for 32"
        );
        let (mut contract, _) = commitment(1, 90);
        contract.sector_bytes = 32 * GIB;
        fleet_model.commitments.push(contract);
        assert_eq!(disk_left(&fleet_model), 10 * 32 * GIB);
        fleet_model.machines[0].takes_new = false;
        assert_eq!(disk_left(&fleet_model), 0);
    }
}
