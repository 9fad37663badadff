//! Changes that a search tries.

use crate::{
    GroupIx, HOUR, Key, PoolIx, Rule, Secs,
    choice::Choice,
    portfolio::GIVE_WAY,
    search::{Aim, Search},
};

const QUARTER: Secs = 900;

fn secs(n: usize) -> Secs {
    Secs::try_from(n).unwrap_or(Secs::MAX)
}

impl Search<'_, '_> {
    pub(crate) fn change(&mut self, choice: &mut Choice) {
        let by_keys = choice.policy.rule == Rule::Keyed;
        match self.rng.below(100) {
            0..30 if by_keys => self.move_one(choice),
            30..45 if by_keys => self.move_some_of_an_order(choice),
            45..60 if by_keys => self.swap(choice),
            60..70 if by_keys => self.change_hold(choice),
            70..80 if by_keys => self.shift_on_gpus(choice),
            80..88 if by_keys => self.keep_gpus(choice),
            88..95 if by_keys => self.choose_machine(choice),
            0..75 => self.change_lead(choice),
            75..95 => self.choose_pool(choice),
            // Orders that are not known yet would pay for an unusual policy.
            _ if self.aim == Aim::Open => self.change_lead(choice),
            _ => self.change_policy(choice),
        }
    }

    /// A random group, usually one that is late in the best plan.
    fn a_group(&mut self) -> GroupIx {
        let mut group = self.any_group();
        for _ in 0..6 {
            if self.is_late(group) {
                break;
            }
            group = self.any_group();
        }
        group
    }

    fn is_late(&self, group: GroupIx) -> bool {
        self.best.as_ref().is_some_and(|best| {
            let due = best.due(group);
            let mut sectors = best.world.sectors_in(group);
            sectors.any(|s| best.world.sectors[s].row.vc > due)
        })
    }

    fn any_group(&mut self) -> GroupIx {
        let at = self.rng.below(self.open.len());
        self.open.get(at).copied().unwrap_or(GroupIx::of(0))
    }

    /// Takes groups out of the sequence and puts them back in front of place `to`.
    fn reinsert(&mut self, choice: &mut Choice, groups: &[GroupIx], to: usize) {
        choice.sequence.retain(|g| !groups.contains(g));
        let to = to.min(choice.sequence.len());
        choice.sequence.splice(to..to, groups.iter().copied());
        if self.rng.below(2) == 0 {
            for group in groups {
                choice.hints[*group].hold = 0;
            }
        }
    }

    fn move_one(&mut self, choice: &mut Choice) {
        let late = self.rng.below(3) > 0;
        let group = if late {
            self.a_group()
        } else {
            self.any_group()
        };
        let at = choice
            .sequence
            .iter()
            .position(|g| *g == group)
            .unwrap_or(0);
        let to = match self.rng.below(3) {
            0 if late => self.rng.below(at + 1),
            1 => at.saturating_sub(4) + self.rng.below(9),
            _ => self.rng.below(choice.sequence.len()),
        };
        self.reinsert(choice, &[group], to);
    }

    fn move_some_of_an_order(&mut self, choice: &mut Choice) {
        let group = self.a_group();
        let order = self.from.groups[group].order;
        let share = 1 + self.rng.below(4);
        let mut some: Vec<GroupIx> = choice.sequence.clone();
        some.retain(|g| {
            *g == group || (self.from.groups[*g].order == order && self.rng.below(4) < share)
        });
        let to = self.rng.below(choice.sequence.len() + 1 - some.len());
        self.reinsert(choice, &some, to);
    }

    fn swap(&mut self, choice: &mut Choice) {
        let group = self.a_group();
        let at = choice
            .sequence
            .iter()
            .position(|g| *g == group)
            .unwrap_or(0);
        let other = self.rng.below(choice.sequence.len());
        choice.sequence.swap(at, other);
    }

    /// Makes some groups wait for another event, wait a little more or less, or not wait at all.
    fn change_hold(&mut self, choice: &mut Choice) {
        for _ in 0..=self.rng.below(3) {
            let group = self.any_group();
            let old = choice.hints[group].hold;
            let step = QUARTER * secs(1 + self.rng.below(8));
            choice.hints[group].hold = match self.rng.below(5) {
                0 => 0,
                1 => self.a_moment() + 60,
                2 => (old - step).max(0),
                3 => old.max(self.from.now) + step,
                _ => self.end_of_another(),
            };
        }
    }

    fn a_moment(&mut self) -> Secs {
        let at = self.rng.below(self.moments.len());
        self.moments.get(at).copied().unwrap_or(0)
    }

