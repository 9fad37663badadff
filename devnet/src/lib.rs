//! An embedded Filecoin network of one miner, for the demo and for tests: Lotus' JSON-RPC over
//! loopback, the protocol's own miner state machine, real proof verification, seeded block wins, a
//! clock that ticks or is stepped.
//!
//! Owns: chain state, message execution, persistence of both, the RPC server. Must not know: the
//! business.
//!
//! Deliberate simplifications: block rewards, the baseline and network power are constants of the
//! configuration; WindowPoSts are verified at once instead of optimistically; gas use comes from a
//! table.

mod chain;
mod config;
pub mod large_miner;
mod miner;
mod rpc;
mod server;
mod state;

pub use config::{Clock, Config, ConfigError};
pub use server::{Devnet, DevnetError, Ready};
