//! The planner: pure, integer, deterministic. It decides for every sector which machine does each step and when sealing begins, so
//! that weighted lateness is least.
//!
//! [`World`] is the fleet with everything in it at one moment; it steps from event to event and starts what a [`Policy`] puts
//! first. Played on with usual durations it is a plan, with drawn ones a forecast; [`improve`] searches for better priorities by
//! playing it again and again.

#![expect(clippy::indexing_slicing, reason = "a typed key comes from the table that it addresses")]

mod dispatch;
mod engine;
#[cfg(test)]
mod fixture;
mod forecast;
mod model;
mod moves;
mod search;
mod sim;
#[cfg(test)]
mod soundness;

pub use forecast::{Calibration, Forecast, Rollouts, Waits, availability, forecast};
pub use model::{
    failure::{FailureModel, Rng, Sampler, StepFailures, log_normal},
    fleet::{Class, Delays, Durations, Fleet, Kind, Machine, Moves, Need, Order, Pool, Step},
    policy::{Policy, Rule},
    previous_plan::PreviousPlan,
    sector::{Row, Sector, State},
    table::{ClassIx, GroupIx, Key, KindIx, MachineIx, OrderIx, PoolIx, SectorIx, Table},
};
pub use search::{Aim, Budget, Cost, Effort, Improved, Rounds, improve};
pub use sim::{agenda::Event, resume::Progress, world::World};

/// Seconds since the plan's origin.
pub type Secs = i32;

pub(crate) const HOUR: Secs = 3600;
