//! Chance in a step: its duration, and whether it fails.

use crate::{Secs, model::fleet::Step, sim::world::World};

impl World<'_> {
    /// Whether a step that ends now has failed.
    pub(crate) fn step_fails(&mut self, step: Step) -> bool {
        let Some(sampler) = &mut self.sampler else {
            return false;
        };
        let permille = sampler.failure_model.step_failures.of(step);
        permille > 0 && sampler.rng.below(1000) < usize::try_from(permille).unwrap_or(0)
    }

    /// The sampled duration of a step that usually takes `seconds`.
    pub(crate) fn drawn(&mut self, seconds: Secs) -> Secs {
        let Some(sampler) = &mut self.sampler else {
            return seconds;
        };
        sampler.rng.spread(seconds, &sampler.failure_model.spread)
    }
}
