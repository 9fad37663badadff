//! A sector's progress as the planner sees it.

use sealyard_planner::{MachineIx, Progress, Secs};

use super::{FleetModel, SectorView, TaskView};
use crate::{ids::MachineId, sealing::SectorState};

impl FleetModel<'_> {
    /// A sector's progress; `None`: a person decides about it, or its machine is gone.
    pub(super) fn progress(&self, sector: &SectorView) -> Option<Progress> {
        let task = self.tasks.get(&sector.id).copied();
        let running = task.and_then(|task| self.under_way(task));
        let avoid = self
            .machine(task.and_then(|task| task.avoid))
            .unwrap_or(MachineIx::NONE);
        // A sector that no longer needs its files goes on, even if their machine is lost.
        let home = self
            .machine(sector.machine)
            .or(running.map(|(on, _)| on))
            .or(self.machines.values().min().copied());
        Some(match sector.state {
            SectorState::Planned => Progress::Waiting { avoid },
            SectorState::Quarantined if self.with_quarantined => Progress::Waiting { avoid },
            SectorState::PreCommit1 => match running {
                Some((on, since)) => Progress::PreCommit1 { on, since },
                None => Progress::Waiting { avoid },
            },
            SectorState::PreCommit2 => return self.progress_to_pc2(sector, running),
            SectorState::PreCommitting | SectorState::WaitSeed | SectorState::Commit1 => {
                Progress::Seed {
                    on: home?,
                    until: self.c1_done_at(sector),
                }
            }
            SectorState::Commit2 => match running {
                Some((at, since)) => Progress::Commit2 {
                    on: home?,
                    at,
                    since,
                },
                None => Progress::Sealed { on: home?, avoid },
            },
            SectorState::Verifying | SectorState::ProveCommitting => Progress::Proved {
                on: home?,
                until: Self::now() + self.fleet.delays.message,
            },
            _ => return None,
        })
    }

    /// The progress of a sector whose PC2 runs or waits. `running`: the machine that runs it, and
    /// since when.
    fn progress_to_pc2(
        &self,
        sector: &SectorView,
        running: Option<(MachineIx, Secs)>,
    ) -> Option<Progress> {
        let home = self.machine(sector.machine);
        // The state changed when PC1 ended, and the ticket was drawn before PC1 began.
        let began = self.at(sector.changed_at) - home.map_or(0, |on| self.longest_pc1(on));
        if let Some((on, since)) = running {
            return Some(Progress::PreCommit2 { on, began, since });
        }
        let fetch = self.on_the_way.get(&sector.id).copied();
        if let Some((to, since)) = fetch.and_then(|task| self.under_way(task)) {
            return Some(Progress::Moving {
                from: home?,
                to,
                began,
                since,
            });
        }
        let on = home?;
        Some(if sector.fetched && self.does_pc2(on) {
            Progress::Bound { on, began }
        } else {
            Progress::Layers {
                on,
                began,
                until: self.at(sector.moves_at),
            }
        })
    }

    /// When C1 ends, for a sector whose PreCommit, seed or C1 is awaited.
    fn c1_done_at(&self, sector: &SectorView) -> Secs {
        let (now, delays) = (Self::now(), self.fleet.delays);
        let seed = match sector.state {
            SectorState::PreCommitting => now + delays.message + delays.seed,
            SectorState::WaitSeed => (self.at(sector.changed_at) + delays.seed).max(now),
            _ => now,
        };
        seed + delays.c1
    }

    /// The machine that runs a task, and since when.
    fn under_way(&self, task: &TaskView) -> Option<(MachineIx, Secs)> {
        Some((self.machine(task.leased_to)?, self.at(task.started_at)))
    }

    fn machine(&self, id: Option<MachineId>) -> Option<MachineIx> {
        id.and_then(|id| self.machines.get(&id)).copied()
    }

    fn does_pc2(&self, machine: MachineIx) -> bool {
        let class = self.fleet.class(machine);
        class.durations.iter().any(|d| d.p2 > 0)
    }

    /// Duration of PC1 on a machine, of the size that takes longest there.
    fn longest_pc1(&self, machine: MachineIx) -> Secs {
        let class = self.fleet.class(machine);
        class.durations.iter().map(|d| d.p1).max().unwrap_or(0)
    }
}
