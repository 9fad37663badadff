//! What is planned: the fleet, its orders and sectors, what goes first, and what may fail.

pub mod failure;
pub mod fleet;
pub mod policy;
pub mod previous_plan;
pub mod sector;
pub mod table;
