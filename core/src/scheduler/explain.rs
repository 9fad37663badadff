//! Explains the plan: its bottleneck, the gain from one more machine, and why a sector is on one
//! machine and not on another.

use super::{
    Commitment, FileMoves, MachineView, SectorView, Snapshot, TaskView,
    what_if::{Change, Outlook, Planned, outlook, what_if},
};
use crate::{
    clock::{Micros, SECOND},
    ids::{MachineId, PoolId, SectorId},
    sealing::{Cost, SectorState, TaskKind},
    units::Bytes,
};

/// The resource that sectors wait for most before they begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Bottleneck {
    /// No wait worth mentioning: steps and the chain's own delays take the time.
    None,
    SealingSlots,
    Gpus,
    /// A sector is owed that no machine here can seal.
    NoMachine,
}

/// The gain from one more machine like an existing one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Gain {
    pub like: String,
    pub cores: i64,
    pub memory_bytes: i64,
    pub gpus: i64,
    /// How many seconds earlier everything that is owed is done.
    pub sooner: i64,
    /// Seconds of lateness saved, over all sectors.
    pub lateness: i64,
}

/// Mean waits shorter than this many seconds are no bottleneck.
const WORTH: i64 = 600;

#[must_use]
pub const fn bottleneck(outlook: &Outlook) -> Bottleneck {
    match outlook.waits {
        _ if outlook.stuck > 0 => Bottleneck::NoMachine,
        (pc1, gpu) if pc1 < WORTH && gpu < WORTH => Bottleneck::None,
        (pc1, gpu) if pc1 >= gpu => Bottleneck::SealingSlots,
        _ => Bottleneck::Gpus,
    }
}

/// Gains from one more machine of each make, the largest first.
#[must_use]
pub fn gains(snapshot: &Snapshot) -> Vec<Gain> {
    let mut makes: Vec<&MachineView> = Vec::new();
    for machine in &snapshot.machines {
        let same = |m: &&MachineView| {
            (m.cores, m.memory_bytes, m.gpus) == (machine.cores, machine.memory_bytes, machine.gpus)
        };
        if !makes.iter().any(same) {
            makes.push(machine);
        }
    }
    let mut gains: Vec<Gain> = makes
        .into_iter()
        .map(|make| {
            let effect = what_if(snapshot, &Change::Add(make.id));
            Gain {
                like: make.name.clone(),
                cores: make.cores,
                memory_bytes: make.memory_bytes,
                gpus: make.gpus,
                sooner: (effect.before.done - effect.after.done) / SECOND,
                lateness: effect.before.lateness - effect.after.lateness,
            }
        })
        .collect();
    gains.sort_by_key(|g| (-g.lateness, -g.sooner));
    gains
}

/// Where a sector's next step goes, and why not elsewhere.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Why {
    pub state: SectorState,
    pub promised_at: Micros,
    pub step: Option<TaskKind>,
    /// Name and reason, for each machine.
    pub machines: Vec<(String, String)>,
}

/// Sectors with this number that are being sealed: at most one from each pool.
#[must_use]
pub fn numbered(snapshot: &Snapshot, number: i64) -> Vec<(PoolId, SectorId)> {
    let of = |o: &Commitment| {
        o.sectors
            .iter()
            .find(|s| s.number == number)
            .map(|s| (o.pool, s.id))
    };
    snapshot.commitments.iter().filter_map(of).collect()
}

/// `None`: it is not being sealed.
#[must_use]
pub fn why(snapshot: &Snapshot, sector: SectorId) -> Option<Why> {
    let (commitment, sector) = snapshot
        .commitments
        .iter()
        .find_map(|o| o.sectors.iter().find(|s| s.id == sector).map(|s| (o, s)))?;
    let step = next_step(sector.state);
    let machines = step.map_or_else(Vec::new, |step| {
        let next = NextStep::of(snapshot, commitment, sector, step);
        let named = |m: &MachineView| (m.name.clone(), next.reason(m));
        snapshot.machines.iter().map(named).collect()
    });
    Some(Why {
        state: sector.state,
        promised_at: commitment.promised_at,
        step,
        machines,
    })
}

