//! Capacity in the books: `owned = free + held + sold + own use + down`, per pool, in bytes.
//!
//! Held bytes are pending transfers from free to sold. Overselling is impossible by the same rule
//! that keeps a cash account from going negative.

mod down;
mod hold;
mod pool;

pub use down::book_down;
pub use hold::{
    CapacityError, confirm_sale, hold_for_order, keep_sold, release_hold, return_kept, return_sold,
};
pub use pool::{
    Capacity, NewPool, Pool, capacity, create_pool, grow, numbers_used, pool_by_id, pools, resize,
    set_collateral, take_number, take_numbers,
};
