//! Configuration: one TOML file, overridden by `SEALYARD_*` variables. An unknown key stops the
//! start.

mod checks;
mod lotus;
mod network;
mod sources;

pub use network::Network;

use std::path::PathBuf;

use sealyard_core::{money::NanoFil, orders::Caps};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `sqlite://path` or `postgres://…`.
    pub database_url: String,
    pub database_connections: u32,
    /// The site listens on this address.
    pub listen: String,
    /// Address of `/metrics` and of the details of `/readyz`. Empty: they are not served.
    pub metrics_listen: String,
    /// Address under which customers reach the site, for links in mails and payment pages.
    pub public_url: String,
    /// Signs session cookies. At least 32 characters.
    pub session_secret: String,
    pub node_url: String,
    pub node_token: String,
    /// Nodes of the same network, asked in turn when the first cannot be reached: `http://…` or
    /// `TOKEN@http://…`. Messages are sent through the first only.
    pub fallback_nodes: Vec<String>,
    /// Seconds to wait for a node's answer.
    pub node_timeout_s: u64,
    /// Folder with proof parameters (only verifying keys are read here).
    pub parameters_dir: PathBuf,
    /// Epochs after which a tipset counts as final.
    pub finality: i64,
    /// The winner's share of the block reward, per mille, from an epoch on (FIP-0118):
    /// `[[epoch, permille], …]`, ascending. Before the first epoch the winner gets everything.
    /// The chain does not publish its schedule in advance.
    pub winners_share: Vec<(i64, i64)>,
    /// Epochs after which a message's effect counts as done. Until then a reorganisation may undo
    /// it.
    pub confirmations: i64,
    /// A node is not used while its head is more epochs than this behind the clock or the other
    /// nodes. 0: heads are not compared, for test networks whose clock is stepped.
    pub head_lag_epochs: i64,
    /// Seconds after which a proof's message that has not landed is sent again with a higher fee.
    /// Other messages wait four times as long.
    pub stuck_after_s: i64,
    /// Maximum cost of a message of each kind, FIL.
    #[serde(deserialize_with = "fil")]
    pub max_fee_pre_commit: NanoFil,
    #[serde(deserialize_with = "fil")]
    pub max_fee_prove_commit: NanoFil,
    #[serde(deserialize_with = "fil")]
    pub max_fee_window_post: NanoFil,
    #[serde(deserialize_with = "fil")]
    pub max_fee_recover: NanoFil,
    /// The newest network version whose rules about money this program is known to follow.
    pub newest_network_version: u32,
    /// Milliseconds between two turns of a worker's loop.
    pub poll_ms: u64,
    /// Seconds that a lease lasts without a heartbeat.
    pub lease_s: i64,
    /// Seconds of silence, a few heartbeats, after which a machine is given no more work.
    pub silent_s: i64,
    /// Seconds of silence after which a machine counts as lost.
    pub machine_lost_s: i64,
    /// Proxies that are trusted to report a visitor's address: addresses, or networks like
    /// `10.0.0.0/8`.
    pub trusted_proxies: Vec<String>,
    /// Limits on the unpaid orders of one account: their number, and the percentage of a pool's
    /// unsold capacity that they may hold. `new_…`: for accounts that have never paid.
    pub unpaid_orders: i64,
    pub unpaid_percent: i64,
    pub new_unpaid_orders: i64,
    pub new_unpaid_percent: i64,
    pub stripe_secret_key: String,
    pub stripe_webhook_secret: String,
    pub stripe_api: String,
    pub smtp_host: String,
    pub smtp_port: u16,
    /// `starttls`, `tls` or `none` (loopback only).
    pub smtp_security: String,
    pub smtp_user: String,
    pub smtp_password: String,
    pub mail_from: String,
    /// The name that this server gives itself to mail servers. Empty: the host of `public_url`.
    pub smtp_hello: String,
    /// `text` or `json`.
    pub log_format: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            database_url: "sqlite://var/sealyard.db".into(),
            database_connections: 16,
            listen: "127.0.0.1:8080".into(),
            metrics_listen: "127.0.0.1:9464".into(),
            public_url: "http://127.0.0.1:8080".into(),
            session_secret: String::new(),
            node_url: "http://127.0.0.1:1234/rpc/v1".into(),
            node_token: String::new(),
            fallback_nodes: Vec::new(),
            node_timeout_s: 30,
            parameters_dir: "var/proof-params".into(),
            finality: 900,
            confirmations: 5,
            head_lag_epochs: 5,
            stuck_after_s: 150,
            max_fee_pre_commit: NanoFil(50_000_000),
            max_fee_prove_commit: NanoFil(100_000_000),
            max_fee_window_post: NanoFil(5_000_000_000),
            max_fee_recover: NanoFil(1_000_000_000),
            winners_share: Vec::new(),
            newest_network_version: 29,
            poll_ms: 2000,
            lease_s: 120,
            silent_s: 20,
            machine_lost_s: 600,
            trusted_proxies: Vec::new(),
            unpaid_orders: 5,
            unpaid_percent: 50,
            new_unpaid_orders: 2,
            new_unpaid_percent: 20,
            stripe_secret_key: String::new(),
            stripe_webhook_secret: String::new(),
            stripe_api: "https://api.stripe.com".into(),
            smtp_host: "127.0.0.1".into(),
            smtp_port: 25,
            smtp_security: "starttls".into(),
            smtp_user: String::new(),
            smtp_password: String::new(),
            mail_from: "Sealyard <statements@localhost>".into(),
            smtp_hello: String::new(),
            log_format: "text".into(),
        }
    }
}