    /// When some sector's PC1 ends in the best plan.
    fn end_of_another(&mut self) -> Secs {
        let group = self.any_group();
        let Some(best) = &self.best else { return 0 };
        best.world
            .sectors_in(group)
            .next()
            .map_or(0, |s| best.world.sectors[s].row.e1.max(0))
    }

    fn shift_on_gpus(&mut self, choice: &mut Choice) {
        let group = self.a_group();
        let reach = choice.sequence.len();
        choice.hints[group].shift = match self.rng.below(3) {
            0 => 0,
            _ => i64::from(secs(self.rng.below(2 * reach + 1))) - i64::from(secs(reach)),
        };
    }

    /// Holds a group's PC2 or C2 back until a GPU step of another sector has begun or ended, or
    /// drops that hold.
    fn keep_gpus(&mut self, choice: &mut Choice) {
        for _ in 0..=self.rng.below(2) {
            let (group, other) = (self.any_group(), self.a_group());
            let Some(best) = &self.best else { return };
            let Some(row) = best
                .world
                .sectors_in(other)
                .next()
                .map(|s| best.world.sectors[s].row)
            else {
                return;
            };
            let until = match self.rng.below(4) {
                0 => row.e2,
                1 => row.e3,
                2 => row.s3,
                _ => 0,
            };
            let hint = &mut choice.hints[group];
            if self.rng.below(2) == 0 {
                hint.hold_p2 = until
            } else {
                hint.hold_c2 = until
            }
        }
    }

    fn choose_machine(&mut self, choice: &mut Choice) {
        let group = if self.rng.below(2) == 0 {
            self.a_group()
        } else {
            self.any_group()
        };
        let at = self.rng.below(self.p1_machines.len() * 2);
        choice.hints[group].on = self.p1_machines.get(at).copied();
    }

    /// Treats a group, or its whole order, as if due earlier or later.
    fn change_lead(&mut self, choice: &mut Choice) {
        for _ in 0..=self.rng.below(2) {
            let group = if self.rng.below(2) == 0 {
                self.a_group()
            } else {
                self.any_group()
            };
            let change = QUARTER * secs(self.rng.below(48)) - 6 * HOUR;
            if self.rng.below(2) == 0 {
                choice.hints[group].lead += change;
                continue;
            }
            let order = self.from.groups[group].order;
            for other in self
                .from
                .groups
                .keys()
                .filter(|g| self.from.groups[*g].order == order)
            {
                choice.hints[other].lead += change;
            }
        }
    }

    /// Ties a group that may go to any pool to one of them, or to none. Half of the time some more
    /// groups of its order go with it.
    fn choose_pool(&mut self, choice: &mut Choice) {
        let at = self.rng.below(self.unbound.len());
        let Some(group) = self.unbound.get(at).copied() else {
            return self.change_lead(choice);
        };
        let pools = self.from.pools.len();
        let pool = self.rng.below(pools + 1);
        let only = (pool < pools).then(|| PoolIx::of(pool));
        let order = self.from.groups[group].order;
        let share = if self.rng.below(2) == 0 {
            0
        } else {
            1 + self.rng.below(4)
        };
        for at in 0..self.unbound.len() {
            let Some(other) = self.unbound.get(at).copied() else {
                break;
            };
            if other == group
                || (self.from.groups[other].order == order && self.rng.below(4) < share)
            {
                choice.hints[other].only = only;
            }
        }
    }

    fn change_policy(&mut self, choice: &mut Choice) {
        let policy = &mut choice.policy;
        let newcomers = !self.from.newcomers.is_empty();
        let pools = self.from.pools.len() > 1;
        match self
            .rng
            .below(5 + usize::from(pools) + usize::from(newcomers))
        {
            5 if pools => {
                policy.give_way = GIVE_WAY
                    .get(self.rng.below(GIVE_WAY.len()))
                    .copied()
                    .unwrap_or(policy.give_way)
            }
            5.. => choice.shut = !choice.shut,
            0 => policy.spread = !policy.spread,
            1 => policy.reserve = !policy.reserve,
            2 => {
                policy.gate = if policy.gate.is_none() {
                    Some(2 * HOUR)
                } else {
                    None
                }
            }
            3 => policy.look = HOUR * secs(1 + self.rng.below(24)),
            _ => {
                policy.ahead = if policy.rule == Rule::Keyed {
                    0
                } else {
                    QUARTER * secs(self.rng.below(9))
                }
            }
        }
    }
}
