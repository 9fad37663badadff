//! The command line of an operator, and a database that goes away.

use std::{
    io::Write,
    os::unix::{net::UnixStream, process::ExitStatusExt},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::{Connection, RunQueryDsl};
use sealyard_core::{
    capacity, fleet, jobs,
    store::{Database, DbFault},
};

use super::trials;
use crate::{
    fixture::{Part, Shop, database_url},
    support::{NOW, machine, program},
};

const POOL: [&str; 12] = [
    "pool",
    "--miner-id",
    "f01000",
    "--sector-bytes",
    "2048",
    "--capacity-bytes",
    "20480",
    "--price-minor",
    "2500",
    "--first-sector",
    "1",
    "--name",
];

/// A configuration whose database does not exist yet or is empty.
struct Desk {
    dir: tempfile::TempDir,
    database: String,
    config: PathBuf,
}

impl Desk {
    fn at(database: impl Fn(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = database(dir.path());
        let config = dir.path().join("sealyard.toml");
        let text = format!(
            "database_url = \"{database}\"\nsession_secret = \"0123456789abcdef0123456789abcdef\"\nlisten = \"127.0.0.1:0\"\n\
             metrics_listen = \"\"\nparameters_dir = \"{0}/params\"\nnode_url = \"http://127.0.0.1:1/rpc/v1\"\n",
            dir.path().display()
        );
        std::fs::write(&config, text).unwrap();
        Self { dir, database, config }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(program("sealyard"));
        command.arg("--config").arg(&self.config).args(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A command that stops early does not read its input.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// The output of a command that must succeed.
    fn works(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        let status = output.status;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(
            (status.code(), status.signal()),
            (Some(0), None),
            "{arguments:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
        said
    }

    /// The error output of a command that must fail.
    fn refuses(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments, "long enough\n");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// The URL of a new, empty database on the test server.
pub(super) fn new_postgres() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let server = std::env::var("SEALYARD_TEST_POSTGRES").expect("run the tests with scripts/test, which starts PostgreSQL");
    let name = format!("operator_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let mut admin = diesel::PgConnection::establish(&format!("{server}/postgres")).unwrap();
    diesel::sql_query(format!("CREATE DATABASE {name}")).execute(&mut admin).unwrap();
    format!("{server}/{name}")
}

fn desks() -> [Desk; 2] {
    [Desk::at(database_url), Desk::at(|_| new_postgres())]
}

#[test]
fn one_shot_commands_succeed_however_often_they_run() {
    for desk in desks() {
        assert!(desk.works(&["migrate"], "").contains("migrations have run"));
        for n in 0..trials() {
            assert!(desk.works(&["migrate"], "").contains("is up to date"));
            let email = format!("operator-{n}@example.org");
            assert!(desk.works(&["admin", &email, "Op"], "long enough\n").contains("is an administrator"));
            assert!(desk.works(&["password", &email], "longer still\n").contains("new password"));
            let name = format!("Pool {n}");
            let miner = format!("f0{}", 1000 + n);
            let mut pool = POOL.to_vec();
            pool[2] = &miner;
            assert!(desk.works(&[pool.as_slice(), &[&name]].concat(), "").contains("is on sale"));
            assert!(desk.works(&["books", "check"], "").contains("capacity"));
            desk.works(&["machine", "list"], "");
            assert_eq!(
                desk.works(&["token", "new", "granite"], "").trim().len(),
                desk.works(&["token", "new", "basalt"], "").trim().len()
            );
            assert!(desk.works(&["token", "list"], "").contains("granite"));
            assert!(desk.works(&["token", "withdraw", "granite"], "").contains("1 tokens"));
        }
    }
}

/// None of these commands does anything on an unknown schema.
const COMMANDS: [&[&str]; 8] = [
    &["serve"],
    &["work"],
    &["serve", "--work"],
    &["password", "a@example.org"],
    &["books", "check"],
    &["machine", "list"],
    &["token", "new", "granite"],
    &["capacity", "Test", "4096"],
];

#[test]
fn a_schema_of_another_release_stops_every_command() {
    for desk in desks() {
        for arguments in COMMANDS {
            let said = desk.refuses(arguments);
            assert!(said.contains("run `sealyard migrate`"), "{arguments:?} on empty tables: {said}");
        }
        desk.works(&["migrate"], "");
        let db = Database::open_one(&desk.database).unwrap();
        let sql = "INSERT INTO __diesel_schema_migrations (version) VALUES ('20990101000000')";
        db.read(|conn| Ok::<_, DbFault>(diesel::sql_query(sql).execute(conn)?)).unwrap();
        for arguments in COMMANDS.into_iter().chain([["migrate"].as_slice(), &["admin", "a@example.org", "A"]]) {
            let said = desk.refuses(arguments);
            assert!(said.contains("newer release") && said.contains("20990101000000"), "{arguments:?}: {said}");
        }
    }
}

#[test]
fn setup_mistakes_are_explained_with_a_remedy() {
    let desk = Desk::at(database_url);
    desk.works(&["migrate"], "");
    desk.works(&[POOL.as_slice(), &["Test"]].concat(), "");
    let again = desk.refuses(&[POOL.as_slice(), &["Test"]].concat());
    assert!(again.contains("there is a pool called Test"), "{again}");
    let overlap = desk.refuses(&[POOL.as_slice(), &["Second"]].concat());
    assert!(overlap.contains("pool Test already exists for miner f01000"), "{overlap}");
    for (line, words) in [
        ("node_url = \"http://127.0.0.1:1234\"", "/rpc/v1"),
        ("listen = \":8080\"", "like 127.0.0.1:8080"),
        ("lease_s = \"soon\"", "lease_s"),
        ("public_url = \"http://yard.example\"", "https://"),
    ] {
        let key = line.split(' ').next().unwrap();
        let text = std::fs::read_to_string(&desk.config).unwrap();
        let without: Vec<&str> = text.lines().filter(|l| !l.starts_with(key)).collect();
        std::fs::write(&desk.config, format!("{}\n{line}\n", without.join("\n"))).unwrap();
        let said = desk.refuses(&["serve"]);
        assert!(said.contains(words), "{line}: {said}");
        std::fs::write(&desk.config, text).unwrap();
    }
    let parameters = desk.dir.path().join("agent-params");
    std::fs::create_dir(&parameters).unwrap();
    let agent = |url: &str| {
        let mut command = Command::new(program("sealyard-agent"));
        command
            .args(["run", "--url", url, "--token", "enrol_x", "--parameters-dir"])
            .arg(&parameters)
            .arg("--dir")
            .arg(desk.dir.path().join("agent"));
        let output = command.output().unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    let said = agent("http://127.0.0.1:1");
    assert!(said.contains("holds no proof parameters"), "{said}");
    std::fs::write(parameters.join("v28.params"), "x").unwrap();
    let said = agent("127.0.0.1:1");
    assert!(said.contains("https://"), "{said}");
}

/// A connection to the socket of PostgreSQL that a test can shut.
struct Way {
    port: u16,
    is_shut: Arc<AtomicBool>,
}

impl Way {
    fn open(server: &str) -> Self {
        let folder = server.split_once('@').unwrap().1.replace("%2F", "/");
        let socket = PathBuf::from(folder).join(".s.PGSQL.5432");
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let is_shut = Arc::new(AtomicBool::new(false));
        let shut = Arc::clone(&is_shut);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = UnixStream::connect(&socket) else { continue };
                if shut.load(Ordering::SeqCst) {
                    continue;
                }
                let (from, to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                let ends = (client.try_clone().unwrap(), server.try_clone().unwrap());
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &from, &mut &to);
                });
                // When one side hangs up, hang up on the other.
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut &server, &mut &client);
                    let _ = client.shutdown(std::net::Shutdown::Both);
                });
                let shut = Arc::clone(&shut);
                std::thread::spawn(move || {
                    while !shut.load(Ordering::SeqCst) {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                    let _ = (ends.0.shutdown(std::net::Shutdown::Both), ends.1.shutdown(std::net::Shutdown::Both));
                });
            }
        });
        Self { port, is_shut }
    }
}

