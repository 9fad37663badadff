//! What goes first.

use std::sync::LazyLock;

use super::{
    GroupIx, Secs, SectorIx,
    fleet::{Order, Step},
    world::World,
};

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Rule {
    /// First in, first out.
    Fifo,
    /// Earliest due date of the step: the order's, less what is still to do from there on.
    Edd,
    /// Weighted modified due date.
    Wmdd,
    /// Apparent tardiness cost.
    Atc,
    /// Keys that a search has found.
    Keyed,
}

/// How a [`World`] decides.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Policy {
    pub rule: Rule,
    /// How far ATC looks ahead.
    pub look: Secs,
    /// A late order's weight doubles every so often, so that nothing starves.
    pub age: Secs,
    /// PC1 slots are kept for more urgent data that arrives so soon: PC1 blocks a slot for hours.
    pub ahead: Secs,
    /// GPU work allowed between the start of PC1 and PC2, beyond one PC1's length. `None`: any.
    pub gate: Option<Secs>,
    /// PC1 goes where most scratch is free, not where least is.
    pub spread: bool,
    /// What can go to any pool goes to one that needs at most so much longer for what is bound to it than another. `None`: to any.
    pub uneven: Option<Secs>,
    /// What has no more than this much time to spare is in a hurry, and may wait less for the right pool: `uneven_in_hurry`.
    pub hurry: Secs,
    pub uneven_in_hurry: Option<Secs>,
    /// A machine with GPUs keeps room for one GPU step beside PC1.
    pub reserve: bool,
}

const HOUR: Secs = 3600;

impl Default for Policy {
    fn default() -> Self {
        Self {
            rule: Rule::Atc,
            look: 3 * HOUR,
            age: 48 * HOUR,
            ahead: HOUR / 2,
            gate: Some(2 * HOUR),
            spread: false,
            uneven: Some(HOUR),
            hurry: 4 * HOUR,
            uneven_in_hurry: Some(4 * HOUR),
            reserve: true,
        }
    }
}

/// Layers whose ticket expires so soon go first.
const TICKET_GUARD: Secs = 6 * HOUR;

/// Steps of the table of `exp(-x)`, and the last `x` in it.
const STEPS: usize = 64;
const SPAN: usize = 16;
/// `exp(-k / 64)` in units of `2^-20`, by repeated multiplication with `exp(-1 / 64)` in units of `2^-40`.
static EXP: LazyLock<Vec<i64>> = LazyLock::new(|| {
    const FACTOR: i128 = 1_082_465_279_991;
    let values = std::iter::successors(Some(1_i128 << 60), |value| Some((value * FACTOR) >> 40));
    values.take(STEPS * SPAN + 1).map(|value| i64::try_from(value >> 40).unwrap_or(0)).collect()
});

/// `exp(-part / whole)` in units of `2^-20`.
fn decay(part: i64, whole: i64) -> i64 {
    let steps = i64::try_from(STEPS).unwrap_or(1);
    let at = usize::try_from(part.max(0).saturating_mul(steps) / whole.max(1)).unwrap_or(usize::MAX);
    EXP.get(at).copied().unwrap_or(0)
}

/// Smaller goes first: urgency, then due date.
pub(super) type Urgency = (i64, i64);

impl World<'_> {
    pub(super) fn urgency(&self, group: GroupIx, step: Step) -> Urgency {
        let state = &self.groups[group];
        if self.policy.rule == Rule::Keyed {
            let key = if step == Step::P1 { state.key } else { state.gpu_key };
            return (key, i64::from(group.0));
        }
        let order = &self.orders[state.order];
        let due = i64::from(order.due) - i64::from(state.wish.lead);
        match self.policy.rule {
            Rule::Fifo => (i64::from(order.release), i64::from(group.0)),
            Rule::Wmdd => (self.modified_due(order, due, step), due),
            Rule::Atc => (-self.tardiness_cost(order, due, step), due),
            _ => (due - i64::from(self.tails[order.kind].of(step)), i64::from(group.0)),
        }
    }

    pub(super) fn slack(&self, order: &Order, due: i64, step: Step) -> i64 {
        due - i64::from(self.now) - i64::from(self.tails[order.kind].of(step))
    }

    fn aged_weight(&self, order: &Order, slack: i64) -> i64 {
        let age = i64::from(self.policy.age.max(1));
        let weight = order.weight.clamp(1, 1_000_000).saturating_mul(1024);
        if slack < 0 { weight.saturating_mul(age - slack) / age } else { weight }
    }

    fn modified_due(&self, order: &Order, due: i64, step: Step) -> i64 {
        let left = due - i64::from(self.now);
        let weight = self.aged_weight(order, self.slack(order, due, step));
        left.max(i64::from(self.tails[order.kind].of(step))).saturating_mul(1 << 20) / weight
    }

    fn tardiness_cost(&self, order: &Order, due: i64, step: Step) -> i64 {
        let slack = self.slack(order, due, step);
        self.aged_weight(order, slack).saturating_mul(decay(slack, i64::from(self.policy.look))) / 1024
    }

    /// As [`Self::urgency`], but a ticket that is running out comes before everything: PC1 is the costly part.
    pub(super) fn layers_urgency(&self, group: GroupIx, sector: SectorIx) -> Urgency {
        let left = self.sectors[sector].row.s1.saturating_add(self.fleet.delays.ticket) - self.now;
        if left < TICKET_GUARD {
            return (i64::MIN / 2 + i64::from(left), 0);
        }
        self.urgency(group, Step::P2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_exponentials_is_exact_to_a_millionth() {
        for (part, expected) in [(0, 1_048_576), (1, 385_749), (2, 141_909), (5, 7_065), (12, 6)] {
            assert!((decay(part, 1) - expected).abs() <= 1, "exp(-{part}) = {} / 2^20", decay(part, 1));
        }
        assert_eq!(decay(100, 1), 0);
        assert_eq!(decay(-5, 1), 1 << 20);
    }
}
