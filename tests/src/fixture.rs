//! An installation whose parts are separate processes, as an operator runs it. A test can kill and
//! restart each of them.

use std::{
    fs::{self, OpenOptions},
    io::{BufRead, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, UNIX_EPOCH},
};

use sealyard_core::{fleet, store::Database};

use crate::support::{NOW, program, root};

pub fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
        .unwrap()
        .local_addr()
        .unwrap()
}

pub fn wait_for(address: SocketAddr) {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "nothing listens on {address}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A program that can be restarted. It is killed when the test ends, even by a panic.
pub struct Part {
    arguments: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Part {
    pub fn new(dir: &Path, name: &'static str, arguments: &[&str]) -> Self {
        let arguments = arguments.iter().map(|a| (*a).to_owned()).collect();
        Self {
            arguments,
            log: dir.join(format!("{name}.log")),
            child: None,
        }
    }

    pub fn start(&mut self) {
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let (program_name, arguments) = self.arguments.split_first().unwrap();
        let mut command = match program_name.as_str() {
            "chromedriver" => Command::new(program_name),
            ours => Command::new(program(ours)),
        };
        command
            .args(arguments)
            .current_dir(root())
            .stdin(Stdio::null());
        self.child = Some(
            command
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap(),
        );
    }

    pub fn started(mut self) -> Self {
        self.start();
        self
    }

    /// Kills the program with SIGKILL and waits until it is gone.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// `None` while it runs, otherwise whether it ended successfully.
    pub fn ended(&mut self) -> Option<bool> {
        self.child
            .as_mut()
            .unwrap()
            .try_wait()
            .unwrap()
            .map(|status| status.success())
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The site and the payment provider, all that a purchase needs.
pub struct Shop {
    pub url: String,
    pub config: PathBuf,
    pub serve: Part,
    _stripe: Part,
}

impl Shop {
    /// `more` holds further lines of configuration.
    pub fn open(dir: &Path, more: &str) -> Self {
        Self::on(dir, &database_url(dir), more)
    }

    /// Opens the shop on a database that the test chooses.
    pub fn on(dir: &Path, database: &str, more: &str) -> Self {
        let (site, stripe) = (free_address(), free_address());
        let url = format!("http://{site}");
        let config = dir.join("sealyard.toml");
        let text = format!(
            "database_url = \"{database}\"\n\
             listen = \"{site}\"\n\
             public_url = \"{url}\"\n\
             session_secret = \"0123456789abcdef0123456789abcdef\"\n\
             stripe_secret_key = \"sk_test_x\"\n\
             stripe_webhook_secret = \"whsec_x\"\n\
             metrics_listen = \"\"\n\
             stripe_api = \"http://{stripe}\"\n\
             {more}"
        );
        fs::write(&config, text).unwrap();
        Database::open_one(database).unwrap().migrate().unwrap();
        let provider = start_provider(dir, stripe, &url);
        let shown = config.display().to_string();
        let serve = Part::new(dir, "serve", &["sealyard", "--config", &shown, "serve"]).started();
        wait_for(stripe);
        wait_for(site);
        Self {
            url,
            config,
            serve,
            _stripe: provider,
        }
    }
}

/// Starts the payment provider, which reports to the shop at this address.
fn start_provider(dir: &Path, listen: SocketAddr, shop_url: &str) -> Part {
    let webhook = format!("{shop_url}/webhooks/stripe");
    let arguments = [
        "sealyard",
        "fake-stripe",
        "--listen",
        &listen.to_string(),
        "--webhook-url",
        &webhook,
        "--webhook-secret",
        "whsec_x",
    ];
    Part::new(dir, "fake-stripe", &arguments).started()
}

pub fn database_url(dir: &Path) -> String {
    format!("sqlite://{}/house.db", dir.display())
}

/// A whole installation: shop, network, mail server, worker and three machines. The second machine
/// claims to have a GPU and does PC2. The third stores sealed sectors.
pub struct Fixture {
    pub shop: Shop,
    pub devnet: Part,
    pub work: Part,
    pub agents: Vec<Part>,
    pub node_url: String,
    pub node_token: String,
    _mail: Part,
}

/// 2026-09-28T00:00Z. The tests run through the rest of September, so it has earnings.
const GENESIS: &str = "network_name = \"sealyard-devnet-test\"\ngenesis_timestamp = 1790553600\n";

impl Fixture {
    pub fn open(dir: &Path) -> Self {
        Self::over(dir, "")
    }

    /// Opens the installation over a network with these additional settings.
    pub fn over(dir: &Path, network: &str) -> Self {
        let parameters = root().join("var/proof-params").display().to_string();
        let network = Network::open(dir, network, &parameters);
        let (mail, mail_address) = start_mail(dir);
        let db = Database::open(&database_url(dir), 4).unwrap();
        db.migrate().unwrap();
        let (node_url, node_token) = (network.url, network.token);
        let more = format!(
            "node_url = \"{node_url}\"\n\
             node_token = \"{node_token}\"\n\
             parameters_dir = \"{parameters}\"\n\
             poll_ms = 100\n\
             lease_s = 20\n\
             machine_lost_s = 600\n\
             head_lag_epochs = 0\n\
             smtp_host = \"127.0.0.1\"\n\
             smtp_port = {}\n\
             smtp_security = \"none\"\n",
            mail_address.port()
        );
        let shop = Shop::open(dir, &more);
        let config = shop.config.display().to_string();
        let work = Part::new(dir, "work", &["sealyard", "--config", &config, "work"]).started();
        let agents = AGENTS.map(|agent| agent.start(dir, &db, &shop.url, &parameters));
        Self {
            shop,
            devnet: network.devnet,
            work,
            agents: agents.into(),
            node_url,
            node_token,
            _mail: mail,
        }
    }
}

/// A network of one node, with the address and the token of its API.
struct Network {
    devnet: Part,
    url: String,
    token: String,
}

impl Network {
    fn open(dir: &Path, more: &str, parameters: &str) -> Self {
        let node = free_address();
        let settings = dir.join("devnet.toml");
        fs::write(&settings, format!("{GENESIS}{more}")).unwrap();
        let arguments = [
            "sealyard",
            "devnet",
            "--listen",
            &node.to_string(),
            "--data",
            &dir.join("devnet").display().to_string(),
            "--settings",
            &settings.display().to_string(),
            "--parameters-dir",
            parameters,
        ];
        let devnet = Part::new(dir, "devnet", &arguments).started();
        wait_for(node);
        let ready = ready_line(&devnet);
        let text = |field: &str| ready[field].as_str().unwrap().to_owned();
        Self {
            url: text("url"),
            token: text("token"),
            devnet,
        }
    }
}

fn start_mail(dir: &Path) -> (Part, SocketAddr) {
    let address = free_address();
    let (listen, letters) = (address.to_string(), dir.join("mail").display().to_string());
    let arguments = ["sealyard", "mail-sink", &listen, &letters];
    let sink = Part::new(dir, "mail-sink", &arguments).started();
    wait_for(address);
    (sink, address)
}

struct Agent {
    name: &'static str,
    gpus: &'static str,
    stores: bool,
}

const AGENTS: [Agent; 3] = [
    Agent {
        name: "granite",
        gpus: "0",
        stores: false,
    },
    Agent {
        name: "basalt",
        gpus: "1",
        stores: false,
    },
    Agent {
        name: "quarry",
        gpus: "0",
        stores: true,
    },
];

impl Agent {
    fn start(&self, dir: &Path, db: &Database, shop_url: &str, parameters: &str) -> Part {
        let now = UNIX_EPOCH.elapsed().unwrap().as_micros();
        let now = i64::try_from(now).unwrap();
        let token = db
            .write(|conn| fleet::new_token(conn, self.name, now, now.max(NOW) * 2))
            .unwrap();
        let home = dir.join("agents").join(self.name).display().to_string();
        let files = free_address().to_string();
        let mut arguments = vec![
            "sealyard-agent",
            "run",
            "--url",
            shop_url,
            "--heartbeat-ms",
            "100",
            "--cores",
            "1",
            "--dir",
            &home,
            "--parameters-dir",
            parameters,
            "--token",
            &token,
            "--gpus",
            self.gpus,
            "--files-listen",
            &files,
        ];
        if self.stores {
            arguments.push("--storage");
        }
        Part::new(dir, self.name, &arguments).started()
    }
}

fn ready_line(devnet: &Part) -> serde_json::Value {
    let started = Instant::now();
    loop {
        let log = devnet.log();
        if let Some(line) = BufReader::new(log.as_bytes())
            .lines()
            .map_while(Result::ok)
            .find(|l| l.starts_with("{\"url\""))
        {
            return serde_json::from_str(&line).unwrap();
        }
        assert!(
            started.elapsed() < Duration::from_secs(60),
            "the devnet is not ready:\n{log}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
