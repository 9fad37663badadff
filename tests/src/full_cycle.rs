//! The whole cycle with the real programs: sealing with C2, a month of WindowPoSts and the
//! statement. It runs once undisturbed and once with processes killed at random moments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::{address::Address, econ::TokenAmount};
use sealyard_core::{
    capacity, fleet,
    sealing::{self, SectorState},
    store::{Database, DbFault},
    yields,
};
use sealyard_filecoin::{
    actor::{self, Method, SectorsAt},
    rpc,
};
use serde_json::json;

use crate::{
    fixture::{self, Fixture, Part},
    openrpc,
    proxy::{Proxy, Reply},
    support::{program, root},
};

/// Two C2s at once would exceed the memory and time of a small machine.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn parameters() -> PathBuf {
    root().join("var/proof-params")
}

fn demo(dir: &Path, sectors: &str) -> Child {
    let out = fs::OpenOptions::new().create(true).append(true).open(dir.join("story.txt")).unwrap();
    Command::new(program("sealyard"))
        .args(["demo", "--exit", "--listen", "127.0.0.1:0", "--sectors", sectors, "--dir"])
        .arg(dir)
        .arg("--parameters-dir")
        .arg(parameters())
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
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|x| x == extension)).count()
}

/// A small random generator. Its moments are the same in every run.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// If a machine is running C2, lets it go on for a random time, kills the agent together with the
/// step, and starts the agent again.
fn kill_in_the_middle_of_c2(fixture: &mut Fixture, moments: &mut Moments) -> bool {
    for agent in &mut fixture.agents {
        let steps = fs::read_dir("/proc").unwrap().filter_map(Result::ok).filter_map(|e| step_of(&e.path(), agent.pid()));
        if steps.into_iter().any(|kind| kind == "c2") {
            std::thread::sleep(Duration::from_millis(2_000 + moments.next(15_000)));
            agent.kill();
            agent.start();
            return true;
        }
    }
    false
}

/// The kind of step that the process in `proc` does for the agent with this process id.
fn step_of(proc: &Path, agent: u32) -> Option<String> {
    let parent = format!("PPid:\t{agent}\n");
    fs::read_to_string(proc.join("status")).ok().filter(|status| status.contains(&parent))?;
    let line = fs::read(proc.join("cmdline")).ok()?;
    let folder = String::from_utf8_lossy(&line).split('\0').nth(2)?.to_owned();
    let input: serde_json::Value = serde_json::from_slice(&fs::read(Path::new(&folder).join("input.json")).ok()?).ok()?;
    Some(input["kind"].as_str()?.to_owned())
}

/// The server, the worker, the network and the machines are separate processes here. Each is killed
/// with -9 at random moments, and one machine in the middle of C2. In the end there is one
/// statement and one mail, and the books are sound.
#[test]
fn the_job_finishes_despite_random_kills_of_every_process() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let mut moments = Moments(20_261_123);
    let started = Instant::now();
    let mut fixture = Fixture::open(dir.path());
    let (config, home) = (fixture.shop.config.display().to_string(), dir.path().display().to_string());
    let buyer = ["sealyard", "--config", &config, "demo", "--attach", "--sectors", "1", "--dir", &home];
    let mut buyer = Part::new(dir.path(), "buyer", &buyer).started();
    let (mut kills, mut in_c2) = ([0; 6], false);
    let story = loop {
        std::thread::sleep(Duration::from_millis(500 + moments.next(7_000)));
        in_c2 = in_c2 || kill_in_the_middle_of_c2(&mut fixture, &mut moments);
        match buyer.ended() {
            Some(true) => break buyer.log(),
            // The buyer only watches. It gives up on a server that does not answer, and asks again.
            Some(false) => buyer.start(),
            None => {}
        }
        assert!(started.elapsed() < Duration::from_secs(1500), "not finished; kills {kills:?}\n{}", buyer.log());
        let which = usize::try_from(moments.next(6)).unwrap();
        let most = if which < 3 { 6 } else { 1 };
        if kills[which] < most {
            kills[which] += 1;
            let [granite, basalt, quarry] = fixture.agents.as_mut_slice() else { unreachable!() };
            let (serve, work, devnet) = (&mut fixture.shop.serve, &mut fixture.work, &mut fixture.devnet);
            let part = [serve, work, devnet, granite, basalt, quarry].into_iter().nth(which).unwrap();
            part.kill();
            std::thread::sleep(Duration::from_millis(moments.next(1_500)));
            part.start();
        }
    };
    assert!(in_c2, "no machine was killed in the middle of C2");
    assert!(kills.iter().all(|count| *count > 0), "some process was never killed: {kills:?}");
    assert!(!story.contains("BROKEN"), "{story}");
    assert_eq!(count(&dir.path().join("mail"), "eml"), 1, "one statement, one mail");
    a_damaged_sector_becomes_faulty_and_recovers(dir.path(), &fixture);
    a_node_that_lies_brings_nothing_into_the_books(dir.path(), &mut fixture);
    chain_days_explain_the_miners_balance(dir.path(), &fixture);
}

