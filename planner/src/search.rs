//! Finds better priorities by simulating the fleet again and again.
//!
//! A search begins with the best rule of a portfolio, and changes what that rule may use: leads,
//! pools and the policy. If all orders are known, it also turns the order in which that rule began
//! its sectors into keys, and changes keys and holds (deliberate waits before PC1). It keeps a
//! change unless the plan becomes much worse than the best so far; the margin shrinks as the budget
//! is used. With [`Aim::Exact`] the result is never worse than the best rule that was tried.

use crate::{
    GroupIx, HOUR, MachineIx, Policy, Secs, Table,
    budget::{Budget, Effort},
    choice::Choice,
    model::failure::Rng,
    portfolio::{USUAL_RULES, keyed, portfolio, ways_to_an_early_end},
    sim::world::{SearchHint, World},
};

/// Weighted lateness (weight times seconds), then the sum of completion times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cost {
    pub tardiness: i64,
    pub flow: i64,
}

impl Cost {
    const WORST: Self = Self {
        tardiness: i64::MAX,
        flow: i64::MAX,
    };
}

/// The goal of a search.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Aim {
    /// Weighted lateness alone: all orders that there will ever be are known.
    Exact,
    /// More will be ordered. A date that is only just met costs a little as well, and so does a
    /// pool that finishes long after the others.
    Open,
}

/// From this long before its due date on, a sector costs a tenth of what it costs when late.
const MARGIN: Secs = 4 * HOUR;
/// With several pools, ending earlier by a share of the whole time is worth this many times that
/// share of the lateness. A pool that has days of work while another has none has no place for the
/// next urgent order. If nothing is late, an early end is worth nothing, so no sector is made late
/// for it. (With one pool, the same work is left whatever goes first.)
const END_WORTH: i64 = 2;

/// The result of a search.
pub struct Improved<'f> {
    /// Simulated to the end.
    pub world: World<'f>,
    pub cost: Cost,
    /// The cost before the search.
    pub before: Cost,
    /// Number of plans that were simulated.
    pub rounds: u32,
    choice: Choice,
}

impl World<'_> {
    /// The plan's cost, once the world has been simulated to the end.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let mut cost = Cost {
            tardiness: 0,
            flow: 0,
        };
        for sector in self.sectors.iter() {
            let order = &self.orders[self.groups[sector.group].order];
            let late = i64::from(sector.row.vc.saturating_sub(order.due).max(0));
            cost.tardiness += order.weight * late;
            cost.flow += i64::from(sector.row.vc);
        }
        cost
    }

    /// When the last sector becomes active, once the world has been simulated to the end.
    fn last_active(&self) -> Secs {
        self.sectors
            .iter()
            .map(|sector| sector.row.vc)
            .max()
            .unwrap_or(self.now)
    }

    /// Whether some of a group's sectors are not active yet.
    fn is_open(&self, group: GroupIx) -> bool {
        self.sectors_in(group)
            .any(|s| self.sectors.get(s).is_some_and(|sector| sector.row.vc < 0))
    }

    /// Whether a group has sectors to begin and may go to any of several pools.
    fn is_unbound(&self, group: GroupIx) -> bool {
        let state = &self.groups[group];
        self.pools.len() > 1 && !state.is_spent() && self.orders[state.order].pool.is_none()
    }

    /// Follows the choice that a search has found from now on.
    pub fn adopt(&mut self, found: &Improved<'_>) {
        self.follow(&found.choice);
        if !found.choice.shut {
            self.newcomers.clear();
        }
    }
}

