//! Finds better priorities by playing the fleet on again and again.
//!
//! It begins with the best of a portfolio of rules, turns the order in which that one began its sectors into keys, and then
//! changes keys and holds (deliberate waits before PC1), keeping what is not much worse than the best so far; how much worse may
//! be shrinks as the budget is used. The result is never worse than the best rule.

use super::{Event, GroupIx, Key, Policy, Rule, Secs, Table, failure::Dice, world::World};

/// Weighted lateness in weight times seconds, then the sum of completion times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Cost {
    pub tardiness: i64,
    pub flow: i64,
}

impl Cost {
    const WORST: Self = Self { tardiness: i64::MAX, flow: i64::MAX };
}

/// What was found.
pub struct Improved<'f> {
    /// Played to the end.
    pub world: World<'f>,
    pub cost: Cost,
    /// The best rule's.
    pub start: Cost,
    /// Plans that were played.
    pub rounds: u32,
    choice: Choice,
}

/// How the remaining work is decided on.
#[derive(Clone)]
struct Choice {
    policy: Policy,
    /// Groups, most urgent first; empty for a rule.
    sequence: Vec<GroupIx>,
    /// Added to a group's place where GPUs are concerned.
    shift: Table<GroupIx, i64>,
    hold: Table<GroupIx, Secs>,
}

impl World<'_> {
    /// What this plan costs, once it has been played to the end.
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

    fn follow(&mut self, choice: &Choice) {
        self.set_policy(choice.policy);
        let places = (0i64..).step_by(2);
        for (group, place) in choice.sequence.iter().zip(places) {
            let hold = choice.hold[*group];
            let shift = choice.shift[*group];
            let state = &mut self.groups[*group];
            state.key = place;
            state.gpu_key = place + 2 * shift;
            if hold > self.now && hold > state.hold {
                self.agenda.push(hold, Event::Open(*group));
            }
            self.groups[*group].hold = hold;
        }
    }

    /// Goes on by what a search has found.
    pub fn adopt(&mut self, found: &Improved<'_>) {
        self.follow(&found.choice);
    }

    fn played(&self, choice: &Choice) -> Option<(Cost, Self)> {
        let mut world = self.clone();
        world.follow(choice);
        world.run().then(|| (world.cost(), world))
    }
}

const HOUR: Secs = 3600;

/// Rules to begin with.
fn portfolio() -> Vec<Policy> {
    let base = Policy::default();
    let mut policies = Vec::new();
    for (rule, look) in [
        (Rule::Atc, 3 * HOUR),
        (Rule::Wmdd, 3 * HOUR),
        (Rule::Atc, HOUR),
        (Rule::Atc, 8 * HOUR),
        (Rule::Edd, 3 * HOUR),
        (Rule::Atc, 24 * HOUR),
    ] {
        for ahead in [HOUR / 2, 0, 2 * HOUR] {
            policies.push(Policy { rule, look, ahead, ..base });
        }
    }
    for variant in [
        Policy { spread: true, ..base },
        Policy { gate: None, ..base },
        Policy { spread: true, reserve: false, gate: None, ..base },
        Policy { rule: Rule::Edd, spread: true, gate: None, ..base },
        Policy { rule: Rule::Wmdd, spread: true, gate: None, ..base },
        Policy { rule: Rule::Wmdd, gate: Some(6 * HOUR), ahead: HOUR / 4, ..base },
    ] {
        policies.push(variant);
    }
    policies
}

/// Improves on the best rule for what is left to do in `world`. `used` says how much of the budget is gone, per mille; at 1000 the
/// search ends. The same world, seed and answers of `used` give the same result.
pub fn improve<'f>(world: &World<'f>, seed: u64, used: &mut dyn FnMut() -> u32) -> Option<Improved<'f>> {
    let mut search = Search::new(world, seed);
    for policy in portfolio() {
        search.try_rule(policy);
        if used() >= 600 {
            break;
        }
    }
    let start = search.best.as_ref().map(|b| b.0)?;
    if start.tardiness > 0 {
        search.begin_with_keys();
        loop {
            let gone = used();
            if gone >= 1000 || search.best.as_ref().is_none_or(|b| b.0.tardiness == 0) {
                break;
            }
            search.round(i64::from(gone));
        }
    }
    let rounds = search.rounds;
    search.best.map(|(cost, world, choice)| Improved { world, cost, start, rounds, choice })
}