/// Machines really seal a sector. At each new stage the latest epochs of the chain are replaced,
/// and what happened in them happens some epochs later.
#[test]
fn a_sector_survives_a_reorganisation_at_every_stage() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::over(dir.path(), "reorg_depth = 30\n");
    let (config, home) = (fixture.shop.config.display().to_string(), dir.path().display().to_string());
    let buyer = ["sealyard", "--config", &config, "demo", "--attach", "--sectors", "1", "--dir", &home];
    let mut buyer = Part::new(dir.path(), "buyer", &buyer);
    let db = Database::open(&fixture::database_url(dir.path()), 2).unwrap();
    let node = openrpc::node(&fixture.node_url, &fixture.node_token);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let counts = || {
        let mut active = 0;
        for index in 0..48 {
            active += runtime.block_on(node.deadline_sectors(&Address::new_id(1000), index, &Vec::new())).unwrap().active.len();
        }
        active == 1
    };
    // Epochs that can be replaced must exist before the first stage.
    let _: serde_json::Value = runtime.block_on(node.call("Devnet.Step", json!([{"Epochs": 40}]))).unwrap();
    buyer.start();
    let (started, mut stages) = (Instant::now(), Vec::new());
    loop {
        let sector = db.read(|conn| sealing::all_sectors(conn, 1).map_err(DbFault::from)).unwrap().pop();
        if let Some(stage) = sector.map(|sector| sector.state).filter(|stage| !stages.contains(stage)) {
            let reorg = json!([{"Depth": 4, "Shift": 2}]);
            let _: serde_json::Value = runtime.block_on(node.call("Devnet.Reorg", reorg)).unwrap();
            stages.push(stage);
        } else if stages.contains(&SectorState::Active) && counts() {
            break;
        }
        if buyer.ended() == Some(false) {
            buyer.start();
        }
        assert!(started.elapsed() < Duration::from_secs(600), "{stages:?}\n{}\n{}", buyer.log(), fixture.work.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let all = [SectorState::PreCommit1, SectorState::PreCommit2, SectorState::PreCommitting, SectorState::WaitSeed];
    let rest = [SectorState::Commit2, SectorState::ProveCommitting, SectorState::Proving, SectorState::Active];
    for stage in all.into_iter().chain(rest) {
        assert!(stages.contains(&stage), "no reorganisation at {stage:?}: {stages:?}");
    }
    assert!(!stages.contains(&SectorState::Quarantined), "{stages:?}");
    // A proof over a replaced seed is made again without counting as a failure.
    let sector = db.read(|conn| sealing::all_sectors(conn, 1).map_err(DbFault::from)).unwrap().pop().unwrap();
    assert_eq!(sector.failures, 0, "{:?}\n{}", sector.reason, fixture.work.log());
}

/// A node that sometimes gives wrong answers.
#[derive(Default)]
struct Liar {
    answers: u64,
    won: u64,
    last: serde_json::Value,
}

impl Liar {
    /// For some tipsets, and more often when the miner has won, answers with the tipset of the
    /// previous request, as if the round had been null. Occasionally answers with no partitions,
    /// and spoils some of the remaining answers.
    fn spoil(&mut self, method: &str, result: &mut serde_json::Value) {
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
            "Filecoin.StateMinerPartitions" if self.answers.is_multiple_of(150) => *result = serde_json::Value::Null,
            _ if lies => openrpc::spoil(result, &mut (self.answers * 7919 + 1)),
            _ => {}
        }
    }
}