/// Improves on the present decisions of `world`, and on the best rule, for the work that is left,
/// within `budget`. The same world, aim, seed and answers of `budget` give the same result. `None`:
/// some sector can never be sealed.
pub fn improve<'f>(
    world: &World<'f>,
    aim: Aim,
    seed: u64,
    budget: &mut dyn Budget,
) -> Option<Improved<'f>> {
    let mut search = Search::new(world, aim, seed);
    let (current, before) = search.current()?;
    search.try_rules(budget);
    search.begin();
    search.try_changes(budget);
    search.drop_small_gain(&current, before);
    let rounds = search.rounds;
    search.best.map(|best| Improved {
        cost: best.cost,
        world: best.world,
        choice: best.choice,
        before,
        rounds,
    })
}

pub(crate) struct Best<'f> {
    pub cost: Cost,
    pub world: World<'f>,
    pub choice: Choice,
}

impl Best<'_> {
    pub(crate) fn due(&self, group: GroupIx) -> Secs {
        self.world.orders[self.world.groups[group].order].due
    }

    /// When the first of a group's sectors that begin at `now` or later begins; −1: none does.
    fn begins(&self, group: GroupIx, now: Secs) -> Secs {
        let sectors = self.world.sectors_in(group);
        let all = sectors.map(|s| self.world.sectors[s].row.s1);
        all.filter(|s1| *s1 >= now).min().unwrap_or(-1)
    }
}

pub(crate) struct Search<'w, 'f> {
    pub from: &'w World<'f>,
    pub aim: Aim,
    pub rng: Rng,
    pub best: Option<Best<'f>>,
    /// The choices that changes are tried on: one under a rule, and one under keys.
    states: Vec<(Choice, Cost)>,
    rounds: u32,
    /// When the first plan has activated every sector, if the end counts.
    first_end: Option<Secs>,
    /// Groups with sectors that are not active yet.
    pub open: Vec<GroupIx>,
    /// Groups that have sectors to begin and may go to any pool.
    pub unbound: Vec<GroupIx>,
    /// Moments worth waiting for: arrivals.
    pub moments: Vec<Secs>,
    pub p1_machines: Vec<MachineIx>,
}

impl<'w, 'f> Search<'w, 'f> {
    fn new(from: &'w World<'f>, aim: Aim, seed: u64) -> Self {
        let hints = from.groups.iter().map(|group| group.hint).collect();
        let current = Choice {
            policy: from.policy,
            sequence: from.sequence(),
            hints,
            shut: false,
        };
        let mut moments: Vec<Secs> = from.groups.iter().map(|g| g.release).collect();
        moments.sort_unstable();
        moments.dedup();
        let p1_machines = from
            .machines
            .pairs()
            .filter(|(_, room)| room.can_p1)
            .map(|(machine, _)| machine)
            .collect();
        Self {
            from,
            aim,
            rng: Rng::new(seed),
            best: None,
            states: vec![(current, Cost::WORST)],
            rounds: 0,
            first_end: None,
            open: from
                .groups
                .keys()
                .filter(|group| from.is_open(*group))
                .collect(),
            unbound: from
                .groups
                .keys()
                .filter(|group| from.is_unbound(*group))
                .collect(),
            moments,
            p1_machines,
        }
    }

    /// The choice that changes nothing, and its cost. Newcomers are let in if they help, and kept
    /// out if not.
    fn current(&mut self) -> Option<(Choice, Cost)> {
        let open = self.states.first().map(|(choice, _)| choice.clone())?;
        let shut = Choice {
            shut: true,
            ..open.clone()
        };
        let with = self.simulate(&open);
        let without = if self.from.newcomers.is_empty() {
            None
        } else {
            self.simulate(&shut)
        };
        match (with, without) {
            (Some(with), Some(without)) if without < with => Some((shut, without)),
            (None, without) => without.map(|cost| (shut, cost)),
            (Some(with), _) => Some((open, with)),
        }
    }

    fn end_counts(&self) -> bool {
        self.aim == Aim::Open && self.from.pools.len() > 1
    }

