//! The outlook of the fleet, and how a change would alter it.

use std::collections::BTreeMap;

use sealyard_planner::{MachineIx, Row, Secs};

use super::{Commitment, FleetModel, MachineView, SectorView, Snapshot};
use crate::{
    clock::{MINUTE, Micros},
    ids::{MachineId, PoolId, SectorId},
    sealing::{self, Event, TaskKind, Transition},
};

/// One step in the plan.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Planned {
    pub machine: MachineId,
    pub sector: SectorId,
    pub number: i64,
    pub step: TaskKind,
    pub from: Micros,
    pub until: Micros,
}

/// The plan, simulated to its end.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Outlook {
    /// When the last sector of each contract is expected to be active.
    pub contracts: BTreeMap<i64, Micros>,
    /// The same for orders that are not paid yet.
    pub orders: BTreeMap<i64, Micros>,
    pub steps: Vec<Planned>,
    /// Mean seconds that a sector which has not begun will wait for a PC1 slot, and for a GPU.
    pub waits: (i64, i64),
    /// Seconds of lateness, summed over all sectors.
    pub lateness: i64,
    /// Number of sectors that can never be sealed here.
    pub stuck: u64,
    /// When everything that is owed is active.
    pub done: Micros,
}

/// Something that might happen.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    Drain(MachineId),
    Fail(MachineId),
    /// One more machine like this one.
    Add(MachineId),
    Order {
        pool: PoolId,
        sector_bytes: i64,
        sectors: i64,
    },
}

/// Outlooks before and after a change.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Effect {
    pub before: Outlook,
    pub after: Outlook,
}

impl Effect {
    /// Contracts whose expected date moves by more than a minute: before and after.
    pub fn moved(&self) -> impl Iterator<Item = (i64, Micros, Option<Micros>)> {
        self.before.contracts.iter().filter_map(|(id, before)| {
            let after = self.after.contracts.get(id).copied();
            let still = after.is_some_and(|after| (after - before).abs() <= MINUTE);
            (!still).then_some((*id, *before, after))
        })
    }
}

/// Simulates the fleet with usual durations until all work is done.
#[must_use]
pub fn outlook(snapshot: &Snapshot) -> Outlook {
    let fleet_model = FleetModel::for_dates(snapshot);
    let mut simulation = fleet_model.world();
    let finished = simulation.world.run();
    let mut last = FleetModel::now();
    let mut outlook = Outlook {
        stuck: if finished { 0 } else { simulation.world.left() },
        ..Outlook::default()
    };
    for (order, commitment) in &simulation.orders {
        let Some(done) = simulation.world.done_at(*order) else {
            continue;
        };
        last = last.max(done);
        let dates = if commitment.held == 0 {
            &mut outlook.contracts
        } else {
            &mut outlook.orders
        };
        dates.insert(commitment.id, fleet_model.moment(done));
    }
    outlook.done = fleet_model.moment(last);
    outlook.lateness = simulation.world.cost().tardiness;
    let (mut pc1, mut gpu, mut count) = (0, 0, 0);
    for (sector, view) in &simulation.sectors {
        let Some(row) = simulation.world.sectors.get(*sector).map(|s| s.row) else {
            continue;
        };
        if row.s1 >= FleetModel::now() && row.s3 >= 0 {
            pc1 += i64::from(row.s1 - FleetModel::now());
            gpu += i64::from(row.s2 - row.e1) + i64::from(row.s3 - row.c1e);
            count += 1;
        }
        outlook.steps.extend(steps(&row, view, &fleet_model));
    }
    outlook.waits = (pc1 / count.max(1), gpu / count.max(1));
    outlook.steps.sort_by_key(|s| (s.machine, s.from, s.sector));
    outlook
}