/// The worker follows such a node for two days. It records only true wins, and once the node is
/// honest again none is missing.
fn a_node_that_lies_brings_nothing_into_the_books(dir: &Path, fixture: &mut Fixture) {
    let db = Database::open(&fixture::database_url(dir), 2).unwrap();
    let pool = db.read(|conn| capacity::pools(conn).map_err(DbFault::from)).unwrap()[0].id;
    let cursor = || db.read(|conn| yields::cursor(conn, pool).map_err(DbFault::from)).unwrap().unwrap().next_epoch;
    let node = openrpc::node(&fixture.node_url, &fixture.node_token);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let honest = fs::read_to_string(&fixture.shop.config).unwrap();
    let liar = Mutex::new(Liar::default());
    let proxy = runtime.block_on(Proxy::start(&fixture.node_url, move |method, body| {
        let mut answer: serde_json::Value = serde_json::from_slice(&body).unwrap();
        liar.lock().unwrap().spoil(method, &mut answer["result"]);
        Reply::ok(serde_json::to_vec(&answer).unwrap())
    }));
    let step = || {
        runtime.block_on(async {
            let _: serde_json::Value = node.call("Devnet.Step", json!([{"Epochs": 20, "Force": true}])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        });
    };
    let first = cursor();
    fs::write(&fixture.shop.config, honest.replace(&fixture.node_url, &proxy.url)).unwrap();
    fixture.work.kill();
    fixture.work.start();
    (0..2 * 2880 / 20).for_each(|_| step());
    let while_lied_to = cursor();
    fixture.work.kill();
    fs::write(&fixture.shop.config, honest).unwrap();
    fixture.work.start();
    let started = Instant::now();
    while cursor() < first + 2 * 2880 {
        assert!(started.elapsed() < Duration::from_secs(120), "read up to {}\n{}", cursor(), fixture.work.log());
        step();
    }
    let end = cursor();
    let recorded = db.read(|conn| yields::wins(conn, pool, first, end).map_err(DbFault::from)).unwrap();
    let recorded: Vec<(i64, i64, String)> = recorded.into_iter().map(|win| (win.epoch, win.win_count, win.cid)).collect();
    let truth = runtime.block_on(async {
        let mut truth = Vec::new();
        for epoch in first..end {
            let tipset = node.tipset_by_height(epoch).await.unwrap();
            let ours = tipset.blocks[0].miner == Address::new_id(1000) && tipset.height == epoch;
            let count = tipset.blocks[0].election_proof.as_ref().unwrap().win_count;
            truth.extend(ours.then(|| (epoch, count, tipset.cids[0].to_string())));
        }
        truth
    });
    assert!(
        !truth.is_empty() && recorded == truth,
        "recorded {recorded:?}, the chain has {truth:?}; lied to until {while_lied_to}"
    );
    let difference = db.read(yields::audit).unwrap().map(|found| found.to_string());
    assert_eq!(difference, None);
}

/// Terminates the sector early. The termination fee, fault fee, deposits and pledge explain the
/// miner's balance on every day to the attoFIL.
fn chain_days_explain_the_miners_balance(dir: &Path, fixture: &Fixture) {
    let db = Database::open(&fixture::database_url(dir), 2).unwrap();
    let pool = db.read(|conn| capacity::pools(conn).map_err(DbFault::from)).unwrap()[0].id;
    let days = || db.read(|conn| yields::chain_days(conn, pool).map_err(DbFault::from)).unwrap();
    let node = openrpc::node(&fixture.node_url, &fixture.node_token);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let miner = Address::new_id(1000);
    runtime.block_on(async {
        let at = node.sector_location(&miner, 1, &Vec::new()).await.unwrap().unwrap();
        let at = SectorsAt { deadline: at.deadline, partition: at.partition, sectors: &[1] };
        let message = rpc::Message {
            version: 0,
            to: miner,
            from: node.miner_info(&miner).await.unwrap().worker,
            nonce: 0,
            value: TokenAmount::default(),
            gas_limit: 0,
            gas_fee_cap: TokenAmount::default(),
            gas_premium: TokenAmount::default(),
            method: Method::TerminateSectors.number(),
            params: BASE64_STANDARD.encode(actor::terminate_sectors(&at).unwrap()),
            cid: None,
        };
        node.push(&message, &openrpc::spec("c0ffee00-0000-4000-8000-000000000002")).await.unwrap();
        for _ in 0..600 {
            let _: serde_json::Value = node.call("Devnet.Step", json!([{"Epochs": 20, "Force": true}])).await.unwrap();
            tokio::time::sleep(Duration::from_millis(50)).await;
            if days().last().is_some_and(|day| day.pledge_atto == "0") {
                return;
            }
        }
        panic!("the pledge never came back\n{}", fixture.work.log());
    });
    let days = days();
    let sum = |of: fn(&yields::ChainDay) -> &String| days.iter().map(|day| of(day).parse::<i128>().unwrap()).sum::<i128>();
    for day in &days {
        assert_eq!(day.other_atto, "0", "{day:?}");
    }
    assert!(sum(|day| &day.fault_fee_atto) > 0 && sum(|day| &day.termination_fee_atto) > 0, "{days:?}");
    assert!(sum(|day| &day.deposits_in_atto) > 0 && sum(|day| &day.pledge_in_atto) > 0, "{days:?}");
    assert_eq!(sum(|day| &day.deposits_in_atto), sum(|day| &day.deposits_back_atto));
    assert_eq!(sum(|day| &day.pledge_in_atto), sum(|day| &day.pledge_back_atto));
    let difference = db.read(yields::audit).unwrap().map(|found| found.to_string());
    assert_eq!(difference, None);
}

/// Continues with the installation of the test above. The replica of its sector disappears until
/// the sector is faulty and for another day, and then comes back.
fn a_damaged_sector_becomes_faulty_and_recovers(dir: &Path, fixture: &Fixture) {
    let db = Database::open(&fixture::database_url(dir), 2).unwrap();
    let machine = db.read(|conn| {
        let sector = sealing::all_sectors(conn, 1)?.remove(0);
        Ok::<_, DbFault>(fleet::machines(conn)?.into_iter().find(|m| Some(m.id) == sector.machine_id).unwrap().name)
    });
    assert_eq!(machine.unwrap(), "quarry", "it was proven from the storage machine");
    let replica = dir.join("agents/quarry/store/s-f01000-1");
    let hidden = replica.with_extension("hidden");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let node = openrpc::node(&fixture.node_url, &fixture.node_token);
    runtime.block_on(openrpc::conforms(&fixture.node_url, &fixture.node_token, 1));
    let miner = Address::new_id(1000);
    // Steps the chain in small strides until its faults are as wanted. The worker needs the pauses
    // to do its part.
    let until = |faulty: bool, force: bool| {
        runtime.block_on(async {
            for _ in 0..1000 {
                let _: serde_json::Value = node.call("Devnet.Step", json!([{"Epochs": 20, "Force": force}])).await.unwrap();
                tokio::time::sleep(Duration::from_millis(100)).await;
                if node.faults(&miner).await.unwrap().numbers(10).unwrap().is_empty() != faulty {
                    return;
                }
            }
            panic!("the chain never saw the sector {}\n{}", if faulty { "fail" } else { "recover" }, fixture.work.log());
        });
    };
    fs::rename(&replica, &hidden).unwrap();
    until(true, true);
    // Let another day pass, for which the chain charges a fault fee.
    for _ in 0..2880 / 20 {
        runtime
            .block_on(async { node.call::<serde_json::Value>("Devnet.Step", json!([{"Epochs": 20, "Force": true}])).await })
            .unwrap();
    }
    fs::rename(&hidden, &replica).unwrap();
    until(false, false);
}

/// Each sealing machine does one PC1. PC2 runs on the machine with the GPU, which fetches the files
/// of the other one.
#[test]
fn layers_move_to_the_machine_with_the_gpu() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::open(dir.path());
    let (config, home) = (fixture.shop.config.display().to_string(), dir.path().display().to_string());
    let buyer = ["sealyard", "--config", &config, "demo", "--attach", "--sectors", "2", "--dir", &home];
    let db = Database::open(&fixture::database_url(dir.path()), 2).unwrap();
    let started = Instant::now();
    while db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap().len() < 3 {
        assert!(started.elapsed() < Duration::from_secs(60), "not all machines enrolled\n{}", fixture.shop.serve.log());
        std::thread::sleep(Duration::from_millis(20));
    }
    let _buyer = Part::new(dir.path(), "buyer", &buyer).started();
    loop {
        let (sectors, tasks, machines) = db
            .read(|conn| {
                let (sectors, tasks) = (sealing::all_sectors(conn, 9)?, sealing::recent_tasks(conn, 99)?);
                Ok::<_, DbFault>((sectors, tasks, fleet::machines(conn)?))
            })
            .unwrap();
        let done = |kind: &str, machine: &str| {
            let at = machines.iter().find(|m| m.name == machine).map(|m| m.id);
            tasks.iter().filter(|t| t.kind.name() == kind && t.state.name() == "done" && t.machine_id == at).count()
        };
        if (done("pc2", "basalt") + done("pc2", "granite"), sectors.len()) == (2, 2) {
            assert_eq!((done("pc1", "granite"), done("pc1", "basalt")), (1, 1), "{tasks:?}");
            assert_eq!((done("move", "basalt"), done("pc2", "granite")), (1, 0), "{tasks:?}");
            break;
        }
        let failed: Vec<_> = tasks.iter().filter_map(|t| t.failure.as_ref()).collect();
        assert!(failed.is_empty() && started.elapsed() < Duration::from_secs(180), "{failed:?}\n{}", fixture.work.log());
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_purchase_ends_in_proven_sectors_and_a_statement_that_matches_the_ledger() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let status = demo(dir.path(), "2").wait().unwrap();
    let text = story(dir.path());
    assert!(status.success(), "{text}");
    assert!(text.matches("  holds").count() >= 7 && !text.contains("BROKEN"), "{text}");
    assert_eq!(count(&dir.path().join("mail"), "eml"), 1);

    let again = Instant::now();
    assert!(demo(dir.path(), "2").wait().unwrap().success());
    assert!(story(dir.path()).matches("the story is told").count() == 2, "a second run finds the story complete");
    assert!(again.elapsed() < Duration::from_secs(60), "a second run takes seconds, not {:?}", again.elapsed());
}
