//! A search's decisions about the remaining work, and a world that follows them.

use crate::{
    Event, GroupIx, Policy, Rule, Table,
    sim::world::{SearchHint, World},
};

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
    /// Follows `choice` from now on.
    pub(crate) fn follow(&mut self, choice: &Choice) {
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
    pub(crate) fn sequence(&self) -> Vec<GroupIx> {
        if self.policy.rule != Rule::Keyed {
            return Vec::new();
        }
        let mut keyed: Vec<(i64, GroupIx)> = self
            .groups
            .pairs()
            .map(|(group, state)| (state.key, group))
            .collect();
        keyed.sort_unstable();
        keyed.into_iter().map(|(_, group)| group).collect()
    }

    /// This world under `choice`, simulated to the end. `None`: some sector can never be sealed.
    pub(crate) fn simulated(&self, choice: &Choice) -> Option<Self> {
        let mut world = self.clone();
        world.follow(choice);
        world.run().then_some(world)
    }
}
