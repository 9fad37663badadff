//! Explains the plan: its bottleneck, the gain from one more machine, and why a sector is on one
//! machine and not on another.

use super::{
    Commitment, FileMoves, MachineView, Snapshot,
    what_if::{Change, Outlook, outlook, what_if},
};
use crate::{
    clock::{Micros, SECOND},
    ids::{MachineId, PoolId, SectorId},
    sealing::{Cost, SectorState, TaskKind},
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
    let mut makes: Vec<&super::MachineView> = Vec::new();
    for machine in &snapshot.machines {
        let same =
            |m: &&super::MachineView| (m.cores, m.memory_bytes, m.gpus) == (machine.cores, machine.memory_bytes, machine.gpus);
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
    let of = |o: &Commitment| o.sectors.iter().find(|s| s.number == number).map(|s| (o.pool, s.id));
    snapshot.commitments.iter().filter_map(of).collect()
}

/// `None`: it is not being sealed.
#[must_use]
pub fn why(snapshot: &Snapshot, sector: SectorId) -> Option<Why> {
    let (commitment, sector) =
        snapshot.commitments.iter().find_map(|o| o.sectors.iter().find(|s| s.id == sector).map(|s| (o, s)))?;
    let step = match sector.state {
        SectorState::Planned | SectorState::PreCommit1 => Some(TaskKind::PreCommit1),
        SectorState::PreCommit2 => Some(TaskKind::PreCommit2),
        SectorState::PreCommitting | SectorState::WaitSeed | SectorState::Commit1 | SectorState::Commit2 => {
            Some(TaskKind::Commit2)
        }
        _ => None,
    };
    let mut why = Why { state: sector.state, promised_at: commitment.promised_at, step, machines: Vec::new() };
    let Some(step) = step else { return Some(why) };
    let of_kind = |kind| snapshot.tasks.iter().find(|t| t.sector == Some(sector.id) && t.kind == kind);
    let (task, fetch) = (of_kind(step), of_kind(TaskKind::Move));
    let outlook = outlook(snapshot);
    let name = step.name().to_uppercase();
    let shows = |id: MachineId| snapshot.machines.iter().any(|m| m.id == id && m.moves != FileMoves::Never);
    let moves = |from: Option<MachineId>, to: &MachineView| from.is_some_and(shows) && to.moves != FileMoves::Never;
    let planned = outlook.steps.iter().find(|s| s.sector == sector.id && s.step == step);
    for machine in &snapshot.machines {
        let before = outlook.steps.iter().filter(|s| s.machine == machine.id && s.step == step);
        let before = before.filter(|s| planned.is_some_and(|p| s.from <= p.from && s.sector != sector.id)).count();
        let text = match (planned, lacking(machine, &Cost::of(step, commitment.sector_bytes))) {
            _ if task.is_some_and(|t| t.leased_to == Some(machine.id)) => format!("{name} runs here"),
            _ if fetch.is_some_and(|t| t.leased_to == Some(machine.id)) => "its files are being moved here".to_owned(),
            (Some(p), _) if p.machine == machine.id => {
                format!("{name} is planned here, behind {before} {}", if before == 1 { "other" } else { "others" })
            }
            _ if step == TaskKind::PreCommit2 && sector.machine != Some(machine.id) && !moves(sector.machine, machine) => {
                "its layers are on another machine and cannot be moved here".to_owned()
            }
            _ if machine.keeps => "it only stores sealed sectors".to_owned(),
            _ if !machine.takes_new => "it is draining".to_owned(),
            _ if task.is_some_and(|t| t.avoid == Some(machine.id)) => format!("{name} failed there"),
            (_, Some(what)) => format!("too small: {what}"),
            _ => format!("it is suitable, but {before} steps with earlier promises or a better fit go there first"),
        };
        why.machines.push((machine.name.clone(), text));
    }
    Some(why)
}

fn lacking(machine: &MachineView, cost: &Cost) -> Option<String> {
    if machine.cores < cost.cores {
        Some(format!("{} cores, {} are needed", machine.cores, cost.cores))
    } else if machine.memory_bytes < cost.memory_bytes {
        Some(format!(
            "{} of memory, {} are needed",
            crate::units::Bytes(machine.memory_bytes),
            crate::units::Bytes(cost.memory_bytes)
        ))
    } else if machine.disk_free_bytes < cost.scratch_bytes {
        Some(format!(
            "{} of disk free, {} are needed",
            crate::units::Bytes(machine.disk_free_bytes),
            crate::units::Bytes(cost.scratch_bytes)
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
        ids::MachineId,
        scheduler::{
            History, TaskView,
            fixture::{NOW, commitment, machine, snapshot},
        },
    };

    /// Three contracts. PC1 takes four hours, and the only machine that is large enough does one at
    /// a time.
    fn fleet_model() -> Snapshot {
        let mut contracts: Vec<_> = (1..=3).map(|id| commitment(id, 5 + id)).collect();
        let (contract, task) = &mut contracts[0];
        contract.sectors[0].machine = Some(MachineId(1));
        *task = TaskView { leased_to: Some(MachineId(1)), started_at: NOW - HOUR, ..task.clone() };
        let mut tiny = machine(2, 8);
        tiny.memory_bytes = 1 << 20;
        let mut drains = machine(3, 8);
        drains.takes_new = false;
        let slow = History::of(&[(TaskKind::PreCommit1, 2048, MachineId(1), 4 * 3_600_000); 5]);
        Snapshot { history: slow, ..snapshot(vec![machine(1, 2), tiny, drains], contracts, Vec::new()) }
    }

    #[test]
    fn each_machine_explains_why_it_has_the_sector_or_not() {
        let fleet_model = fleet_model();
        let lines =
            |sector| why(&fleet_model, SectorId(sector)).unwrap().machines.into_iter().map(|(_, why)| why).collect::<Vec<_>>();
        assert_eq!(lines(1)[0], "PC1 runs here");
        let last = lines(3);
        assert_eq!(last[0], "PC1 is planned here, behind 2 others");
        assert!(last[1].starts_with("too small: 1 MiB of memory"), "{last:?}");
        assert_eq!(last[2], "it is draining");
        assert!(why(&fleet_model, SectorId(9)).is_none());
    }

    #[test]
    fn sector_numbers_are_distinguished_by_their_pool() {
        let mut fleet_model = fleet_model();
        (fleet_model.commitments[1].pool, fleet_model.commitments[1].sectors[0].number) = (PoolId(2), 1);
        assert_eq!(numbered(&fleet_model, 1), [(PoolId(1), SectorId(1)), (PoolId(2), SectorId(2))]);
        assert_eq!(why(&fleet_model, SectorId(2)).unwrap().machines[0].1, "PC1 is planned here, behind 1 other");
    }

    #[test]
    fn the_bottleneck_is_named_and_the_largest_gain_comes_first() {
        let mut fleet_model = fleet_model();
        let now = outlook(&fleet_model);
        assert_eq!(bottleneck(&now), Bottleneck::SealingSlots, "{:?}", now.waits);
        let gains = gains(&fleet_model);
        assert_eq!(gains.len(), 3, "one of each make");
        assert!(gains[0].sooner > 3 * 3600 && gains[0].like == "m3", "a free machine of 8 cores: {gains:?}");
        assert!(gains.iter().find(|g| g.like == "m2").unwrap().sooner == 0, "who is too small buys nothing: {gains:?}");
        fleet_model.commitments.truncate(1);
        fleet_model.tasks.truncate(1);
        assert_eq!(bottleneck(&outlook(&fleet_model)), Bottleneck::None);
        fleet_model.machines.truncate(2);
        fleet_model.machines.remove(0);
        assert_eq!(bottleneck(&outlook(&fleet_model)), Bottleneck::NoMachine);
    }
}
