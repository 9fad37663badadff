//! The command line of an operator.

use std::{
    io::Write,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::atomic::{AtomicU64, Ordering},
};

use diesel::{Connection, RunQueryDsl};
use sealyard_core::{
    capacity,
    store::{Database, DbFault},
};

use super::trials;
use crate::{
    fixture::database_url,
    support::{NOW, on_both, program, shop},
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
pub(super) struct Desk {
    pub dir: tempfile::TempDir,
    pub database: String,
    pub config: PathBuf,
}

impl Desk {
    fn at(database: impl Fn(&Path) -> String) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = database(dir.path());
        let config = dir.path().join("sealyard.toml");
        let text = format!(
            "database_url = \"{database}\"\n\
             session_secret = \"0123456789abcdef0123456789abcdef\"\n\
             listen = \"127.0.0.1:0\"\nmetrics_listen = \"\"\n\
             parameters_dir = \"{0}/params\"\nnode_url = \"http://127.0.0.1:1/rpc/v1\"\n",
            dir.path().display()
        );
        std::fs::write(&config, text).unwrap();
        Self {
            dir,
            database,
            config,
        }
    }

    fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = Command::new(program("sealyard"));
        command.arg("--config").arg(&self.config).args(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
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
        assert_eq!(
            output.status.code(),
            Some(1),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    /// The error output of an agent that must not start.
    fn agent_refuses(&self, url: &str, parameters: &Path) -> String {
        let output = Command::new(program("sealyard-agent"))
            .args(["run", "--url", url, "--token", "enrol_x"])
            .arg("--parameters-dir")
            .arg(parameters)
            .arg("--dir")
            .arg(self.dir.path().join("agent"))
            .output()
            .unwrap();
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    }
}

/// The address of the PostgreSQL server of the tests.
pub(super) fn postgres() -> String {
    std::env::var("SEALYARD_TEST_POSTGRES")
        .expect("run the tests with scripts/test, which starts PostgreSQL")
}

/// The URL of a new, empty database on the test server.
pub(super) fn new_postgres() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let server = postgres();
    let name = format!(
        "operator_{}_{}",
        std::process::id(),
        NEXT.fetch_add(1, Ordering::Relaxed)
    );
    let mut admin = diesel::PgConnection::establish(&format!("{server}/postgres")).unwrap();
    diesel::sql_query(format!("CREATE DATABASE {name}"))
        .execute(&mut admin)
        .unwrap();
    format!("{server}/{name}")
}

pub(super) fn desks() -> [Desk; 2] {
    [Desk::at(database_url), Desk::at(|_| new_postgres())]
}

#[test]
fn one_shot_commands_succeed_however_often_they_run() {
    for desk in desks() {
        assert!(desk.works(&["migrate"], "").contains("migrations have run"));
        for n in 0..trials() {
            assert!(desk.works(&["migrate"], "").contains("is up to date"));
            let email = format!("operator-{n}@example.org");
            assert!(
                desk.works(&["admin", &email, "Op"], "long enough\n")
                    .contains("is an administrator")
            );
            assert!(
                desk.works(&["password", &email], "longer still\n")
                    .contains("new password")
            );
            let name = format!("Pool {n}");
            let miner = format!("f0{}", 1000 + n);
            let mut pool = POOL.to_vec();
            pool[2] = &miner;
            assert!(
                desk.works(&[pool.as_slice(), &[&name]].concat(), "")
                    .contains("is on sale")
            );
            assert!(desk.works(&["books", "check"], "").contains("capacity"));
            desk.works(&["machine", "list"], "");
            assert_eq!(
                desk.works(&["token", "new", "granite"], "").trim().len(),
                desk.works(&["token", "new", "basalt"], "").trim().len()
            );
            assert!(desk.works(&["token", "list"], "").contains("granite"));
            assert!(
                desk.works(&["token", "withdraw", "granite"], "")
                    .contains("1 tokens")
            );
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
            assert!(
                said.contains("run `sealyard migrate`"),
                "{arguments:?} on empty tables: {said}"
            );
        }
        desk.works(&["migrate"], "");
        let db = Database::open_one(&desk.database).unwrap();
        let sql = "INSERT INTO __diesel_schema_migrations (version) VALUES ('20990101000000')";
        db.read(|conn| Ok::<_, DbFault>(diesel::sql_query(sql).execute(conn)?))
            .unwrap();
        for arguments in COMMANDS
            .into_iter()
            .chain([["migrate"].as_slice(), &["admin", "a@example.org", "A"]])
        {
            let said = desk.refuses(arguments);
            assert!(
                said.contains("newer release") && said.contains("20990101000000"),
                "{arguments:?}: {said}"
            );
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
    assert!(
        overlap.contains("pool Test already exists for miner f01000"),
        "{overlap}"
    );
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
    let agent = |url: &str| desk.agent_refuses(url, &parameters);
    let said = agent("http://127.0.0.1:1");
    assert!(said.contains("holds no proof parameters"), "{said}");
    std::fs::write(parameters.join("v28.params"), "x").unwrap();
    let said = agent("127.0.0.1:1");
    assert!(said.contains("https://"), "{said}");
}

/// `books check` reads the state of a single moment.
#[test]
fn a_check_of_the_books_reads_a_consistent_snapshot() {
    on_both(|db| {
        let (pool, ..) = shop(db, 10);
        let owned = |conn: &mut _| capacity::capacity(conn, pool.id).map(|c| c.owned);
        let (before, after) = db
            .read_at_once(|conn| {
                let before = owned(conn)?;
                db.transact(|conn| capacity::grow(conn, pool.id, "more", 2048, NOW))
                    .unwrap();
                Ok::<_, DbFault>((before, owned(conn)?))
            })
            .unwrap();
        assert_eq!(before, after, "a concurrent write is visible");
        assert_eq!(
            db.read(|conn| owned(conn).map_err(DbFault::from)).unwrap(),
            before + 2048,
            "the concurrent write is lost"
        );
    });
}
