//! How fast PC1 may begin: no faster than GPUs can take the layers.
//!
//! A pool that is filled at one moment has no free slot for hours, whatever arrives meanwhile, and
//! its layers wait for GPUs anyway. If PC1 begins as fast as GPUs work, slots become free all the
//! time.

use crate::{
    Event, Order, PoolIx, Rule, Secs, model::fleet::Step, sim::pace::SPAN, sim::world::World,
};

/// Least time before a pool where PC1 is ahead is looked at again.
const BREATH: Secs = 300;

impl World<'_> {
    /// Whether more PC1 has begun lately than the pacing limit allows for the pool's GPUs.
    pub(crate) fn is_ahead(&self, pool: PoolIx) -> bool {
        let most = self
            .policy
            .burst
            .map_or(i64::MAX, |burst| self.moment() + i64::from(burst) * SPAN);
        self.pools[pool].fed_until > most
    }

    /// Schedules an event for pools that have free slots but are ahead: they are looked at again
    /// when they are not.
    pub(crate) fn wake_when_not_ahead(&mut self) {
        let Some(burst) = self.policy.burst else {
            return;
        };
        for pool in self.fleet.pools.keys() {
            let state = &self.pools[pool];
            if state.looks_again > self.now || state.free_p1.is_empty() || !self.is_ahead(pool) {
                continue;
            }
            let at =
                (state.fed_until / SPAN + 1 - i64::from(burst)).max(i64::from(self.now + BREATH));
            let at = Secs::try_from(at).unwrap_or(Secs::MAX);
            self.pools[pool].looks_again = at;
            self.agenda.push(at, Event::Admit);
        }
    }

    /// Groups more urgent than this begin although their pool is ahead. It is the urgency of a
    /// sector of weight 1 with a slack of [`Policy::urgency_cutoff`].
    pub(crate) fn urgent_until(&self) -> i64 {
        let Some(kind) = self.fleet.kinds.keys().next() else {
            return i64::MIN;
        };
        let due = self
            .now
            .saturating_add(self.tails[kind].p1)
            .saturating_add(self.policy.urgency_cutoff);
        let plain = Order {
            id: 0,
            pool: None,
            kind,
            n: 1,
            release: self.now,
            step: 0,
            due,
            weight: 1,
            known: self.now,
        };
        match self.policy.rule {
            Rule::Fifo | Rule::Keyed => i64::MIN,
            _ => self.urgency_of(&plain, due.into(), Step::P1),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HOUR;
    use crate::{
        ClassIx, Key, Machine, OrderIx, Policy,
        fixture::{fleet, order},
    };

    /// When PC1 of an order's sectors began, in order.
    fn began(world: &World<'_>, order: OrderIx) -> Vec<Secs> {
        let mut began: Vec<Secs> = world
            .sectors_of(order)
            .map(|s| world.sectors[s].row.s1)
            .filter(|s1| *s1 >= 0)
            .collect();
        began.sort_unstable();
        began
    }

    #[test]
    fn sectors_with_time_to_spare_leave_slots_for_urgent_ones() {
        // Eight PC1 steps of 4 h at a time, and a GPU that takes half an hour for a sector.
        let fleet = fleet();
        let begin = |burst| {
            let mut world = World::new(
                &fleet,
                Policy {
                    burst,
                    ..Policy::default()
                },
            );
            let spare = world.add_order(order(None, 8, 100 * HOUR));
            world.run_until(40 * 60);
            let urgent = world.add_order(Order {
                release: 40 * 60,
                known: 40 * 60,
                ..order(None, 2, 8 * HOUR)
            });
            assert!(world.run());
            (began(&world, spare), began(&world, urgent))
        };
        let (spare, urgent) = begin(Some(HOUR + 60));
        assert_eq!(spare[..3], [0; 3], "an hour of GPU work at once");
        assert!(
            (1700..1800).contains(&spare[3]),
            "then what the GPU would have done by now: {spare:?}"
        );
        assert_eq!(urgent, [2400, 2400], "what hurries does not wait for that");
        assert!(
            (7000..7300).contains(&spare[4]),
            "what has hurried is work, too: {spare:?}"
        );
        let (spare, urgent) = begin(None);
        assert_eq!(spare, [0; 8]);
        assert_eq!(urgent, [4 * HOUR; 2], "every slot is taken");
    }

    #[test]
    fn lost_sectors_do_not_count_as_work_for_the_gpu() {
        let mut fleet = fleet();
        fleet.machines.push(Machine {
            pool: PoolIx::of(0),
            class: ClassIx::of(0),
            down: Vec::new(),
            drains: false,
        });
        let mut world = World::new(
            &fleet,
            Policy {
                burst: Some(HOUR),
                ..Policy::default()
            },
        );
        let order = world.add_order(order(None, 40, 200 * HOUR));
        world.run_until(1);
        let before = began(&world, order).len();
        world.break_down(world.sectors.iter().next().unwrap().row.m1);
        world.run_until(2);
        assert_eq!(
            began(&world, order).len(),
            before,
            "as many begin elsewhere at once"
        );
    }
}
