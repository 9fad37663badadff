//! Conditions that hold after every event.

use std::collections::BTreeMap;

use sealyard_core::{
    capacity, fleet, scheduler,
    sealing::{self, Sector, SectorState, TaskHead},
    store::{AnyConnection, DbFault, DbResult},
};

use super::Fixture;

impl Fixture<'_> {
    /// Everything that an event without effect leaves unchanged.
    pub(super) fn fingerprint(&self) -> Vec<(i64, &'static str, i64)> {
        let sectors =
            |conn: &mut AnyConnection| sealing::all_sectors(conn, i64::MAX).map_err(DbFault::from);
        let sectors = self
            .db
            .read(sectors)
            .unwrap()
            .into_iter()
            .map(|s| (s.id.0, s.state.name(), s.failures));
        sectors
            .chain(
                self.open_tasks()
                    .into_iter()
                    .map(|t| (-t.id.0, t.state.name(), t.fence)),
            )
            .collect()
    }

    pub(super) fn assert_sound(&self) {
        let check = |conn: &mut AnyConnection| {
            assert_no_pool_is_oversold(conn)?;
            assert_cores_suffice(conn, self.now)?;
            Ok::<_, DbFault>((
                sealing::all_sectors(conn, i64::MAX)?,
                sealing::open_tasks(conn)?,
            ))
        };
        let (sectors, open) = self.db.read(check).unwrap();
        let mut by_sector: BTreeMap<i64, Vec<&TaskHead>> = BTreeMap::new();
        for task in &open {
            if let Some(sector) = task.sector_id {
                by_sector.entry(sector.0).or_default().push(task);
            }
        }
        for sector in sectors {
            let tasks = by_sector.remove(&sector.id.0).unwrap_or_default();
            assert_has_its_step(&sector, &tasks);
            assert_finalizes_once(&sector, &tasks);
            assert_moves_soundly(&sector, &tasks);
        }
    }
}

fn assert_no_pool_is_oversold(conn: &mut AnyConnection) -> DbResult<()> {
    for pool in capacity::pools(conn)? {
        let c = capacity::capacity(conn, pool.id)?;
        assert!(
            c.holds() && c.free >= 0 && c.held >= 0 && c.sold >= 0,
            "{c:?}"
        );
    }
    Ok(())
}

fn assert_cores_suffice(conn: &mut AnyConnection, now: i64) -> DbResult<()> {
    let machines = fleet::machines(conn)?;
    let snapshot = scheduler::load(conn, now)?;
    for machine in &machines {
        let here = snapshot
            .tasks
            .iter()
            .filter(|t| t.leased_to == Some(machine.id));
        let cores: i64 = here.map(|t| t.cost.cores).sum();
        assert!(
            cores <= machine.cores,
            "{cores} of {} cores of {} are in use",
            machine.cores,
            machine.name
        );
    }
    Ok(())
}

fn assert_has_its_step(sector: &Sector, tasks: &[&TaskHead]) {
    let works = [
        SectorState::PreCommit1,
        SectorState::PreCommit2,
        SectorState::Commit1,
        SectorState::Commit2,
    ];
    let wanted = usize::from(works.contains(&sector.state));
    // A sector may become faulty, and count again, before its files are finalized.
    let found = tasks
        .iter()
        .filter(|t| !["finalize", "move", "store"].contains(&t.kind.name()))
        .count();
    assert_eq!(
        found, wanted,
        "sector {} in {} has {found} open steps",
        sector.number, sector.state
    );
}

fn assert_finalizes_once(sector: &Sector, tasks: &[&TaskHead]) {
    let tidied = tasks.iter().filter(|t| t.kind.name() == "finalize").count();
    assert!(
        tidied <= 1 && (tidied == 1 || sector.state != SectorState::Finalizing),
        "sector {}",
        sector.number
    );
}

/// Layers move to one machine at a time, while PC2 waits at the sector's own.
fn assert_moves_soundly(sector: &Sector, tasks: &[&TaskHead]) {
    let of_kind = |kind: &'static str| tasks.iter().filter(move |t| t.kind.name() == kind);
    let pc2_waits =
        of_kind("pc2").all(|t| t.state.name() == "ready" && t.pinned_to == sector.machine_id);
    for fetch in of_kind("move") {
        let from_elsewhere =
            fetch.state.name() == "leased" && fetch.machine_id != sector.machine_id;
        assert!(
            from_elsewhere && pc2_waits && sector.state == SectorState::PreCommit2,
            "sector {}",
            sector.number
        );
    }
    assert!(
        of_kind("move").count() <= 1,
        "sector {} moves to two machines",
        sector.number
    );
}
