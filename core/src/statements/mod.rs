//! Monthly statements: data built from ledger entries alone, stored once, mailed once.

mod build;
mod model;

pub use build::{
    Statement, StatementError, by_public_id, mark_refused, mark_sent, of_user, produce,
};
pub use model::{AccountLine, ContractLine, DayLine, StatementModel};
