//! The Filecoin protocol as Sealyard needs it: sealing and proving, actor parameters, economics and a node's JSON-RPC.
//!
//! Owns: proofs (make and verify), the devnet's own proof parameters, CBOR message parameters, protocol formulas, the RPC
//! client. Must not know: the business, the database, who asks.

pub mod actor;
pub mod economics;
pub mod gas;
pub mod hash;
pub mod http;
pub mod minting;
pub mod params;
pub mod proofs;
pub mod rpc;
pub mod sector;
