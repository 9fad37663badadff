//! Decides which sectors begin, and where. PC1 holds its slot for hours, so this decision matters
//! most.

use std::cmp::Reverse;

use crate::{
    GroupIx, KindIx, MachineIx, PoolIx, Secs, SectorIx,
    model::fleet::Step,
    model::policy::{Rule, Urgency},
    sim::passes::{Admission, Slot, Slots},
    sim::world::{SearchHint, World},
};

/// Up to this many groups are ranked anew at every moment; more of them less often.
const RANKED_ALWAYS: usize = 64;

impl World<'_> {
    /// Begins every PC1 that can begin.
    pub(crate) fn admit(&mut self) {
        let open = |w: &Self, is_urgent: bool| {
            w.fleet
                .pools
                .keys()
                .any(|p| !w.pools[p].free_p1.is_empty() && w.takes_more(p, is_urgent))
        };
        if self.ready.is_empty() || !open(self, true) {
            return;
        }
        self.rank();
        let ranked = std::mem::take(&mut self.ranked);
        let mut pass = std::mem::take(&mut self.admission);
        pass.begin(self.pools.len(), self.fleet.kinds.len());
        for (urgency, group, among) in &ranked {
            pass.is_urgent = urgency.0 < self.urgent_until;
            if pass.open == 0 || !open(self, pass.is_urgent) {
                break;
            }
            self.admit_group(*group, *among, &mut pass);
        }
        self.ranked = ranked;
        self.admission = pass;
        self.drop_spent();
        self.wake_when_not_ahead();
    }

    /// Removes groups that have begun all their sectors from the ranking, once there are many.
    fn drop_spent(&mut self) {
        if self.spent * 4 > self.ranked.len() {
            self.drop_spent_of_ready();
            let groups = &self.groups;
            self.ranked.retain(|(_, group, _)| groups[*group].listed);
        }
    }

    fn drop_spent_of_ready(&mut self) {
        self.spent = 0;
        let groups = &mut self.groups;
        self.ready.retain(|group| {
            let state = &mut groups[*group];
            state.listed = !state.is_spent();
            state.listed
        });
    }

    /// Sorts the groups that may begin. Under static rules they are sorted again only when a group
    /// is added, under others also as time passes.
    fn rank(&mut self) {
        if self.now < self.ranked_until {
            return;
        }
        self.drop_spent_of_ready();
        let mut ranked = std::mem::take(&mut self.ranked);
        ranked.clear();
        self.measure_longer();
        self.urgent_until = self.urgent_until();
        self.ready
            .iter()
            .for_each(|group| self.rank_group(*group, &mut ranked));
        ranked.sort_unstable();
        self.ranked = ranked;
        let lasts = match self.policy.rule {
            Rule::Keyed | Rule::Fifo => Secs::MAX / 2,
            Rule::Edd if !self.gives_way() => Secs::MAX / 2,
            _ => {
                Secs::try_from(self.ready.len() / RANKED_ALWAYS)
                    .unwrap_or(0)
                    .min(30)
                    * 60
            }
        };
        self.ranked_until = self.now.saturating_add(lasts).max(self.now + 1);
    }

    fn rank_group(&self, group: GroupIx, ranked: &mut Vec<(Urgency, GroupIx, Option<PoolIx>)>) {
        let urgency = self.urgency(group, Step::P1);
        let state = &self.groups[group];
        if self.pools.len() < 2 || self.orders[state.order].pool.or(state.hint.only).is_some() {
            return ranked.push((urgency, group, None));
        }
        let urgency = self.later(urgency, self.policy.any_later.into());
        ranked.push((urgency, group, None));
        for (pool, state) in self.pools.pairs().filter(|(_, state)| state.longer > 0) {
            let urgency = self.later(urgency, self.policy.give_way.saturating_mul(state.longer));
            ranked.push((urgency, group, Some(pool)));
        }
    }

    /// `among`: the pool in which the group gives way, if it is looked at for that pool.
    fn admit_group(&mut self, group: GroupIx, among: Option<PoolIx>, pass: &mut Admission) {
        let SearchHint { on, only, .. } = self.groups[group].hint;
        let order = &self.orders[self.groups[group].order];
        let (pool, kind) = (order.pool.or(only).or(among), order.kind);
        if pass.is_closed(kind, |there| self.may_go(pool, there)) {
            return;
        }
        let arrived = self.arrived(group, self.now);
        let one_pool = pool.is_some() || self.pools.len() == 1;
        let mut last = None;
        // Sectors that begin again and wait for a machine other than the one that they avoid.
        let mut waiting = 0;
        while let Some((sector, again)) = self.next_to_begin(group, arrived, waiting) {
            let avoid = if self.choice.0 {
                self.sectors[sector].avoid
            } else {
                MachineIx::NONE
            };
            let same = self.same_p1(last.filter(|m| one_pool && *m != avoid), kind, pass);
            let Some(best) = same.or_else(|| self.best_p1(pool, kind, (on, avoid), pass)) else {
                if again && avoid.is_some() {
                    waiting += 1;
                    continue;
                }
                if on.is_none() && !avoid.is_some() {
                    pass.close(kind, |there| self.may_go(pool, there));
                }
                return;
            };
            let (sector, machine) = self.as_planned(sector, best, pool, pass);
            self.begin_p1(sector, machine, kind, pass);
            last = Some(machine);
        }
        if self.policy.ahead > 0 && among.is_none() {
            self.keep_slots(group, arrived, pool, kind, pass);
        }
    }

    /// A group's next sector to begin, and whether it begins again. Those whose attempts were lost
    /// go first, except the latest `waiting` of them.
    fn next_to_begin(
        &mut self,
        group: GroupIx,
        arrived: u32,
        waiting: usize,
    ) -> Option<(SectorIx, bool)> {
        let fresh = self.next_fresh(group);
        let state = &self.groups[group];
        let lost = state
            .again
            .len()
            .checked_sub(waiting + 1)
            .filter(|_| self.now >= state.hint.hold);
        match lost.and_then(|at| state.again.get(at)) {
            Some(lost) => Some((*lost, true)),
            None => (state.begun < arrived).then_some((fresh, false)),
        }
    }

    /// The sector that fills the slot, and its machine. The previous plan decides between equal
    /// sectors, and between equally fast machines.
    fn as_planned(
        &mut self,
        sector: SectorIx,
        best: MachineIx,
        pool: Option<PoolIx>,
        pass: &Admission,
    ) -> (SectorIx, MachineIx) {
        let drawn = self.planned_place(sector, best).filter(|machine| {
            let there = self.fleet.pool(*machine);
            self.may_go(pool, there) && self.pool_is_open(there, pass)
        });
        if let Some(machine) = drawn {
            return (sector, machine);
        }
        let group = self.sectors[sector].group;
        (self.planned_on(best, group).unwrap_or(sector), best)
    }

    fn begin_p1(
        &mut self,
        sector: SectorIx,
        machine: MachineIx,
        kind: KindIx,
        pass: &mut Admission,
    ) {
        self.start_p1(sector, machine, kind);
        self.is_fuller(machine, pass);
        self.take_off(sector);
        if let Some(spare) = &mut pass.spare[self.fleet.pool(machine)] {
            *spare -= 1;
        }
    }

    /// A sector that has begun no longer waits in its group.
    fn take_off(&mut self, sector: SectorIx) {
        let state = &mut self.groups[self.sectors[sector].group];
        if let Some(at) = state.again.iter().rposition(|again| *again == sector) {
            state.again.remove(at);
        } else if sector.0 == state.first + state.begun {
            state.begun += 1;
        }
        self.spent += usize::from(state.is_spent());
    }

    /// A group's next sector that has not begun. Skips those that began out of turn.
    fn next_fresh(&mut self, group: GroupIx) -> SectorIx {
        loop {
            let state = &mut self.groups[group];
            let next = SectorIx(state.first + state.begun);
            if state.begun == state.n || self.sectors[next].is_fresh() {
                return next;
            }
            state.begun += 1;
            self.spent += usize::from(state.is_spent());
        }
    }

    /// Keeps slots free for data of this group that arrives soon.
    fn keep_slots(
        &mut self,
        group: GroupIx,
        arrived: u32,
        meant: Option<PoolIx>,
        kind: KindIx,
        pass: &mut Admission,
    ) {
        let soon = self.arrived(group, self.now.saturating_add(self.policy.ahead));
        let mut wanted = i32::try_from(soon.saturating_sub(arrived)).unwrap_or(i32::MAX);
        if wanted == 0 {
            return;
        }
        for pool in self.fleet.pools.keys() {
            if !self.may_go(meant, pool) {
                continue;
            }
            let spare = match pass.spare[pool] {
                Some(spare) => spare,
                None => self.p1_slots(pool, kind),
            };
            let kept = wanted.min(spare.max(0));
            pass.spare[pool] = Some(spare - kept);
            wanted -= kept;
        }
    }

    /// PC1 steps of this kind that could start now.
    fn p1_slots(&mut self, pool: PoolIx, kind: KindIx) -> i32 {
        let mut slots = 0;
        for at in 0..self.pools[pool].free_p1.len() {
            let Some(machine) = self.pools[pool].free_p1.get(at).copied() else {
                break;
            };
            let seconds = self.p1_stay(machine, kind);
            if seconds > 0
                && !self.fleet.machines[machine].drains
                && self.is_up_for(machine, seconds)
            {
                let (cores, memory, scratch) = self.p1_room(machine);
                slots += self.fleet.kinds[kind].p1_slots(cores, memory, scratch);
            }
        }
        slots
    }

    /// The machine that the last sector went to, if it still has capacity: it has become fuller, so
    /// it is still the best one.
    fn same_p1(
        &mut self,
        last: Option<MachineIx>,
        kind: KindIx,
        pass: &Admission,
    ) -> Option<MachineIx> {
        let machine = last.filter(|_| !self.policy.spread)?;
        let pool = self.fleet.pool(machine);
        (self.pool_is_open(pool, pass) && self.p1_fits(machine, kind)).then_some(machine)
    }

    fn pool_is_open(&self, pool: PoolIx, pass: &Admission) -> bool {
        self.takes_more(pool, pass.is_urgent) && pass.spare[pool].is_none_or(|spare| spare > 0)
    }

    fn takes_more(&self, pool: PoolIx, is_urgent: bool) -> bool {
        self.pools[pool].wip < self.pools[pool].most_wip && (is_urgent || !self.is_ahead(pool))
    }

    /// The fastest machine with capacity; of equally fast ones the fullest, or the emptiest if the
    /// policy spreads.
    fn best_p1(
        &mut self,
        meant: Option<PoolIx>,
        kind: KindIx,
        (on, avoid): (Option<MachineIx>, MachineIx),
        pass: &mut Admission,
    ) -> Option<MachineIx> {
        let mut best: Option<Slot> = None;
        for pool in self.fleet.pools.keys() {
            if !self.may_go(meant, pool) || !self.pool_is_open(pool, pass) {
                continue;
            }
            let at = pass.list(pool, kind);
            let Some(list) = pass.slots.get_mut(at) else {
                continue;
            };
            let mut slots = list.take().unwrap_or_else(|| self.slots(pool, kind));
            if let Some(slot) = self.first_fit(&mut slots, kind, (on, avoid))
                && best.is_none_or(|best| slot < best)
            {
                best = Some(slot);
            }
            if let Some(place) = pass.slots.get_mut(at) {
                *place = Some(slots);
            }
        }
        best.map(|(_, machine)| machine)
    }

    fn first_fit(
        &mut self,
        slots: &mut Slots,
        kind: KindIx,
        (on, avoid): (Option<MachineIx>, MachineIx),
    ) -> Option<Slot> {
        let mut aside = Vec::new();
        let mut found = None;
        while let Some(Reverse(slot)) = slots.peek().copied() {
            let (rank, machine) = slot;
            let is_meant = on.is_none_or(|only| only == machine) && avoid != machine;
            if rank == self.p1_rank(machine, kind) && self.p1_fits(machine, kind) {
                if is_meant {
                    found = Some(slot);
                    break;
                }
                aside.push(Reverse(slot));
            }
            // No capacity is released during admission, and a machine that became fuller is in
            // again with its new rank.
            slots.pop();
        }
        slots.extend(aside);
        found
    }

    /// Machines of a pool that may have capacity.
    fn slots(&mut self, pool: PoolIx, kind: KindIx) -> Slots {
        let mut free = std::mem::take(&mut self.pools[pool].free_p1);
        if self.fleet.kinds.len() == 1 {
            // There is only this kind of sector, so a machine that cannot take it can take none.
            free.retain(|machine| {
                let fits = self.p1_fits(*machine, kind);
                self.machines[*machine].listed_p1 = fits;
                fits
            });
        }
        let slots = free
            .iter()
            .map(|m| Reverse((self.p1_rank(*m, kind), *m)))
            .collect();
        self.pools[pool].free_p1 = free;
        slots
    }

    fn p1_rank(&self, machine: MachineIx, kind: KindIx) -> (Secs, i32) {
        let scratch = self.machines[machine].scratch;
        (
            self.fleet.duration(machine, kind, Step::P1),
            if self.policy.spread {
                -scratch
            } else {
                scratch
            },
        )
    }

    /// Ranks a machine anew after a PC1 has begun there.
    fn is_fuller(&self, machine: MachineIx, pass: &mut Admission) {
        for kind in self.fleet.kinds.keys() {
            let at = pass.list(self.fleet.pool(machine), kind);
            if let Some(Some(slots)) = pass.slots.get_mut(at) {
                slots.push(Reverse((self.p1_rank(machine, kind), machine)));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::HOUR;
    use crate::{
        Key, Policy,
        fixture::{fleet, order},
    };

    #[test]
    fn a_sector_begins_only_if_its_layers_can_leave_before_the_downtime() {
        // PC1 takes 4 h and a move 360 s. Two sectors that end together leave one after the other.
        for (down, begins) in [(4 * HOUR + 720, 0), (4 * HOUR + 719, 20 * HOUR)] {
            let mut fleet = fleet();
            fleet.machines[MachineIx::of(0)]
                .down
                .push((down, 20 * HOUR));
            let mut world = World::new(&fleet, Policy::default());
            let order = world.add_order(order(None, 1, 100 * HOUR));
            assert!(world.run());
            let sector = world.sectors_of(order).next().unwrap();
            assert_eq!(world.sectors[sector].row.s1, begins, "down at {down}");
        }
    }
}
