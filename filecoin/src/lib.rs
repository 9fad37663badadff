//! The parts of the Filecoin protocol that Sealyard needs: sealing and proving, actor parameters,
//! economics, and a node's JSON-RPC.
//!
//! Owns: making and verifying proofs, the devnet's own proof parameters, CBOR message parameters,
//! protocol formulas, the RPC client. Must not know: the business, the database, the caller.

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
