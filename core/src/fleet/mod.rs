//! The operator's machines: enrolment, heartbeats, draining, and the wire types of the agent's
//! protocol.

pub mod check;
mod enrol;
mod listening;
mod machine;
mod pass;
pub mod protocol;

pub use enrol::{
    EnrolError, OpenToken, enrol, new_key_token, new_token, open_tokens, withdraw_token,
};
pub use listening::{Listening, listening, look};
pub use machine::{
    Breakdowns, Draining, Machine, MachineState, Offer, breakdowns, by_key, by_public_id,
    heard_lately, heartbeat, lost_machines, machine_name, machines, mark_lost, offer, remove,
    revoke, set_draining,
};
pub use pass::Pass;
