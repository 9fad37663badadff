//! Machines, steps and transfers in the planner's terms: which steps a machine does and how long
//! they take there.

use sealyard_planner::{Class, Durations, Kind, KindIx, Moves, Need, Table};

use super::{
    FileMoves, MachineView, Snapshot,
    storing::{TO_ONE, keepers},
};
use crate::sealing::{Cost, MIB, TaskKind};

/// Whole MiB, rounded up.
pub(super) fn mib(bytes: i64) -> i32 {
    i32::try_from((bytes + MIB - 1) / MIB).unwrap_or(i32::MAX)
}

pub(super) fn whole(count: i64) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn need(step: TaskKind, sector_bytes: i64, gpus: i32) -> Need {
    let cost = Cost::of(step, sector_bytes);
    Need {
        cores: whole(cost.cores),
        memory: mib(cost.memory_bytes),
        gpus,
    }
}

pub(super) fn kind(sector_bytes: i64) -> Kind {
    let full = mib(Cost::of(TaskKind::PreCommit1, sector_bytes).scratch_bytes);
    Kind {
        p1: need(TaskKind::PreCommit1, sector_bytes, 0),
        p2: need(TaskKind::PreCommit2, sector_bytes, 1),
        c2: need(TaskKind::Commit2, sector_bytes, 1),
        scratch_full: full,
        scratch_keep: mib(sector_bytes).min(full),
        stored: mib(sector_bytes),
    }
}

/// How many sectors' files one machine fetches or sends at a time.
const MOVES_AT_ONCE: i32 = 2;

/// How files move in this fleet. `None`: they do not, because no two machines share their files.
pub(super) fn moves(snapshot: &Snapshot, sector_bytes: i64) -> Option<Moves> {
    let take_part = snapshot
        .machines
        .iter()
        .filter(|m| m.moves != FileMoves::Never)
        .count();
    let layers = whole(snapshot.history.usual_seconds(TaskKind::Move, sector_bytes));
    let store = || {
        whole(
            snapshot
                .history
                .usual_seconds(TaskKind::Store, sector_bytes),
        )
    };
    let sealed = keepers(snapshot).next().map(|_| store());
    (take_part > 1).then_some(Moves { layers, sealed })
}

/// Whether a machine should do a step. Storage machines do not seal. Cores do not do a step that a
/// GPU can do, unless the GPU's machine cannot get at the files or has no disk for them.
pub(super) fn is_asked_for(
    step: TaskKind,
    (view, size): (&MachineView, i64),
    snapshot: &Snapshot,
) -> bool {
    if view.keeps {
        return false;
    }
    if step == TaskKind::PreCommit1 || view.gpus > 0 {
        return true;
    }
    let cost = Cost::of(step, size);
    let shows = |m: &MachineView| m.moves != FileMoves::Never;
    let reaches = |gpu: &MachineView| step == TaskKind::Commit2 || (shows(view) && shows(gpu));
    let holds = |m: &MachineView| {
        m.disk_bytes - m.stored_bytes >= Cost::of(TaskKind::PreCommit1, size).scratch_bytes
    };
    let has_room = |m: &MachineView| step == TaskKind::Commit2 || holds(m);
    let with_gpu =
        |m: &&MachineView| m.gpus > 0 && !m.keeps && m.takes_new && m.fits(&cost) && has_room(m);
    !snapshot
        .machines
        .iter()
        .chain(&snapshot.lately_lost)
        .filter(with_gpu)
        .any(reaches)
}

