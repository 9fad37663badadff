//! Contracts: the purchase, its sectors and its life cycle.

mod allocate;
mod contract;
mod pledge;

pub use allocate::{ContractError, create};
pub use contract::{
    Contract, ContractState, by_public_id, end, mark_active, of_order, of_user, over,
    pledge_back_by, put_off_end, recent,
};
pub use pledge::{hold_pledge, put_up_pledge, release_pledge};
