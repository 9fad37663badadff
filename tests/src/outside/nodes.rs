//! Nodes that are reachable but not healthy: stale heads, rate limits, and HTML pages as answers.

use std::{
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use sealyard_core::jobs::AlertKind;
use sealyard_devnet::{Config, Devnet};
use sealyard_filecoin::rpc::{Endpoint, Freshness, Node, NodeConfig, RpcError};
use serde_json::{Value, json};

use super::{operator::new_postgres, yard::Yard};
use crate::{
    fixture::database_url,
    proxy::{Proxy, Reply},
    support::program,
};

async fn devnet() -> (tempfile::TempDir, Devnet) {
    let dir = tempfile::tempdir().unwrap();
    let devnet = Devnet::start(
        (std::net::Ipv4Addr::LOCALHOST, 0).into(),
        dir.path(),
        Config::default(),
    )
    .await
    .unwrap();
    (dir, devnet)
}

fn node(first: &str, fallbacks: &[&str], token: &str) -> Node {
    let endpoint = |url: &&str| Endpoint {
        url: (*url).to_owned(),
        token: token.to_owned(),
    };
    let timeout = Duration::from_secs(5);
    let fallbacks = fallbacks.iter().map(endpoint).collect();
    Node::new(NodeConfig {
        first: endpoint(&first),
        fallbacks,
        timeout,
        backoff: Duration::from_millis(1),
    })
    .unwrap()
}

/// A proxy before a node that can be broken: it then gives this answer to everything.
async fn breakable(url: &str, status: u16, body: &'static [u8]) -> (Proxy, Arc<AtomicBool>) {
    let is_broken = Arc::new(AtomicBool::new(false));
    let now = Arc::clone(&is_broken);
    let spoil = move |_: &str, answer| {
        if !now.load(Ordering::SeqCst) {
            return Reply::ok(answer);
        }
        Reply {
            status,
            body: body.to_vec(),
            after: Duration::ZERO,
        }
    };
    (Proxy::start(url, spoil).await, is_broken)
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_of_a_node_go_to_the_next_node_and_name_their_status() {
    let (_dir, devnet) = devnet().await;
    let (url, token) = (&devnet.ready.url, &devnet.ready.token);
    let spoils: [(u16, &[u8]); 8] = [
        (429, b"too many requests, slow down"),
        (408, b""),
        (500, b"internal"),
        (502, b"<html><body>bad gateway</body></html>"),
        (503, br#"{"error":"maintenance"}"#),
        (200, b"<!doctype html><title>Sign in</title>"),
        (200, b""),
        (200, br#"{"jsonrpc":"2.0","id":1,"result":{"Cids":["#),
    ];
    for (status, body) in spoils {
        let (bad, is_broken) = breakable(url, status, body).await;
        let lucky = node(&bad.url, &[url], token);
        lucky.network_name().await.unwrap();
        is_broken.store(true, Ordering::SeqCst);
        assert!(lucky.chain_head().await.is_ok(), "{status}");
        let alone = node(&bad.url, &[], token);
        let error = alone.chain_head().await.unwrap_err();
        assert!(error.is_temporary(), "{status}: {error}");
        let error = error.to_string();
        assert!(
            error.contains(&status.to_string()) && error.contains(&bad.url),
            "{error}"
        );
    }
    // An error that the caller caused is not passed to another node.
    let asked = node(url, &[], token);
    let error = asked
        .call::<Value>("Filecoin.NoSuchMethod", json!([]))
        .await
        .unwrap_err();
    assert!(
        matches!(error, RpcError::Node { code: -32601, .. }),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_limited_node_rests_as_long_as_it_asks() {
    let (_dir, devnet) = devnet().await;
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let limited = Proxy::start_with_header(&devnet.ready.url, "retry-after: 30", move |_, _| {
        count.fetch_add(1, Ordering::SeqCst);
        Reply {
            status: 429,
            body: b"slow down".to_vec(),
            after: Duration::ZERO,
        }
    })
    .await;
    let alone = node(&limited.url, &[], &devnet.ready.token);
    let started = Instant::now();
    let error = alone.chain_head().await.unwrap_err();
    let pause = match &error {
        RpcError::Unavailable { retry_after, .. } => retry_after.map(|pause| pause.as_secs()),
        _ => None,
    };
    assert_eq!(pause, Some(30), "{error}");
    assert!(
        started.elapsed() < Duration::from_secs(5),
        "the caller gets the error at once"
    );
    assert_eq!(
        asked.load(Ordering::SeqCst),
        1,
        "the node is not asked again during the pause"
    );
    let with_other = node(&limited.url, &[&devnet.ready.url], &devnet.ready.token);
    // The first call must learn that the other node is on the same network.
    assert!(with_other.chain_head().await.is_err());
    let before = asked.load(Ordering::SeqCst);
    let _ = with_other.chain_head().await;
    assert_eq!(
        asked.load(Ordering::SeqCst),
        before,
        "the other node is asked first during the pause"
    );
}

const FRESH: Freshness = Freshness {
    now: None,
    most_epochs: 5,
    epoch_seconds: 30,
};

/// The problem of the first node, if it has one.
async fn problem(nodes: &Node, fresh: Freshness) -> Option<String> {
    nodes.look_at_heads(fresh).await.remove(0).problem
}

/// The first node has a problem that is described with these words.
async fn assert_left_out(nodes: &Node, fresh: Freshness, words: &str) {
    let why = problem(nodes, fresh).await.unwrap_or_default();
    assert!(why.contains(words), "{why}");
}

/// The answer that a node gives to every question about its head; empty: the next one.
type Frozen = Arc<Mutex<Option<Vec<u8>>>>;

/// A proxy before a node whose head can be frozen.
async fn freezable(url: &str) -> (Proxy, Frozen) {
    let frozen = Frozen::default();
    let kept = Arc::clone(&frozen);
    let stale = Proxy::start(url, move |method, body| {
        let mut kept = kept.lock().unwrap();
        match (method, kept.as_ref()) {
            ("Filecoin.ChainHead", Some(old)) if !old.is_empty() => Reply::ok(old.clone()),
            ("Filecoin.ChainHead", Some(_)) => {
                *kept = Some(body.clone());
                Reply::ok(body)
            }
            _ => Reply::ok(body),
        }
    });
    (stale.await, frozen)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_a_stale_head_is_left_out_until_it_catches_up() {
    let (_dir, devnet) = devnet().await;
    let direct = node(&devnet.ready.url, &[], &devnet.ready.token);
    let step = async |epochs: i64| {
        let _: Value = direct
            .call("Devnet.Step", json!([{"Epochs": epochs}]))
            .await
            .unwrap();
    };
    step(100).await;
    let (stale, frozen) = freezable(&devnet.ready.url).await;
    let both = node(&stale.url, &[&devnet.ready.url], &devnet.ready.token);
    let heads = both.look_at_heads(FRESH).await;
    assert!(heads.iter().all(|head| head.problem.is_none()));
    *frozen.lock().unwrap() = Some(Vec::new());
    let then = both.chain_head().await.unwrap();
    step(3).await;
    assert!(
        problem(&both, FRESH).await.is_none(),
        "a lag of a few epochs is tolerated"
    );
    step(30).await;
    assert_left_out(&both, FRESH, "behind another node").await;
    assert!(
        both.chain_head().await.unwrap().height > then.height,
        "reads go to the healthy node"
    );
    *frozen.lock().unwrap() = None;
    assert!(problem(&both, FRESH).await.is_none());

    // If all heads are behind the clock, nothing is read and nothing can be posted.
    let late = |by: i64| Freshness {
        now: Some(1_790_726_400 + 133 * 30 + by),
        ..FRESH
    };
    let alone = node(&devnet.ready.url, &[], &devnet.ready.token);
    assert!(problem(&alone, late(120)).await.is_none());
    assert_left_out(&alone, late(26 * 3600), "behind the clock").await;
    assert!(matches!(
        alone
            .miner_info(&fvm_shared::address::Address::new_id(1000))
            .await,
        Err(RpcError::Stale(_))
    ));
}

/// The worker does nothing while the chain stands still, and raises an alert.
#[tokio::test(flavor = "multi_thread")]
async fn a_worker_with_a_stale_chain_sends_nothing_and_raises_an_alert() {
    // The chain of the devnet is in September, but the worker uses the real clock.
    let mut yard = Yard::open(Config::default(), "", 1).await;
    let config = yard.root().join("sealyard.toml");
    let text = std::fs::read_to_string(&config)
        .unwrap()
        .replace("head_lag_epochs = 0", "head_lag_epochs = 5");
    std::fs::write(&config, text).unwrap();
    yard.step(50).await;
    yard.sealed(1, 0x11, 5);
    yard.work.start();
    yard.until("a person is told", 0, || {
        yard.alerts().iter().any(|a| a.kind == AlertKind::Node)
    })
    .await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(yard.calls("Filecoin.MpoolPushMessage"), 0);
    let alert = yard.alerts().remove(0);
    assert!(
        alert.text.contains("is not used") && alert.text.contains("behind the clock"),
        "{}",
        alert.text
    );
}

/// The number of calls of each usual turn in a bench run that follows a miner with this many
/// sectors and none new.
fn calls_of_a_turn(sectors: &str, database: &str, more: &[&str]) -> Vec<u32> {
    let mut bench = Command::new(program("sealyard-bench"));
    bench
        .args([
            "large-miner",
            "--sectors",
            sectors,
            "--new",
            "0",
            "--turns",
            "3",
            "--database",
            database,
        ])
        .args(more);
    let output = bench.output().unwrap();
    let (said, failed) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{said}{failed}");
    let usual = said.lines().filter(|line| line.starts_with("usual turn:"));
    let calls: Vec<u32> = usual
        .map(|line| {
            line.split(", ")
                .nth(1)
                .unwrap()
                .split(' ')
                .next()
                .unwrap()
                .parse()
                .unwrap()
        })
        .collect();
    assert_eq!(calls.len(), 3, "{said}");
    calls
}

#[test]
fn a_turn_costs_what_has_changed_whatever_the_size_of_the_miner() {
    let databases: [fn(&Path) -> String; 2] = [database_url, |_| new_postgres()];
    for database_of in databases {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let small = calls_of_a_turn("2000", &database_of(dirs[0].path()), &[]);
        let large = calls_of_a_turn("120000", &database_of(dirs[1].path()), &[]);
        // Each turn reads 60 tipsets, and one of 48 deadlines ends in it. The small miner has
        // sectors in one deadline only.
        assert!(
            small
                .iter()
                .zip(&large)
                .all(|(small, large)| *large <= small + 12),
            "{small:?} {large:?}"
        );
        assert!(large.iter().all(|calls| *calls < 60 + 48), "{large:?}");
    }
}

#[test]
fn a_node_without_objects_is_read_deadline_by_deadline() {
    let dir = tempfile::tempdir().unwrap();
    let calls = calls_of_a_turn("5000", &database_url(dir.path()), &["--without-objects"]);
    assert!(calls.iter().all(|calls| *calls > 60 + 48), "{calls:?}");
}
