//! From the chain to the books: what the chain said, whose power earned it, what is free and what vests, and closing a day once.

mod attribute;
mod close;
mod record;
mod vest;

pub use attribute::{Interval, Party, Share, attribute, power_epochs};
pub use close::{CloseError, Closed, close_day, next_day_to_close};
pub use record::{
    Cursor, Lot, PoolDay, SectorInterval, Win, advance_cursor, cursor, days, init_cursor, intervals_of, lots_of_contract,
    open_intervals, power_off, power_on, record_win, wins,
};
pub use vest::{released, tranche};
