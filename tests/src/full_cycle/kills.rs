//! Processes that are killed at random moments.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use super::{
    ONE_AT_A_TIME, buyer, chain_days::chain_days_explain_the_miners_balance, count,
    damage::a_damaged_sector_becomes_faulty_and_recovers,
    liar::a_node_that_lies_brings_nothing_into_the_books,
};
use crate::fixture::Fixture;

/// A small random generator. Its moments are the same in every run.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// If a machine is running C2, lets it go on for a random time, kills the agent together with the
/// step, and starts the agent again.
fn kill_in_the_middle_of_c2(fixture: &mut Fixture, moments: &mut Moments) -> bool {
    for agent in &mut fixture.agents {
        let steps = fs::read_dir("/proc")
            .unwrap()
            .filter_map(Result::ok)
            .filter_map(|e| step_of(&e.path(), agent.pid()));
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
    fs::read_to_string(proc.join("status"))
        .ok()
        .filter(|status| status.contains(&parent))?;
    let line = fs::read(proc.join("cmdline")).ok()?;
    let folder = String::from_utf8_lossy(&line)
        .split('\0')
        .nth(2)?
        .to_owned();
    let input: serde_json::Value =
        serde_json::from_slice(&fs::read(Path::new(&folder).join("input.json")).ok()?).ok()?;
    Some(input["kind"].as_str()?.to_owned())
}

/// Kills one of the six other processes with -9, and starts it again after a random time.
fn restart(fixture: &mut Fixture, which: usize, moments: &mut Moments) {
    let [granite, basalt, quarry] = fixture.agents.as_mut_slice() else {
        unreachable!()
    };
    let (serve, work, devnet) = (
        &mut fixture.shop.serve,
        &mut fixture.work,
        &mut fixture.devnet,
    );
    let part = [serve, work, devnet, granite, basalt, quarry]
        .into_iter()
        .nth(which)
        .unwrap();
    part.kill();
    std::thread::sleep(Duration::from_millis(moments.next(1_500)));
    part.start();
}

/// Returns the buyer's story. By then every process was killed, and a machine in the middle of C2.
fn kill_until_the_purchase_is_complete(dir: &Path, fixture: &mut Fixture) -> String {
    let mut moments = Moments(20_261_123);
    let started = Instant::now();
    let mut buyer = buyer(dir, fixture, "1").started();
    let (mut kills, mut in_c2) = ([0; 6], false);
    let story = loop {
        std::thread::sleep(Duration::from_millis(500 + moments.next(7_000)));
        in_c2 = in_c2 || kill_in_the_middle_of_c2(fixture, &mut moments);
        match buyer.ended() {
            Some(true) => break buyer.log(),
            // The buyer only watches. It gives up on a server that does not answer, and asks again.
            Some(false) => buyer.start(),
            None => {}
        }
        assert!(
            started.elapsed() < Duration::from_secs(1500),
            "not finished; kills {kills:?}\n{}",
            buyer.log()
        );
        let which = usize::try_from(moments.next(6)).unwrap();
        let most = if which < 3 { 6 } else { 1 };
        if kills[which] < most {
            kills[which] += 1;
            restart(fixture, which, &mut moments);
        }
    };
    assert!(in_c2, "no machine was killed in the middle of C2");
    assert!(
        kills.iter().all(|count| *count > 0),
        "some process was never killed: {kills:?}"
    );
    story
}

/// The server, the worker, the network and the machines are separate processes here. Each is killed
/// with -9 at random moments, and one machine in the middle of C2. In the end there is one
/// statement and one mail, and the books are sound.
#[test]
fn the_job_finishes_despite_random_kills_of_every_process() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let mut fixture = Fixture::open(dir.path());
    let story = kill_until_the_purchase_is_complete(dir.path(), &mut fixture);
    assert!(!story.contains("BROKEN"), "{story}");
    assert_eq!(
        count(&dir.path().join("mail"), "eml"),
        1,
        "one statement, one mail"
    );
    a_damaged_sector_becomes_faulty_and_recovers(dir.path(), &fixture);
    a_node_that_lies_brings_nothing_into_the_books(dir.path(), &mut fixture);
    chain_days_explain_the_miners_balance(dir.path(), &fixture);
}
