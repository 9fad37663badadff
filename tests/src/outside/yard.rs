//! A worker process over a devnet, with a proxy between them that a test can spoil. No machine
//! runs: tests put sectors into the state that they need.

use std::{
    fs,
    net::Ipv4Addr,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    ids::SectorId,
    jobs::{self, Alert},
    sealing::{self, Message, MessageState, Sector, SectorState},
    store::{Database, schema},
};
use sealyard_devnet::{Config, Devnet};
use sealyard_filecoin::rpc::Node;
use serde_json::{Value, json};

use super::read;
use crate::{
    books::buy,
    fixture::{Part, database_url},
    openrpc,
    proxy::{Proxy, Reply},
    support::shop,
};

/// Spoils the answer of a method. `None` passes the answer on.
pub type Spoil = Box<dyn FnMut(&str, &[u8]) -> Option<Reply> + Send>;

/// Answers a request in place of the node. `None` passes the request on.
pub type Gate = Box<dyn FnMut(&Value) -> Option<Reply> + Send>;

type Shared<T> = Arc<Mutex<Option<T>>>;

pub struct Yard {
    pub dir: tempfile::TempDir,
    pub db: Database,
    pub node: Node,
    pub proxy: Proxy,
    pub work: Part,
    spoil: Shared<Spoil>,
    gate: Shared<Gate>,
    _devnet: Devnet,
}

/// The time that a worker is given for work of about two turns.
const PATIENCE: Duration = Duration::from_secs(30);

