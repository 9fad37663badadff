//! Checks the client's requests and the devnet's answers against the published OpenRPC description
//! of the v1 API (`tests/data/openrpc-v1.json`), and the client against nodes that answer badly.
//!
//! The description comes from the source of `forest-filecoin` 0.39.0 (MIT or Apache-2.0), without
//! its prose. Two places are corrected. It says `string` for `ApiDeadlineInfo` and
//! `MinerInfo.WindowPoStProofType`, but the same source writes an object of numbers and a number
//! (`src/rpc/types/mod.rs`, `src/lotus_json/registered_po_st_proof.rs`), as Lotus does.

use std::{
    collections::BTreeSet,
    net::Ipv4Addr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fvm_shared::{address::Address, econ::TokenAmount};
use sealyard_devnet::{Config, Devnet};
use sealyard_filecoin::{
    actor::{Method, RandomnessTag},
    rpc::{CidJson, Endpoint, Message, MessageSendSpec, Node, NodeConfig, RpcError, TipSetKey},
};
use serde_json::{Value, json};

use crate::proxy::{Proxy, Reply};

/// Every method that the client's source names.
fn methods_we_call() -> BTreeSet<String> {
    let source = concat!(
        include_str!("../../filecoin/src/rpc/client.rs"),
        include_str!("../../filecoin/src/rpc/objects.rs")
    );
    source
        .split('"')
        .filter(|text| text.starts_with("Filecoin."))
        .map(str::to_owned)
        .collect()
}

pub fn node(url: &str, token: &str) -> Node {
    let first = Endpoint {
        url: url.to_owned(),
        token: token.to_owned(),
    };
    connect(first, Vec::new(), Duration::from_secs(20))
}

fn connect(first: Endpoint, fallbacks: Vec<Endpoint>, timeout: Duration) -> Node {
    Node::new(NodeConfig {
        first,
        fallbacks,
        timeout,
        backoff: Duration::from_millis(1),
    })
    .unwrap()
}

async fn start(dir: &Path, config: Config) -> Devnet {
    Devnet::start((Ipv4Addr::LOCALHOST, 0).into(), dir, config)
        .await
        .unwrap()
}

/// A network with this many epochs.
async fn network(dir: &Path, epochs: i64) -> Devnet {
    let devnet = start(dir, Config::default()).await;
    let admin = node(&devnet.ready.url, &devnet.ready.token);
    let _: Value = admin
        .call("Devnet.Step", json!([{"Epochs": epochs}]))
        .await
        .unwrap();
    devnet
}

pub fn spec(uuid: &str) -> MessageSendSpec {
    MessageSendSpec {
        max_fee: "0".into(),
        msg_uuid: Some(uuid.to_owned()),
        maximize_fee_cap: false,
    }
}

/// The same message under this nonce, with a higher gas price.
fn dearer(message: &Message, nonce: u64) -> Message {
    let (gas_fee_cap, gas_premium) = (
        TokenAmount::from_atto(2_000_000),
        TokenAmount::from_atto(1_000_000),
    );
    Message {
        nonce,
        gas_limit: 40_000_000,
        gas_fee_cap,
        gas_premium,
        ..message.clone()
    }
}

/// Calls every method of the client once, about `sector`, and returns the outcomes.
async fn call_everything(node: &Node, sector: u64) -> Vec<Result<(), RpcError>> {
    let miner = Address::new_id(1000);
    let head = node.chain_head().await;
    let key = head
        .as_ref()
        .map(|head| head.cids.clone())
        .unwrap_or_default();
    let block = key.first().copied().unwrap_or_else(any_block);
    let state = node.miner_state(&miner, &key).await;
    let deadlines = state
        .as_ref()
        .ok()
        .and_then(|state| state.state.deadlines)
        .unwrap_or(block)
        .cid;
    let mut outcomes = send_everything(node, miner).await;
    outcomes.extend([
        head.map(drop),
        state.map(drop),
        node.block_messages(&block).await.map(drop),
        node.read_object(&deadlines).await.map(drop),
    ]);
    outcomes.extend(ask_about_chain(node, &key).await);
    outcomes.extend(ask_about_miner(node, &miner, sector, &key).await);
    outcomes
}

fn any_block() -> CidJson {
    let cid = json!({"/": "bafy2bzacea3wsdh6y3a36tb3skempjoxqpuyompjbmfeyf34fi3uy6uue42v4"});
    serde_json::from_value(cid).unwrap()
}

/// Sends a message to the miner and replaces it by a dearer one.
async fn send_everything(node: &Node, miner: Address) -> Vec<Result<(), RpcError>> {
    let worker = Address::new_id(101);
    let message = Message {
        version: 0,
        to: miner,
        from: worker,
        nonce: 0,
        value: TokenAmount::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method: Method::DeclareFaultsRecovered.number(),
        params: "gIA=".into(),
        cid: None,
    };
    let spec = spec("c0ffee00-0000-4000-8000-000000000001");
    let pushed = node.push(&message, &spec).await;
    let nonce = pushed.as_ref().map_or(0, |signed| signed.message.nonce);
    let cid = pushed
        .as_ref()
        .map(|signed| signed.cid.to_string())
        .unwrap_or_default();
    vec![
        pushed.map(drop),
        node.search_message(&cid, 100).await.map(drop),
        node.message(&cid).await.map(drop),
        node.wallet_balance(&worker).await.map(drop),
        node.wallet_has(&worker).await.map(drop),
        node.account_key(&worker).await.map(drop),
        node.mempool().await.map(drop),
        node.estimate_gas(&message, &spec).await.map(drop),
        node.replace(&dearer(&message, nonce)).await.map(drop),
    ]
}

async fn ask_about_chain(node: &Node, key: &TipSetKey) -> Vec<Result<(), RpcError>> {
    let tag = RandomnessTag::SealRandomness;
    vec![
        node.version().await.map(drop),
        node.network_name().await.map(drop),
        node.network_version(key).await.map(drop),
        node.network_params().await.map(drop),
        node.genesis().await.map(drop),
        node.finalized().await.map(drop),
        node.tipset_by_height(3).await.map(drop),
        node.circulating_supply().await.map(drop),
        node.reward_state(key).await.map(drop),
        node.power_state(key).await.map(drop),
        node.randomness_from_tickets(tag, 1, b"x").await.map(drop),
        node.randomness_from_beacon(tag, 1, b"x").await.map(drop),
    ]
}

async fn ask_about_miner(
    node: &Node,
    miner: &Address,
    sector: u64,
    key: &TipSetKey,
) -> Vec<Result<(), RpcError>> {
    let sectors = [sector].into_iter().collect();
    vec![
        node.miner_info(miner).await.map(drop),
        node.miner_power(miner, key).await.map(drop),
        node.sectors(miner, &sectors, key).await.map(drop),
        node.sector_info(miner, sector, key).await.map(drop),
        node.pre_commit_info(miner, sector, key).await.map(drop),
        node.sector_location(miner, sector, key).await.map(drop),
        node.sector_expiration(miner, sector).await.map(drop),
        node.proving_deadline(miner).await.map(drop),
        node.deadlines(miner, key).await.map(drop),
        node.partitions(miner, 0, key).await.map(drop),
        node.faults(miner).await.map(drop),
        node.recoveries(miner).await.map(drop),
        node.allocated_sectors(miner, key).await.map(drop),
        node.available_balance(miner, key).await.map(drop),
    ]
}

/// Calls everything and validates what passed. The test below uses it on a fresh network, the full
/// cycle on one with a proven sector.
pub async fn conforms(url: &str, token: &str, sector: u64) {
    let proxy = Proxy::honest(url).await;
    call_everything(&node(&proxy.url, token), sector).await;
    let description: Value = serde_json::from_str(include_str!("../data/openrpc-v1.json")).unwrap();
    let passed = proxy.passed.lock().unwrap().clone();
    let (mut called, mut wrong) = (BTreeSet::new(), Vec::new());
    for (request, answer) in &passed {
        wrong.extend(deviations(&description, request, answer));
        called.insert(request["method"].as_str().unwrap().to_owned());
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert_eq!(
        called,
        methods_we_call(),
        "some method of the client is not called here"
    );
}

/// Where a request and its answer differ from the description.
fn deviations(description: &Value, request: &Value, answer: &Value) -> Vec<String> {
    let name = request["method"].as_str().unwrap();
    let methods = description["methods"].as_array().unwrap();
    let method = methods
        .iter()
        .find(|m| m["name"] == name)
        .unwrap_or_else(|| panic!("{name} is in no node's description"));
    let (wanted, given) = (
        method["params"].as_array().unwrap(),
        request["params"].as_array().unwrap(),
    );
    assert!(given.len() <= wanted.len(), "{name}: {given:?}");
    let mut wrong = Vec::new();
    for (at, parameter) in wanted.iter().enumerate() {
        let value = given.get(at).unwrap_or(&Value::Null);
        let what = format!("{name}, parameter {}", parameter["name"]);
        wrong.extend(errors(description, &parameter["schema"], value, &what));
    }
    if answer.get("error").is_none_or(Value::is_null) {
        let (schema, result) = (&method["result"]["schema"], &answer["result"]);
        let what = format!("the answer to {name}");
        wrong.extend(errors(description, schema, result, &what));
    }
    wrong
}

fn errors(description: &Value, schema: &Value, value: &Value, what: &str) -> Vec<String> {
    let mut schema = schema.clone();
    schema["components"] = description["components"].clone();
    let validator = jsonschema::validator_for(&schema).unwrap();
    validator
        .iter_errors(value)
        .map(|error| format!("{what}: {error} at {:?}", error.instance_path().to_string()))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_and_answers_match_the_published_description() {
    let dir = tempfile::tempdir().unwrap();
    let devnet = network(dir.path(), 100).await;
    conforms(&devnet.ready.url, &devnet.ready.token, 1).await;
}

/// Changes one value somewhere in a JSON document.
pub fn spoil(document: &mut Value, rng: &mut u64) {
    let mut roll = |below: usize| {
        *rng = rng
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(*rng >> 33).unwrap() % below
    };
    let mut place = document;
    loop {
        let children = match &*place {
            Value::Array(list) => list.len(),
            Value::Object(map) => map.len(),
            _ => 0,
        };
        if children == 0 || roll(4) == 0 {
            break;
        }
        let at = roll(children);
        place = match place {
            Value::Array(list) => &mut list[at],
            Value::Object(map) => map.values_mut().nth(at).unwrap(),
            _ => unreachable!(),
        };
    }
    if let Value::Object(map) = place
        && roll(2) == 0
    {
        let gone = map.keys().nth(roll(map.len().max(1))).cloned();
        gone.and_then(|key| map.remove(&key));
        return;
    }
    let nonsense = nonsense();
    *place = nonsense[roll(nonsense.len())].clone();
}

fn nonsense() -> [Value; 10] {
    [
        Value::Null,
        json!("-340282366920938463463374607431768211456000000000000000000000000000000000000"),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1.5e300),
        json!([]),
        json!({}),
        json!("\u{0}not base64\u{fffd}"),
        json!([[[[[[]]]]]]),
        json!(true),
    ]
}

/// Spoils a node's answer to this method in a way that depends on the seed.
fn spoilt(seed: u64, method: &str, body: &[u8]) -> Reply {
    match seed % 6 {
        0 => Reply::ok(body[..body.len() * usize::try_from(seed).unwrap() / 60].to_vec()),
        1 => Reply {
            status: 400,
            body: b"<html>bad gateway</html>".to_vec(),
            after: Duration::ZERO,
        },
        _ => {
            let mut rng = method
                .bytes()
                .fold(seed.wrapping_mul(0x9E37_79B9), |rng, byte| {
                    rng.wrapping_mul(31) + u64::from(byte)
                });
            let mut answer: Value = serde_json::from_slice(body).unwrap();
            for _ in 0..=seed % 3 {
                spoil(&mut answer["result"], &mut rng);
            }
            Reply::ok(serde_json::to_vec(&answer).unwrap())
        }
    }
}

/// Missing fields, nulls for lists, huge numbers, truncated answers and proxy errors cause an
/// error, never a panic.
#[tokio::test(flavor = "multi_thread")]
async fn a_malformed_answer_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let devnet = network(dir.path(), 10).await;
    let mut failed = 0;
    for seed in 0..60u64 {
        let proxy = Proxy::start(&devnet.ready.url, move |method, body| {
            spoilt(seed, method, &body)
        })
        .await;
        let outcomes = call_everything(&node(&proxy.url, &devnet.ready.token), 1).await;
        failed += outcomes.iter().filter(|outcome| outcome.is_err()).count();
    }
    assert!(
        failed > 500,
        "spoilt answers were accepted: only {failed} errors"
    );
}

/// A proxy that holds the node's answers back for a minute while `is_slow` is set.
async fn slow_proxy(node: &str, is_slow: Arc<AtomicBool>) -> Proxy {
    Proxy::start(node, move |_, body| {
        let after = if is_slow.load(Ordering::SeqCst) {
            Duration::from_secs(60)
        } else {
            Duration::ZERO
        };
        Reply {
            status: 200,
            body,
            after,
        }
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_node_times_out_and_the_next_one_on_its_network_answers() {
    let dir = tempfile::tempdir().unwrap();
    let devnet = start(dir.path(), Config::default()).await;
    let other_dir = tempfile::tempdir().unwrap();
    let elsewhere = Config {
        network_name: "sealyard-devnet-elsewhere".into(),
        ..Config::default()
    };
    let elsewhere = start(other_dir.path(), elsewhere).await;
    let is_slow = Arc::new(AtomicBool::new(false));
    let slow = slow_proxy(&devnet.ready.url, Arc::clone(&is_slow)).await;
    let good = Proxy::honest(&devnet.ready.url).await;
    let with_fallback = |url: &str, token: &str| {
        let first = Endpoint {
            url: slow.url.clone(),
            token: devnet.ready.token.clone(),
        };
        let fallback = Endpoint::parse(&format!("{token}@{url}"));
        connect(first, vec![fallback], Duration::from_secs(3))
    };
    let lucky = with_fallback(&good.url, &devnet.ready.token);
    let unlucky = with_fallback(&elsewhere.ready.url, &elsewhere.ready.token);
    let name = lucky.network_name().await.unwrap();
    unlucky.network_name().await.unwrap();
    is_slow.store(true, Ordering::SeqCst);
    assert_eq!(lucky.network_name().await.unwrap(), name);
    assert!(
        !good.passed.lock().unwrap().is_empty(),
        "the second node was asked"
    );
    let error = unlucky.chain_head().await.unwrap_err();
    assert!(
        matches!(&error, RpcError::Network { found, .. } if found.contains("elsewhere")),
        "{error}"
    );
}
