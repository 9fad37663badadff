//! A database that goes away, and a worker that stops.

use std::{
    os::unix::net::UnixStream,
    path::PathBuf,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::{Connection, RunQueryDsl};
use sealyard_core::{fleet, jobs, store::Database};
use tokio::runtime::Runtime;

use super::{
    operator::{desks, new_postgres, postgres},
    read,
};
use crate::{
    fixture::{Part, Shop},
    support::{NOW, hardware, machine},
};

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
                let Ok(server) = UnixStream::connect(&socket) else {
                    continue;
                };
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
                    let _ = (
                        ends.0.shutdown(std::net::Shutdown::Both),
                        ends.1.shutdown(std::net::Shutdown::Both),
                    );
                });
            }
        });
        Self { port, is_shut }
    }
}

/// A site, a worker and a machine over a database whose connection can be shut.
struct Installation {
    /// The address of the database server, and the database's name there.
    server: String,
    database: String,
    way: Way,
    shop: Shop,
    work: Part,
    key: String,
    http: reqwest::Client,
    runtime: Runtime,
    _dir: tempfile::TempDir,
}

impl Installation {
    fn open() -> Self {
        let server = postgres();
        let direct = new_postgres();
        let database = direct.rsplit('/').next().unwrap().to_owned();
        let way = Way::open(&server);
        let through = format!(
            "postgres://sealyard@127.0.0.1:{}/{database}?sslmode=disable&gssencmode=disable",
            way.port
        );
        let dir = tempfile::tempdir().unwrap();
        let key = enrolled(&direct);
        let more = format!(
            "parameters_dir = \"{}\"\npoll_ms = 50\n",
            dir.path().join("params").display()
        );
        let shop = Shop::on(dir.path(), &through, &more);
        let config = shop.config.display().to_string();
        let work = ["sealyard", "--config", &config, "work"];
        let work = Part::new(dir.path(), "work", &work).started();
        Self {
            server,
            database,
            way,
            shop,
            work,
            key,
            http: sealyard_filecoin::http::client(Duration::from_secs(30)).unwrap(),
            runtime: Runtime::new().unwrap(),
            _dir: dir,
        }
    }

    /// The status of the answer; 0: there is none.
    fn status(&self, request: reqwest::RequestBuilder) -> u16 {
        let answer = self.runtime.block_on(async { request.send().await });
        answer
            .map(|answer| answer.status().as_u16())
            .unwrap_or_default()
    }

    fn page(&self) -> u16 {
        self.status(self.http.get(format!("{}/", self.shop.url)))
    }

    fn heartbeat(&self) -> u16 {
        let request = self
            .http
            .post(format!("{}/agent/v1/heartbeat", self.shop.url));
        let beat = serde_json::json!({"hardware": hardware(), "running": []});
        self.status(request.bearer_auth(&self.key).json(&beat))
    }

    fn assert_answers(&self, when: &str) {
        assert_eq!(
            (self.page(), self.heartbeat()),
            (200, 200),
            "{when}: {}",
            self.shop.serve.log()
        );
    }

    /// Has the server end its connections, as for a restart.
    fn end_connections(&self) {
        let mut admin =
            diesel::PgConnection::establish(&format!("{}/postgres", self.server)).unwrap();
        let end = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
            self.database
        );
        assert!(
            diesel::sql_query(end).execute(&mut admin).unwrap() > 0,
            "there was no connection to end"
        );
    }
}

/// Enrols a machine in a new database. Returns its key.
fn enrolled(database: &str) -> String {
    let db = Database::open(database, 4).unwrap();
    db.migrate().unwrap();
    machine(&db, "yard");
    db.write(|conn| {
        let token = fleet::new_token(conn, "granite", NOW, NOW * 2)?;
        Ok(fleet::enrol(conn, &token, &hardware(), NOW).unwrap().key)
    })
    .unwrap()
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "not seen: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The database is away for some seconds. When it is back, pages, agents and the worker go on at
/// once.
#[test]
fn work_resumes_at_once_when_the_database_is_back() {
    let yard = Installation::open();
    until("the worker works", || {
        yard.work.log().contains("takes the loop over")
    });
    for round in 0..3 {
        yard.assert_answers(&format!("round {round}"));
        yard.way.is_shut.store(true, Ordering::SeqCst);
        std::thread::sleep(Duration::from_millis(1500));
        assert_ne!(yard.page(), 200, "the database is really away");
        yard.way.is_shut.store(false, Ordering::SeqCst);
        let back = Instant::now();
        yard.assert_answers(&format!("no answer at once in round {round}"));
        assert!(
            back.elapsed() < Duration::from_secs(2),
            "{:?}",
            back.elapsed()
        );
        yard.end_connections();
        yard.assert_answers("nobody notices that connections were ended");
    }
    until("the worker works on", || {
        let log = yard.work.log();
        log.matches("the database answers again").count() > 0
            && log.matches("the database does not answer").count() < 60
    });
}

/// A worker that is told to stop hands its loops to the standby worker at once.
#[test]
fn a_stopped_worker_hands_its_loops_over_at_once() {
    for desk in desks() {
        let db = Database::open(&desk.database, 4).unwrap();
        db.migrate().unwrap();
        let config = desk.config.display().to_string();
        let work = ["sealyard", "--config", &config, "work"];
        let start = |name| Part::new(desk.dir.path(), name, &work).started();
        let says = |part: &Part, words: &str| part.log().contains(words);
        let mut first = start("first");
        until("the first works", || says(&first, "takes the loop over"));
        let second = start("second");
        until("the second stands by", || {
            says(&second, "stands by for the rest")
        });
        std::thread::sleep(Duration::from_millis(1500));
        let log = second.log();
        assert!(!log.contains("takes the loop over"), "{log}");
        let told = Instant::now();
        let pid = first.pid().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        until("the first ends well", || first.ended() == Some(true));
        until("the second goes on", || {
            says(&second, "takes the loop over")
        });
        assert!(
            told.elapsed() < Duration::from_secs(6),
            "the standby waited for claims to expire: {:?}",
            told.elapsed()
        );
        let log = first.log();
        assert!(log.contains("its loops are free"), "{log}");
        assert!(!read(&db, jobs::loops).is_empty());
    }
}
