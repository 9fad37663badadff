//! What must follow a committed change, done by whichever worker is free, with retry; and claims on loops that must run once.

mod claim;
mod queue;

pub use claim::{Failing, claim, failing, note_turn};
pub use queue::{Job, complete, enqueue, fail, retry_delay, struggling, take};
