//! How long steps really take here: measured on this fleet, published figures until there is enough of it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use diesel::prelude::*;

use super::planner::{Odds, log_normal};
use crate::{
    ids::{MachineId, PoolId},
    sealing::{TaskKind, typical_seconds},
    store::{AnyConnection, DbResult, schema::tasks},
};

/// Steps of one kind on one machine, and of one kind anywhere, that make a mean.
const ENOUGH: usize = 5;
/// Steps of all kinds that make a distribution of their own.
const ENOUGH_FOR_SPREAD: usize = 64;
/// Latest steps that are looked at.
const LATEST: i64 = 1000;

#[derive(Clone, Debug, Default)]
pub struct History {
    /// Mean milliseconds by kind and sector size: on one machine (`Some`) and on all (`None`).
    means: BTreeMap<(TaskKind, i64, Option<MachineId>), i64>,
    /// Real over mean duration, per mille, sorted; empty: too few.
    spread: Vec<i32>,
}

pub(super) fn load(conn: &mut AnyConnection, sizes: &HashMap<PoolId, i64>) -> DbResult<History> {
    let kinds = [TaskKind::PreCommit1, TaskKind::PreCommit2, TaskKind::Commit2].map(TaskKind::name);
    let rows: Vec<(String, PoolId, Option<MachineId>, Option<i64>)> = tasks::table
        .filter(tasks::state.eq("done").and(tasks::kind.eq_any(kinds)))
        .order(tasks::id.desc())
        .limit(LATEST)
        .select((tasks::kind, tasks::pool_id, tasks::machine_id, tasks::wall_ms))
        .load(conn)?;
    let steps = rows.into_iter().filter_map(|(kind, pool, machine, wall)| {
        Some((TaskKind::parse(&kind)?, *sizes.get(&pool)?, machine?, wall.filter(|ms| *ms > 0)?))
    });
    Ok(History::of(&steps.collect::<Vec<_>>()))
}

impl History {
    /// From steps: kind, sector size, machine, milliseconds.
    #[must_use]
    pub fn of(steps: &[(TaskKind, i64, MachineId, i64)]) -> Self {
        let mut sums: BTreeMap<_, Vec<i64>> = BTreeMap::new();
        for (kind, size, machine, ms) in steps {
            sums.entry((*kind, *size, Some(*machine))).or_default().push(*ms);
            sums.entry((*kind, *size, None)).or_default().push(*ms);
        }
        sums.retain(|_, all| all.len() >= ENOUGH);
        let mean = |all: &Vec<i64>| all.iter().sum::<i64>() / i64::try_from(all.len().max(1)).unwrap_or(1);
        let means: BTreeMap<_, i64> = sums.iter().map(|(key, all)| (*key, mean(all).max(1))).collect();
        let ratio = |(kind, size, machine, ms): &(TaskKind, i64, MachineId, i64)| {
            let mean = means.get(&(*kind, *size, Some(*machine)))?;
            i32::try_from(ms * 1000 / mean).ok()
        };
        let mut spread: Vec<i32> = steps.iter().filter_map(ratio).collect();
        spread.sort_unstable();
        if spread.len() < ENOUGH_FOR_SPREAD {
            spread.clear();
        }
        Self { means, spread }
    }

    /// Seconds that a step takes on a machine: its own mean, else the fleet's, else published experience.
    #[must_use]
    pub fn seconds(&self, kind: TaskKind, sector_bytes: i64, machine: MachineId) -> i64 {
        let own = self.means.get(&(kind, sector_bytes, Some(machine)));
        let mean = own.or_else(|| self.means.get(&(kind, sector_bytes, None)));
        mean.map_or_else(|| typical_seconds(kind, sector_bytes), |ms| (ms + 999) / 1000).max(1)
    }

    #[must_use]
    pub fn odds(&self) -> Arc<Odds> {
        let spread = if self.spread.is_empty() { log_normal(120) } else { self.spread.clone() };
        Arc::new(Odds { spread, ..Odds::default() })
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
    fn a_machine_is_judged_by_its_own_steps_then_by_the_fleets_then_by_others() {
        let step = |machine, ms| (TaskKind::PreCommit1, 2048, MachineId(machine), ms);
        let few = History::of(&[step(1, 9000); 4]);
        assert_eq!(few.seconds(TaskKind::PreCommit1, 2048, MachineId(1)), typical_seconds(TaskKind::PreCommit1, 2048));
        let mut steps = vec![step(1, 4000); 6];
        steps.extend([step(2, 8000); 2]);
        let some = History::of(&steps);
        assert_eq!(some.seconds(TaskKind::PreCommit1, 2048, MachineId(1)), 4);
        assert_eq!(some.seconds(TaskKind::PreCommit1, 2048, MachineId(2)), 5, "the fleet's mean of 5 s");
        assert!(!some.is_measured());
        let many: Vec<_> = (0..100).map(|k| step(1, 1000 + 10 * k)).collect();
        assert!(History::of(&many).is_measured());
        assert_eq!(History::of(&many).odds().spread.len(), 100);
    }
}
