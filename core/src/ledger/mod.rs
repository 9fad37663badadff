//! Double entry for three kinds of asset: FIL (nanoFIL), fiat (minor units) and capacity (bytes of one pool).
//!
//! Transfers are append-only, their ids are chosen by the caller and make repetition harmless. A transfer may be held as pending
//! and then completed or voided. An account's balances are kept on its row and always equal the sum of its transfers.

mod account;
mod chart;
mod check;
mod post;
mod read;

pub use account::{Account, Balance};
pub use chart::{AccountSpec, Asset};
pub use check::{Finding, check};
pub use post::{LedgerError, Pending, Transfer, complete, hold, post, void};
pub use read::{Entry, balance, entries, movements, pool_balances};
