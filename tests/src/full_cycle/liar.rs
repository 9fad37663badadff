//! A worker whose node gives wrong answers.

use std::{
    fs,
    ops::Range,
    path::Path,
    sync::Mutex,
    time::{Duration, Instant},
};

use sealyard_core::{
    ids::PoolId,
    store::{Database, DbFault},
    yields,
};
use sealyard_filecoin::{economics::EPOCHS_PER_DAY, rpc::Node};
use serde_json::Value;

use super::{MINER, STRIDE, audit, database, node_of, only_pool, stride};
use crate::{
    fixture::Fixture,
    openrpc,
    proxy::{Proxy, Reply},
};

/// The node lies for two days.
const LIES: i64 = 2 * EPOCHS_PER_DAY;
const PAUSE: Duration = Duration::from_millis(100);

/// A node that sometimes gives wrong answers.
#[derive(Default)]
struct Liar {
    answers: u64,
    won: u64,
    last: Value,
}

impl Liar {
    /// For some tipsets, and more often when the miner has won, answers with the tipset of the
    /// previous request, as if the round had been null. Occasionally answers with no partitions,
    /// and spoils some of the remaining answers.
    fn spoil(&mut self, method: &str, result: &mut Value) {
        self.answers += 1;
        let lies = self.answers.is_multiple_of(100);
        match method {
            "Filecoin.ChainGetTipSetByHeight" => {
                let ours = result["Blocks"][0]["Miner"] == "f01000";
                self.won += u64::from(ours);
                let before = std::mem::replace(&mut self.last, result.clone());
                if lies || (ours && self.won.is_multiple_of(2)) {
                    *result = before;
                }
            }
            "Filecoin.StateMinerPartitions" if self.answers.is_multiple_of(150) => {
                *result = Value::Null
            }
            _ if lies => openrpc::spoil(result, &mut (self.answers * 7919 + 1)),
            _ => {}
        }
    }
}

async fn lying_proxy(node_url: &str) -> Proxy {
    let liar = Mutex::new(Liar::default());
    Proxy::start(node_url, move |method, body| {
        let mut answer: Value = serde_json::from_slice(&body).unwrap();
        liar.lock().unwrap().spoil(method, &mut answer["result"]);
        Reply::ok(serde_json::to_vec(&answer).unwrap())
    })
    .await
}

#[derive(Debug, PartialEq)]
struct Won {
    epoch: i64,
    count: i64,
    cid: String,
}

fn recorded_wins(db: &Database, pool: PoolId, epochs: &Range<i64>) -> Vec<Won> {
    db.read(|conn| yields::wins(conn, pool, epochs.start, epochs.end).map_err(DbFault::from))
        .unwrap()
        .into_iter()
        .map(|win| Won {
            epoch: win.epoch,
            count: win.win_count,
            cid: win.cid,
        })
        .collect()
}

async fn true_wins(node: &Node, epochs: Range<i64>) -> Vec<Won> {
    let mut truth = Vec::new();
    for epoch in epochs {
        let tipset = node.tipset_by_height(epoch).await.unwrap();
        let block = &tipset.blocks[0];
        if block.miner == MINER && tipset.height == epoch {
            truth.push(Won {
                epoch,
                count: block.election_proof.as_ref().unwrap().win_count,
                cid: tipset.cids[0].to_string(),
            });
        }
    }
    truth
}

fn next_epoch(db: &Database, pool: PoolId) -> i64 {
    db.read(|conn| yields::cursor(conn, pool).map_err(DbFault::from))
        .unwrap()
        .unwrap()
        .next_epoch
}

fn restart_worker(fixture: &mut Fixture, config: &str) {
    fixture.work.kill();
    fs::write(&fixture.shop.config, config).unwrap();
    fixture.work.start();
}

/// The worker follows such a node for two days. It records only true wins, and once the node is
/// honest again none is missing.
pub(super) fn a_node_that_lies_brings_nothing_into_the_books(dir: &Path, fixture: &mut Fixture) {
    let db = database(dir);
    let pool = only_pool(&db);
    let node = node_of(fixture);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    let honest = fs::read_to_string(&fixture.shop.config).unwrap();
    let proxy = runtime.block_on(lying_proxy(&fixture.node_url));
    let first = next_epoch(&db, pool);
    let deceived = honest.replace(&fixture.node_url, &proxy.url);
    restart_worker(fixture, &deceived);
    for _ in 0..LIES / STRIDE {
        runtime.block_on(stride(&node, true, PAUSE));
    }
    let while_lied_to = next_epoch(&db, pool);
    restart_worker(fixture, &honest);
    let started = Instant::now();
    while next_epoch(&db, pool) < first + LIES {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "read up to {}\n{}",
            next_epoch(&db, pool),
            fixture.work.log()
        );
        runtime.block_on(stride(&node, true, PAUSE));
    }
    let epochs = first..next_epoch(&db, pool);
    let recorded = recorded_wins(&db, pool, &epochs);
    let truth = runtime.block_on(true_wins(&node, epochs));
    assert!(
        !truth.is_empty() && recorded == truth,
        "recorded {recorded:?}, the chain has {truth:?}; lied to until {while_lied_to}"
    );
    assert_eq!(audit(&db), None);
}