fn steps(
    row: &Row,
    sector: &SectorView,
    fleet_model: &FleetModel<'_>,
) -> impl Iterator<Item = Planned> {
    let parts: [(TaskKind, MachineIx, Secs, Secs); 4] = [
        (TaskKind::PreCommit1, row.m1, row.s1, row.e1),
        (TaskKind::Move, row.m2, row.xs, row.xe),
        (TaskKind::PreCommit2, row.m2, row.s2, row.e2),
        (TaskKind::Commit2, row.m3, row.s3, row.e3),
    ];
    let (sector, number) = (sector.id, sector.number);
    parts
        .into_iter()
        .filter_map(move |(step, machine, from, until)| {
            let machine = fleet_model
                .machine_id(machine)
                .filter(|_| from >= 0 && until > from && until > FleetModel::now())?;
            Some(Planned {
                machine,
                sector,
                number,
                step,
                from: fleet_model.moment(from),
                until: fleet_model.moment(until),
            })
        })
}

/// Compares the fleet as it is with the fleet after a change.
#[must_use]
pub fn what_if(snapshot: &Snapshot, change: &Change) -> Effect {
    let mut other = snapshot.clone();
    match change {
        Change::Drain(machine) => other
            .machines
            .iter_mut()
            .filter(|m| m.id == *machine)
            .for_each(|m| m.takes_new = false),
        Change::Fail(machine) => lose(&mut other, *machine),
        Change::Add(machine) => other.machines.extend(one_more(snapshot, *machine)),
        Change::Order {
            pool,
            sector_bytes,
            sectors,
        } => other.commitments.push(Commitment {
            id: i64::MAX,
            pool: *pool,
            sector_bytes: *sector_bytes,
            promised_at: after_all_promises(snapshot),
            held: *sectors,
            sectors: Vec::new(),
        }),
    }
    Effect {
        before: outlook(snapshot),
        after: outlook(&other),
    }
}

/// One more machine like an existing one: as fast, and empty.
fn one_more(snapshot: &Snapshot, like: MachineId) -> Option<MachineView> {
    let machines = &snapshot.machines;
    let next = machines.iter().map(|m| m.id.0).max().unwrap_or(0) + 1;
    let like = machines.iter().find(|m| m.id == like)?.clone();
    Some(MachineView {
        id: MachineId(next),
        takes_new: true,
        disk_free_bytes: like.disk_bytes,
        stored_bytes: 0,
        leftover_bytes: 0,
        ..like
    })
}

/// A date behind everything that is promised.
fn after_all_promises(snapshot: &Snapshot) -> Micros {
    let promised = snapshot.commitments.iter().map(|o| o.promised_at);
    promised.fold(snapshot.now, Micros::max) + 1
}

