//! The whole cycle with the real programs: sealing with C2, a month of WindowPoSts and the
//! statement. It runs once undisturbed and once with processes killed at random moments.

mod chain_days;
mod damage;
mod kills;
mod layers;
mod liar;
mod reorganisations;

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use fvm_shared::address::Address;
use sealyard_core::{
    capacity,
    ids::PoolId,
    sealing::{self, Sector},
    store::{Database, DbFault},
    yields,
};
use sealyard_filecoin::rpc::Node;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::{
    fixture::{self, Fixture, Part},
    openrpc,
    support::{program, root},
};

/// Two C2s at once would exceed the memory and time of a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

const MINER: Address = Address::new_id(1000);
/// Epochs that the network goes on at a time.
const STRIDE: i64 = 20;

fn demo(dir: &Path, sectors: &str) -> Child {
    let out = fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("story.txt"))
        .unwrap();
    Command::new(program("sealyard"))
        .args([
            "demo",
            "--exit",
            "--listen",
            "127.0.0.1:0",
            "--sectors",
            sectors,
            "--dir",
        ])
        .arg(dir)
        .arg("--parameters-dir")
        .arg(root().join("var/proof-params"))
        .current_dir(root())
        .stdin(Stdio::null())
        .stdout(out.try_clone().unwrap())
        .stderr(out)
        .spawn()
        .unwrap()
}

fn story(dir: &Path) -> String {
    fs::read_to_string(dir.join("story.txt")).unwrap_or_default()
}

fn count(dir: &Path, extension: &str) -> usize {
    let Ok(entries) = fs::read_dir(dir) else {
        return 0;
    };
    entries
        .filter_map(Result::ok)
        .filter(|e| e.path().extension().is_some_and(|x| x == extension))
        .count()
}

/// A process that buys this many sectors from an installation, and tells their story.
fn buyer(dir: &Path, fixture: &Fixture, sectors: &str) -> Part {
    let (config, home) = (
        fixture.shop.config.display().to_string(),
        dir.display().to_string(),
    );
    let arguments = [
        "sealyard",
        "--config",
        &config,
        "demo",
        "--attach",
        "--sectors",
        sectors,
        "--dir",
        &home,
    ];
    Part::new(dir, "buyer", &arguments)
}

fn database(dir: &Path) -> Database {
    Database::open(&fixture::database_url(dir), 2).unwrap()
}

fn only_pool(db: &Database) -> PoolId {
    db.read(|conn| capacity::pools(conn).map_err(DbFault::from))
        .unwrap()[0]
        .id
}

fn only_sector(db: &Database) -> Option<Sector> {
    db.read(|conn| sealing::all_sectors(conn, 1).map_err(DbFault::from))
        .unwrap()
        .pop()
}

fn audit(db: &Database) -> Option<String> {
    db.read(yields::audit)
        .unwrap()
        .map(|found| found.to_string())
}

fn node_of(fixture: &Fixture) -> Node {
    openrpc::node(&fixture.node_url, &fixture.node_token)
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

/// Steps the network, then pauses for the worker to do its part.
async fn stride(node: &Node, force: bool, pause: Duration) {
    let _: Value = node
        .call("Devnet.Step", json!([{"Epochs": STRIDE, "Force": force}]))
        .await
        .unwrap();
    tokio::time::sleep(pause).await;
}

#[test]
fn a_purchase_ends_in_proven_sectors_and_a_statement_that_matches_the_ledger() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let status = demo(dir.path(), "2").wait().unwrap();
    let text = story(dir.path());
    assert!(status.success(), "{text}");
    assert!(
        text.matches("  holds").count() >= 7 && !text.contains("BROKEN"),
        "{text}"
    );
    assert_eq!(count(&dir.path().join("mail"), "eml"), 1);

    let again = Instant::now();
    assert!(demo(dir.path(), "2").wait().unwrap().success());
    assert!(
        story(dir.path()).matches("the story is told").count() == 2,
        "a second run finds the story complete"
    );
    assert!(
        again.elapsed() < Duration::from_secs(60),
        "a second run takes seconds, not {:?}",
        again.elapsed()
    );
}
