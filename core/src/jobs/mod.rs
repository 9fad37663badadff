//! Work that must follow a committed change, done with retries by whichever worker is free; and
//! claims on loops that only one worker may run.

mod alert;
mod claim;
mod queue;

pub use alert::{Alert, AlertKind, alerts, clear, count_alerts, raise};
pub use claim::{Failing, claim, failing, loops, note_turn, release_claims};
pub use queue::{
    Job, JobState, complete, enqueue, fail, give_up, mail_delay, retry_delay, struggling, take,
};
