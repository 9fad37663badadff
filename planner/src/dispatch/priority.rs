//! Priorities: the urgency of a step.

use std::sync::LazyLock;

use crate::{
    GroupIx, HOUR, Secs, SectorIx,
    model::{
        fleet::{Order, Step},
        policy::{Rule, Urgency},
    },
    sim::world::World,
};

/// Layers go first if their ticket expires within this time.
const TICKET_GUARD: Secs = 6 * HOUR;
const EXPIRING: i64 = i64::MIN / 2;

/// `log2(1 + k / 1024)` in units of `2^-10`, by repeated squaring.
static LOG2: LazyLock<Vec<i64>> = LazyLock::new(|| {
    let log2 = |mantissa: u64| {
        let mut square = (1024 + mantissa) << 20;
        (0..10).fold(0, |log, _| {
            square = (square * square) >> 30;
            let over = square >> 31;
            square >>= over;
            2 * log + i64::from(over > 0)
        })
    };
    (0..1024).map(log2).collect()
});

/// `log2(x)` in units of `2^-10`, rounded down; anything less than 1 counts as 1.
fn log2(x: i64) -> i64 {
    let x = x.max(1);
    let whole = x.ilog2();
    let mantissa = if whole > 10 {
        x >> (whole - 10)
    } else {
        x << (10 - whole)
    };
    let part = usize::try_from(mantissa & 1023)
        .ok()
        .and_then(|at| LOG2.get(at).copied());
    i64::from(whole) * 1024 + part.unwrap_or(0)
}

/// `ln(2)` in units of `2^-10`.
const LN2: i64 = 710;

