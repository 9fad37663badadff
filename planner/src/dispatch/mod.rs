//! Rules: which step begins where, and which goes first. Only the engine calls them.

pub mod balance;
pub mod gpu;
pub mod layers;
pub mod pace;
pub mod pc1;
pub mod previous_plan;
pub mod priority;
pub mod store;
