//! JSON-RPC 2.0 over the chain: names, parameters and results of Lotus v1, and `Devnet.*` to
//! control the network.

mod admin;
mod chain_methods;
mod node_methods;
mod params;
mod state_methods;
mod state_reads;

use serde::Deserialize;
use serde_json::{Value, json};

pub use params::{Params, RpcFailure};

use crate::state::Chain;

/// Each permission includes those above it, as in Lotus tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Permission {
    Read,
    Write,
    Sign,
    Admin,
}

impl Permission {
    #[must_use]
    pub fn from_claim(names: &[String]) -> Self {
        let has = |name: &str| names.iter().any(|n| n == name);
        if has("admin") {
            Self::Admin
        } else if has("sign") {
            Self::Sign
        } else if has("write") {
            Self::Write
        } else {
            Self::Read
        }
    }
}

#[derive(Deserialize)]
pub struct Request {
    #[serde(default)]
    id: Value,
    method: String,
    #[serde(default)]
    params: Value,
}

/// Answers one request. Reading needs no token, as on Lotus.
pub fn answer(chain: &mut Chain, granted: Permission, request: Request) -> Value {
    let Request { id, method, params } = request;
    response(id, dispatch(chain, granted, &method, Params::new(params)))
}

/// The JSON-RPC object that answers the request with this id.
pub fn response(id: Value, outcome: Result<Value, RpcFailure>) -> Value {
    match outcome {
        Ok(result) => json!({"jsonrpc": "2.0", "id": id, "result": result}),
        Err(RpcFailure { code, message }) => {
            json!({"jsonrpc": "2.0", "id": id, "error": {"code": code, "message": message}})
        }
    }
}

fn dispatch(
    chain: &mut Chain,
    granted: Permission,
    method: &str,
    params: Params,
) -> Result<Value, RpcFailure> {
    let needed = match method {
        "Filecoin.MpoolPushMessage" | "Filecoin.WalletSignMessage" => Permission::Sign,
        "Filecoin.MpoolPush" | "Filecoin.WalletHas" => Permission::Write,
        _ if method.starts_with("Devnet.") => Permission::Admin,
        _ => Permission::Read,
    };
    if granted < needed {
        return Err(RpcFailure::new(
            1,
            format!("missing permission to invoke '{method}'"),
        ));
    }
    if let Some(name) = method.strip_prefix("Devnet.") {
        return admin::call(chain, name, params);
    }
    let unknown = || RpcFailure::new(-32601, format!("method '{method}' not found"));
    let name = method.strip_prefix("Filecoin.").ok_or_else(unknown)?;
    let found = node_methods::call(chain, name)
        .or_else(|| chain_methods::call(chain, name, &params))
        .or_else(|| state_methods::call(chain, name, &params))
        .or_else(|| state_reads::call(chain, name, &params));
    found.unwrap_or_else(|| Err(unknown()))
}