/// Removes a machine with everything on it. Its sectors begin again, except those whose PreCommit
/// or ProveCommit is on its way.
fn lose(snapshot: &mut Snapshot, machine: MachineId) {
    snapshot.machines.retain(|m| m.id != machine);
    for sector in snapshot
        .commitments
        .iter_mut()
        .flat_map(|o| &mut o.sectors)
        .filter(|s| s.machine == Some(machine))
    {
        if let Transition::To(state) = sealing::next(sector.state, Event::MachineLost) {
            (sector.state, sector.machine) = (state, None);
        }
    }
    snapshot
        .tasks
        .retain(|t| t.leased_to != Some(machine) && t.pinned_to != Some(machine));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{HOUR, SECOND},
        scheduler::{
            History, TaskView,
            fixture::{NOW, commitment, machine, snapshot},
        },
        sealing::SectorState,
    };

    /// PC1 takes four hours everywhere.
    fn slow(machines: i64) -> History {
        let steps = (1..=machines)
            .flat_map(|id| [(TaskKind::PreCommit1, 2048, MachineId(id), 4 * 3_600_000); 5]);
        History::of(&steps.collect::<Vec<_>>())
    }

    /// Four contracts on two machines that do one PC1 at a time. The first contract's PC1 has run
    /// on the first machine for an hour.
    fn fleet_model() -> Snapshot {
        let mut contracts: Vec<_> = (1..=4).map(|id| commitment(id, 9 + id)).collect();
        let (contract, task) = &mut contracts[0];
        contract.sectors[0].machine = Some(MachineId(1));
        *task = TaskView {
            leased_to: Some(MachineId(1)),
            started_at: NOW - HOUR,
            ..task.clone()
        };
        // A core is kept for C2.
        Snapshot {
            history: slow(2),
            ..snapshot(vec![machine(1, 2), machine(2, 2)], contracts, Vec::new())
        }
    }

    fn hours(outlook: &Outlook) -> Vec<i64> {
        outlook
            .contracts
            .values()
            .map(|at| (at - NOW) / HOUR)
            .collect()
    }

    #[test]
    fn running_steps_survive_a_drain_and_begin_again_after_a_loss() {
        let fleet_model = fleet_model();
        let drained = what_if(&fleet_model, &Change::Drain(MachineId(1)));
        let (before, after) = (hours(&drained.before), hours(&drained.after));
        assert_eq!(after[0], before[0], "three hours are left of it, as before");
        assert!(
            after[3] > before[3] && drained.after.stuck == 0,
            "everything else is done by the other one: {after:?}"
        );
        let failed = what_if(&fleet_model, &Change::Fail(MachineId(1)));
        assert!(
            hours(&failed.after)[0] > before[0],
            "what ran there begins again: {:?}",
            failed.after
        );
        assert!(failed.moved().any(|(contract, ..)| contract == 1));
    }

    #[test]
    fn a_sector_on_its_way_to_the_chain_survives_the_loss_of_its_machine() {
        let mut fleet_model = fleet_model();
        fleet_model
            .tasks
            .retain(|task| task.sector != Some(fleet_model.commitments[0].sectors[0].id));
        fleet_model.commitments[0].sectors[0].state = SectorState::ProveCommitting;
        let failed = what_if(&fleet_model, &Change::Fail(MachineId(1)));
        assert_eq!(
            hours(&failed.after)[0],
            hours(&failed.before)[0],
            "it may be on chain already"
        );
        fleet_model.commitments[0].sectors[0].state = SectorState::Verifying;
        let failed = what_if(&fleet_model, &Change::Fail(MachineId(1)));
        assert!(
            hours(&failed.after)[0] > hours(&failed.before)[0],
            "a proof of what is lost is worth nothing"
        );
    }

    #[test]
    fn an_added_machine_is_as_fast_as_its_model_and_empty() {
        let mut fleet_model = fleet_model();
        fleet_model.machines[1].disk_free_bytes = 0;
        fleet_model.machines[1].stored_bytes = fleet_model.machines[1].disk_bytes;
        let added = what_if(&fleet_model, &Change::Add(MachineId(2)));
        assert!(
            added.after.done < added.before.done,
            "a full machine's like is not full: {:?}",
            hours(&added.after)
        );
        let quick = History::of(&[(TaskKind::PreCommit1, 2048, MachineId(1), 3_600_000); 5]);
        let fleet_model = Snapshot {
            history: quick,
            ..fleet_model
        };
        let like_quick = what_if(&fleet_model, &Change::Add(MachineId(1)));
        let first = like_quick
            .after
            .steps
            .iter()
            .filter(|s| s.step == TaskKind::PreCommit1 && s.machine == MachineId(3))
            .map(|s| s.until - s.from)
            .min();
        assert_eq!(first, Some(HOUR / SECOND * SECOND));
    }

    #[test]
    fn a_quarantined_sector_is_still_owed() {
        let mut fleet_model = fleet_model();
        fleet_model
            .tasks
            .retain(|task| task.sector != Some(fleet_model.commitments[3].sectors[0].id));
        fleet_model.commitments[3].sectors[0].state = SectorState::Quarantined;
        let dates = outlook(&fleet_model).contracts;
        assert!(dates.contains_key(&4), "its contract has a date: {dates:?}");
    }
}
