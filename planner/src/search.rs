//! Finds better priorities by simulating the fleet again and again.
//!
//! A search begins with the best rule of a portfolio, and changes what that rule may use: leads,
//! pools and the policy. If all orders are known, it also turns the order in which that rule began
//! its sectors into keys, and changes keys and holds (deliberate waits before PC1). It keeps a
//! change unless the plan becomes much worse than the best so far; the margin shrinks as the budget
//! is used. With [`Aim::Exact`] the result is never worse than the best rule that was tried.

use crate::{
    Event, GroupIx, HOUR, MachineIx, Policy, Rule, Secs, Table,
    model::failure::Rng,
    sim::world::{SearchHint, World},
};

/// Weighted lateness (weight times seconds), then the sum of completion times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cost {
    pub tardiness: i64,
    pub flow: i64,
}

impl Cost {
    const WORST: Self = Self { tardiness: i64::MAX, flow: i64::MAX };
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

/// How much a search tries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Effort {
    /// One rule, once, without a search.
    OneRule,
    /// The best of the portfolio's rules.
    Rules,
    /// The best rule, and changes to it until the budget is used.
    Search,
}

/// How long a search may go on.
pub trait Budget {
    fn effort(&self) -> Effort;
    /// The next search begins.
    fn begin(&mut self);
    /// Per mille of this search's share that is used; at 1000 the search ends.
    fn used(&mut self) -> u32;
}

/// A fixed number of plans, however long they take: the same world gives the same result.
#[derive(Clone, Copy, Debug)]
pub struct Rounds {
    most: u32,
    simulated: u32,
}

impl Rounds {
    #[must_use]
    pub const fn most(most: u32) -> Self {
        Self { most, simulated: 0 }
    }
}

impl Budget for Rounds {
    fn effort(&self) -> Effort {
        Effort::Search
    }

    fn begin(&mut self) {
        self.simulated = 0;
    }

    fn used(&mut self) -> u32 {
        self.simulated = self.simulated.saturating_add(1);
        self.simulated.saturating_mul(1000) / self.most.max(1)
    }
}

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

/// Everything that decides how the remaining work is done.
#[derive(Clone)]
pub(crate) struct Choice {
    pub policy: Policy,
    /// Groups, most urgent first; empty under a rule.
    pub sequence: Vec<GroupIx>,
    pub hints: Table<GroupIx, SearchHint>,
    /// Machines that came since the last plan are kept out of this one.
    pub shut: bool,
}

impl World<'_> {
    /// The plan's cost, once the world has been simulated to the end.
    #[must_use]
    pub fn cost(&self) -> Cost {
        let mut cost = Cost { tardiness: 0, flow: 0 };
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
        self.sectors.iter().map(|sector| sector.row.vc).max().unwrap_or(self.now)
    }

    /// Whether some of a group's sectors are not active yet.
    fn is_open(&self, group: GroupIx) -> bool {
        self.sectors_in(group).any(|s| self.sectors.get(s).is_some_and(|sector| sector.row.vc < 0))
    }

    /// Whether a group has sectors to begin and may go to any of several pools.
    fn is_unbound(&self, group: GroupIx) -> bool {
        let state = &self.groups[group];
        self.pools.len() > 1 && !state.is_spent() && self.orders[state.order].pool.is_none()
    }

    fn follow(&mut self, choice: &Choice) {
        self.shut_newcomers(choice.shut);
        self.set_policy(choice.policy);
        for (group, hint) in choice.hints.pairs() {
            if hint.hold > self.now && hint.hold > self.groups[group].hint.hold {
                self.agenda.push(hint.hold, Event::Open(group));
            }
            for hold in [hint.hold_p2, hint.hold_c2] {
                if hold > self.now {
                    self.pause_at(hold);
                }
            }
            self.groups[group].hint = *hint;
        }
        for (group, place) in choice.sequence.iter().zip((0i64..).step_by(2)) {
            let state = &mut self.groups[*group];
            state.key = place;
            state.gpu_key = place + 2 * state.hint.shift;
        }
    }

    /// Groups in the order of their present keys; empty under a rule.
    fn sequence(&self) -> Vec<GroupIx> {
        if self.policy.rule != Rule::Keyed {
            return Vec::new();
        }
        let mut keyed: Vec<(i64, GroupIx)> = self.groups.pairs().map(|(group, state)| (state.key, group)).collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, group)| group).collect()
    }

    /// Follows the choice that a search has found from now on.
    pub fn adopt(&mut self, found: &Improved<'_>) {
        self.follow(&found.choice);
        if !found.choice.shut {
            self.newcomers.clear();
        }
    }

    fn simulated(&self, choice: &Choice) -> Option<Self> {
        let mut world = self.clone();
        world.follow(choice);
        world.run().then_some(world)
    }
}