impl Yard {
    /// Opens a yard. `settings` configure the network, and `more` holds further lines of the
    /// worker's configuration. Sectors `1..=sectors` are sold and planned.
    pub async fn open(settings: Config, more: &str, sectors: i64) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let devnet = Devnet::start(
            (Ipv4Addr::LOCALHOST, 0).into(),
            &dir.path().join("devnet"),
            settings,
        )
        .await
        .unwrap();
        let (spoil, gate) = (Arc::default(), Arc::default());
        let proxy = proxy(&devnet.ready.url, Arc::clone(&spoil), Arc::clone(&gate)).await;
        let db = Database::open(&database_url(dir.path()), 8).unwrap();
        db.migrate().unwrap();
        let (_, plan, user) = shop(&db, sectors);
        buy(&db, &plan, user.id, sectors, "yard");
        let node = openrpc::node(&devnet.ready.url, &devnet.ready.token);
        let config = dir.path().join("sealyard.toml");
        let text = configuration(dir.path(), &proxy.url, &devnet.ready.token);
        fs::write(&config, text + more).unwrap();
        let config = config.display().to_string();
        let work = ["sealyard", "--config", &config, "work"];
        let work = Part::new(dir.path(), "work", &work);
        Self {
            dir,
            db,
            node,
            proxy,
            work,
            spoil,
            gate,
            _devnet: devnet,
        }
    }

    /// Spoils answers from now on.
    pub fn spoil(&self, spoil: impl FnMut(&str, &[u8]) -> Option<Reply> + Send + 'static) {
        *self.spoil.lock().unwrap() = Some(Box::new(spoil));
    }

    /// Puts a gate before the node from now on.
    pub fn gate(&self, gate: impl FnMut(&Value) -> Option<Reply> + Send + 'static) {
        *self.gate.lock().unwrap() = Some(Box::new(gate));
    }

    pub async fn step(&self, epochs: i64) -> i64 {
        let answer: Value = self
            .node
            .call("Devnet.Step", json!([{"Epochs": epochs, "Force": true}]))
            .await
            .unwrap();
        answer["Height"].as_i64().unwrap()
    }

    pub async fn reorg(&self, depth: i64, shift: i64) {
        let _: Value = self
            .node
            .call("Devnet.Reorg", json!([{"Depth": depth, "Shift": shift}]))
            .await
            .unwrap();
    }

    pub async fn set_base_fee(&self, fee: i64) {
        let _: Value = self
            .node
            .call("Devnet.SetBaseFee", json!([fee]))
            .await
            .unwrap();
    }

    pub fn sector(&self, number: i64) -> Sector {
        let all = read(&self.db, |conn| sealing::all_sectors(conn, 1000));
        all.into_iter()
            .find(|sector| sector.number == number)
            .unwrap()
    }

    /// Acts as if the machines had sealed the sector, so its PreCommit is due.
    pub fn sealed(&self, number: i64, comm_r: u8, ticket_epoch: i64) -> SectorId {
        use schema::sectors as s;
        let id = self.sector(number).id;
        let values = (
            s::state.eq(SectorState::PreCommitting.name()),
            s::ticket.eq("11".repeat(32)),
            s::ticket_epoch.eq(ticket_epoch),
            s::comm_r.eq(hex_byte(comm_r)),
            s::comm_d.eq("22".repeat(32)),
            s::pc2_output.eq("{}"),
        );
        self.db
            .write(|conn| {
                diesel::update(s::table.find(id))
                    .set(values.clone())
                    .execute(conn)
            })
            .unwrap();
        id
    }

    pub fn messages(&self, state: MessageState) -> Vec<Message> {
        read(&self.db, |conn| sealing::messages_in_state(conn, state))
    }

    pub fn alerts(&self) -> Vec<Alert> {
        read(&self.db, jobs::alerts)
    }

    /// Waits until `done`, stepping the chain by `epochs` at a time.
    pub async fn until(&self, what: &str, epochs: i64, mut done: impl FnMut() -> bool) {
        let started = Instant::now();
        while !done() {
            let all = read(&self.db, |conn| sealing::all_sectors(conn, 9));
            let sectors: Vec<_> = all
                .into_iter()
                .map(|s| (s.number, s.state, s.failures, s.reason))
                .collect();
            assert!(
                started.elapsed() < PATIENCE,
                "not seen: {what}; {sectors:?} {:?}\n{}",
                self.alerts(),
                tail(&self.work.log())
            );
            if epochs > 0 {
                self.step(epochs).await;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }

    /// Waits, epoch by epoch, until the PreCommit of sector 1 has landed.
    pub async fn until_it_waits_for_its_seed(&self) {
        self.until("the sector waits for its seed", 1, || {
            self.sector(1).state == SectorState::WaitSeed
        })
        .await;
    }

    /// The number of calls of a method that the node answered.
    pub fn calls(&self, method: &str) -> usize {
        self.proxy
            .passed
            .lock()
            .unwrap()
            .iter()
            .filter(|(asked, _)| asked["method"] == method)
            .count()
    }

    pub fn root(&self) -> &Path {
        self.dir.path()
    }
}

/// A proxy before the node, with a gate and a spoiler that can be put in later.
async fn proxy(node: &str, spoil: Shared<Spoil>, gate: Shared<Gate>) -> Proxy {
    let shut = move |asked: &Value| gate.lock().unwrap().as_mut().and_then(|gate| gate(asked));
    let spoilt = move |method: &str, body: Vec<u8>| {
        let mut spoil = spoil.lock().unwrap();
        let spoilt = spoil.as_mut().and_then(|spoil| spoil(method, &body));
        spoilt.unwrap_or_else(|| Reply::ok(body))
    };
    Proxy::open(node, "x-proxy: yes", shut, spoilt).await
}

/// The worker's configuration.
fn configuration(dir: &Path, node: &str, token: &str) -> String {
    format!(
        "database_url = \"{}\"\nsession_secret = \"0123456789abcdef0123456789abcdef\"\n\
         node_url = \"{node}\"\nnode_token = \"{token}\"\nparameters_dir = \"{}\"\n\
         poll_ms = 20\nhead_lag_epochs = 0\nconfirmations = 1\nmachine_lost_s = 1000000000\n",
        database_url(dir),
        dir.join("params").display()
    )
}

fn hex_byte(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

fn tail(log: &str) -> String {
    let lines: Vec<&str> = log.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}
