//! Calls to a node: a bearer token, a timeout per call, retry with backoff, and fallback nodes when
//! one is unreachable or behind.

use std::{
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json, value::RawValue};

use super::TipSet;

/// Tries of one call at one node, including the first.
const TRIES: u32 = 3;
/// A node that asks for a longer pause is not called again until then, and the caller gets the
/// error at once.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Longest accepted answer, bytes.
const LONGEST_ANSWER: usize = 64 << 20;
/// How long a fallback is preferred before the first node is tried again.
const AWAY: Duration = Duration::from_secs(60);
const NETWORK_NAME: &str = "Filecoin.StateNetworkName";
const CHAIN_HEAD: &str = "Filecoin.ChainHead";

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
            Some((token, rest)) => Self {
                url: format!("http{rest}"),
                token: token.to_owned(),
            },
            None => Self {
                url: text.to_owned(),
                token: String::new(),
            },
        }
    }
}

#[derive(Clone, Debug)]
pub struct NodeConfig {
    pub first: Endpoint,
    /// Asked in turn if the first is unreachable or behind. They must be on the same network.
    pub fallbacks: Vec<Endpoint>,
    pub timeout: Duration,
    /// Pause before the second try of a call; each later pause is four times as long.
    pub backoff: Duration,
}

impl NodeConfig {
    /// Long enough for a node to recover from a hiccup, too short to delay anybody.
    pub const BACKOFF: Duration = Duration::from_millis(100);
}

#[derive(Debug, thiserror::Error)]
pub enum RpcError {
    #[error("the node at {url} cannot be reached: {reason}")]
    Unreachable { url: String, reason: String },
    #[error("the node at {url} is busy or broken (HTTP {status}): {reason}")]
    Unavailable {
        url: String,
        status: u16,
        reason: String,
        retry_after: Option<Duration>,
    },
    #[error(
        "the node at {url} refuses the token (HTTP {status}); make a new one with \
         `lotus auth create-token --perm sign`"
    )]
    Unauthorised { url: String, status: u16 },
    #[error("the node answered {method} with error {code}: {message}")]
    Node {
        method: String,
        code: i64,
        message: String,
    },
    #[error("the node gave an unexpected answer to {method}: {reason}")]
    Malformed { method: String, reason: String },
    #[error("the node at {url} is on network {found:?}, not on {expected:?}; it is not used")]
    Network {
        url: String,
        found: String,
        expected: String,
    },
    #[error(
        "no node can be used; a node that is behind the chain is neither read from nor sent to: {0}"
    )]
    Stale(String),
}

impl RpcError {
    /// True if the same call may succeed later.
    #[must_use]
    pub const fn is_temporary(&self) -> bool {
        matches!(
            self,
            Self::Unreachable { .. } | Self::Unavailable { .. } | Self::Stale(_)
        )
    }
}

#[derive(Deserialize)]
struct Answer<'a> {
    #[serde(borrow, default)]
    result: Option<&'a RawValue>,
    error: Option<ErrorObject>,
}

#[derive(Deserialize)]
struct ErrorObject {
    code: i64,
    message: String,
}

/// The known state of an endpoint.
#[derive(Clone, Debug, Default)]
struct State {
    /// Why the node is not used, as of the last check of its head.
    unhealthy: Option<String>,
    /// The node asked for no calls until then.
    resting: Option<Instant>,
}

/// The outcome of checking a node's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeadHealth {
    pub url: String,
    /// The reason not to use the node; `None` if it is healthy.
    pub problem: Option<String>,
}

/// When a head counts as behind.
#[derive(Clone, Copy, Debug)]
pub struct Freshness {
    /// Unix seconds now; `None` if the chain does not follow this clock.
    pub now: Option<i64>,
    /// Most epochs that a head may be behind the clock and the other nodes.
    pub most_epochs: i64,
    pub epoch_seconds: i64,
}

/// Nodes of one network.
pub(super) struct Transport {
    endpoints: Vec<Endpoint>,
    states: Mutex<Vec<State>>,
    http: reqwest::Client,
    backoff: Duration,
    next_id: AtomicU64,
    /// The endpoint that answered last, and since when.
    current: Mutex<(usize, Instant)>,
    /// The network of the first node that answered.
    network: OnceLock<String>,
}

impl Transport {
    pub fn new(config: NodeConfig) -> Result<Self, RpcError> {
        let http = crate::http::client(config.timeout).map_err(|error| RpcError::Unreachable {
            url: config.first.url.clone(),
            reason: error.to_string(),
        })?;
        let backoff = config.backoff;
        let mut endpoints = vec![config.first];
        endpoints.extend(config.fallbacks);
        let states = Mutex::new(vec![State::default(); endpoints.len()]);
        let current = Mutex::new((0, Instant::now()));
        Ok(Self {
            endpoints,
            states,
            http,
            backoff,
            next_id: AtomicU64::new(1),
            current,
            network: OnceLock::new(),
        })
    }

