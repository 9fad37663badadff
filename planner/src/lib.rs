//! The planner: pure, deterministic, integer arithmetic only. It decides when each sector begins
//! and which machine does each of its steps, so that weighted lateness is least.
//!
//! [`World`] is the fleet and everything in it at one moment. It steps from event to event and
//! starts first the work that its [`Policy`] ranks first. Simulated with usual durations it gives a
//! plan, with sampled ones a forecast. [`improve`] searches for better priorities by simulating it
//! again and again.

#![expect(
    clippy::indexing_slicing,
    reason = "a typed key comes from the table that it addresses"
)]

mod budget;
mod choice;
mod dispatch;
mod engine;
#[cfg(test)]
mod fixture;
mod forecast;
mod model;
mod moves;
mod portfolio;
mod search;
mod sim;
#[cfg(test)]
mod soundness;

pub use budget::{Budget, Effort, Rounds};
pub use forecast::{Calibration, Forecast, Rollouts, Waits, availability, forecast};
pub use model::{
    failure::{FailureModel, Rng, Sampler, StepFailures, log_normal},
    fleet::{Class, Delays, Durations, Fleet, Kind, Machine, Moves, Need, Order, Pool, Step},
    policy::{Policy, Rule},
    previous_plan::PreviousPlan,
    sector::{Row, Sector, State},
    table::{ClassIx, GroupIx, Key, KindIx, MachineIx, OrderIx, PoolIx, SectorIx, Table},
};
pub use search::{Aim, Cost, Improved, improve};
pub use sim::{agenda::Event, resume::Progress, world::World};

/// Seconds since the plan's origin.
pub type Secs = i32;

pub(crate) const HOUR: Secs = 3600;
pub(crate) const DAY: Secs = 24 * HOUR;
