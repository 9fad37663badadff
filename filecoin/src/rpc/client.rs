//! The client: a bearer token, a timeout per call, retry with backoff when the node cannot be reached, then the next node.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{address::Address, econ::TokenAmount};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use super::types::*;
use crate::{actor::RandomnessTag, economics::NetworkEstimate, hash::Hash32};

/// Tries of one call, the first included.
const TRIES: u32 = 3;
const FIRST_BACKOFF: Duration = Duration::from_millis(100);
/// Longest answer that is read, bytes.
const LONGEST_ANSWER: usize = 64 << 20;

/// How long a fallback is asked before the first node is tried again.
const AWAY: Duration = Duration::from_secs(60);
/// Sent through the first node only: another one has neither its wallet nor its memory of `MsgUuid`.
const PUSH: &str = "Filecoin.MpoolPushMessage";
const NETWORK_NAME: &str = "Filecoin.StateNetworkName";

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// For example `http://127.0.0.1:1234/rpc/v1`.
    pub url: String,
    pub token: String,
}

impl Endpoint {
    /// From `http://…` or `TOKEN@http://…`.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text.split_once("@http") {
            Some((token, rest)) => Self { url: format!("http{rest}"), token: token.to_owned() },
            None => Self { url: text.to_owned(), token: String::new() },
        }
    }
}

#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub first: Endpoint,
    /// Asked in turn, for reading only, when the first cannot be reached. They must be on the same network.
    pub fallbacks: Vec<Endpoint>,
    pub timeout: Duration,
}

#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("the node at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the node at {url} refuses the token (HTTP {status}); make a new one with `lotus auth create-token --perm sign`")]
    Unauthorised { url: String, status: u16 },
    #[error("the node answered {method} with error {code}: {message}")]
    Node { method: String, code: i64, message: String },
    #[error("the node answered {method} with something else than expected: {reason}")]
    Malformed { method: String, reason: String },
    #[error("the node at {url} is on network {found:?}, not on {expected:?}; it is not used")]
    Network { url: String, found: String, expected: String },
}

impl RpcError {
    /// True when the same call may succeed later.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    result: Value,
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    message: String,
}

/// A node, ready to be asked, and those that stand in for it. Cheap to share behind a reference.
pub struct Node {
    endpoints: Vec<Endpoint>,
    http: reqwest::Client,
    next_id: AtomicU64,
    /// The one that answered last, and since when it is not the first.
    current: Mutex<(usize, Instant)>,
    /// Of the first answer.
    network: OnceLock<String>,
}

impl Node {
    pub fn new(config: NodeConfig) -> Result<Self, RpcError> {
        let http = crate::http::client(config.timeout)
            .map_err(|error| RpcError::Unreachable { url: config.first.url.clone(), reason: error.to_string() })?;
        let mut endpoints = vec![config.first];
        endpoints.extend(config.fallbacks);
        let current = Mutex::new((0, Instant::now()));
        Ok(Self { endpoints, http, next_id: AtomicU64::new(1), current, network: OnceLock::new() })
    }

    #[must_use]
    pub fn url(&self) -> &str {
        self.endpoints.first().map_or("", |first| &first.url)
    }

    /// Calls a method by its full name. Every call here is safe to repeat: pushes carry a `MsgUuid`.
    pub async fn call<T: DeserializeOwned>(&self, method: &str, params: Value) -> Result<T, RpcError> {
        let malformed = |error: serde_json::Error| RpcError::Malformed { method: method.to_owned(), reason: error.to_string() };
        let from = if method == PUSH { 0 } else { self.current() };
        let turns = if method == PUSH { 1 } else { self.endpoints.len() };
        let mut failed = None;
        for (at, endpoint) in self.endpoints.iter().enumerate().cycle().skip(from).take(turns) {
            if failed.is_some()
                && let Err(error) = self.same_network(endpoint).await
            {
                failed = Some(error);
                continue;
            }
            match self.call_endpoint(endpoint, method, &params).await {
                Err(error) if error.is_temporary() => failed = Some(error),
                other => {
                    if turns > 1 {
                        self.stay_with(at);
                        self.learn_network(endpoint).await;
                    }
                    return serde_json::from_value(other?).map_err(malformed);
                }
            }
        }
        Err(failed.unwrap_or_else(|| RpcError::Unreachable { url: self.url().to_owned(), reason: "no node".into() }))
    }

    fn current(&self) -> usize {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() > AWAY { 0 } else { current.0 }
    }

