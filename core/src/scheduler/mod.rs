//! Which machine does what next: pure, no clock, no database. A snapshot goes in, assignments come out.

mod plan;
pub mod planner;
mod promise;
mod snapshot;

pub use plan::{Assignment, plan};
pub use promise::{Backlog, promise};
pub use snapshot::{MachineView, Snapshot, TaskView, load};
