//! How long steps really take here: measured on this fleet, or published figures until there are
//! enough measurements.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use diesel::prelude::*;

use crate::{
    clock::{DAY, Micros, SECOND},
    fleet::{Breakdowns, breakdowns, check::MOST_MS},
    ids::{MachineId, PoolId},
    sealing::{TaskKind, TaskState, typical_seconds},
    store::{AnyConnection, DbResult, schema::tasks},
};
use sealyard_planner::{FailureModel, Secs, StepFailures, log_normal};

/// Least number of steps for a mean, be it of one machine or of all.
const ENOUGH: usize = 5;
/// Least number of steps, of all kinds, for a distribution of our own.
const ENOUGH_FOR_SPREAD: usize = 64;
/// How many of the latest steps, and of the latest transfers, are looked at.
const LATEST: i64 = 1000;
const LATEST_TRANSFERS: i64 = 200;
/// How far back breakdowns are counted.
const WATCHED: Micros = 180 * DAY;
/// The weight of published experience: this many failures, and the machine-time between them.
const PRIOR_FAILURES: i64 = 2;
/// For steps, published experience counts as one failure in this many.
const PRIOR_STEPS: i64 = 200;

/// The steps that the planner simulates.
const STEPS: [TaskKind; 3] = [
    TaskKind::PreCommit1,
    TaskKind::PreCommit2,
    TaskKind::Commit2,
];

#[derive(Clone, Debug, Default)]
pub struct History {
    /// Mean milliseconds by kind and sector size: on one machine (`Some`) and on all (`None`).
    means: BTreeMap<(TaskKind, i64, Option<MachineId>), i64>,
    /// Real over mean duration, per mille, sorted; empty: too few steps.
    spread: Vec<i32>,
    breakdowns: Breakdowns,
    /// How many of the latest steps of each kind succeeded, and how many failed.
    ended: BTreeMap<TaskKind, (i64, i64)>,
}

#[derive(Queryable)]
struct EndedStep {
    kind: TaskKind,
    state: TaskState,
    pool: PoolId,
    machine: Option<MachineId>,
    wall_ms: Option<i64>,
}

pub(super) fn load(
    conn: &mut AnyConnection,
    sizes: &HashMap<PoolId, i64>,
    now: Micros,
) -> DbResult<History> {
    let mut rows = latest(conn, &STEPS, LATEST)?;
    rows.extend(latest(conn, &TaskKind::TRANSFERS, LATEST_TRANSFERS)?);
    let mut ended: BTreeMap<TaskKind, (i64, i64)> = BTreeMap::new();
    for step in &rows {
        let (well, failed) = ended.entry(step.kind).or_default();
        *(if step.state == TaskState::Done {
            well
        } else {
            failed
        }) += 1;
    }
    let steps = rows
        .into_iter()
        .filter(|step| step.state == TaskState::Done)
        .filter_map(|step| {
            let ms = step.wall_ms.filter(|ms| *ms > 0)?.min(MOST_MS);
            Some((step.kind, *sizes.get(&step.pool)?, step.machine?, ms))
        });
    let steps: Vec<_> = steps.collect();
    Ok(History {
        breakdowns: breakdowns(conn, now - WATCHED, now)?,
        ended,
        ..History::of(&steps)
    })
}

fn latest(conn: &mut AnyConnection, kinds: &[TaskKind], most: i64) -> DbResult<Vec<EndedStep>> {
    tasks::table
        // A cancelled task has not failed.
        .filter(
            tasks::state
                .eq(TaskState::Done)
                .or(tasks::failure_level.is_not_null()),
        )
        .filter(tasks::kind.eq_any(kinds))
        .order(tasks::id.desc())
        .limit(most)
        .select((
            tasks::kind,
            tasks::state,
            tasks::pool_id,
            tasks::machine_id,
            tasks::wall_ms,
        ))
        .load(conn)
}

impl History {
    /// A history of these steps: kind, sector size, machine, milliseconds.
    #[must_use]
    pub fn of(steps: &[(TaskKind, i64, MachineId, i64)]) -> Self {
        let mut sums: BTreeMap<_, Vec<i64>> = BTreeMap::new();
        for (kind, size, machine, ms) in steps {
            sums.entry((*kind, *size, Some(*machine)))
                .or_default()
                .push(*ms);
            sums.entry((*kind, *size, None)).or_default().push(*ms);
        }
        sums.retain(|_, all| all.len() >= ENOUGH);
        let mean =
            |all: &Vec<i64>| all.iter().sum::<i64>() / i64::try_from(all.len().max(1)).unwrap_or(1);
        let means: BTreeMap<_, i64> = sums
            .iter()
            .map(|(key, all)| (*key, mean(all).max(1)))
            .collect();
        let ratio = |(kind, size, machine, ms): &(TaskKind, i64, MachineId, i64)| {
            let mean = means.get(&(*kind, *size, Some(*machine)))?;
            i32::try_from(ms * 1000 / mean).ok()
        };
        let of_steps = steps.iter().filter(|step| !step.0.is_transfer());
        let mut spread: Vec<i32> = of_steps.filter_map(ratio).collect();
        spread.sort_unstable();
        if spread.len() < ENOUGH_FOR_SPREAD {
            spread.clear();
        }
        Self {
            means,
            spread,
            ..Self::default()
        }
    }

