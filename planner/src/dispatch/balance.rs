//! Finds pools that need longer than the others for their waiting work. There, orders for any pool
//! give way.

use crate::{
    KindIx, PoolIx, Table,
    model::policy::Rule,
    sim::pace::{Pace, SPAN},
    sim::world::{MachineState, World},
};

/// Number of sectors of each size that wait for PC1, and of sectors that wait for a GPU, which all
/// count as of the first size.
#[derive(Clone, Default)]
struct Waiting {
    to_begin: Table<KindIx, i64>,
    layers: i64,
    c2: i64,
}

impl Waiting {
    /// Seconds that machines with this throughput need for it: of PC1 or of GPUs, whichever is
    /// longer.
    fn seconds(&self, paces: &Table<KindIx, Pace>) -> i64 {
        let all = |pace: fn(&Pace) -> i64| {
            self.to_begin
                .iter()
                .zip(paces.iter())
                .map(|(n, p)| seconds(*n, pace(p)))
                .sum::<i64>()
        };
        let first = paces.iter().next().copied().unwrap_or_default();
        let gpus =
            all(|pace| pace.both) + seconds(self.layers, first.both) + seconds(self.c2, first.c2);
        all(|pace| pace.p1).max(gpus)
    }

    fn add(&mut self, other: &Self) {
        self.to_begin
            .iter_mut()
            .zip(other.to_begin.iter())
            .for_each(|(n, more)| *n += more);
        self.layers += other.layers;
        self.c2 += other.c2;
    }
}

/// Longer than any plan, and short enough to add up without overflow.
const NEVER: i64 = 1 << 40;

fn seconds(n: i64, pace: i64) -> i64 {
    match (n, pace) {
        (0, _) => 0,
        (_, 0) => NEVER,
        _ => (n.saturating_mul(SPAN) / pace).min(NEVER),
    }
}

impl World<'_> {
    /// Whether a group for that pool, or for any, may go there now. A group that can go to several
    /// keeps out of pools that need longer, until its turn comes there.
    pub(crate) fn may_go(&self, pool: Option<PoolIx>, there: PoolIx) -> bool {
        pool.map_or(self.pools[there].longer == 0, |only| only == there)
    }

    pub(crate) fn gives_way(&self) -> bool {
        self.pools.len() > 1
            && self.policy.give_way > 0
            && !matches!(self.policy.rule, Rule::Fifo | Rule::Keyed)
    }

    pub(crate) fn by_kind<T: Default>(&self) -> Table<KindIx, T> {
        self.fleet.kinds.iter().map(|_| T::default()).collect()
    }

    /// How much longer each pool needs for its own work than the other pools together need for
    /// theirs, if they also took all the work that can go anywhere.
    pub(crate) fn measure_longer(&mut self) {
        if !self.gives_way() {
            return self.pools.iter_mut().for_each(|pool| pool.longer = 0);
        }
        let (any, bound) = self.waiting();
        let at_work: Vec<PoolIx> = self
            .fleet
            .pools
            .keys()
            .filter(|pool| self.is_at_work(*pool))
            .collect();
        for pool in self.fleet.pools.keys() {
            let (mut left, mut paces) = (any.clone(), self.by_kind::<Pace>());
            for other in at_work.iter().copied().filter(|other| *other != pool) {
                left.add(&bound[other]);
                paces
                    .iter_mut()
                    .zip(self.pools[other].paces.iter())
                    .for_each(|(pace, more)| pace.add(*more));
            }
            let longer = bound[pool].seconds(&self.pools[pool].paces) - left.seconds(&paces);
            self.pools[pool].longer = longer.max(0);
        }
    }

    /// Waiting work that can go to any pool, and the work bound to each.
    fn waiting(&self) -> (Waiting, Table<PoolIx, Waiting>) {
        let none = Waiting {
            to_begin: self.by_kind(),
            layers: 0,
            c2: 0,
        };
        let mut any = none.clone();
        let mut bound: Table<PoolIx, Waiting> = self.pools.iter().map(|_| none.clone()).collect();
        for (state, bound) in self.pools.iter().zip(bound.iter_mut()) {
            bound.layers = i64::from(state.wip);
            bound.c2 = state
                .c2
                .iter()
                .map(|queue| i64::try_from(self.queues[*queue].c2.len()).unwrap_or(0))
                .sum();
        }
        for group in &self.ready {
            let state = &self.groups[*group];
            let order = &self.orders[state.order];
            let n =
                i64::from(state.n - state.begun) + i64::try_from(state.again.len()).unwrap_or(0);
            let waiting = order
                .pool
                .or(state.hint.only)
                .map_or(&mut any, |pool| &mut bound[pool]);
            waiting.to_begin[order.kind] += n;
        }
        (any, bound)
    }

    /// Whether some machine for PC1 and some with GPUs are up: waiting for a pool that is down
    /// makes no sense.
    fn is_at_work(&mut self, pool: PoolIx) -> bool {
        let fleet = self.fleet;
        let mut has = |can: fn(&MachineState) -> bool| {
            let mut there = fleet
                .machines
                .keys()
                .filter(|machine| fleet.pool(*machine) == pool);
            there.any(|machine| can(&self.machines[machine]) && self.is_up_for(machine, 1))
        };
        has(|room| room.can_p1) && has(|room| room.can_gpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HOUR;
    use crate::{
        Key, Policy, Secs,
        fixture::{order, two_pools},
    };

    /// How many of 30 sectors for any pool, due at `due`, go to each pool, beside `bound` sectors
    /// that can only go to the first and are due in 200 h.
    fn parts(bound: u32, due: Secs, second_down: Secs) -> [usize; 2] {
        let fleet = two_pools(second_down);
        let mut world = World::new(&fleet, Policy::default());
        world.add_order(order(Some(0), bound, 200 * HOUR));
        let any = world.add_order(order(None, 30, due));
        assert!(world.run());
        let in_first = world
            .sectors_of(any)
            .filter(|s| fleet.pool(world.sectors[*s].row.m1) == PoolIx::of(0))
            .count();
        [in_first, 30 - in_first]
    }

    #[test]
    fn flexible_sectors_leave_a_pool_to_bound_ones_that_need_it_longer() {
        assert_eq!(
            parts(90, 190 * HOUR, 0),
            [0, 30],
            "though due earlier: the first pool has enough to do without it"
        );
        let [in_first, in_second] = parts(20, 190 * HOUR, 0);
        assert!(
            in_first >= 8 && in_second >= 8,
            "the second alone would need longer: {in_first} and {in_second}"
        );
        let [in_first, in_second] = parts(90, HOUR, 0);
        assert!(
            in_first >= 8 && in_second >= 8,
            "what is late goes first in both: {in_first} and {in_second}"
        );
        assert_eq!(
            parts(90, 190 * HOUR, 500 * HOUR),
            [30, 0],
            "a pool that is down has nothing to do, but is no place to wait for"
        );
    }
}