/// The step that a sector's machine is to be chosen for. `None`: no machine is needed any more.
const fn next_step(state: SectorState) -> Option<TaskKind> {
    match state {
        SectorState::Planned | SectorState::PreCommit1 => Some(TaskKind::PreCommit1),
        SectorState::PreCommit2 => Some(TaskKind::PreCommit2),
        SectorState::PreCommitting
        | SectorState::WaitSeed
        | SectorState::Commit1
        | SectorState::Commit2 => Some(TaskKind::Commit2),
        _ => None,
    }
}

/// A sector's next step, and everything that decides where it goes.
struct NextStep<'s> {
    snapshot: &'s Snapshot,
    sector: &'s SectorView,
    step: TaskKind,
    cost: Cost,
    /// The step's open task, and the transfer that it waits for.
    task: Option<&'s TaskView>,
    fetch: Option<&'s TaskView>,
    outlook: Outlook,
}

impl<'s> NextStep<'s> {
    fn of(
        snapshot: &'s Snapshot,
        commitment: &Commitment,
        sector: &'s SectorView,
        step: TaskKind,
    ) -> Self {
        let of_kind = |kind| {
            let mut tasks = snapshot.tasks.iter();
            tasks.find(|t| t.sector == Some(sector.id) && t.kind == kind)
        };
        Self {
            snapshot,
            sector,
            step,
            cost: Cost::of(step, commitment.sector_bytes),
            task: of_kind(step),
            fetch: of_kind(TaskKind::Move),
            outlook: outlook(snapshot),
        }
    }

    /// Where the plan does the step.
    fn planned(&self) -> Option<&Planned> {
        let mut steps = self.outlook.steps.iter();
        steps.find(|s| s.sector == self.sector.id && s.step == self.step)
    }

    /// How many other sectors' steps of this kind the plan does on a machine by then.
    fn before(&self, machine: MachineId) -> usize {
        let Some(planned) = self.planned() else {
            return 0;
        };
        let before = |s: &&Planned| {
            s.machine == machine
                && s.step == self.step
                && s.from <= planned.from
                && s.sector != self.sector.id
        };
        self.outlook.steps.iter().filter(before).count()
    }

    /// Whether the sector's layers are on a machine, or can be moved there.
    fn can_have_layers(&self, machine: &MachineView) -> bool {
        let shows = |id: MachineId| {
            let mut machines = self.snapshot.machines.iter();
            machines.any(|m| m.id == id && m.moves != FileMoves::Never)
        };
        self.sector.machine == Some(machine.id)
            || (self.sector.machine.is_some_and(shows) && machine.moves != FileMoves::Never)
    }

    /// Why a machine does the step, or does not.
    fn reason(&self, machine: &MachineView) -> String {
        let name = self.step.name().to_uppercase();
        let before = self.before(machine.id);
        let is_leased =
            |task: Option<&TaskView>| task.is_some_and(|task| task.leased_to == Some(machine.id));
        if is_leased(self.task) {
            return format!("{name} runs here");
        }
        if is_leased(self.fetch) {
            return "its files are being moved here".to_owned();
        }
        if self.planned().is_some_and(|p| p.machine == machine.id) {
            let others = if before == 1 { "other" } else { "others" };
            return format!("{name} is planned here, behind {before} {others}");
        }
        if self.step == TaskKind::PreCommit2 && !self.can_have_layers(machine) {
            return "its layers are on another machine and cannot be moved here".to_owned();
        }
        if machine.keeps {
            return "it only stores sealed sectors".to_owned();
        }
        if !machine.takes_new {
            return "it is draining".to_owned();
        }
        if self.task.is_some_and(|t| t.avoid == Some(machine.id)) {
            return format!("{name} failed there");
        }
        lacking(machine, &self.cost).map_or_else(
            || {
                format!(
                    "it is suitable, but {before} steps with earlier promises or a better fit \
                     go there first"
                )
            },
            |what| format!("too small: {what}"),
        )
    }
}

