//! Double entry for three kinds of asset: FIL (nanoFIL), fiat (minor units) and capacity (bytes of
//! one pool).
//!
//! Transfers are append-only. The caller chooses their ids, which makes repetition harmless. A
//! transfer may be held as pending and then completed or voided. A day's yields are booked as lots,
//! one compound entry for each contract. An account's row holds its balances, which always equal
//! the sum of its transfers and lots.

mod account;
mod bulk;
mod chart;
mod check;
mod lot;
mod post;
mod read;

pub use account::{Account, Balance};
pub use bulk::{Movement, apply, insert_lots};
pub use chart::{AccountSpec, Asset};
pub use check::{Finding, check};
pub use lot::{
    LOTS_OF_CONTRACT, LOTS_OF_USER, Lot, book_lots, lot, lot_movements, lots_of_contract, lots_on,
};
pub use post::{LedgerError, Pending, Transfer, complete, hold, post, void};
pub use read::{
    Entry, balance, entries, movements, owed_to_investors, pool_balances, posted_amount,
};
