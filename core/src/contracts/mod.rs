//! Contracts: what was sold, its sectors, its life.

mod allocate;
mod contract;

pub use allocate::{ContractError, create};
pub use contract::{Contract, by_public_id, end, mark_active, of_order, of_user, recent};
