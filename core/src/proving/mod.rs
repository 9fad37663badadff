//! WindowPoSt upkeep. Each partition of each deadline becomes a row. The machines that store the
//! sectors make its vanilla proofs, any machine makes the SNARK, and the message is built once we
//! have verified the proof. A faulty sector is read again, and declared recovered when it can be
//! proven.

mod recovery;
mod window_post;

pub use recovery::{Readability, readability};
pub use window_post::{
    NewPost, PostState, WindowPost, begin, by_id, closed, go_on_without_silent, in_state, landed,
    miss, rejected, step_done, step_failed, submitted, taken_back,
};