/// The first rules of [`portfolio`], which have the usual look-ahead and gate.
const USUAL_RULES: usize = 6;

/// Rules to begin with. Those that win most often come first.
fn portfolio(burst: Option<Secs>) -> impl Iterator<Item = Policy> {
    let base = Policy { burst, ..Policy::default() };
    let rules = [(Rule::Atc, 2), (Rule::Wmdd, 3), (Rule::Atc, 1), (Rule::Atc, 4), (Rule::Edd, 3), (Rule::Atc, 10)];
    let placings = [(base.gate, true, true), (None, true, true), (None, true, false), (Some(6 * HOUR), false, true)];
    placings.into_iter().flat_map(move |(gate, spread, reserve)| {
        [4, 0, 8].into_iter().flat_map(move |quarters| {
            let policy = Policy { gate, spread, reserve, ahead: quarters * HOUR / 4, ..base };
            rules.into_iter().map(move |(rule, hours)| Policy { rule, look: hours * HOUR, ..policy })
        })
    })
}

/// Values to try for [`Policy::give_way`].
pub(crate) const GIVE_WAY: [i64; 6] = [0, 2, 6, 20, 100, 1000];

/// Values to try for [`Policy::c2_first`].
const C2_FIRST: [i32; 3] = [0, -50, -200];

/// Further starting points, where one pool may finish before another.
fn ways_to_an_early_end() -> impl Iterator<Item = Policy> {
    let ways = GIVE_WAY.iter().map(|give_way| Policy { give_way: *give_way, ..Policy::default() });
    ways.chain(C2_FIRST.iter().map(|c2_first| Policy { c2_first: *c2_first, ..Policy::default() }))
}

/// Improves on the present decisions of `world`, and on the best rule, for the work that is left,
/// within `budget`. The same world, aim, seed and answers of `budget` give the same result. `None`:
/// some sector can never be sealed.
pub fn improve<'f>(world: &World<'f>, aim: Aim, seed: u64, budget: &mut dyn Budget) -> Option<Improved<'f>> {
    let mut search = Search::new(world, aim, seed);
    let (current, before) = search.current()?;
    // An unusual rule that wins on today's orders often loses on tomorrow's.
    let rules = if aim == Aim::Open { USUAL_RULES } else { usize::MAX };
    // If all orders are known, there is no need to keep slots free.
    let burst = world.policy.burst.filter(|_| aim == Aim::Open);
    let ways = if search.end_counts() { usize::MAX } else { 0 };
    for policy in portfolio(burst).take(rules).chain(ways_to_an_early_end().take(ways)) {
        search.try_rule(policy);
        if budget.effort() == Effort::Search && budget.used() >= 600 {
            break;
        }
    }
    search.begin();
    while budget.effort() == Effort::Search && search.best.as_ref().is_some_and(|best| best.cost.tardiness > 0) {
        let gone = budget.used();
        if gone >= 1000 {
            break;
        }
        search.round(i64::from(gone));
    }
    if search.best.as_ref().is_some_and(|best| aim == Aim::Open && best.cost.tardiness > before.tardiness / 50 * 49) {
        // A gain of less than 2 % is not worth a changed plan.
        search.best = None;
        search.simulate(&current);
    }
    let rounds = search.rounds;
    search.best.map(|best| Improved { cost: best.cost, world: best.world, choice: best.choice, before, rounds })
}

