//! An operator's commands that run once.

mod fleet;
mod parameters;
mod pool;

pub use fleet::{MachineCommand, TokenCommand, machine, token};
pub use parameters::make_parameters;
pub use pool::{PoolOptions, add_pool};