fn lacking(machine: &MachineView, cost: &Cost) -> Option<String> {
    if machine.cores < cost.cores {
        Some(format!(
            "{} cores, {} are needed",
            machine.cores, cost.cores
        ))
    } else if machine.memory_bytes < cost.memory_bytes {
        Some(format!(
            "{} of memory, {} are needed",
            Bytes(machine.memory_bytes),
            Bytes(cost.memory_bytes)
        ))
    } else if machine.disk_free_bytes < cost.scratch_bytes {
        Some(format!(
            "{} of disk free, {} are needed",
            Bytes(machine.disk_free_bytes),
            Bytes(cost.scratch_bytes)
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::HOUR,
        scheduler::{
            History,
            fixture::{NOW, commitment, machine, snapshot},
        },
    };

    /// Three contracts. PC1 takes four hours, and the only machine that is large enough does one at
    /// a time.
    fn fleet_model() -> Snapshot {
        let mut contracts: Vec<_> = (1..=3).map(|id| commitment(id, 5 + id)).collect();
        let (contract, task) = &mut contracts[0];
        contract.sectors[0].machine = Some(MachineId(1));
        *task = TaskView {
            leased_to: Some(MachineId(1)),
            started_at: NOW - HOUR,
            ..task.clone()
        };
        let mut tiny = machine(2, 8);
        tiny.memory_bytes = 1 << 20;
        let mut drains = machine(3, 8);
        drains.takes_new = false;
        let slow = History::of(&[(TaskKind::PreCommit1, 2048, MachineId(1), 4 * 3_600_000); 5]);
        Snapshot {
            history: slow,
            ..snapshot(vec![machine(1, 2), tiny, drains], contracts, Vec::new())
        }
    }

    #[test]
    fn each_machine_explains_why_it_has_the_sector_or_not() {
        let fleet_model = fleet_model();
        let lines = |sector| {
            why(&fleet_model, SectorId(sector))
                .unwrap()
                .machines
                .into_iter()
                .map(|(_, why)| why)
                .collect::<Vec<_>>()
        };
        assert_eq!(lines(1)[0], "PC1 runs here");
        let last = lines(3);
        assert_eq!(last[0], "PC1 is planned here, behind 2 others");
        assert!(
            last[1].starts_with("too small: 1 MiB of memory"),
            "{last:?}"
        );
        assert_eq!(last[2], "it is draining");
        assert!(why(&fleet_model, SectorId(9)).is_none());
    }

    #[test]
    fn sector_numbers_are_distinguished_by_their_pool() {
        let mut fleet_model = fleet_model();
        (
            fleet_model.commitments[1].pool,
            fleet_model.commitments[1].sectors[0].number,
        ) = (PoolId(2), 1);
        assert_eq!(
            numbered(&fleet_model, 1),
            [(PoolId(1), SectorId(1)), (PoolId(2), SectorId(2))]
        );
        assert_eq!(
            why(&fleet_model, SectorId(2)).unwrap().machines[0].1,
            "PC1 is planned here, behind 1 other"
        );
    }

    #[test]
    fn the_bottleneck_is_named_and_the_largest_gain_comes_first() {
        let mut fleet_model = fleet_model();
        let now = outlook(&fleet_model);
        assert_eq!(
            bottleneck(&now),
            Bottleneck::SealingSlots,
            "{:?}",
            now.waits
        );
        let gains = gains(&fleet_model);
        assert_eq!(gains.len(), 3, "one of each make");
        assert!(
            gains[0].sooner > 3 * 3600 && gains[0].like == "m3",
            "a free machine of 8 cores: {gains:?}"
        );
        assert!(
            gains.iter().find(|g| g.like == "m2").unwrap().sooner == 0,
            "who is too small buys nothing: {gains:?}"
        );
        fleet_model.commitments.truncate(1);
        fleet_model.tasks.truncate(1);
        assert_eq!(bottleneck(&outlook(&fleet_model)), Bottleneck::None);
        fleet_model.machines.truncate(2);
        fleet_model.machines.remove(0);
        assert_eq!(bottleneck(&outlook(&fleet_model)), Bottleneck::NoMachine);
    }
}
