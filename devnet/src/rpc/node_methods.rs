//! Methods with which ordinary clients begin: about the node itself, its wallets and its peers.

use std::{sync::LazyLock, time::SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Value, json};

use super::RpcFailure;
use crate::state::Chain;

type Answer = Result<Value, RpcFailure>;

/// `StageSyncComplete` of Lotus.
const SYNC_COMPLETE: u64 = 4;
/// The node has no peers; clients want a well-formed id all the same.
const PEER_ID: &str = "12D3KooWGzxzKZYveHXtpG6AsrUJBcWxHBFS2HsEoGTxrMLvKXtf";

static STARTED: LazyLock<SystemTime> = LazyLock::new(SystemTime::now);

pub fn call(chain: &Chain, name: &str) -> Option<Answer> {
    Some(match name {
        "Version" => Ok(version(chain)),
        "StartTime" => Ok(json!(started())),
        "SyncState" => Ok(sync_state(chain)),
        "WalletList" => Ok(json!(wallets(chain))),
        "NetAddrsListen" => Ok(json!({"ID": PEER_ID, "Addrs": []})),
        _ => return None,
    })
}

fn version(chain: &Chain) -> Value {
    json!({
        "Version": format!("sealyard-devnet-{}", env!("CARGO_PKG_VERSION")),
        "APIVersion": 0x0002_0300,
        "BlockDelay": chain.config.epoch_seconds,
        "Agent": "sealyard-devnet",
    })
}

/// When this process was asked for it first, in RFC 3339.
fn started() -> String {
    DateTime::<Utc>::from(*STARTED).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// A node without peers is always in sync.
fn sync_state(chain: &Chain) -> Value {
    json!({
        "ActiveSyncs": [{
            "WorkerID": 1,
            "Base": null,
            "Target": null,
            "Stage": SYNC_COMPLETE,
            "Height": chain.head(),
            "Start": started(),
            "End": started(),
            "Message": "",
        }],
        "VMApplied": 0,
    })
}

fn wallets(chain: &Chain) -> Vec<String> {
    chain
        .world
        .accounts
        .keys()
        .map(|id| format!("f0{id}"))
        .collect()
}