struct Search<'w, 'f> {
    from: &'w World<'f>,
    dice: Dice,
    best: Option<(Cost, World<'f>, Choice)>,
    now: Choice,
    now_cost: Cost,
    rounds: u32,
    /// Moments worth waiting for: arrivals, ends of PC1.
    moments: Vec<Secs>,
}

impl<'w, 'f> Search<'w, 'f> {
    fn new(from: &'w World<'f>, seed: u64) -> Self {
        let zeros = || from.groups.iter().map(|_| 0).collect();
        let now =
            Choice { policy: from.policy, sequence: Vec::new(), shift: zeros(), hold: from.groups.iter().map(|_| 0).collect() };
        let mut moments: Vec<Secs> = from.groups.iter().map(|g| g.release).collect();
        moments.sort_unstable();
        moments.dedup();
        Self { from, dice: Dice::new(seed), best: None, now, now_cost: Cost::WORST, rounds: 0, moments }
    }

    /// Plays a choice; true when it is the best so far.
    fn play(&mut self, choice: &Choice) -> Option<Cost> {
        self.rounds += 1;
        let (cost, world) = self.from.played(choice)?;
        if self.best.as_ref().is_none_or(|b| cost < b.0) {
            self.best = Some((cost, world, choice.clone()));
        }
        Some(cost)
    }

    fn try_rule(&mut self, policy: Policy) {
        let choice = Choice { policy, ..self.now.clone() };
        self.play(&choice);
    }

    /// Keys from the order in which the best plan began its sectors.
    fn begin_with_keys(&mut self) {
        let Some((_, world, choice)) = &self.best else { return };
        let begun = |group: GroupIx| {
            let state = &world.groups[group];
            let all = (state.first..state.first + state.n).map(|s| world.sectors[super::SectorIx(s)].row.s1);
            all.filter(|s1| *s1 >= self.from.now).min().unwrap_or(-1)
        };
        let mut sequence: Vec<(Secs, i64, GroupIx)> =
            world.groups.pairs().map(|(g, state)| (begun(g), i64::from(world.orders[state.order].due), g)).collect();
        sequence.sort_unstable();
        let sequence: Vec<GroupIx> = sequence.into_iter().map(|(_, _, g)| g).collect();
        let hold = world.groups.keys().map(|g| begun(g).max(0)).collect();
        let rule = choice.policy;
        let none = self.now.hold.clone();
        for spread in [false, true] {
            for gate in [Some(2 * HOUR), None] {
                for (reserve, holds) in [(true, &none), (true, &hold), (false, &none), (false, &hold)] {
                    let policy = Policy { rule: Rule::Keyed, ahead: 0, spread, gate, reserve, ..rule };
                    let choice =
                        Choice { policy, sequence: sequence.clone(), shift: self.now.shift.clone(), hold: holds.clone() };
                    if let Some(cost) = self.play(&choice)
                        && cost < self.now_cost
                    {
                        (self.now, self.now_cost) = (choice, cost);
                    }
                }
            }
        }
    }

    /// One change, kept if the plan is not much worse for it.
    fn round(&mut self, gone: i64) {
        let mut choice = self.now.clone();
        if choice.sequence.is_empty() {
            return;
        }
        match self.dice.below(100) {
            0..30 => self.move_one(&mut choice),
            30..45 => self.move_some_of_an_order(&mut choice),
            45..60 => self.swap(&mut choice),
            60..80 => self.change_hold(&mut choice),
            80..95 => self.shift_on_gpus(&mut choice),
            _ => self.change_policy(&mut choice),
        }
        let Some(cost) = self.play(&choice) else { return };
        let best = self.best.as_ref().map_or(cost, |b| b.0);
        // At first a plan may be worse by four per cent, at last by nothing.
        let slack = best.tardiness / 25 * (1000 - gone) / 1000;
        let limit = best.tardiness.saturating_add(slack);
        if cost <= self.now_cost || (cost.tardiness <= limit && self.dice.below(3) == 0) {
            (self.now, self.now_cost) = (choice, cost);
        }
    }