/// An amount of FIL, as text: `"0.05"`.
fn fil<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<NanoFil, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        serde::de::Error::custom("write an amount of FIL as text, with at most nine decimals")
    })
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration file {path} cannot be read: {reason}")]
    Read { path: String, reason: String },
    #[error("configuration: {0}")]
    Parse(String),
    #[error("configuration: {key} {must}")]
    Value {
        key: &'static str,
        must: &'static str,
    },
}

impl Config {
    /// The winner's share of the block reward at an epoch, per mille.
    #[must_use]
    pub fn winners_permille(&self, epoch: i64) -> i64 {
        self.winners_share_at(epoch).unwrap_or(1000)
    }

    /// [`Self::winners_permille`] by the schedule. `None`: it says nothing about this epoch.
    #[must_use]
    pub fn winners_share_at(&self, epoch: i64) -> Option<i64> {
        let mut latest_first = self.winners_share.iter().rev();
        latest_first
            .find(|(from, _)| *from <= epoch)
            .map(|(_, permille)| *permille)
    }

    /// The name that this server gives itself to mail servers. `None`: the site has an address, but
    /// no name.
    #[must_use]
    pub fn smtp_hello(&self) -> Option<String> {
        let host = self
            .public_url
            .split("://")
            .nth(1)
            .and_then(|rest| rest.split(['/', ':']).next())
            .unwrap_or_default();
        let name = if self.smtp_hello.is_empty() {
            host
        } else {
            self.smtp_hello.as_str()
        };
        (name.contains(|c: char| c.is_ascii_alphabetic()) && !name.contains('['))
            .then(|| name.to_owned())
    }

