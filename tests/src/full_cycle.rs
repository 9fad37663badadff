//! The whole main job with the real programs: sealing with C2, a month of WindowPoSts, the statement; once undisturbed, once
//! with processes killed at random moments.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use crate::support::{program, root};

/// Two C2s at once would not fit a small machine's memory or time.
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

/// Every process of the demo in `dir`: agents and their steps carry the folder in their command line.
fn processes_of(dir: &Path, what: &str) -> Vec<i32> {
    let shown = dir.canonicalize().unwrap().display().to_string();
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").unwrap().map(Result::unwrap) {
        let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        if line.contains(&shown) && line.contains(what) {
            found.push(pid);
        }
    }
    found
}

fn kill(pid: i32) {
    let _ = Command::new("kill").args(["-9", &pid.to_string()]).status();
}

fn count(dir: &Path, extension: &str) -> usize {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    entries.filter_map(Result::ok).filter(|e| e.path().extension().is_some_and(|x| x == extension)).count()
}

/// A small generator: the moments are random, and the same in every run.
struct Moments(u64);

impl Moments {
    fn next(&mut self, below: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % below
    }
}

/// Kills the house (site, worker and network are one process in the demo), an agent or a step again and again; each time the
/// house is started anew. In the end one contract, one statement, one mail, and sound books.
#[test]
fn the_job_finishes_although_everything_is_killed_at_random_moments() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let mut moments = Moments(20_261_123);
    let started = Instant::now();
    let mut house = demo(dir.path(), "1");
    let (mut kills, mut steps_killed) = (0, 0);
    let status = loop {
        std::thread::sleep(Duration::from_millis(2_000 + moments.next(11_000)));
        if let Some(status) = house.try_wait().unwrap() {
            break status;
        }
        assert!(started.elapsed() < Duration::from_secs(1500), "not finished; {kills} kills\n{}", story(dir.path()));
        if kills >= 12 {
            continue;
        }
        kills += 1;
        match moments.next(3) {
            // A step that is killed five times is quarantined, and rightly so: leave it some luck.
            2 if steps_killed < 3 => {
                steps_killed += 1;
                processes_of(dir.path(), "sealyard-agent step").into_iter().for_each(kill);
            }
            0 => {
                house.kill().unwrap();
                house.wait().unwrap();
                // Its agents would go on; a machine that loses power does not.
                processes_of(dir.path(), "sealyard-agent").into_iter().for_each(kill);
                house = demo(dir.path(), "1");
            }
            _ => {
                // An agent's death takes its steps with it; the demo's next start brings the agent back.
                processes_of(dir.path(), "sealyard-agent run").into_iter().for_each(kill);
                house.kill().unwrap();
                house.wait().unwrap();
                house = demo(dir.path(), "1");
            }
        }
    };
    let story = story(dir.path());
    assert!(status.success(), "{status} after {kills} kills\n{story}");
    assert!(kills >= 5, "the job was too quick to be disturbed: {kills} kills");
    assert!(!story.contains("BROKEN"), "{story}");
    assert_eq!(count(&dir.path().join("mail"), "eml"), 1, "one statement, one mail");
    assert!(processes_of(dir.path(), "sealyard-agent").is_empty(), "no process is left behind");
}

#[test]
fn one_purchase_becomes_proven_sectors_and_a_statement_whose_figures_are_the_ledgers() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let status = demo(dir.path(), "2").wait().unwrap();
    let text = story(dir.path());
    assert!(status.success(), "{text}");
    assert!(text.matches("  holds").count() >= 7 && !text.contains("BROKEN"), "{text}");
    assert_eq!(count(&dir.path().join("mail"), "eml"), 1);

    let again = Instant::now();
    assert!(demo(dir.path(), "2").wait().unwrap().success());
    assert!(story(dir.path()).matches("the story is told").count() == 2, "a second run finds everything there");
    assert!(again.elapsed() < Duration::from_secs(60), "a second run takes seconds, not {:?}", again.elapsed());
}