    pub fn url(&self) -> &str {
        self.endpoints.first().map_or("", |first| &first.url)
    }

    /// Asks the usable nodes in turn, best first, until one answers.
    pub async fn read<T: DeserializeOwned>(
        &self,
        method: &str,
        params: &Value,
    ) -> Result<T, RpcError> {
        let mut failed = None;
        for at in self.order()? {
            let Some(endpoint) = self.endpoints.get(at) else {
                continue;
            };
            if failed.is_some()
                && let Err(error) = self.same_network(endpoint).await
            {
                failed = Some(error);
                continue;
            }
            match self.ask(at, method, params).await {
                Err(error) if error.is_temporary() => failed = Some(error),
                other => {
                    self.stay_with(at);
                    if other.is_ok() {
                        self.learn_network(at).await;
                    }
                    return other;
                }
            }
        }
        Err(failed.unwrap_or_else(|| RpcError::Unreachable {
            url: self.url().to_owned(),
            reason: "no node".into(),
        }))
    }

    /// Indices of the usable endpoints, best first.
    pub fn order(&self) -> Result<Vec<usize>, RpcError> {
        let states = self
            .states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let well: Vec<usize> = (0..states.len())
            .filter(|at| states.get(*at).is_some_and(|s| s.unhealthy.is_none()))
            .collect();
        if well.is_empty() {
            let reasons: Vec<String> = states
                .into_iter()
                .filter_map(|state| state.unhealthy)
                .collect();
            return Err(RpcError::Stale(reasons.join("; ")));
        }
        let from = self.current();
        let is_resting = |at: usize| {
            states
                .get(at)
                .and_then(|s| s.resting)
                .is_some_and(|until| until > Instant::now())
        };
        let turned = well
            .iter()
            .copied()
            .filter(|at| *at >= from)
            .chain(well.iter().copied().filter(|at| *at < from));
        let (rested, resting): (Vec<usize>, Vec<usize>) = turned.partition(|at| !is_resting(*at));
        Ok(rested.into_iter().chain(resting).collect())
    }

    fn current(&self) -> usize {
        let current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.1.elapsed() > AWAY {
            0
        } else {
            current.0
        }
    }

    fn stay_with(&self, at: usize) {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current.0 != at {
            *current = (at, Instant::now());
        }
    }

    async fn network_of(&self, endpoint: &Endpoint) -> Result<String, RpcError> {
        self.call_once(endpoint, NETWORK_NAME, &json!([])).await
    }

    async fn learn_network(&self, at: usize) {
        if self.network.get().is_none()
            && let Some(endpoint) = self.endpoints.get(at)
            && let Ok(name) = self.network_of(endpoint).await
        {
            let _ = self.network.set(name);
        }
    }

    /// Rejects a fallback on another network, and any fallback before the network is known.
    async fn same_network(&self, endpoint: &Endpoint) -> Result<(), RpcError> {
        let found = self.network_of(endpoint).await?;
        match self.network.get() {
            Some(expected) if *expected == found => Ok(()),
            expected => {
                let expected = expected.cloned().unwrap_or_default();
                Err(RpcError::Network {
                    url: endpoint.url.clone(),
                    found,
                    expected,
                })
            }
        }
    }

    /// Checks every node's head. Nodes that are behind are not used until they have caught up. A
    /// node that does not answer keeps its state: each call will find out by itself.
    pub async fn look_at_heads(&self, freshness: Freshness) -> Vec<HeadHealth> {
        let mut heads: Vec<Result<TipSet, RpcError>> = Vec::new();
        for endpoint in &self.endpoints {
            heads.push(self.call_once(endpoint, CHAIN_HEAD, &json!([])).await);
        }
        let best = heads
            .iter()
            .flatten()
            .map(|head| head.height)
            .max()
            .unwrap_or_default();
        let mut found = Vec::new();
        for (at, (endpoint, head)) in self.endpoints.iter().zip(&heads).enumerate() {
            let problem = match head {
                Ok(head) => behind(head, best, freshness),
                Err(error) => Some(error.to_string()),
            };
            if head.is_ok()
                && let Some(state) = self
                    .states
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_mut(at)
            {
                state.unhealthy = problem
                    .as_ref()
                    .map(|why| format!("{}: {why}", endpoint.url));
            }
            found.push(HeadHealth {
                url: endpoint.url.clone(),
                problem,
            });
        }
        found
    }