/// A machine's class. Steps that it is too small or not meant for have duration 0, so they are
/// never planned there.
pub(super) fn class_of(
    view: &MachineView,
    used: &Cost,
    (scratch, store): (i32, i32),
    snapshot: &Snapshot,
    sizes: &[i64],
) -> Class {
    let seconds = |step, size: i64| {
        let cost = Cost::of(step, size);
        let fits = view.fits(&cost) && mib(cost.scratch_bytes) <= scratch;
        if fits && is_asked_for(step, (view, size), snapshot) {
            whole(snapshot.history.seconds(step, size, view.quick_as))
        } else {
            0
        }
    };
    let durations = sizes.iter().map(|size| Durations {
        p1: seconds(TaskKind::PreCommit1, *size),
        p2: seconds(TaskKind::PreCommit2, *size),
        c2: seconds(TaskKind::Commit2, *size),
    });
    // A machine without GPUs does GPU steps on its cores.
    let gpus = if view.gpus > 0 {
        view.gpus
    } else {
        view.cores.max(1)
    };
    Class {
        name: view.name.clone(),
        cores: whole((view.cores - used.cores).max(0)),
        memory: mib((view.memory_bytes - used.memory_bytes).max(0)),
        gpus: whole(gpus),
        scratch,
        store,
        nic: match view.moves {
            FileMoves::Never => 0,
            _ if view.keeps => whole(i64::try_from(TO_ONE).unwrap_or(1)),
            _ => MOVES_AT_ONCE,
        },
        durations: durations.collect::<Table<KindIx, Durations>>(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HOUR,
        ids::{MachineId, SectorId},
        scheduler::{
            Assignment, TaskView,
            fixture::{GIB, NOW, commitment, given, large_machine, snapshot, task},
            plan,
        },
        sealing::SectorState,
    };

    /// Two machines that share their files, the second with a GPU. The first has the layers of 32
    /// GiB sectors.
    fn split(sectors: i64) -> Snapshot {
        let layers = |id| {
            let (mut commitment, mut pc2) = commitment(id, id);
            commitment.sector_bytes = 32 * GIB;
            (commitment.sectors[0].state, commitment.sectors[0].machine) =
                (SectorState::PreCommit2, Some(MachineId(1)));
            let cost = Cost::of(TaskKind::PreCommit2, 32 * GIB);
            (pc2.kind, pc2.cost, pc2.pinned_to) = (TaskKind::PreCommit2, cost, Some(MachineId(1)));
            (commitment, pc2)
        };
        let machine = |id, gpus| MachineView {
            moves: FileMoves::Now,
            gpus,
            ..large_machine(id, 32, 3000 * GIB)
        };
        let mut fleet_model = snapshot(
            vec![machine(1, 0), machine(2, 1)],
            (1..=sectors).map(layers).collect(),
            Vec::new(),
        );
        fleet_model.sizes = vec![32 * GIB];
        fleet_model
    }

    /// A transfer of a sector's files to a machine.
    fn on_the_way(sector: i64, to: i64) -> TaskView {
        let leased_to = Some(MachineId(to));
        TaskView {
            sector: Some(SectorId(sector)),
            leased_to,
            ..task(90 + sector, TaskKind::Move, NOW)
        }
    }

    #[test]
    fn a_gpu_fetches_no_more_layers_than_it_can_use_soon() {
        let mut fleet_model = split(3);
        assert_eq!(
            plan(&fleet_model, None),
            [given(1, 2), given(2, 2)],
            "PC2 is to be done there: one now, one next"
        );
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
        assert_eq!(
            plan(&fleet_model, None),
            [given(1, 2), given(3, 2)],
            "the next one comes while the first is on the GPU"
        );
    }

    type Change = fn(&mut Snapshot);

    /// The plan for one sector whose layers are on the first machine, after a change.
    fn changed(change: Change) -> Vec<Assignment> {
        let mut fleet_model = split(1);
        change(&mut fleet_model);
        plan(&fleet_model, None)
    }

    #[test]
    fn layers_stay_where_they_are_while_they_cannot_be_moved() {
        let cases: [(Change, &str); 4] = [
            (
                |h| h.machines[1].moves = FileMoves::NotNow,
                "they wait for the GPU",
            ),
            (
                |h| h.machines[1].disk_free_bytes = 400 * GIB,
                "there is no room for them",
            ),
            (
                |h| h.lately_lost.extend(h.machines.pop()),
                "the GPU may be back soon",
            ),
            (
                |h| h.commitments[0].sectors[0].moves_at = NOW + HOUR,
                "they did not come a while ago",
            ),
        ];
        for (change, why) in cases {
            assert_eq!(changed(change), [], "{why}");
        }
        assert_eq!(
            changed(|h| h.machines[0].takes_new = false),
            [given(1, 2)],
            "what drains gives its layers away"
        );
        let cases: [(Change, &str); 7] = [
            (
                |h| h.machines[1].takes_new = false,
                "it drains, and there is no other GPU",
            ),
            (
                |h| h.machines[1].stored_bytes = 2700 * GIB,
                "what is free there belongs to sealed sectors, and will for long",
            ),
            (
                |h| h.machines[0].moves = FileMoves::Never,
                "cores are better than nothing",
            ),
            (|h| drop(h.machines.pop()), "there is no GPU"),
            (
                |h| h.machines[1].memory_bytes = 8 * GIB,
                "a GPU in a machine that is too small helps nobody",
            ),
            (
                |h| h.machines[1].keeps = true,
                "nor does one that keeps sectors",
            ),
            (
                |h| h.machines[1].moves = FileMoves::Never,
                "nor one that shows its files to nobody",
            ),
        ];
        for (change, why) in cases {
            assert_eq!(changed(change), [given(1, 1)], "{why}");
        }
    }

    #[test]
    fn cores_do_no_c2_while_a_usable_gpu_exists() {
        let mut fleet_model = split(1);
        (
            fleet_model.commitments[0].sectors[0].state,
            fleet_model.tasks[0].kind,
        ) = (SectorState::Commit2, TaskKind::Commit2);
        (fleet_model.tasks[0].pinned_to, fleet_model.tasks[0].cost) =
            (None, Cost::of(TaskKind::Commit2, 32 * GIB));
        assert_eq!(plan(&fleet_model, None), [given(1, 2)]);
        fleet_model.machines[1].gpus = 2;
        fleet_model.machines[1].cores = 0;
        assert_eq!(plan(&fleet_model, None), [given(1, 1)], "it is too small");
        fleet_model.machines[1].cores = 32;
        fleet_model.machines[1].takes_new = false;
        assert_eq!(plan(&fleet_model, None), [given(1, 1)], "it drains");
    }
}