    /// Limits on what one account may reserve.
    #[must_use]
    pub const fn caps(&self) -> Caps {
        Caps {
            orders: self.unpaid_orders,
            percent: self.unpaid_percent,
            new_orders: self.new_unpaid_orders,
            new_percent: self.new_unpaid_percent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealyard.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(
            Some(&path),
            environment
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned())),
        )
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load(
            "finality = 10\nlisten = \"127.0.0.1:1\"",
            &[("SEALYARD_FINALITY", "20"), ("HOME", "/root")],
        )
        .unwrap();
        assert_eq!(
            (config.finality, config.listen.as_str()),
            (20, "127.0.0.1:1")
        );
    }

    #[test]
    fn unknown_keys_stop_the_start_and_are_named() {
        for result in [
            load("finallity = 10", &[]),
            load("", &[("SEALYARD_FINALLITY", "10")]),
        ] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("finallity"), "{message}");
        }
    }

    #[test]
    fn the_winners_share_follows_its_schedule() {
        let config = load("winners_share = [[100, 950], [200, 900]]", &[]).unwrap();
        let at = |epoch| config.winners_permille(epoch);
        assert_eq!(
            (at(0), at(99), at(100), at(199), at(1000)),
            (1000, 1000, 950, 950, 900)
        );
    }

    #[test]
    fn a_missing_session_secret_is_refused_with_advice() {
        let message = Config::default().check().unwrap_err().to_string();
        assert!(message.contains("openssl rand -hex 32"), "{message}");
    }

    #[test]
    fn environment_values_are_parsed_by_key_and_never_shown_in_errors() {
        let config = load(
            "",
            &[
                ("SEALYARD_FALLBACK_NODES", "[\"abc@http://n:1\"]"),
                ("SEALYARD_SMTP_PASSWORD", "1234"),
                ("SEALYARD_LEASE_S", "60"),
                ("SEALYARD_PUBLIC_URL", "https://yard.example/"),
            ],
        );
        let config = config.unwrap();
        assert_eq!(
            (
                config.fallback_nodes.len(),
                config.smtp_password.as_str(),
                config.lease_s
            ),
            (1, "1234", 60)
        );
        assert_eq!(
            config.public_url, "https://yard.example",
            "links are made with one slash"
        );
        let message = load("", &[("SEALYARD_LEASE_S", "hunter2")])
            .unwrap_err()
            .to_string();
        assert!(
            !message.contains("hunter2") && message.contains("lease_s"),
            "{message}"
        );
    }

    #[test]
    fn secrets_come_from_files_and_from_systemds_credentials() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("smtp");
        std::fs::write(&file, "pass word\n").unwrap();
        std::fs::write(dir.path().join("session_secret"), "from systemd").unwrap();
        let (file, folder) = (file.display().to_string(), dir.path().display().to_string());
        let both = [
            ("SEALYARD_SMTP_PASSWORD_FILE", file.as_str()),
            ("CREDENTIALS_DIRECTORY", folder.as_str()),
        ];
        let config = load("", &both).unwrap();
        assert_eq!(config.smtp_password, "pass word");
        assert_eq!(config.session_secret, "from systemd");
        let twice = load("smtp_password = \"a\"", &both)
            .unwrap_err()
            .to_string();
        assert!(
            twice.contains("smtp_password") && twice.contains("keep one"),
            "{twice}"
        );
        let missing = [("SEALYARD_NODE_TOKEN_FILE", "/nowhere/token")];
        let said = load("", &missing).unwrap_err().to_string();
        assert!(
            said.contains("/nowhere/token") && said.contains("node_token"),
            "{said}"
        );
    }

    #[test]
    fn lotus_own_variables_name_the_node_unless_the_settings_do() {
        let info = ("FULLNODE_API_INFO", "a.b.c:/ip4/10.0.0.7/tcp/1234/http");
        let config = load("", &[info]).unwrap();
        assert_eq!(config.node_url, "http://10.0.0.7:1234/rpc/v1");
        assert_eq!(config.node_token, "a.b.c");
        let config = load("node_url = \"http://n:1/rpc/v1\"", &[info]).unwrap();
        assert_eq!(
            (config.node_url.as_str(), config.node_token.as_str()),
            ("http://n:1/rpc/v1", "")
        );
    }

    #[test]
    fn an_unworkable_setting_stops_the_start_and_names_the_remedy() {
        let sound = "session_secret = \"0123456789abcdef0123456789abcdef\"\n";
        load(sound, &[]).unwrap().check().unwrap();
        for (line, words) in [
            (
                "public_url = \"http://yard.example\"",
                "must begin with https://",
            ),
            (
                "public_url = \"http://10.0.0.7:8080\"",
                "must begin with https://",
            ),
            ("listen = \":8080\"", "like 127.0.0.1:8080"),
            ("listen = \"8080\"", "like 127.0.0.1:8080"),
            ("node_url = \"http://127.0.0.1:1234\"", "/rpc/v1"),
            ("max_fee_window_post = \"0\"", "more than 0 FIL"),
            (
                "trusted_proxies = [\"10.0.0.0/99\"]",
                "networks like 10.0.0.0/8",
            ),
        ] {
            let error = load(&format!("{sound}{line}"), &[])
                .unwrap()
                .check()
                .unwrap_err()
                .to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
        for good in [
            "public_url = \"http://localhost:1\"",
            "public_url = \"http://[::1]:1\"",
            "metrics_listen = \"\"",
        ] {
            load(&format!("{sound}{good}"), &[])
                .unwrap()
                .check()
                .unwrap();
        }
        let error = load("max_fee_recover = 1", &[]).unwrap_err().to_string();
        assert!(error.contains("max_fee_recover"), "{error}");
    }
}
