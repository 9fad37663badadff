//! Chooses storage machines for sealed sectors that cannot stay where they were made.

use std::collections::HashMap;

use super::{FileMoves, MachineView, Snapshot};
use crate::{
    ids::{MachineId, SectorId},
    sealing::TaskKind,
};

/// How many sealed sectors a sealing machine sends at a time. Layers are more urgent.
const FROM_ONE: usize = 1;
/// How many sectors a storage machine fetches at a time.
pub(super) const TO_ONE: usize = 4;

/// Storage machines, which keep sectors that others seal.
pub(super) fn keepers(snapshot: &Snapshot) -> impl Iterator<Item = &MachineView> {
    snapshot
        .machines
        .iter()
        .filter(|m| m.keeps && m.takes_new && m.moves != FileMoves::Never)
}

/// Free bytes on each storage machine, less the sectors that are on their way to it.
pub(super) fn rooms(snapshot: &Snapshot) -> HashMap<MachineId, i64> {
    let left = |m: &MachineView| m.disk_free_bytes.min(m.disk_bytes - m.stored_bytes).max(0);
    let mut rooms: HashMap<MachineId, i64> = keepers(snapshot).map(|m| (m.id, left(m))).collect();
    for fetch in snapshot.tasks.iter().filter(|t| t.kind == TaskKind::Store) {
        if let Some(room) = fetch.leased_to.and_then(|to| rooms.get_mut(&to)) {
            *room -= fetch.sector_bytes;
        }
    }
    rooms
}

/// The sealed sectors that begin to move now, each with its target: the emptiest storage machine
/// that can fetch one more.
#[must_use]
pub fn storing(snapshot: &Snapshot) -> Vec<(SectorId, MachineId)> {
    let mut rooms = rooms(snapshot);
    let under_way = snapshot
        .tasks
        .iter()
        .filter(|t| t.kind == TaskKind::Store && t.leased_to.is_some());
    let (mut coming, mut leaving): (HashMap<MachineId, usize>, HashMap<MachineId, usize>) =
        (HashMap::new(), HashMap::new());
    for task in under_way {
        task.leased_to
            .into_iter()
            .for_each(|to| *coming.entry(to).or_default() += 1);
        task.source_machine
            .into_iter()
            .for_each(|from| *leaving.entry(from).or_default() += 1);
    }
    let shows = |id: MachineId| {
        snapshot
            .machines
            .iter()
            .any(|m| m.id == id && m.moves == FileMoves::Now)
    };
    let mut begun = Vec::new();
    for sector in snapshot.to_store.iter().filter(|s| shows(s.from)) {
        if leaving.get(&sector.from).is_some_and(|n| *n >= FROM_ONE) {
            continue;
        }
        let open = keepers(snapshot)
            .filter(|m| m.moves == FileMoves::Now && coming.get(&m.id).is_none_or(|n| *n < TO_ONE));
        let room_of = |m: &MachineView| rooms.get(&m.id).copied().unwrap_or(0);
        let best = open
            .filter(|m| room_of(m) >= sector.bytes)
            .max_by_key(|m| (room_of(m), std::cmp::Reverse(m.id)));
        let Some(to) = best.map(|m| m.id) else {
            continue;
        };
        *coming.entry(to).or_default() += 1;
        *leaving.entry(sector.from).or_default() += 1;
        rooms.entry(to).and_modify(|room| *room -= sector.bytes);
        begun.push((sector.sector, to));
    }
    begun
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        scheduler::fixture::{GIB, NOW, machine, snapshot, task},
        sealing::ToStore,
    };

    /// Machines 1 and 2 seal, 3 and 4 are for storage. Sectors 1 to `n` of 32 GiB lie on the first.
    fn fleet_model(n: i64) -> Snapshot {
        let mut fleet_model = snapshot(
            (1..=4).map(|id| machine(id, 8)).collect(),
            Vec::new(),
            Vec::new(),
        );
        for (at, machine) in fleet_model.machines.iter_mut().enumerate() {
            (machine.moves, machine.keeps) = (FileMoves::Now, at >= 2);
        }
        let sector = |id| ToStore {
            sector: SectorId(id),
            from: MachineId(1),
            bytes: 32 * GIB,
        };
        fleet_model.to_store = (1..=n).map(sector).collect();
        fleet_model
    }

    #[test]
    fn a_machine_sends_one_sector_at_a_time_to_the_emptiest_store() {
        let mut fleet_model = fleet_model(3);
        fleet_model.machines[2].disk_free_bytes = 900 * GIB;
        assert_eq!(storing(&fleet_model), [(SectorId(1), MachineId(4))]);
        fleet_model.to_store[2].from = MachineId(2);
        assert_eq!(
            storing(&fleet_model),
            [(SectorId(1), MachineId(4)), (SectorId(3), MachineId(4))]
        );
        let mut under_way = task(9, TaskKind::Store, NOW);
        (
            under_way.leased_to,
            under_way.source_machine,
            under_way.sector_bytes,
        ) = (Some(MachineId(4)), Some(MachineId(1)), 200 * GIB);
        fleet_model.tasks.push(under_way);
        assert_eq!(
            storing(&fleet_model),
            [(SectorId(3), MachineId(3))],
            "the first one gives already; the fourth will be fuller"
        );
    }

    #[test]
    fn no_sector_goes_to_a_store_that_is_full_or_unreachable() {
        let changed = |change: fn(&mut Snapshot)| {
            let mut fleet_model = fleet_model(1);
            fleet_model.machines.pop();
            change(&mut fleet_model);
            storing(&fleet_model).len()
        };
        assert_eq!(changed(|_| ()), 1);
        assert_eq!(changed(|h| h.machines[2].disk_free_bytes = 31 * GIB), 0);
        assert_eq!(
            changed(|h| h.machines[2].stored_bytes = 1000 * GIB),
            0,
            "what is being fetched is on no disk yet"
        );
        assert_eq!(changed(|h| h.machines[2].takes_new = false), 0);
        assert_eq!(changed(|h| h.machines[2].moves = FileMoves::NotNow), 0);
        assert_eq!(changed(|h| h.machines[0].moves = FileMoves::NotNow), 0);
        assert_eq!(changed(|h| h.machines[2].keeps = false), 0);
    }
}
