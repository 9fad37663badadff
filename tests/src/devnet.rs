//! The RPC client against the devnet, and the guarantees of the devnet itself: permissions,
//! persistence and refusal of forged proofs.

use std::{
    net::Ipv4Addr,
    path::Path,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{address::Address, econ::TokenAmount};
use sealyard_devnet::{Config, Devnet};
use sealyard_filecoin::{
    actor::{self, Method, PreCommit, ProveCommit, RandomnessTag},
    economics::EPOCHS_PER_DAY,
    hash::Hash32,
    rpc::{Message, Node, RpcError},
    sector::SealProof,
};
use serde_json::json;

use crate::{
    openrpc::{node, spec},
    proxy::{Proxy, Reply},
};

/// Starts a network, also where one has just been stopped and still holds its files.
async fn start(dir: &Path) -> (Devnet, Node) {
    let started = Instant::now();
    let devnet = loop {
        let address = (Ipv4Addr::LOCALHOST, 0).into();
        match Devnet::start(address, dir, Config::default()).await {
            Ok(devnet) => break devnet,
            Err(error) => assert!(started.elapsed() < Duration::from_secs(20), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let node = node(&devnet.ready.url, &devnet.ready.token);
    (devnet, node)
}

async fn step(node: &Node, epochs: i64) -> i64 {
    let answer: serde_json::Value = node
        .call("Devnet.Step", json!([{"Epochs": epochs}]))
        .await
        .unwrap();
    answer["Height"].as_i64().unwrap()
}

pub fn message(method: Method, params: &[u8]) -> Message {
    Message {
        version: 0,
        to: Address::new_id(1000),
        from: Address::new_id(101),
        nonce: 0,
        value: TokenAmount::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method: method.number(),
        params: BASE64_STANDARD.encode(params),
        cid: None,
    }
}

fn pre_commit(number: u64, ticket_epoch: i64) -> Vec<u8> {
    let sector = PreCommit {
        proof: SealProof::Drg2KiB,
        number,
        comm_r: Hash32([1; 32]),
        ticket_epoch,
        expiration: 300 * EPOCHS_PER_DAY,
    };
    actor::pre_commit(&[sector]).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_reads_the_chain() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, node) = start(dir.path()).await;
    assert!(
        node.network_name()
            .await
            .unwrap()
            .starts_with("sealyard-devnet")
    );
    assert_eq!(node.network_version(&Vec::new()).await.unwrap(), 28);
    assert_eq!(step(&node, 100).await, 100);
    let head = node.chain_head().await.unwrap();
    assert!(head.height <= 100 && head.cids.len() == head.blocks.len());
    // The answer for a null round is the tipset before it.
    for epoch in 0..=100 {
        assert!(node.tipset_by_height(epoch).await.unwrap().height <= epoch);
    }
    assert_new_miner(&node, &Address::new_id(1000)).await;
    let head = node.chain_head().await.unwrap().cids[0].cid;
    let nothing = node.read_object(&head).await.unwrap_err().to_string();
    assert!(nothing.contains("not found"), "{nothing}");
    assert!(
        node.reward_state(&Vec::new())
            .await
            .unwrap()
            .state
            .this_epoch_reward
            > TokenAmount::default()
    );
    assert!(node.power_state(&Vec::new()).await.is_ok() && node.circulating_supply().await.is_ok());
    assert_randomness(&node).await;
}

/// A miner without sectors.
async fn assert_new_miner(node: &Node, miner: &Address) {
    let head = Vec::new();
    let info = node.miner_info(miner).await.unwrap();
    assert_eq!(
        (info.sector_size, info.worker),
        (2048, Address::new_id(101))
    );
    assert_eq!(node.deadlines(miner, &head).await.unwrap().len(), 48);
    let deadline = node.proving_deadline(miner).await.unwrap();
    assert_eq!(deadline.challenge_window, 60);
    assert_eq!(node.sector_info(miner, 1, &head).await.unwrap(), None);
    assert!(
        node.pre_commit_info(miner, 1, &head)
            .await
            .unwrap()
            .is_none()
    );
    let state = node.miner_state(miner, &head).await.unwrap();
    assert_eq!(state.balance, TokenAmount::from_whole(100_000));
    let deadlines = node
        .deadline_cids(&state.state.deadlines.unwrap().cid)
        .await
        .unwrap();
    assert_eq!(deadlines.len(), 48);
    let totals = node.deadline_totals(&deadlines[0]).await.unwrap();
    assert_eq!(totals.live_qa_power, 0.into());
}

async fn assert_randomness(node: &Node) {
    let tag = RandomnessTag::SealRandomness;
    let (a, b) = (
        node.randomness_from_tickets(tag, 50, b"x").await.unwrap(),
        node.randomness_from_tickets(tag, 50, b"y").await.unwrap(),
    );
    assert_ne!(a, b, "different entropy gives different randomness");
    assert!(
        matches!(
            node.randomness_from_tickets(tag, 5000, b"x").await,
            Err(RpcError::Node { .. })
        ),
        "the future is unknown"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_needs_no_token_sending_does_and_forged_tokens_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (devnet, _) = start(dir.path()).await;
    let forged = node(
        &devnet.ready.url,
        "eyJhbGciOiJIUzI1NiJ9.eyJBbGxvdyI6WyJhZG1pbiJdfQ.AAAA",
    );
    assert!(matches!(
        forged.chain_head().await,
        Err(RpcError::Unauthorised { status: 401, .. })
    ));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for (method, allowed) in [
        ("Filecoin.ChainHead", true),
        ("Filecoin.MpoolPushMessage", false),
        ("Devnet.Step", false),
    ] {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": []});
        let answer: serde_json::Value = http
            .post(&devnet.ready.url)
            .json(&body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert_eq!(
            answer.get("result").is_some(),
            allowed,
            "{method}: {answer}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pushed_message_survives_a_restart_and_is_sent_once() {
    let dir = tempfile::tempdir().unwrap();
    let (devnet, node) = start(dir.path()).await;
    step(&node, 10).await;
    let request = message(Method::PreCommitSectorBatch2, &pre_commit(7, 1));
    let first = node.push(&request, &spec("uuid-1")).await.unwrap();
    assert_eq!(
        first.cid,
        node.push(&request, &spec("uuid-1")).await.unwrap().cid,
        "the same UUID is the same message"
    );
    let token = devnet.ready.token.clone();
    devnet.stop().await;

    let (_devnet, node) = start(dir.path()).await;
    assert_eq!(
        node.push(&request, &spec("uuid-1")).await.unwrap().cid,
        first.cid
    );
    assert_eq!(
        node.search_message(&first.cid.to_string(), 100)
            .await
            .unwrap(),
        None
    );
    assert_eq!(step(&node, 5).await, 11, "a step ends when messages land");
    let landed = node
        .search_message(&first.cid.to_string(), 100)
        .await
        .unwrap()
        .unwrap();
    assert_eq!((landed.receipt.exit_code, landed.height), (0, 11));
    let info = node
        .pre_commit_info(&Address::new_id(1000), 7, &Vec::new())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(info.pre_commit_epoch, 11);
    assert!(info.pre_commit_deposit > TokenAmount::default());
    assert!(!token.is_empty());
}

/// Sends a message and returns its exit code once it has landed.
async fn exit_code(node: &Node, uuid: &str, message: &Message) -> i64 {
    let sent = node.push(message, &spec(uuid)).await.unwrap();
    step(node, 1).await;
    node.search_message(&sent.cid.to_string(), 10)
        .await
        .unwrap()
        .unwrap()
        .receipt
        .exit_code
}

#[tokio::test(flavor = "multi_thread")]
async fn the_chain_refuses_forged_proofs_future_tickets_and_used_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, node) = start(dir.path()).await;
    step(&node, 10).await;
    let send = async |name: &str, method: Method, params: Vec<u8>| {
        exit_code(&node, name, &message(method, &params)).await
    };
    assert_eq!(
        send("good", Method::PreCommitSectorBatch2, pre_commit(1, 1)).await,
        0
    );
    assert_ne!(
        send("number", Method::PreCommitSectorBatch2, pre_commit(1, 1)).await,
        0,
        "a used sector number is refused"
    );
    assert_ne!(
        send("future", Method::PreCommitSectorBatch2, pre_commit(2, 5000)).await,
        0,
        "a future ticket is refused"
    );
    let forged = || {
        actor::prove_commit(&[ProveCommit {
            number: 1,
            proof: vec![7; 192],
        }])
        .unwrap()
    };
    assert_ne!(
        send("early", Method::ProveCommitSectors3, forged()).await,
        0,
        "a proof before the seed is refused"
    );
    step(&node, 200).await;
    assert_ne!(
        send("forged", Method::ProveCommitSectors3, forged()).await,
        0,
        "a forged proof is refused"
    );
    assert_eq!(
        node.sector_info(&Address::new_id(1000), 1, &Vec::new())
            .await
            .unwrap(),
        None
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unreachable_node_is_named_in_the_error() {
    let error = node("http://127.0.0.1:9/rpc/v1", "x")
        .chain_head()
        .await
        .unwrap_err();
    assert!(
        error.is_temporary() && error.to_string().contains("http://127.0.0.1:9/rpc/v1"),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_accepted_only_if_it_matches_its_cid() {
    let dir = tempfile::tempdir().unwrap();
    let (devnet, honest) = start(dir.path()).await;
    let miner = Address::new_id(1000);
    let deadlines = honest
        .miner_state(&miner, &Vec::new())
        .await
        .unwrap()
        .state
        .deadlines
        .unwrap()
        .cid;
    let one = honest.deadline_cids(&deadlines).await.unwrap()[0];
    let object = BASE64_STANDARD.encode(honest.read_object(&one).await.unwrap());
    let other = json!({"jsonrpc": "2.0", "id": 1, "result": object});
    let proxy = Proxy::start(&devnet.ready.url, move |_, _| {
        Reply::ok(serde_json::to_vec(&other).unwrap())
    })
    .await;
    let swapped = node(&proxy.url, &devnet.ready.token);
    swapped.read_object(&one).await.unwrap();
    let refused = swapped
        .deadline_cids(&deadlines)
        .await
        .unwrap_err()
        .to_string();
    assert!(refused.contains("not those of"), "{refused}");
}

/// Ordinary clients of a Lotus node begin with these calls.
#[tokio::test(flavor = "multi_thread")]
async fn ordinary_clients_get_what_they_begin_with() {
    let dir = tempfile::tempdir().unwrap();
    let (_devnet, node) = start(dir.path()).await;
    step(&node, 3).await;
    let ask = async |method: &str| -> serde_json::Value {
        node.call(&format!("Filecoin.{method}"), json!([]))
            .await
            .unwrap()
    };
    let started = ask("StartTime").await;
    assert!(
        started
            .as_str()
            .is_some_and(|at| at.starts_with("20") && at.ends_with('Z'))
    );
    let sync = &ask("SyncState").await["ActiveSyncs"][0];
    assert_eq!((&sync["Stage"], &sync["Height"]), (&json!(4), &json!(3)));
    let wallets = ask("WalletList").await;
    assert!(
        wallets.as_array().unwrap().contains(&json!("f0101")),
        "{wallets}"
    );
    let peer = ask("NetAddrsListen").await;
    assert!(
        peer["ID"]
            .as_str()
            .is_some_and(|id| id.starts_with("12D3KooW")),
        "{peer}"
    );
}

/// The version changes after the announced epoch, once, and the past does not change.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_chain_changes_to_network_version_29() {
    let dir = tempfile::tempdir().unwrap();
    let (devnet, node) = start(dir.path()).await;
    let head = step(&node, 10).await;
    let upgrade = async |epoch: i64| {
        node.call::<Option<i64>>("Devnet.Upgrade", json!([epoch]))
            .await
    };
    assert!(upgrade(head - 1).await.is_err(), "the past does not change");
    assert_eq!(upgrade(head + 5).await.unwrap(), Some(head + 5));
    let announced = node.network_params().await.unwrap().fork_upgrade_params;
    assert_eq!(announced.upgrade_solstice_height, Some(head + 5));
    step(&node, 20).await;
    let at = async |epoch: i64| {
        let tipset = node.tipset_by_height(epoch).await.unwrap();
        (
            tipset.height,
            node.network_version(&tipset.cids).await.unwrap(),
        )
    };
    for epoch in 0..head + 20 {
        let (height, version) = at(epoch).await;
        assert_eq!(
            version,
            if height > head + 5 { 29 } else { 28 },
            "epoch {height}"
        );
    }
    assert!(upgrade(head + 50).await.is_err(), "there is one change");
    devnet.stop().await;
    let (_devnet, again) = start(dir.path()).await;
    assert_eq!(
        again.network_version(&Vec::new()).await.unwrap(),
        29,
        "it is kept"
    );
}