    fn simulate(&mut self, choice: &Choice) -> Option<Cost> {
        self.rounds += 1;
        let world = self.from.simulated(choice)?;
        if self.end_counts() {
            self.first_end.get_or_insert_with(|| world.last_active());
        }
        let cost = self.cost_of(&world);
        if self.best.as_ref().is_none_or(|b| cost < b.cost) {
            self.best = Some(Best {
                cost,
                world,
                choice: choice.clone(),
            });
        }
        Some(cost)
    }

    /// [`World::cost`], adjusted to the search's aim.
    fn cost_of(&self, world: &World<'f>) -> Cost {
        let mut cost = world.cost();
        if self.aim == Aim::Exact {
            return cost;
        }
        let (mut narrow, mut end) = (0, self.from.now);
        for sector in world.sectors.iter() {
            let order = &world.orders[world.groups[sector.group].order];
            let from = order.due.saturating_sub(MARGIN);
            narrow += order.weight * i64::from(sector.row.vc.saturating_sub(from).max(0));
            end = end.max(sector.row.vc);
        }
        cost.tardiness += narrow / 10;
        if let Some(first) = self.first_end {
            let whole = i64::from(first - self.from.now).max(1);
            let per_mille = END_WORTH * 1000 * i64::from(end - first) / whole;
            cost.tardiness += (cost.tardiness / 1000).saturating_mul(per_mille.max(-900));
        }
        cost
    }

    /// Tries the portfolio's rules, as far as the budget goes.
    fn try_rules(&mut self, budget: &mut dyn Budget) {
        // An unusual rule that wins on today's orders often loses on tomorrow's.
        let rules = if self.aim == Aim::Open {
            USUAL_RULES
        } else {
            usize::MAX
        };
        // If all orders are known, there is no need to keep slots free.
        let burst = self.from.policy.burst.filter(|_| self.aim == Aim::Open);
        let ways = if self.end_counts() { usize::MAX } else { 0 };
        let policies = portfolio(burst)
            .take(rules)
            .chain(ways_to_an_early_end().take(ways));
        for policy in policies {
            self.try_rule(policy);
            if budget.effort() == Effort::Search && budget.used() >= 600 {
                break;
            }
        }
    }

    fn try_rule(&mut self, policy: Policy) {
        self.simulate(&Choice {
            policy,
            sequence: Vec::new(),
            hints: self.no_hints(),
            shut: false,
        });
    }

    fn no_hints(&self) -> Table<GroupIx, SearchHint> {
        let groups = self.from.groups.iter();
        groups.map(|_| SearchHint::default()).collect()
    }

    /// Starts the changes from the best rule and, if all orders are known, from keys as well.
    fn begin(&mut self) {
        let Some(best) = &self.best else { return };
        self.states = vec![(best.choice.clone(), best.cost)];
        if self.aim == Aim::Exact && best.cost.tardiness > 0 {
            self.begin_with_keys();
        }
    }

    /// Keys from the order in which the best plan began its sectors.
    fn begin_with_keys(&mut self) {
        let Some(best) = &self.best else { return };
        let (rule, shut) = (best.choice.policy, best.choice.shut);
        let groups = || self.from.groups.keys();
        let begins = |group| best.begins(group, self.from.now);
        let mut sequence: Vec<(Secs, Secs, GroupIx)> =
            groups().map(|g| (begins(g), best.due(g), g)).collect();
        sequence.sort_unstable();
        let sequence: Vec<GroupIx> = sequence.into_iter().map(|(.., g)| g).collect();
        let held: Table<GroupIx, SearchHint> = groups()
            .map(|g| SearchHint {
                hold: begins(g).max(0),
                ..SearchHint::default()
            })
            .collect();
        let free = self.no_hints();
        let mut first: Option<(Choice, Cost)> = None;
        for policy in keyed(rule) {
            for hints in [&free, &held] {
                let choice = Choice {
                    policy,
                    sequence: sequence.clone(),
                    hints: hints.clone(),
                    shut,
                };
                if let Some(cost) = self.simulate(&choice)
                    && first.as_ref().is_none_or(|f| cost < f.1)
                {
                    first = Some((choice, cost));
                }
            }
        }
        self.states.extend(first);
    }

