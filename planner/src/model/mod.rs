//! The planner's subject: the fleet, its orders and sectors, priorities, and failures.

pub mod failure;
pub mod fleet;
pub mod policy;
pub mod previous_plan;
pub mod sector;
pub mod table;
