//! Positional parameters, and failures as JSON-RPC sees them.

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::state::{Chain, Snapshot};

#[derive(Debug)]
pub struct RpcFailure {
    pub code: i64,
    pub message: String,
}

impl RpcFailure {
    pub fn new(code: i64, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<anyhow::Error> for RpcFailure {
    fn from(error: anyhow::Error) -> Self {
        Self::new(1, format!("{error:#}"))
    }
}

impl From<fil_actors_shared::v19::ActorError> for RpcFailure {
    fn from(error: fil_actors_shared::v19::ActorError) -> Self {
        Self::new(1, error.to_string())
    }
}

impl From<serde_json::Error> for RpcFailure {
    fn from(error: serde_json::Error) -> Self {
        Self::new(1, error.to_string())
    }
}

pub struct Params(Value);

impl Params {
    pub fn new(value: Value) -> Self {
        Self(value)
    }

    /// The parameter at `position`; a missing one reads as null.
    pub fn get<T: DeserializeOwned>(&self, position: usize) -> Result<T, RpcFailure> {
        let value = self.0.get(position).cloned().unwrap_or_default();
        serde_json::from_value(value)
            .map_err(|error| RpcFailure::new(-32602, format!("parameter {position}: {error}")))
    }

    /// Checks that the address at `position` is the network's miner.
    pub fn miner(&self, chain: &Chain, position: usize) -> Result<(), RpcFailure> {
        let address: String = self.get(position)?;
        if address.get(1..) == Some(format!("0{}", chain.config.miner_id).as_str()) {
            Ok(())
        } else {
            Err(RpcFailure::new(
                1,
                format!("actor not found: {address} is no miner of this network"),
            ))
        }
    }

    /// The epoch of the tipset key at `position`; null and empty mean the head.
    pub fn epoch(&self, chain: &Chain, position: usize) -> Result<i64, RpcFailure> {
        let key: Option<Vec<Value>> = self.get(position)?;
        let Some(first) = key.as_ref().and_then(|cids| cids.first()) else {
            return Ok(chain.head());
        };
        let cid = first.get("/").and_then(Value::as_str).unwrap_or_default();
        chain
            .epoch_of(cid)
            .ok_or_else(|| RpcFailure::new(1, format!("tipset {cid} not found")))
    }

    /// State as `State*` methods read it: before the tipset's own messages. At the head, the newest
    /// state.
    pub fn state<'a>(&self, chain: &'a Chain, position: usize) -> Result<&'a Snapshot, RpcFailure> {
        let epoch = self.epoch(chain, position)?;
        let at = if epoch == chain.head() {
            epoch
        } else {
            epoch - 1
        };
        chain
            .state_after(at.max(0))
            .ok_or_else(|| RpcFailure::new(1, format!("no state at epoch {epoch}")))
    }
}