    /// Tries changes while something is late and the budget lasts.
    fn try_changes(&mut self, budget: &mut dyn Budget) {
        while budget.effort() == Effort::Search && self.something_is_late() {
            let gone = budget.used();
            if gone >= 1000 {
                break;
            }
            self.round(i64::from(gone));
        }
    }

    /// Whether something is late in the best plan.
    fn something_is_late(&self) -> bool {
        self.best
            .as_ref()
            .is_some_and(|best| best.cost.tardiness > 0)
    }

    /// Returns to the present decisions if there will be more orders and the gain is less than
    /// 2 %: that is not worth a changed plan.
    fn drop_small_gain(&mut self, current: &Choice, before: Cost) {
        let enough = before.tardiness / 50 * 49;
        let found = self.best.as_ref().map(|best| best.cost.tardiness);
        if self.aim == Aim::Open && found.is_some_and(|found| found > enough) {
            self.best = None;
            self.simulate(current);
        }
    }

    /// Tries one change, and keeps it unless the plan becomes much worse. Early in the budget
    /// either state is changed, later only the better one.
    fn round(&mut self, gone: i64) {
        let better = (0..self.states.len())
            .min_by_key(|at| self.states.get(*at).map(|s| s.1))
            .unwrap_or(0);
        let at = if gone < 200 {
            self.rng.below(self.states.len())
        } else {
            better
        };
        let Some((mut choice, before)) = self.states.get(at).cloned() else {
            return;
        };
        self.change(&mut choice);
        let Some(cost) = self.simulate(&choice) else {
            return;
        };
        let best = self.best.as_ref().map_or(cost, |b| b.cost);
        // At first a plan may be one per cent worse, in the end not at all.
        let slack = best.tardiness / 100 * (1000 - gone) / 1000;
        let limit = best.tardiness.saturating_add(slack);
        if (cost <= before || cost.tardiness <= limit)
            && let Some(state) = self.states.get_mut(at)
        {
            *state = (choice, cost);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::Rounds,
        fixture::{order, two_pools},
    };

    fn found<'f>(world: &World<'f>) -> Improved<'f> {
        improve(world, Aim::Open, 1, &mut Rounds::most(20)).unwrap()
    }

    #[test]
    fn an_open_search_values_an_early_end_only_while_something_is_late() {
        let fleet = two_pools(0);
        let policy = Policy {
            give_way: 0,
            ..Policy::default()
        };
        let begun = |late: u32| {
            let mut world = World::new(&fleet, policy);
            world.add_order(order(Some(0), 90, 200 * HOUR));
            world.add_order(order(None, 30, 190 * HOUR));
            if late > 0 {
                world.add_order(order(Some(1), late, HOUR));
            }
            world.run_until(1);
            world
        };
        let mut as_it_is = begun(1);
        let late = found(&as_it_is);
        assert!(as_it_is.run());
        let end = i64::from(as_it_is.last_active());
        let earlier = end - i64::from(late.world.last_active());
        assert!(earlier > i64::from(HOUR), "{earlier} s");
        assert_eq!(
            late.world.cost().tardiness,
            as_it_is.cost().tardiness,
            "one sector is late, whatever is done"
        );
        let share = late.before.tardiness / 1000 * (END_WORTH * 1000 * earlier / (end - 1));
        assert!(
            (late.before.tardiness - late.cost.tardiness - share).abs()
                <= late.before.tardiness / 1000,
            "as much of lateness as of the time until the end"
        );
        let mut as_it_is = begun(0);
        let on_time = found(&as_it_is);
        assert!(as_it_is.run());
        assert_eq!(
            (on_time.before.tardiness, on_time.cost.tardiness),
            (0, 0),
            "nothing is late: an early end is worth nothing"
        );
    }
}
