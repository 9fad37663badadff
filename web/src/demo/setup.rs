//! Starts the demo's parts: parameters, network, payment provider, mail server, agents.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context;
use sealyard_core::{
    clock::{DAY, Micros, Month, SECOND, SECONDS_A_DAY},
    fleet, ids,
};
use sealyard_devnet::{Devnet, Ready};
use sealyard_filecoin::rpc::{Endpoint, Node, NodeConfig};

use super::{Options, fake_stripe, mail_sink};
use crate::{app::Shared, config::Config};

pub const NETWORK: &str = "sealyard-devnet-demo";
/// The last one stores the sectors that the others seal.
const AGENTS: [(&str, Option<&str>); 3] = [
    ("granite", None),
    ("basalt", None),
    ("quarry", Some("--storage")),
];

fn loopback() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// The network's time now, microseconds.
pub async fn head_at(node: &Ready) -> anyhow::Result<Micros> {
    let first = Endpoint {
        url: node.url.clone(),
        token: node.token.clone(),
    };
    let node = Node::new(NodeConfig {
        first,
        fallbacks: Vec::new(),
        timeout: Duration::from_secs(30),
        backoff: NodeConfig::BACKOFF,
    })?;
    let head = node.chain_head().await?;
    Ok(head
        .blocks
        .first()
        .context("the network's head has no block")?
        .timestamp
        .saturating_mul(SECOND))
}

/// attoFIL minted per epoch. With [`OTHERS`] as the network's power a unit of 2 KiB earns about
/// 0.09 FIL a day in about three wins. That is believable at the seeded prices, and leaves few days
/// without a win.
const EPOCH_REWARD: &str = "160000000000000000";
/// Bytes of power that all others have.
const OTHERS: u64 = 10 << 20;

/// Starts a network whose first day is the last before the latest complete calendar month, so that
/// the demo can live through that month.
pub async fn start_devnet(dir: &Path) -> anyhow::Result<Devnet> {
    let today =
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())? / SECONDS_A_DAY;
    let this_month = Month::of_day(today)
        .and_then(Month::days)
        .context("today's month")?
        .0;
    let last_month = Month::of_day(this_month - 1)
        .and_then(Month::days)
        .context("last month")?
        .0;
    let settings = sealyard_devnet::Config {
        network_name: NETWORK.into(),
        genesis_timestamp: (last_month - 1) * SECONDS_A_DAY,
        epoch_reward: EPOCH_REWARD.into(),
        other_power: OTHERS,
        ..sealyard_devnet::Config::default()
    };
    Ok(Devnet::start(loopback(), &dir.join("devnet"), settings).await?)
}

/// The world outside: a payment provider and a mail server, both on loopback.
pub struct Outside {
    pub stripe_url: String,
    pub webhook_secret: String,
    pub smtp: SocketAddr,
}

impl Outside {
    pub async fn start(dir: &Path, public_url: &str) -> anyhow::Result<Self> {
        let webhook_secret = format!("whsec_{}", ids::secret());
        let webhook_url = format!("{public_url}/webhooks/stripe");
        let stripe = fake_stripe::start(loopback(), webhook_url, webhook_secret.clone())?;
        let smtp = mail_sink::start(loopback(), dir.join("mail")).await?;
        Ok(Self {
            stripe_url: format!("http://{stripe}"),
            webhook_secret,
            smtp,
        })
    }
}

/// The demo's configuration. `STRIPE_SECRET_KEY` in the environment makes it use Stripe itself.
pub fn config(
    options: &Options,
    dir: &Path,
    public_url: &str,
    node: &Ready,
    outside: &Outside,
) -> anyhow::Result<Config> {
    let database = options
        .database_url
        .clone()
        .unwrap_or_else(|| format!("sqlite://{}/sealyard.db", dir.display()));
    let real_key = std::env::var("STRIPE_SECRET_KEY").ok();
    let mut config = Config {
        database_url: database,
        listen: options.listen.to_string(),
        metrics_listen: String::new(),
        public_url: public_url.to_owned(),
        session_secret: kept_secret(dir)?,
        node_url: node.url.clone(),
        node_token: node.token.clone(),
        parameters_dir: options.parameters_dir(),
        poll_ms: 100,
        // These count the network's time, of which hours pass in moments.
        lease_s: 2 * SECONDS_A_DAY,
        machine_lost_s: 10 * SECONDS_A_DAY,
        stripe_secret_key: "sk_test_demo".into(),
        stripe_webhook_secret: outside.webhook_secret.clone(),
        stripe_api: outside.stripe_url.clone(),
        smtp_host: outside.smtp.ip().to_string(),
        smtp_port: outside.smtp.port(),
        smtp_security: "none".into(),
        mail_from: "Sealyard <statements@sealyard.example>".into(),
        ..Config::default()
    };
    if let Some(key) = real_key {
        config.stripe_secret_key = key;
        config.stripe_api = Config::default().stripe_api;
        config.stripe_webhook_secret = std::env::var("STRIPE_WEBHOOK_SECRET")
            .context("STRIPE_WEBHOOK_SECRET is needed as well")?;
    }
    Ok(config)
}

/// The session secret. It is the same in every run, so that people stay signed in.
fn kept_secret(dir: &Path) -> anyhow::Result<String> {
    let path = dir.join("session-secret");
    if let Ok(secret) = std::fs::read_to_string(&path) {
        return Ok(secret);
    }
    let secret = ids::secret();
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path)?;
    file.write_all(secret.as_bytes())?;
    Ok(secret)
}

/// Agents that end with this process.
pub struct Agents(Vec<Child>);

impl Drop for Agents {
    fn drop(&mut self) {
        for agent in &mut self.0 {
            let _ = agent.kill();
            let _ = agent.wait();
        }
    }
}

/// Starts the machines as processes of their own. A new one gets a one-time token.
pub fn start_agents(
    app: &Shared,
    dir: &Path,
    url: &str,
    parameters: &Path,
) -> anyhow::Result<Agents> {
    let program = agent_program()?;
    let mut agents = Agents(Vec::new());
    for (name, storage) in AGENTS {
        let home = dir.join("agents").join(name);
        std::fs::create_dir_all(&home)?;
        let mut command = agent_command(&program, url);
        command.args(storage).arg("--dir");
        command.arg(&home).arg("--parameters-dir").arg(parameters);
        if !home.join("machine.json").exists() {
            let now = app.now();
            let token = app
                .db
                .write(|conn| fleet::new_token(conn, name, now, now + DAY))?;
            command.args(["--token", &token]);
        }
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(home.join("agent.log"))?;
        let child = command
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn();
        agents
            .0
            .push(child.with_context(|| format!("starting {}", program.display()))?);
    }
    Ok(agents)
}

fn agent_command(program: &Path, url: &str) -> Command {
    let mut command = Command::new(program);
    command.args(["run", "--url", url]);
    command.args(["--heartbeat-ms", "100", "--cores", "1"]);
    command.args(["--step-timeout-s", "1200", "--with-parent"]);
    command.args(["--files-listen", "127.0.0.1:0"]);
    command
}

/// The agent's program, which `cargo build` and packages put beside this one.
fn agent_program() -> anyhow::Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name("sealyard-agent");
    anyhow::ensure!(
        path.exists(),
        "{} is missing; build it with `cargo build --release -p sealyard-agent`",
        path.display()
    );
    Ok(path)
}
