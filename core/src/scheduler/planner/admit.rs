//! Which sectors begin, and where: PC1 holds its place for hours, so this decides most.

use super::{
    GroupIx, KindIx, MachineIx, PoolIx, Secs, SectorIx, Table,
    fleet::Step,
    policy::Rule,
    world::{Wish, World},
};

/// Groups for which priorities are computed anew at every moment; with more of them, less often.
const RANKED_ALWAYS: usize = 64;

impl World<'_> {
    pub(super) fn admit(&mut self) {
        let open = |w: &Self, p: PoolIx| !w.pools[p].free_p1.is_empty() && w.pools[p].wip < w.pools[p].most_wip;
        if self.ready.is_empty() || !self.fleet.pools.keys().any(|p| open(self, p)) {
            return;
        }
        self.rank();
        let ranked = std::mem::take(&mut self.ranked);
        let kinds = self.fleet.kinds.len();
        let mut pass = Pass {
            closed: vec![false; (self.pools.len() + 1) * kinds],
            spare: self.fleet.pools.keys().map(|_| None).collect(),
            kinds,
        };
        for (_, group) in &ranked {
            if !self.fleet.pools.keys().any(|p| open(self, p)) {
                break;
            }
            self.admit_group(*group, &mut pass);
        }
        self.ranked = ranked;
    }

    /// Sorts what may begin. Static rules are sorted when something was added; others again as time passes.
    fn rank(&mut self) {
        if self.now < self.ranked_until {
            return;
        }
        let mut ready = std::mem::take(&mut self.ready);
        ready.retain(|group| {
            let state = &mut self.groups[*group];
            state.listed = state.begun < state.n || !state.again.is_empty();
            state.listed
        });
        self.ready = ready;
        let mut ranked = std::mem::take(&mut self.ranked);
        ranked.clear();
        ranked.extend(self.ready.iter().map(|group| (self.urgency(*group, Step::P1), *group)));
        ranked.sort_unstable();
        self.ranked = ranked;
        let lasts = match self.policy.rule {
            Rule::Keyed | Rule::Edd | Rule::Fifo => Secs::MAX / 2,
            _ => Secs::try_from(self.ready.len() / RANKED_ALWAYS).unwrap_or(0).min(30) * 60,
        };
        self.ranked_until = self.now.saturating_add(lasts).max(self.now + 1);
    }

    fn admit_group(&mut self, group: GroupIx, pass: &mut Pass) {
        let Wish { on, only, hold, .. } = self.groups[group].wish;
        let order = &self.orders[self.groups[group].order];
        let (pool, kind) = (order.pool.or(only), order.kind);
        if pass.is_closed(pool, kind) {
            return;
        }
        let arrived = self.arrived(group, self.now);
        let mut last = None;
        loop {
            let state = &self.groups[group];
            let fresh = SectorIx(state.first + state.begun);
            let (sector, again) = match state.again.last() {
                Some(lost) if self.now >= hold => (*lost, true),
                _ if state.begun < arrived => (fresh, false),
                _ => break,
            };
            let avoid = if self.choice.0 { self.sectors[sector].avoid } else { MachineIx::NONE };
            let same = self.same_p1(last.filter(|m| *m != avoid), kind, pass);
            let Some(machine) = same.or_else(|| self.best_p1(pool, kind, (on, avoid), pass)) else {
                if on.is_none() && !avoid.is_some() {
                    pass.close(pool, kind);
                }
                return;
            };
            self.start_p1(sector, machine, kind);
            last = Some(machine);
            let state = &mut self.groups[group];
            if again {
                state.again.pop();
            } else {
                state.begun += 1;
            }
            if let Some(spare) = &mut pass.spare[self.fleet.pool(machine)] {
                *spare -= 1;
            }
        }
        if self.policy.ahead > 0 {
            self.keep_slots(group, arrived, pool, kind, pass);
        }
    }

    /// Keeps slots for data of this group that arrives soon.
    fn keep_slots(&mut self, group: GroupIx, arrived: u32, pool: Option<PoolIx>, kind: KindIx, pass: &mut Pass) {
        let soon = self.arrived(group, self.now.saturating_add(self.policy.ahead));
        let mut wanted = i32::try_from(soon.saturating_sub(arrived)).unwrap_or(i32::MAX);
        if wanted == 0 {
            return;
        }
        for pool in self.fleet.pools.keys().filter(|p| pool.is_none_or(|only| only == *p)) {
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
            let Some(machine) = self.pools[pool].free_p1.get(at).copied() else { break };
            let seconds = self.fleet.duration(machine, kind, Step::P1);
            if seconds > 0 && self.is_up_for(machine, seconds) {
                let (cores, memory, scratch) = self.p1_room(machine);
                let needs = &self.fleet.kinds[kind];
                let of = |free: i32, need: i32| if need > 0 { free / need } else { i32::MAX };
                slots += of(cores, needs.p1.cores).min(of(memory, needs.p1.memory)).min(of(scratch, needs.scratch_full)).max(0);
            }
        }
        slots
    }

    /// Cores, memory and scratch that PC1 may take there.
    fn p1_room(&self, machine: MachineIx) -> (i32, i32, i32) {
        let room = &self.rooms[machine];
        let (mut cores, mut memory) = (room.free.cores, room.free.memory);
        if self.policy.reserve {
            cores = cores.min(room.p1_cores);
            memory = memory.min(room.p1_memory);
        }
        (cores, memory, room.scratch)
    }

    /// The machine that the sector before went to stays the best one while it has room: it has become fuller.
    fn same_p1(&mut self, last: Option<MachineIx>, kind: KindIx, pass: &Pass) -> Option<MachineIx> {
        let machine = last.filter(|_| !self.policy.spread)?;
        let pool = self.fleet.pool(machine);
        (self.pool_is_open(pool, pass) && self.p1_fits(machine, kind)).then_some(machine)
    }

    fn pool_is_open(&self, pool: PoolIx, pass: &Pass) -> bool {
        self.pools[pool].wip < self.pools[pool].most_wip && pass.spare[pool].is_none_or(|spare| spare > 0)
    }

    fn p1_fits(&mut self, machine: MachineIx, kind: KindIx) -> bool {
        let needs = &self.fleet.kinds[kind];
        let (cores, memory, scratch) = self.p1_room(machine);
        let seconds = self.fleet.duration(machine, kind, Step::P1);
        let room = cores >= needs.p1.cores && memory >= needs.p1.memory && scratch >= needs.scratch_full;
        room && seconds > 0 && self.is_up_for(machine, seconds)
    }

    /// The fastest machine with room; of equal ones the fullest, or the emptiest if the policy spreads.
    fn best_p1(
        &mut self,
        pool: Option<PoolIx>,
        kind: KindIx,
        (on, avoid): (Option<MachineIx>, MachineIx),
        pass: &Pass,
    ) -> Option<MachineIx> {
        let mut best: Option<((Secs, i32), MachineIx)> = None;
        for pool in self.fleet.pools.keys().filter(|p| pool.is_none_or(|only| only == *p)) {
            if !self.pool_is_open(pool, pass) {
                continue;
            }
            let mut free = std::mem::take(&mut self.pools[pool].free_p1);
            free.retain(|machine| {
                if on.is_some_and(|only| only != *machine) || avoid == *machine {
                    return true;
                }
                let scratch = self.rooms[*machine].scratch;
                let rank = (self.fleet.duration(*machine, kind, Step::P1), if self.policy.spread { -scratch } else { scratch });
                if best.is_some_and(|(b, _)| rank >= b) {
                    return true;
                }
                let fits = self.p1_fits(*machine, kind);
                if fits {
                    best = Some((rank, *machine));
                }
                // With one kind of sectors a machine that cannot take this one cannot take any.
                let stays = fits || pass.kinds > 1;
                self.rooms[*machine].listed_p1 = stays;
                stays
            });
            self.pools[pool].free_p1 = free;
        }
        best.map(|(_, machine)| machine)
    }
}

/// What one admission has found out.
struct Pass {
    /// Pool (the last: any) and kind for which no machine has room.
    closed: Vec<bool>,
    /// PC1 slots that are neither taken nor kept; `None`: not counted yet.
    spare: Table<PoolIx, Option<i32>>,
    kinds: usize,
}

impl Pass {
    fn at(&self, pool: Option<PoolIx>, kind: KindIx) -> usize {
        use super::Key;
        pool.map_or(self.spare.len(), Key::at) * self.kinds + kind.at()
    }

    fn is_closed(&self, pool: Option<PoolIx>, kind: KindIx) -> bool {
        self.closed.get(self.at(pool, kind)).copied().unwrap_or(false)
    }

    fn close(&mut self, pool: Option<PoolIx>, kind: KindIx) {
        let at = self.at(pool, kind);
        if let Some(closed) = self.closed.get_mut(at) {
            *closed = true;
        }
    }
}