    /// A history that only knows how many steps of a kind succeeded, and how many failed.
    #[cfg(test)]
    pub(super) fn with_failures(kind: TaskKind, ended: (i64, i64)) -> Self {
        Self {
            ended: [(kind, ended)].into_iter().collect(),
            ..Self::default()
        }
    }

    /// Seconds that a step takes on a machine: its own mean, else the fleet's, else published
    /// figures.
    #[must_use]
    pub fn seconds(&self, kind: TaskKind, sector_bytes: i64, machine: MachineId) -> i64 {
        let own = self.means.get(&(kind, sector_bytes, Some(machine)));
        own.map_or_else(
            || self.usual_seconds(kind, sector_bytes),
            |ms| ((ms + 999) / 1000).max(1),
        )
    }

    /// Seconds that a step takes in this fleet, else by published experience.
    #[must_use]
    pub fn usual_seconds(&self, kind: TaskKind, sector_bytes: i64) -> i64 {
        let mean = self.means.get(&(kind, sector_bytes, None));
        mean.map_or_else(
            || typical_seconds(kind, sector_bytes),
            |ms| (ms + 999) / 1000,
        )
        .max(1)
    }

    #[must_use]
    pub fn failure_model(&self) -> Arc<FailureModel> {
        let spread = if self.spread.is_empty() {
            log_normal(120)
        } else {
            self.spread.clone()
        };
        let usual = FailureModel::default();
        // Each is the mean of published experience, with some weight, and of what happened here.
        let mean = |usual: Secs, sum: Micros, count: i64| {
            let all = i64::from(usual) * PRIOR_FAILURES + sum / SECOND;
            Secs::try_from(all / (PRIOR_FAILURES + count)).unwrap_or(Secs::MAX)
        };
        let Breakdowns {
            watched,
            failures,
            repaired,
            repair,
        } = self.breakdowns;
        let (between_failures, repair) = (
            mean(usual.between_failures, watched, failures),
            mean(usual.repair, repair, repaired),
        );
        let fails = |kind| {
            let (well, failed) = self.ended.get(&kind).copied().unwrap_or_default();
            i32::try_from((1 + failed) * 1000 / (PRIOR_STEPS + well + failed)).unwrap_or(1000)
        };
        let [p1, p2, c2] = STEPS.map(fails);
        let step_failures = StepFailures { p1, p2, c2 };
        Arc::new(FailureModel {
            spread,
            between_failures,
            repair,
            step_failures,
            ..usual
        })
    }

    /// Whether the spread of step times is this fleet's own.
    #[must_use]
    pub const fn is_measured(&self) -> bool {
        !self.spread.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_judged_by_its_own_steps_then_the_fleets_then_typical_ones() {
        let step = |machine, ms| (TaskKind::PreCommit1, 2048, MachineId(machine), ms);
        let few = History::of(&[step(1, 9000); 4]);
        assert_eq!(
            few.seconds(TaskKind::PreCommit1, 2048, MachineId(1)),
            typical_seconds(TaskKind::PreCommit1, 2048)
        );
        let mut steps = vec![step(1, 4000); 6];
        steps.extend([step(2, 8000); 2]);
        let some = History::of(&steps);
        assert_eq!(some.seconds(TaskKind::PreCommit1, 2048, MachineId(1)), 4);
        assert_eq!(
            some.seconds(TaskKind::PreCommit1, 2048, MachineId(2)),
            5,
            "the fleet's mean of 5 s"
        );
        assert!(!some.is_measured());
        let many: Vec<_> = (0..100).map(|k| step(1, 1000 + 10 * k)).collect();
        assert!(History::of(&many).is_measured());
        assert_eq!(History::of(&many).failure_model().spread.len(), 100);
    }

    #[test]
    fn step_failures_start_from_the_usual_rate_and_follow_the_fleets_own() {
        let failure_model = |well, failed| {
            History::with_failures(TaskKind::PreCommit2, (well, failed))
                .failure_model()
                .step_failures
        };
        assert_eq!(
            failure_model(0, 0),
            StepFailures {
                p1: 5,
                p2: 5,
                c2: 5
            }
        );
        assert_eq!(
            failure_model(800, 0),
            StepFailures {
                p1: 5,
                p2: 1,
                c2: 5
            }
        );
        assert_eq!(
            failure_model(300, 100).p2,
            168,
            "of 400 a quarter, of 200 others one"
        );
    }

    #[test]
    fn breakdowns_start_from_published_rates_and_follow_the_fleets_own() {
        let failure_model = |breakdowns| {
            History {
                breakdowns,
                ..History::default()
            }
            .failure_model()
        };
        let published = FailureModel::default();
        let none = failure_model(Breakdowns::default());
        assert_eq!(
            (none.between_failures, none.repair),
            (published.between_failures, published.repair)
        );
        // 20 machines for 180 days, one failure every 10 days each, an hour's repair.
        let (watched, failures) = (20 * 180 * DAY, 360);
        let frail = failure_model(Breakdowns {
            watched,
            failures,
            repaired: failures,
            repair: failures * 3600 * SECOND,
        });
        assert!(
            (10 * 86_400..11 * 86_400).contains(&frail.between_failures),
            "{}",
            frail.between_failures
        );
        assert!((3600..3800).contains(&frail.repair), "{}", frail.repair);
        let sound = failure_model(Breakdowns {
            watched,
            ..Breakdowns::default()
        });
        assert!(
            sound.between_failures > 1000 * 86_400,
            "no failure in ten machine-years: {}",
            sound.between_failures
        );
    }
}