    /// Asks one node, trying again a few times.
    pub async fn ask<T: DeserializeOwned>(
        &self,
        at: usize,
        method: &str,
        params: &Value,
    ) -> Result<T, RpcError> {
        let none = || RpcError::Unreachable {
            url: self.url().to_owned(),
            reason: "no such node".into(),
        };
        let endpoint = self.endpoints.get(at).ok_or_else(none)?;
        let mut backoff = self.backoff;
        for _ in 1..TRIES {
            match self.call_once(endpoint, method, params).await {
                Err(RpcError::Unavailable {
                    retry_after: Some(pause),
                    url,
                    status,
                    reason,
                }) if pause > LONGEST_PAUSE => {
                    self.rest(at, pause);
                    return Err(RpcError::Unavailable {
                        url,
                        status,
                        reason,
                        retry_after: Some(pause),
                    });
                }
                Err(RpcError::Unavailable {
                    retry_after: Some(pause),
                    ..
                }) => tokio::time::sleep(pause.max(backoff)).await,
                Err(error) if error.is_temporary() => tokio::time::sleep(backoff).await,
                other => return other,
            }
            backoff *= 4;
        }
        self.call_once(endpoint, method, params).await
    }

    fn rest(&self, at: usize, pause: Duration) {
        if let Some(state) = self
            .states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get_mut(at)
        {
            state.resting = Instant::now().checked_add(pause);
        }
    }

    async fn call_once<T: DeserializeOwned>(
        &self,
        endpoint: &Endpoint,
        method: &str,
        params: &Value,
    ) -> Result<T, RpcError> {
        let url = || endpoint.url.clone();
        let unreachable = |error: reqwest::Error| RpcError::Unreachable {
            url: url(),
            reason: root_cause(&error),
        };
        let malformed = |reason: String| RpcError::Malformed {
            method: method.to_owned(),
            reason,
        };
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let body = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        let request = self
            .http
            .post(&endpoint.url)
            .bearer_auth(&endpoint.token)
            .json(&body);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        if status == 401 || status == 403 {
            return Err(RpcError::Unauthorised { url: url(), status });
        }
        let retry_after = pause_asked(&response);
        let mut bytes = Vec::new();
        while let Some(part) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + part.len() > LONGEST_ANSWER {
                return Err(malformed(format!("more than {LONGEST_ANSWER} bytes")));
            }
            bytes.extend_from_slice(&part);
        }
        let unavailable = |reason: String| RpcError::Unavailable {
            url: url(),
            status,
            reason,
            retry_after,
        };
        let answer: Answer<'_> = match serde_json::from_slice(&bytes) {
            Ok(answer) => answer,
            // A proxy's page, or an empty or truncated answer, is not the request's fault.
            Err(_) => return Err(unavailable(excerpt(&bytes))),
        };
        match answer {
            Answer {
                error: Some(error), ..
            } => Err(RpcError::Node {
                method: method.to_owned(),
                code: error.code,
                message: error.message,
            }),
            Answer { .. } if is_passing(status) => Err(unavailable(excerpt(&bytes))),
            Answer { result, .. } => serde_json::from_str(result.map_or("null", RawValue::get))
                .map_err(|error| malformed(error.to_string())),
        }
    }
}

/// HTTP statuses that are not the request's fault.
const fn is_passing(status: u16) -> bool {
    status == 408 || status == 425 || status == 429 || status >= 500
}

/// `Retry-After` in seconds. The date form is ignored: nodes do not use it.
fn pause_asked(response: &reqwest::Response) -> Option<Duration> {
    const LONGEST: u64 = 3600;
    let header = response.headers().get("retry-after")?.to_str().ok()?;
    header
        .trim()
        .parse()
        .ok()
        .map(|seconds: u64| Duration::from_secs(seconds.min(LONGEST)))
}

/// The beginning of an unreadable answer, on one line.
fn excerpt(bytes: &[u8]) -> String {
    const LENGTH: usize = 120;
    if bytes.is_empty() {
        return "the answer is empty".into();
    }
    let text: String = String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(LENGTH)
        .collect();
    format!("the answer is not JSON-RPC: {}", text.trim())
}

/// Why a head counts as behind: other nodes, or the clock, are ahead. `None` if it is not behind.
fn behind(head: &TipSet, best: i64, freshness: Freshness) -> Option<String> {
    let most = freshness.most_epochs;
    if best - head.height > most {
        return Some(format!(
            "its head is at {}, {} epochs behind another node",
            head.height,
            best - head.height
        ));
    }
    let made_at = head.blocks.first().map(|block| block.timestamp)?;
    let late = (freshness.now? - made_at) / freshness.epoch_seconds.max(1);
    (late > most).then(|| {
        format!(
            "its head, {}, is {late} epochs behind the clock",
            head.height
        )
    })
}

/// The innermost cause: reqwest's outer errors repeat the URL.
fn root_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}
