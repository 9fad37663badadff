//! A Lotus-compatible node over JSON-RPC 2.0: types with the node's own field names, and a client
//! with timeouts and retry.

mod client;
mod json;
mod numbers;
mod objects;
mod transport;
mod types;

pub use client::Node;
pub use json::{BitFieldJson, CidJson, null_as_default};
pub use numbers::Numbers;
pub use objects::{DeadlineSectors, DeadlineTotals};
pub use transport::{Endpoint, Freshness, HeadHealth, NodeConfig, RpcError};
pub use types::*;