pub(crate) struct Best<'f> {
    pub cost: Cost,
    pub world: World<'f>,
    pub choice: Choice,
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
        let current = Choice { policy: from.policy, sequence: from.sequence(), hints, shut: false };
        let mut moments: Vec<Secs> = from.groups.iter().map(|g| g.release).collect();
        moments.sort_unstable();
        moments.dedup();
        let p1_machines = from.machines.pairs().filter(|(_, room)| room.can_p1).map(|(machine, _)| machine).collect();
        Self {
            from,
            aim,
            rng: Rng::new(seed),
            best: None,
            states: vec![(current, Cost::WORST)],
            rounds: 0,
            first_end: None,
            open: from.groups.keys().filter(|group| from.is_open(*group)).collect(),
            unbound: from.groups.keys().filter(|group| from.is_unbound(*group)).collect(),
            moments,
            p1_machines,
        }
    }

    /// The choice that changes nothing, and its cost. Newcomers are let in if they help, and kept
    /// out if not.
    fn current(&mut self) -> Option<(Choice, Cost)> {
        let open = self.states.first().map(|(choice, _)| choice.clone())?;
        let shut = Choice { shut: true, ..open.clone() };
        let with = self.simulate(&open);
        let without = if self.from.newcomers.is_empty() { None } else { self.simulate(&shut) };
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
            self.best = Some(Best { cost, world, choice: choice.clone() });
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
            narrow += order.weight * i64::from(sector.row.vc.saturating_sub(order.due.saturating_sub(MARGIN)).max(0));
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

    fn try_rule(&mut self, policy: Policy) {
        let hints = self.from.groups.iter().map(|_| SearchHint::default()).collect();
        self.simulate(&Choice { policy, sequence: Vec::new(), hints, shut: false });
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
        let begun = |group: GroupIx| {
            let all = best.world.sectors_in(group).map(|s| best.world.sectors[s].row.s1);
            all.filter(|s1| *s1 >= self.from.now).min().unwrap_or(-1)
        };
        let due = |group: GroupIx| best.world.orders[best.world.groups[group].order].due;
        let mut sequence: Vec<(Secs, Secs, GroupIx)> = self.from.groups.keys().map(|g| (begun(g), due(g), g)).collect();
        sequence.sort_unstable();
        let held: Table<GroupIx, SearchHint> =
            self.from.groups.keys().map(|g| SearchHint { hold: begun(g).max(0), ..SearchHint::default() }).collect();
        let free: Table<GroupIx, SearchHint> = self.from.groups.iter().map(|_| SearchHint::default()).collect();
        let sequence: Vec<GroupIx> = sequence.into_iter().map(|(_, _, g)| g).collect();
        let mut first: Option<(Choice, Cost)> = None;
        for spread in [false, true] {
            for gate in [Some(2 * HOUR), None] {
                for (reserve, hints) in [(true, &free), (true, &held), (false, &free), (false, &held)] {
                    let policy = Policy { rule: Rule::Keyed, ahead: 0, spread, gate, burst: None, reserve, ..rule };
                    let choice = Choice { policy, sequence: sequence.clone(), hints: hints.clone(), shut };
                    if let Some(cost) = self.simulate(&choice)
                        && first.as_ref().is_none_or(|f| cost < f.1)
                    {
                        first = Some((choice, cost));
                    }
                }
            }
        }
        self.states.extend(first);
    }

    /// Tries one change, and keeps it unless the plan becomes much worse. Early in the budget
    /// either state is changed, later only the better one.
    fn round(&mut self, gone: i64) {
        let better = (0..self.states.len()).min_by_key(|at| self.states.get(*at).map(|s| s.1)).unwrap_or(0);
        let at = if gone < 200 { self.rng.below(self.states.len()) } else { better };
        let Some((mut choice, before)) = self.states.get(at).cloned() else { return };
        self.change(&mut choice);
        let Some(cost) = self.simulate(&choice) else { return };
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
    use crate::fixture::{order, two_pools};

    #[test]
    fn an_open_search_values_an_early_end_only_while_something_is_late() {
        let fleet = two_pools(0);
        let found = |late: u32| {
            let mut world = World::new(&fleet, Policy { give_way: 0, ..Policy::default() });
            world.add_order(order(Some(0), 90, 200 * HOUR));
            world.add_order(order(None, 30, 190 * HOUR));
            if late > 0 {
                world.add_order(order(Some(1), late, HOUR));
            }
            world.run_until(1);
            let mut as_it_is = world.clone();
            assert!(as_it_is.run());
            let found = improve(&world, Aim::Open, 1, &mut Rounds::most(20)).unwrap();
            (i64::from(as_it_is.last_active()), as_it_is.cost().tardiness, found)
        };
        let (end, tardiness, late) = found(1);
        let earlier = end - i64::from(late.world.last_active());
        assert!(earlier > 3600, "{earlier} s");
        assert_eq!(late.world.cost().tardiness, tardiness, "one sector is late, whatever is done");
        let share = late.before.tardiness / 1000 * (END_WORTH * 1000 * earlier / (end - 1));
        assert!(
            (late.before.tardiness - late.cost.tardiness - share).abs() <= late.before.tardiness / 1000,
            "as much of lateness as of the time until the end"
        );
        let (.., on_time) = found(0);
        assert_eq!((on_time.before.tardiness, on_time.cost.tardiness), (0, 0), "nothing is late: an early end is worth nothing");
    }
}
