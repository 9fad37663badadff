//! Fixtures for tests: machines with 8 GiB of memory and 1 TiB of disk, and contracts of one sector
//! of 2 KiB.

use super::{Assignment, Commitment, FileMoves, MachineView, SectorView, Snapshot, TaskView};
use crate::{
    clock::{DAY, Micros},
    ids::{MachineId, PoolId, SectorId, TaskId},
    sealing::{Cost, MIB, SectorState, TaskKind},
};

pub const NOW: Micros = 1_790_000_000_000_000;
pub const GIB: i64 = 1024 * MIB;

pub fn machine(id: i64, cores: i64) -> MachineView {
    MachineView {
        id: MachineId(id),
        name: format!("m{id}"),
        takes_new: true,
        cores,
        memory_bytes: 8 * GIB,
        disk_bytes: 1 << 40,
        disk_free_bytes: 1 << 40,
        stored_bytes: 0,
        leftover_bytes: 0,
        gpus: 0,
        moves: FileMoves::Never,
        keeps: false,
        quick_as: MachineId(id),
        is_heard: true,
    }
}

/// A machine for large sectors, with an empty disk of this size.
pub fn large_machine(id: i64, cores: i64, disk_bytes: i64) -> MachineView {
    MachineView {
        memory_bytes: 1 << 40,
        disk_bytes,
        disk_free_bytes: disk_bytes,
        ..machine(id, cores)
    }
}

/// A task that begins on a machine.
pub fn given(task: i64, machine: i64) -> Assignment {
    Assignment {
        task: TaskId(task),
        machine: MachineId(machine),
    }
}

pub fn task(id: i64, kind: TaskKind, due_at: i64) -> TaskView {
    let (cost, id) = (Cost::of(kind, 2048), TaskId(id));
    let (pinned_to, avoid, source_machine, leased_to) = (None, None, None, None);
    TaskView {
        id,
        kind,
        sector: None,
        sector_bytes: 2048,
        cost,
        due_at,
        pinned_to,
        avoid,
        source_machine,
        leased_to,
        started_at: NOW,
    }
}

/// A contract of one sector whose PC1 waits, promised in `days`.
pub fn commitment(id: i64, days: i64) -> (Commitment, TaskView) {
    let state = SectorState::PreCommit1;
    let sector = SectorView {
        id: SectorId(id),
        number: id,
        state,
        machine: None,
        changed_at: NOW,
        setback: None,
        planned_begin: None,
        fetched: false,
        moves_at: 0,
    };
    let promised_at = NOW + days * DAY;
    let commitment = Commitment {
        id,
        pool: PoolId(1),
        sector_bytes: 2048,
        promised_at,
        held: 0,
        sectors: vec![sector],
    };
    (
        commitment,
        TaskView {
            sector: Some(SectorId(id)),
            ..task(id, TaskKind::PreCommit1, promised_at)
        },
    )
}

pub fn snapshot(
    machines: Vec<MachineView>,
    contracts: Vec<(Commitment, TaskView)>,
    beside: Vec<TaskView>,
) -> Snapshot {
    let (commitments, mut tasks): (Vec<Commitment>, Vec<TaskView>) = contracts.into_iter().unzip();
    tasks.extend(beside);
    Snapshot {
        now: NOW,
        machines,
        tasks,
        commitments,
        sizes: vec![2048],
        epoch_seconds: 30,
        ..Snapshot::default()
    }
}

/// A machine whose disk holds the PC1 of one 32 GiB sector beside `sectors` sealed ones.
pub fn one_disk(sectors: i64, gib_stored: i64) -> Snapshot {
    let scratch = Cost::of(TaskKind::PreCommit1, 32 * GIB).scratch_bytes;
    let mut machine = large_machine(1, 64, scratch + sectors * 32 * GIB);
    machine.stored_bytes = gib_stored * GIB;
    machine.disk_free_bytes -= machine.stored_bytes;
    Snapshot {
        sizes: vec![32 * GIB],
        ..snapshot(vec![machine], Vec::new(), Vec::new())
    }
}
