//! The planner: pure, integer, deterministic. It decides for every sector which machine does each step and when sealing begins, so
//! that weighted lateness is least.
//!
//! [`World`] is the fleet with everything in it at one moment; it steps from event to event and starts what a [`Policy`] puts
//! first. Played on with usual durations it is a plan, with drawn ones a forecast; [`improve`] searches for better priorities by
//! playing it again and again.

#![expect(clippy::indexing_slicing, reason = "a typed key comes from the table that it addresses")]

mod admit;
mod agenda;
mod balance;
mod change;
mod dispatch;
mod drawn;
mod failure;
mod fleet;
mod forecast;
mod gpus;
mod layers;
mod live;
mod moves;
mod pace;
mod policy;
mod resume;
mod search;
mod sector;
#[cfg(test)]
mod soundness;
mod table;
mod world;

pub use agenda::Event;
pub use drawn::Drawing;
pub use failure::{Dice, Luck, Odds, StepFailures, log_normal};
pub use fleet::{Class, Delays, Durations, Fleet, Kind, Machine, Moves, Need, Order, Pool, Step};
pub use forecast::{Forecast, Lessons, Rollouts, Waits, availability, forecast};
pub use live::{group_size, live};
pub use policy::{Policy, Rule};
pub use resume::Progress;
pub use search::{Aim, Budget, Cost, Effort, Improved, Rounds, improve};
pub use sector::{Row, Sector, State};
pub use table::{ClassIx, GroupIx, Key, KindIx, MachineIx, OrderIx, PoolIx, SectorIx, Table};
pub use world::World;

/// Seconds since the plan's origin.
pub type Secs = i32;
