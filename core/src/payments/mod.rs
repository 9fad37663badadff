//! Payment reports from any rail. Each event has a fate, and money that fits no order is booked as
//! suspense.

mod inbox;

pub use inbox::{Fate, Happening, Incoming, Waiting, receive, settle, waiting};
