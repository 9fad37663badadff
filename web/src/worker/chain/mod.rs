//! Reads the chain to finality: blocks won, sectors that count, fees, deposits and pledge, and the
//! state at a day's end.

mod bonds;
mod changes;
mod chunk;
mod day;
mod fees;
mod members;
mod rewards;
mod sync;

pub use changes::Followed;
pub use members::{DeadlineCache, Members};
pub use rewards::{WinnersShares, base_fee_before};
pub use sync::turn;