impl World<'_> {
    pub(crate) fn urgency(&self, group: GroupIx, step: Step) -> Urgency {
        let state = &self.groups[group];
        if self.policy.rule == Rule::Keyed {
            let key = if step == Step::P1 {
                state.key
            } else {
                state.gpu_key
            };
            return (key, i64::from(group.0));
        }
        let order = &self.orders[state.order];
        let due = i64::from(order.due) - i64::from(state.hint.lead);
        match self.policy.rule {
            Rule::Fifo => (i64::from(order.release), i64::from(group.0)),
            Rule::Wmdd | Rule::Atc => (self.urgency_of(order, due, step), due),
            _ => (self.urgency_of(order, due, step), i64::from(group.0)),
        }
    }

    /// Urgency under a rule that uses due dates.
    pub(crate) fn urgency_of(&self, order: &Order, due: i64, step: Step) -> i64 {
        match self.policy.rule {
            Rule::Wmdd => self.modified_due(order, due, step),
            Rule::Atc => self.tardiness_cost(order, due, step),
            _ => due - i64::from(self.tails[order.kind].of(step)),
        }
    }

    pub(crate) fn slack(&self, order: &Order, due: i64, step: Step) -> i64 {
        due - i64::from(self.now) - i64::from(self.tails[order.kind].of(step))
    }

    fn aged_weight(&self, order: &Order, slack: i64) -> i64 {
        let age = i64::from(self.policy.age.max(1));
        let weight = order.weight.clamp(1, 1_000_000).saturating_mul(1024);
        if slack < 0 {
            weight.saturating_mul(age - slack) / age
        } else {
            weight
        }
    }

    fn modified_due(&self, order: &Order, due: i64, step: Step) -> i64 {
        let left = due - i64::from(self.now);
        let weight = self.aged_weight(order, self.slack(order, due, step));
        left.max(i64::from(self.tails[order.kind].of(step)))
            .saturating_mul(1 << 20)
            / weight
    }

    /// ATC weighs a sector by `weight · exp(-slack / look)`. This is `slack - look · ln(weight)`,
    /// which gives the same order, in seconds. Without the exponential, due dates in the far future
    /// can still be told apart.
    fn tardiness_cost(&self, order: &Order, due: i64, step: Step) -> i64 {
        let slack = self.slack(order, due, step);
        let weight = log2(self.aged_weight(order, slack));
        slack.max(0) - weight * LN2 * i64::from(self.policy.look) / (1024 * 1024)
    }

    /// The urgency if due `seconds` later.
    pub(crate) fn later(&self, (key, due): Urgency, seconds: i64) -> Urgency {
        let look = i64::from(self.policy.look.max(1));
        match self.policy.rule {
            Rule::Edd | Rule::Atc => (key.saturating_add(seconds), due),
            Rule::Wmdd => (key.saturating_add(key.saturating_mul(seconds) / look), due),
            Rule::Fifo | Rule::Keyed => (key, due),
        }
    }

    /// The urgency of a step on a GPU that prefers the other step. A ticket that is about to expire
    /// cannot wait for a better one.
    pub(crate) fn on_wrong_gpu(&self, urgency: Urgency) -> Urgency {
        if urgency.0 < EXPIRING / 2 {
            urgency
        } else {
            self.later(urgency, i64::from(self.policy.look))
        }
    }

    /// As [`Self::urgency`], but tickets that are about to expire come before everything else,
    /// because a repeated PC1 costs most.
    pub(crate) fn layers_urgency(&self, group: GroupIx, sector: SectorIx) -> Urgency {
        let left = self.sectors[sector]
            .row
            .s1
            .saturating_add(self.fleet.delays.ticket)
            - self.now;
        if left < TICKET_GUARD {
            return (EXPIRING + i64::from(left), 0);
        }
        let urgency = self.urgency(group, Step::P2);
        if self.policy.rule == Rule::Edd {
            // Whole orders are due by a date here: the adjustments below gain nothing, and make
            // dates vary more.
            return urgency;
        }
        // A sector that waits for C2 needs less GPU time until it is active. But if PC2 is put off
        // too long, GPUs are idle in the end, while the last sectors wait for their seeds.
        let after_c2 = self.policy.look / 100 * self.policy.c2_first;
        // Waiting time counts twice, or a sector that is always overtaken would hold up its order
        // and keep its scratch.
        let row = &self.sectors[sector].row;
        let waited = self
            .now
            .saturating_sub(row.s1)
            .saturating_sub(self.fleet.duration(row.m1, self.kind(sector), Step::P1));
        self.later(urgency, i64::from(after_c2) - i64::from(waited.max(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        Key, KindIx, MachineIx, Policy,
        fixture::{fleet, order},
    };

    #[test]
    fn orders_due_in_days_are_ranked_by_date_and_weight() {
        let fleet = fleet();
        let mut world = World::new(&fleet, Policy::default());
        let terms = [(101, 1), (100, 1), (104, 6), (130, 6)];
        for (due, weight) in terms {
            let due = due * HOUR;
            let order = Order {
                id: 0,
                pool: None,
                kind: KindIx::of(0),
                n: 1,
                release: 0,
                step: 0,
                due,
                weight,
                known: 0,
            };
            world.add_order(order);
        }
        let mut urgent: Vec<(Urgency, (Secs, i64))> = world
            .groups
            .keys()
            .zip(terms)
            .map(|(group, terms)| (world.urgency(group, Step::P1), terms))
            .collect();
        urgent.sort_unstable();
        let order: Vec<(Secs, i64)> = urgent.into_iter().map(|(_, terms)| terms).collect();
        assert_eq!(
            order,
            [(100, 1), (104, 6), (101, 1), (130, 6)],
            "six times the weight is worth 3.6 h of a look-ahead of 2 h"
        );
    }

    #[test]
    fn layers_that_have_waited_long_enough_go_first() {
        let fleet = fleet();
        let mut world = World::new(&fleet, Policy::default());
        let [patient, urgent] = [45, 40].map(|hours| world.add_order(order(None, 1, hours * HOUR)));
        let [patient, urgent] =
            [patient, urgent].map(|order| world.sectors_of(order).next().unwrap());
        world.now = 10 * HOUR;
        let mut goes_first = |patient_began: Secs| {
            for (sector, began) in [(patient, patient_began), (urgent, 6 * HOUR)] {
                let row = &mut world.sectors[sector].row;
                (row.m1, row.s1) = (MachineIx::of(0), began);
            }
            let urgency = |sector| world.layers_urgency(world.sectors[sector].group, sector);
            if urgency(patient) < urgency(urgent) {
                "patient"
            } else {
                "urgent"
            }
        };
        assert_eq!(
            goes_first(2 * HOUR),
            "urgent",
            "PC1 took 4 h: four hours of waiting"
        );
        assert_eq!(
            goes_first(0),
            "patient",
            "six hours of waiting, due five later"
        );
    }

    #[test]
    fn the_policy_decides_whether_c2_goes_before_layers() {
        let fleet = fleet();
        let goes_first = |c2_first| {
            let mut world = World::new(
                &fleet,
                Policy {
                    c2_first,
                    ..Policy::default()
                },
            );
            let [layers, c2] = [45, 43].map(|hours| world.add_order(order(None, 1, hours * HOUR)));
            let [layers, c2] = [layers, c2].map(|order| world.sectors_of(order).next().unwrap());
            world.now = 4 * HOUR;
            let row = &mut world.sectors[layers].row;
            (row.m1, row.s1) = (MachineIx::of(0), 0);
            let group = |sector| world.sectors[sector].group;
            if world.layers_urgency(group(layers), layers) < world.urgency(group(c2), Step::C2) {
                "layers"
            } else {
                "C2"
            }
        };
        assert_eq!(
            goes_first(50),
            "C2",
            "due two hours earlier, and 1.6 h of work less to do: half an hour, \
             and one of look-ahead"
        );
        assert_eq!(goes_first(-200), "layers");
    }

    #[test]
    fn logarithms_are_exact_to_two_thousandths() {
        for (x, expected) in [
            (1, 0),
            (2, 1024),
            (3, 1623),
            (1000, 10_205),
            (1024, 10_240),
            (1025, 10_241),
            (1 << 40, 40_960),
        ] {
            assert!(
                (log2(x) - expected).abs() <= 2,
                "log2({x}) = {} / 1024",
                log2(x)
            );
        }
        assert_eq!(log2(0), 0);
    }
}
