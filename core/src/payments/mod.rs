//! Reports of payment rails, whatever the rail: each event has a fate, and money that fits no order stands in suspense.

mod inbox;

pub use inbox::{Fate, Happening, Incoming, receive, settle, waiting};
