//! What chance decides of a step: how long it takes, and whether it fails.

use crate::{Secs, model::fleet::Step, sim::world::World};

impl World<'_> {
    /// Whether a step that ends now has failed.
    pub(crate) fn step_fails(&mut self, step: Step) -> bool {
        let Some(luck) = &mut self.luck else { return false };
        let permille = luck.odds.step_failures.of(step);
        permille > 0 && luck.dice.below(1000) < usize::try_from(permille).unwrap_or(0)
    }

    /// The real duration of a step that usually takes `seconds`.
    pub(crate) fn drawn(&mut self, seconds: Secs) -> Secs {
        let Some(luck) = &mut self.luck else { return seconds };
        luck.dice.spread(seconds, &luck.odds.spread)
    }
}