/// The database is away for some seconds. When it is back, pages, agents and the worker go on at
/// once.
#[test]
fn work_resumes_at_once_when_the_database_is_back() {
    let server = std::env::var("SEALYARD_TEST_POSTGRES").expect("run the tests with scripts/test, which starts PostgreSQL");
    let direct = new_postgres();
    let name = direct.rsplit('/').next().unwrap().to_owned();
    let way = Way::open(&server);
    let through = format!("postgres://sealyard@127.0.0.1:{}/{name}?sslmode=disable&gssencmode=disable", way.port);
    let dir = tempfile::tempdir().unwrap();
    let db = Database::open(&direct, 4).unwrap();
    db.migrate().unwrap();
    let key = {
        machine(&db, "yard");
        db.write(|conn| {
            let token = fleet::new_token(conn, "granite", NOW, NOW * 2)?;
            Ok(fleet::enrol(conn, &token, &crate::support::hardware(), NOW).unwrap().key)
        })
        .unwrap()
    };
    let more = format!("parameters_dir = \"{}\"\npoll_ms = 50\n", dir.path().join("params").display());
    let shop = Shop::on(dir.path(), &through, &more);
    let config = shop.config.display().to_string();
    let work = Part::new(dir.path(), "work", &["sealyard", "--config", &config, "work"]).started();
    until("the worker works", || work.log().contains("takes the loop over"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let http = sealyard_filecoin::http::client(Duration::from_secs(30)).unwrap();
    let beat = serde_json::json!({"hardware": crate::support::hardware(), "running": []});
    let ask = |what: &str| {
        let request = match what {
            "page" => http.get(format!("{}/", shop.url)),
            _ => http.post(format!("{}/agent/v1/heartbeat", shop.url)).bearer_auth(&key).json(&beat),
        };
        runtime.block_on(async { request.send().await.map(|answer| answer.status().as_u16()).unwrap_or_default() })
    };
    for round in 0..3 {
        assert_eq!((ask("page"), ask("heartbeat")), (200, 200), "round {round}");
        way.is_shut.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1500));
        assert_ne!(ask("page"), 200, "the database is really away");
        way.is_shut.store(false, Ordering::SeqCst);
        let back = Instant::now();
        assert_eq!((ask("page"), ask("heartbeat")), (200, 200), "no answer at once in round {round}: {}", shop.serve.log());
        assert!(back.elapsed() < Duration::from_secs(2), "{:?}", back.elapsed());
        // When the server ends its connections, as for a restart, nobody notices.
        let mut admin = diesel::PgConnection::establish(&format!("{server}/postgres")).unwrap();
        let end = format!("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'");
        assert!(diesel::sql_query(end).execute(&mut admin).unwrap() > 0, "there was no connection to end");
        assert_eq!((ask("page"), ask("heartbeat")), (200, 200), "{}", shop.serve.log());
    }
    until("the worker works on", || {
        let log = work.log();
        log.matches("the database answers again").count() > 0 && log.matches("the database does not answer").count() < 60
    });
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(started.elapsed() < Duration::from_secs(20), "not seen: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A worker that is told to stop hands its loops to the standby worker at once.
#[test]
fn a_stopped_worker_hands_its_loops_over_at_once() {
    for desk in desks() {
        let db = Database::open(&desk.database, 4).unwrap();
        db.migrate().unwrap();
        let config = desk.config.display().to_string();
        let start = |name| Part::new(desk.dir.path(), name, &["sealyard", "--config", &config, "work"]).started();
        let mut first = start("first");
        until("the first works", || first.log().contains("takes the loop over"));
        let second = start("second");
        until("the second stands by", || second.log().contains("stands by for the rest"));
        std::thread::sleep(Duration::from_millis(1500));
        assert!(!second.log().contains("takes the loop over"), "{}", second.log());
        let told = Instant::now();
        assert!(Command::new("kill").arg(first.pid().to_string()).status().unwrap().success());
        until("the first ends well", || first.ended() == Some(true));
        until("the second goes on", || second.log().contains("takes the loop over"));
        assert!(told.elapsed() < Duration::from_secs(6), "the standby waited for claims to expire: {:?}", told.elapsed());
        assert!(first.log().contains("its loops are free"), "{}", first.log());
        assert!(!db.read(|conn| jobs::loops(conn).map_err(DbFault::from)).unwrap().is_empty());
    }
}

/// `books check` reads the state of a single moment.
#[test]
fn a_check_of_the_books_reads_a_consistent_snapshot() {
    crate::support::on_both(|db| {
        let (pool, ..) = crate::support::shop(db, 10);
        let owned = |conn: &mut _| capacity::capacity(conn, pool.id).map(|c| c.owned);
        let (before, after) = db
            .read_at_once(|conn| {
                let before = owned(conn)?;
                db.transact(|conn| capacity::grow(conn, pool.id, "more", 2048, NOW)).unwrap();
                Ok::<_, DbFault>((before, owned(conn)?))
            })
            .unwrap();
        assert_eq!(before, after, "a concurrent write is visible");
        assert_eq!(db.read(|conn| owned(conn).map_err(DbFault::from)).unwrap(), before + 2048, "the concurrent write is lost");
    });
}