    /// A place in the sequence, more often that of a group that is late in the best plan.
    fn pick(&mut self, choice: &Choice) -> usize {
        let mut at = self.dice.below(choice.sequence.len());
        let Some((_, world, _)) = &self.best else { return at };
        for _ in 0..6 {
            let Some(group) = choice.sequence.get(at) else { break };
            let state = &world.groups[*group];
            let due = world.orders[state.order].due;
            let late = (state.first..state.first + state.n).any(|s| world.sectors[super::SectorIx(s)].row.vc > due);
            if late {
                break;
            }
            at = self.dice.below(choice.sequence.len());
        }
        at
    }

    fn move_one(&mut self, choice: &mut Choice) {
        let late = self.dice.below(3) > 0;
        let at = if late { self.pick(choice) } else { self.dice.below(choice.sequence.len()) };
        let group = choice.sequence.remove(at);
        let to = match self.dice.below(3) {
            0 if late => self.dice.below(at + 1),
            1 => at.saturating_sub(4) + self.dice.below(9),
            _ => self.dice.below(choice.sequence.len() + 1),
        };
        choice.sequence.insert(to.min(choice.sequence.len()), group);
        if self.dice.below(2) == 0 {
            choice.hold[group] = 0;
        }
    }

    fn move_some_of_an_order(&mut self, choice: &mut Choice) {
        let at = self.pick(choice);
        let Some(group) = choice.sequence.get(at).copied() else { return };
        let order = self.from.groups[group].order;
        let (from, share) = (self.from, 1 + self.dice.below(4));
        let mut taken = Vec::new();
        let dice = &mut self.dice;
        choice.sequence.retain(|g| {
            let take = *g == group || (from.groups[*g].order == order && dice.below(4) < share);
            if take {
                taken.push(*g);
            }
            !take
        });
        let to = self.dice.below(choice.sequence.len() + 1);
        let free = self.dice.below(2) == 0;
        for (k, group) in taken.into_iter().enumerate() {
            choice.sequence.insert(to + k, group);
            if free {
                choice.hold[group] = 0;
            }
        }
    }

    fn swap(&mut self, choice: &mut Choice) {
        let (a, b) = (self.pick(choice), self.dice.below(choice.sequence.len()));
        choice.sequence.swap(a, b);
    }

    /// A wait until something else has happened, a little more or less of one, or none.
    fn change_hold(&mut self, choice: &mut Choice) {
        for _ in 0..=self.dice.below(3) {
            let at = self.dice.below(choice.sequence.len());
            let Some(group) = choice.sequence.get(at).copied() else { return };
            let old = choice.hold[group];
            let quarter = 900 * Secs::try_from(1 + self.dice.below(8)).unwrap_or(1);
            choice.hold[group] = match self.dice.below(5) {
                0 => 0,
                1 => self.a_moment() + 60,
                2 => (old - quarter).max(0),
                3 => old.max(self.from.now) + quarter,
                _ => self.begin_of_another(choice),
            };
        }
    }

    fn a_moment(&mut self) -> Secs {
        let at = self.dice.below(self.moments.len());
        self.moments.get(at).copied().unwrap_or(0)
    }

    /// When some sector's PC1 ends in the best plan.
    fn begin_of_another(&mut self, choice: &Choice) -> Secs {
        let at = self.dice.below(choice.sequence.len());
        let Some((_, world, _)) = &self.best else { return 0 };
        let Some(group) = choice.sequence.get(at) else { return 0 };
        let state = &world.groups[*group];
        let sector = state.first + u32::try_from(self.dice.below(usize::try_from(state.n).unwrap_or(1))).unwrap_or(0);
        world.sectors.get(super::SectorIx::of(usize::try_from(sector).unwrap_or(0))).map_or(0, |s| s.row.e1.max(0))
    }

    fn shift_on_gpus(&mut self, choice: &mut Choice) {
        let at = self.pick(choice);
        let Some(group) = choice.sequence.get(at).copied() else { return };
        let reach = choice.sequence.len();
        choice.shift[group] = match self.dice.below(3) {
            0 => 0,
            _ => i64::try_from(self.dice.below(2 * reach + 1)).unwrap_or(0) - i64::try_from(reach).unwrap_or(0),
        };
    }

    fn change_policy(&mut self, choice: &mut Choice) {
        match self.dice.below(3) {
            0 => choice.policy.spread = !choice.policy.spread,
            1 => choice.policy.reserve = !choice.policy.reserve,
            _ => choice.policy.gate = if choice.policy.gate.is_none() { Some(2 * HOUR) } else { None },
        }
    }
}
