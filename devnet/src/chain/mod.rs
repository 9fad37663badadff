//! Changes to the chain: messages that wait to be included, epochs that pass, reorganisations.

mod epoch;
mod messages;
mod reorg;

pub use messages::PushError;