    fn stay_with(&self, at: usize) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != at {
            *current = (at, Instant::now());
        }
    }

    async fn network_of(&self, endpoint: &Endpoint) -> Result<String, RpcError> {
        let name = self.call_endpoint(endpoint, NETWORK_NAME, &json!([])).await?;
        serde_json::from_value(name)
            .map_err(|error| RpcError::Malformed { method: NETWORK_NAME.to_owned(), reason: error.to_string() })
    }

    async fn learn_network(&self, endpoint: &Endpoint) {
        if self.network.get().is_none()
            && let Ok(name) = self.network_of(endpoint).await
        {
            let _ = self.network.set(name);
        }
    }

    /// A fallback on another network, or before any network is known, is not used.
    async fn same_network(&self, endpoint: &Endpoint) -> Result<(), RpcError> {
        let found = self.network_of(endpoint).await?;
        match self.network.get() {
            Some(expected) if *expected == found => Ok(()),
            expected => {
                let expected = expected.cloned().unwrap_or_default();
                Err(RpcError::Network { url: endpoint.url.clone(), found, expected })
            }
        }
    }

    async fn call_endpoint(&self, endpoint: &Endpoint, method: &str, params: &Value) -> Result<Value, RpcError> {
        let mut backoff = FIRST_BACKOFF;
        for _ in 1..TRIES {
            match self.call_once(endpoint, method, params).await {
                Err(error) if error.is_temporary() => tokio::time::sleep(backoff).await,
                other => return other,
            }
            backoff *= 4;
        }
        self.call_once(endpoint, method, params).await
    }

    async fn call_once(&self, endpoint: &Endpoint, method: &str, params: &Value) -> Result<Value, RpcError> {
        let url = || endpoint.url.clone();
        let unreachable = |error: reqwest::Error| RpcError::Unreachable { url: url(), reason: root_cause(&error) };
        let malformed = |reason: String| RpcError::Malformed { method: method.to_owned(), reason };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = self.http.post(&endpoint.url).bearer_auth(&endpoint.token).json(&body);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        if status == 401 || status == 403 {
            return Err(RpcError::Unauthorised { url: url(), status });
        }
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + part.len() > LONGEST_ANSWER {
                return Err(malformed(format!("more than {LONGEST_ANSWER} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        if status >= 500 && serde_json::from_slice::<Answer>(&bytes).is_err() {
            return Err(RpcError::Unreachable { url: url(), reason: format!("HTTP {status}") });
        }
        let answer: Answer = serde_json::from_slice(&bytes).map_err(|error| malformed(error.to_string()))?;
        match answer.error {
            Some(error) => Err(RpcError::Node { method: method.to_owned(), code: error.code, message: error.message }),
            None => Ok(answer.result),
        }
    }

    pub async fn version(&self) -> Result<Version, RpcError> {
        self.call("Filecoin.Version", json!([])).await
    }

    pub async fn network_name(&self) -> Result<String, RpcError> {
        self.call(NETWORK_NAME, json!([])).await
    }

    pub async fn network_version(&self, tsk: &TipSetKey) -> Result<u32, RpcError> {
        self.call("Filecoin.StateNetworkVersion", json!([tsk])).await
    }

    pub async fn network_params(&self) -> Result<NetworkParams, RpcError> {
        self.call("Filecoin.StateGetNetworkParams", json!([])).await
    }

    pub async fn chain_head(&self) -> Result<TipSet, RpcError> {
        self.tipset("Filecoin.ChainHead", json!([])).await
    }

    pub async fn genesis(&self) -> Result<TipSet, RpcError> {
        self.tipset("Filecoin.ChainGetGenesis", json!([])).await
    }

    /// The tipset at `epoch`, or the one before it when that round was null.
    pub async fn tipset_by_height(&self, epoch: i64) -> Result<TipSet, RpcError> {
        let method = "Filecoin.ChainGetTipSetByHeight";
        let tipset = self.tipset(method, json!([epoch, null])).await?;
        if tipset.height > epoch {
            let reason = format!("a tipset of epoch {} for one of {epoch}", tipset.height);
            return Err(RpcError::Malformed { method: method.to_owned(), reason });
        }
        Ok(tipset)
    }

    async fn tipset(&self, method: &str, params: Value) -> Result<TipSet, RpcError> {
        let tipset: TipSet = self.call(method, params).await?;
        match tipset.fault() {
            Some(fault) => Err(RpcError::Malformed { method: method.to_owned(), reason: fault.to_owned() }),
            None => Ok(tipset),
        }
    }

    pub async fn message(&self, cid: &str) -> Result<Message, RpcError> {
        self.call("Filecoin.ChainGetMessage", json!([{"/": cid}])).await
    }

    pub async fn block_messages(&self, block: &super::CidJson) -> Result<BlockMessages, RpcError> {
        self.call("Filecoin.ChainGetBlockMessages", json!([block])).await
    }

    pub async fn miner_info(&self, miner: &Address) -> Result<MinerInfo, RpcError> {
        self.call("Filecoin.StateMinerInfo", json!([miner.to_string(), null])).await
    }

    pub async fn miner_power(&self, miner: &Address, tsk: &TipSetKey) -> Result<MinerPower, RpcError> {
        self.call("Filecoin.StateMinerPower", json!([miner.to_string(), tsk])).await
    }

    /// Live sectors that are neither faulty nor unproven.
    pub async fn active_sectors(&self, miner: &Address, tsk: &TipSetKey) -> Result<Vec<SectorInfo>, RpcError> {
        let sectors: Option<_> = self.call("Filecoin.StateMinerActiveSectors", json!([miner.to_string(), tsk])).await?;
        Ok(sectors.unwrap_or_default())
    }

    /// Those of `numbers` (each of which must exist), whether they count or not.
    pub async fn sectors(
        &self,
        miner: &Address,
        numbers: &super::BitFieldJson,
        tsk: &TipSetKey,
    ) -> Result<Vec<SectorInfo>, RpcError> {
        let sectors: Option<_> = self.call("Filecoin.StateMinerSectors", json!([miner.to_string(), numbers, tsk])).await?;
        Ok(sectors.unwrap_or_default())
    }

    pub async fn sector_info(&self, miner: &Address, number: u64, tsk: &TipSetKey) -> Result<Option<SectorInfo>, RpcError> {
        self.call("Filecoin.StateSectorGetInfo", json!([miner.to_string(), number, tsk])).await
    }

    /// `None` when the sector is not pre-committed (a node may also answer with an error).
    pub async fn pre_commit_info(
        &self,
        miner: &Address,
        number: u64,
        tsk: &TipSetKey,
    ) -> Result<Option<PreCommitInfo>, RpcError> {
        match self.call("Filecoin.StateSectorPreCommitInfo", json!([miner.to_string(), number, tsk])).await {
            Err(RpcError::Node { message, .. }) if message.contains("not found") => Ok(None),
            other => other,
        }
    }

    pub async fn sector_location(
        &self,
        miner: &Address,
        number: u64,
        tsk: &TipSetKey,
    ) -> Result<Option<SectorLocation>, RpcError> {
        match self.call("Filecoin.StateSectorPartition", json!([miner.to_string(), number, tsk])).await {
            Err(RpcError::Node { .. }) => Ok(None),
            other => other,
        }
    }

    pub async fn sector_expiration(&self, miner: &Address, number: u64) -> Result<SectorExpiration, RpcError> {
        self.call("Filecoin.StateSectorExpiration", json!([miner.to_string(), number, null])).await
    }

    pub async fn proving_deadline(&self, miner: &Address) -> Result<ProvingDeadline, RpcError> {
        self.call("Filecoin.StateMinerProvingDeadline", json!([miner.to_string(), null])).await
    }

    pub async fn deadlines(&self, miner: &Address, tsk: &TipSetKey) -> Result<Vec<DeadlineState>, RpcError> {
        self.call("Filecoin.StateMinerDeadlines", json!([miner.to_string(), tsk])).await
    }

    pub async fn partitions(&self, miner: &Address, deadline: u64, tsk: &TipSetKey) -> Result<Vec<Partition>, RpcError> {
        let list: Option<_> = self.call("Filecoin.StateMinerPartitions", json!([miner.to_string(), deadline, tsk])).await?;
        Ok(list.unwrap_or_default())
    }

    /// Sectors that count as faulty.
    pub async fn faults(&self, miner: &Address) -> Result<super::BitFieldJson, RpcError> {
        self.call("Filecoin.StateMinerFaults", json!([miner.to_string(), null])).await
    }

    /// Faulty sectors that were declared recovered and have to be proven next.
    pub async fn recoveries(&self, miner: &Address) -> Result<super::BitFieldJson, RpcError> {
        self.call("Filecoin.StateMinerRecoveries", json!([miner.to_string(), null])).await
    }

    /// Numbers that sectors have had at some time.
    pub async fn allocated_sectors(&self, miner: &Address, tsk: &TipSetKey) -> Result<super::BitFieldJson, RpcError> {
        self.call("Filecoin.StateMinerAllocated", json!([miner.to_string(), tsk])).await
    }

    pub async fn available_balance(&self, miner: &Address, tsk: &TipSetKey) -> Result<TokenAmount, RpcError> {
        let Atto(amount) = self.call("Filecoin.StateMinerAvailableBalance", json!([miner.to_string(), tsk])).await?;
        Ok(amount)
    }

    pub async fn circulating_supply(&self) -> Result<CirculatingSupply, RpcError> {
        self.call("Filecoin.StateVMCirculatingSupplyInternal", json!([null])).await
    }

    pub async fn reward_state(&self, tsk: &TipSetKey) -> Result<ActorState<RewardState>, RpcError> {
        self.call("Filecoin.StateReadState", json!(["f02", tsk])).await
    }

    pub async fn power_state(&self, tsk: &TipSetKey) -> Result<ActorState<PowerState>, RpcError> {
        self.call("Filecoin.StateReadState", json!(["f04", tsk])).await
    }

    /// What pledge, fees and rewards are computed from, as of a tipset.
    pub async fn network_estimate(&self, head: &TipSet) -> Result<NetworkEstimate, RpcError> {
        let (reward, power) = (self.reward_state(&head.cids).await?.state, self.power_state(&head.cids).await?.state);
        Ok(NetworkEstimate {
            reward: reward.this_epoch_reward_smoothed.into(),
            power: power.this_epoch_qa_power_smoothed.into(),
            baseline: reward.this_epoch_baseline_power,
            circulating: self.circulating_supply().await?.fil_circulating,
            ramp_start: power.ramp_start_epoch,
            ramp_epochs: power.ramp_duration_epochs,
            epoch: head.height,
        })
    }

    pub async fn miner_state(&self, miner: &Address, tsk: &TipSetKey) -> Result<ActorState<MinerState>, RpcError> {
        self.call("Filecoin.StateReadState", json!([miner.to_string(), tsk])).await
    }

    pub async fn randomness_from_tickets(&self, tag: RandomnessTag, epoch: i64, entropy: &[u8]) -> Result<Hash32, RpcError> {
        self.randomness("Filecoin.StateGetRandomnessFromTickets", tag, epoch, entropy).await
    }

    pub async fn randomness_from_beacon(&self, tag: RandomnessTag, epoch: i64, entropy: &[u8]) -> Result<Hash32, RpcError> {
        self.randomness("Filecoin.StateGetRandomnessFromBeacon", tag, epoch, entropy).await
    }

    async fn randomness(&self, method: &str, tag: RandomnessTag, epoch: i64, entropy: &[u8]) -> Result<Hash32, RpcError> {
        let entropy = (!entropy.is_empty()).then(|| BASE64_STANDARD.encode(entropy));
        let text: String = self.call(method, json!([tag.number(), epoch, entropy, null])).await?;
        let malformed = |reason: String| RpcError::Malformed { method: method.to_owned(), reason };
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| malformed(error.to_string()))?;
        Hash32::from_slice(&bytes).map_err(|error| malformed(error.to_string()))
    }

    /// Has the node sign and send a message. Repeating it with the same `uuid` returns the message sent the first time.
    pub async fn push(&self, message: &Message, uuid: &str) -> Result<SignedMessage, RpcError> {
        let spec = MessageSendSpec { max_fee: "0".into(), msg_uuid: Some(uuid.to_owned()), maximize_fee_cap: false };
        self.call(PUSH, json!([message, spec])).await
    }

    /// The receipt of a message that is on chain, searched back `lookback` epochs; or of the one that has replaced it: `message`
    /// says which it is.
    pub async fn search_message(&self, cid: &str, lookback: i64) -> Result<Option<MsgLookup>, RpcError> {
        self.call("Filecoin.StateSearchMsg", json!([null, {"/": cid}, lookback, true])).await
    }

    pub async fn wallet_balance(&self, address: &Address) -> Result<TokenAmount, RpcError> {
        let Atto(amount) = self.call("Filecoin.WalletBalance", json!([address.to_string()])).await?;
        Ok(amount)
    }
}

#[derive(Deserialize)]
struct Atto(#[serde(with = "atto")] TokenAmount);

/// The innermost reason: reqwest's outer ones repeat the URL.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
