//! The operator's machines: enrolment, heartbeats, draining, and the wire types of the agent's protocol.

mod enrol;
mod listening;
mod machine;
mod pass;
pub mod protocol;

pub use enrol::{EnrolError, enrol, new_token};
pub use listening::{Listening, listening, look};
pub use machine::{
    Breakdowns, Draining, Machine, Offer, breakdowns, by_key, by_public_id, heartbeat, lost_machines, machines, mark_lost, offer,
    set_draining,
};
pub use pass::Pass;
