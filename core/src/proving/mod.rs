//! WindowPoSt upkeep: each partition of each deadline becomes a row, its vanilla proofs are made where the sectors are stored,
//! the SNARK anywhere, and the message is built once the proof was verified. A sector that became faulty is read again, and declared
//! recovered when it can be proven.

mod recovery;
mod window_post;

pub use recovery::{Readability, readability};
pub use window_post::{
    NewPost, PostState, WindowPost, begin, by_id, closed, go_on_without_silent, in_state, landed, miss, rejected, step_done,
    step_failed, submitted, taken_back,
};
