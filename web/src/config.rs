//! Configuration: one TOML file, overridden by `SEALYARD_*` variables. A key that is not known stops the start.

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
};

use sealyard_core::{money::NanoFil, orders::Caps};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// `sqlite://path` or `postgres://…`.
    pub database_url: String,
    pub database_connections: u32,
    /// Address that the site listens on.
    pub listen: String,
    /// Address of `/metrics` and of the details of `/readyz`; empty: nowhere.
    pub metrics_listen: String,
    /// How customers reach it; goes into mails and payment pages.
    pub public_url: String,
    /// Signs session cookies; at least 32 characters.
    pub session_secret: String,
    pub node_url: String,
    pub node_token: String,
    /// Nodes of the same network, asked in turn when the first cannot be reached: `http://…` or `TOKEN@http://…`. Messages go
    /// through the first alone.
    pub fallback_nodes: Vec<String>,
    /// Seconds that a node may take for an answer.
    pub node_timeout_s: u64,
    /// Folder with proof parameters (only verifying keys are read here).
    pub parameters_dir: PathBuf,
    /// Epochs after which a tipset counts as final.
    pub finality: i64,
    /// Part of the block reward that goes to the winner, per mille, from an epoch on (FIP-0118): `[[epoch, permille], …]`, ascending; all
    /// of it before the first. The chain does not tell a schedule in advance.
    pub winners_share: Vec<(i64, i64)>,
    /// Epochs after which what a message did counts as done: a head may still be replaced by another.
    pub confirmations: i64,
    /// Epochs that a node's head may be behind the clock and the other nodes before the node is not used; 0: heads are not compared, for
    /// test networks whose clock is stepped.
    pub head_lag_epochs: i64,
    /// Seconds after which a proof's message that has not landed is sent again for more; others have four times as long.
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
    /// The newest network version whose rules for money are known to be those of this program.
    pub newest_network_version: u32,
    /// Milliseconds between two looks at chain and tasks.
    pub poll_ms: u64,
    /// Seconds that a lease lasts without a heartbeat.
    pub lease_s: i64,
    /// Seconds of silence, a few heartbeats, after which a machine is given no more work.
    pub silent_s: i64,
    /// Seconds of silence after which a machine counts as lost.
    pub machine_lost_s: i64,
    /// Proxies whose word for a visitor's address is taken: addresses or networks like `10.0.0.0/8`.
    pub trusted_proxies: Vec<String>,
    /// Unpaid orders that an account may have at a time, and percent of a pool's unsold capacity that they may hold; the same for accounts
    /// that have never paid.
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
    /// The name by which mail servers know this one; empty: the host of `public_url`.
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
            newest_network_version: 28,
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
    text.parse().map_err(|_| serde::de::Error::custom("write an amount of FIL as text, with at most nine decimals"))
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("configuration file {path} cannot be read: {reason}")]
    Read { path: String, reason: String },
    #[error("configuration: {0}")]
    Parse(String),
    #[error("configuration: {key} {must}")]
    Value { key: &'static str, must: &'static str },
}

const PREFIX: &str = "SEALYARD_";
/// Variables with the prefix that are not configuration keys.
const OTHERS: [&str; 9] = [
    "SEALYARD_CONFIG",
    "SEALYARD_URL",
    "SEALYARD_AGENT_DIR",
    "SEALYARD_ENROL_TOKEN",
    "SEALYARD_FILES_LISTEN",
    "SEALYARD_FILES_URL",
    "SEALYARD_TEST_POSTGRES",
    "SEALYARD_TRIALS",
    "SEALYARD_HISTORIES",
];

/// A value as its key wants it: lists are TOML, numbers are numbers, and what is text stays text although it has digits only.
fn from_environment(key: &str, value: String) -> toml::Value {
    let is_list = value.trim_start().starts_with('[');
    let is_text = TEXTS.contains(&key);
    let list = || format!("v = {value}").parse::<toml::Table>().ok()?.remove("v");
    match value.parse() {
        _ if is_text => toml::Value::String(value),
        Ok(number) => toml::Value::Integer(number),
        Err(_) => if is_list { list() } else { None }.unwrap_or(toml::Value::String(value)),
    }
}

/// Keys whose values are text, whatever they look like.
const TEXTS: [&str; 11] = [
    "session_secret",
    "node_token",
    "stripe_secret_key",
    "stripe_webhook_secret",
    "smtp_user",
    "smtp_password",
    "database_url",
    "max_fee_pre_commit",
    "max_fee_prove_commit",
    "max_fee_window_post",
    "max_fee_recover",
];

impl Config {
    /// Reads `path` (if given), then the environment.
    pub fn load(path: Option<&Path>, environment: impl Iterator<Item = (String, String)>) -> Result<Self, ConfigError> {
        let mut table = match path {
            None => toml::Table::new(),
            Some(path) => {
                let read = |reason: String| ConfigError::Read { path: path.display().to_string(), reason };
                let text = std::fs::read_to_string(path).map_err(|error| read(error.to_string()))?;
                text.parse().map_err(|error: toml::de::Error| read(error.to_string()))?
            }
        };
        for (name, value) in environment.filter(|(name, _)| name.starts_with(PREFIX) && !OTHERS.contains(&name.as_str())) {
            let key = name.trim_start_matches(PREFIX).to_lowercase();
            let parsed = from_environment(&key, value);
            table.insert(key, parsed);
        }
        // One key after the other, so that the one that is wrong can be named.
        for (key, value) in &table {
            let alone = toml::Table::from_iter([(key.clone(), value.clone())]);
            alone.try_into::<Self>().map_err(|error| {
                // The message quotes the value, which may be a secret: only its first line, up to it, says what is wrong.
                let text = error.to_string();
                let what = text.lines().next().unwrap_or_default();
                let what = what.split("string \"").next().unwrap_or_default().trim();
                ConfigError::Parse(if what.contains(key.as_str()) { what.to_owned() } else { format!("{key}: {what}") })
            })?;
        }
        let mut config: Self =
            table.try_into().map_err(|error: toml::de::Error| ConfigError::Parse(error.message().to_owned()))?;
        let length = config.public_url.trim_end_matches('/').len();
        config.public_url.truncate(length);
        Ok(config)
    }

    /// The winner's part of the block reward at an epoch.
    #[must_use]
    pub fn winners_permille(&self, epoch: i64) -> i64 {
        self.winners_share.iter().rev().find(|(from, _)| *from <= epoch).map_or(1000, |(_, permille)| *permille)
    }

    /// The name that this server gives itself to mail servers. `None`: the site has no name, only an address.
    #[must_use]
    pub fn smtp_hello(&self) -> Option<String> {
        let host = self.public_url.split("://").nth(1).and_then(|rest| rest.split(['/', ':']).next()).unwrap_or_default();
        let name = if self.smtp_hello.is_empty() { host } else { self.smtp_hello.as_str() };
        (name.contains(|c: char| c.is_ascii_alphabetic()) && !name.contains('[')).then(|| name.to_owned())
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

    /// Keys that `serve` and `work` need.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_addresses()?;
        self.check_texts()?;
        self.check_numbers()
    }

    fn check_addresses(&self) -> Result<(), ConfigError> {
        if !self.public_url.starts_with("https://") && !self.public_url.starts_with("http://") {
            return must("public_url", "must begin with https:// (or http://, where nobody else can listen)");
        }
        let host = self.public_url.strip_prefix("http://").map(host);
        if host.is_some_and(|host| host != "localhost" && !host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())) {
            return must(
                "public_url",
                "must begin with https:// unless it is on this machine: otherwise passwords and sessions can be read on the way",
            );
        }
        for (key, address) in [("listen", &self.listen), ("metrics_listen", &self.metrics_listen)] {
            let has_host = address.rsplit_once(':').is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
            if !(has_host || key == "metrics_listen" && address.is_empty()) {
                return must(
                    key,
                    "must be an address with a port, like 127.0.0.1:8080, or 0.0.0.0:8080 for all addresses of this machine",
                );
            }
        }
        if !self.node_url.starts_with("http") || !["/rpc/v1", "/rpc/v1/"].iter().any(|end| self.node_url.ends_with(end)) {
            return must("node_url", "must be the node's API, like http://127.0.0.1:1234/rpc/v1");
        }
        if let Some(bad) = self.trusted_proxies.iter().find(|text| Network::parse(text).is_none()) {
            tracing::error!(bad, "not an address or a network");
            return must("trusted_proxies", "must be addresses, or networks like 10.0.0.0/8");
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), ConfigError> {
        if self.session_secret.len() < 32 {
            return must("session_secret", "must have at least 32 characters; make one with `openssl rand -hex 32`");
        }
        if !["starttls", "tls", "none"].contains(&self.smtp_security.as_str()) {
            return must("smtp_security", "must be starttls, tls or none");
        }
        if !["text", "json"].contains(&self.log_format.as_str()) {
            return must("log_format", "must be text or json");
        }
        if self.stripe_secret_key.is_empty() != self.stripe_webhook_secret.is_empty() {
            return must("stripe_webhook_secret", "and stripe_secret_key must be given together");
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), ConfigError> {
        let share = &self.winners_share;
        if !share.is_sorted_by_key(|(epoch, _)| *epoch) || share.iter().any(|(_, permille)| !(0..=1000).contains(permille)) {
            return must("winners_share", "must be pairs of ascending epochs and 0 to 1000 per mille");
        }
        let fees = [self.max_fee_pre_commit, self.max_fee_prove_commit, self.max_fee_window_post, self.max_fee_recover];
        if fees.iter().any(|fee| fee.0 <= 0) {
            return must(
                "max_fee_pre_commit, max_fee_prove_commit, max_fee_window_post, max_fee_recover",
                "must be more than 0 FIL",
            );
        }
        let percents = [self.unpaid_percent, self.new_unpaid_percent];
        if self.unpaid_orders < 1 || self.new_unpaid_orders < 1 || percents.iter().any(|p| !(0..=100).contains(p)) {
            return must(
                "unpaid_orders, unpaid_percent, new_unpaid_orders, new_unpaid_percent",
                "must be at least 1 (orders), and 0 to 100 (percent)",
            );
        }
        if self.confirmations < 0 || self.head_lag_epochs < 0 || self.stuck_after_s < 1 {
            return must("confirmations, head_lag_epochs, stuck_after_s", "must be at least 0, 0 and 1");
        }
        let times = [self.lease_s, self.silent_s, self.machine_lost_s];
        if self.finality < 0 || times.iter().any(|s| *s < 1) || self.poll_ms < 10 || self.database_connections < 4 {
            return must(
                "finality, lease_s, silent_s, machine_lost_s, poll_ms, database_connections",
                "must be at least 0, 1, 1, 1, 10 and 4",
            );
        }
        Ok(())
    }
}

const fn must<T>(key: &'static str, must: &'static str) -> Result<T, ConfigError> {
    Err(ConfigError::Value { key, must })
}

/// The host of what follows `http://`.
fn host(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[').and_then(|v6| v6.split_once(']')) {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// Addresses with a common beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u32,
}

impl Network {
    /// `10.0.0.0/8`, or one address.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address.parse::<IpAddr>().ok()?, Some(bits.parse().ok()?)),
            None => (text.parse::<IpAddr>().ok()?, None),
        };
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(most);
        (bits <= most).then_some(Self { address, bits })
    }

    #[must_use]
    pub fn contains(&self, other: IpAddr) -> bool {
        let bits = |address: IpAddr| match address {
            IpAddr::V4(v4) => (u128::from(v4.to_bits()) << 96, true),
            IpAddr::V6(v6) => (v6.to_bits(), false),
        };
        let ((own, own_v4), (its, its_v4)) = (bits(self.address), bits(other));
        own_v4 == its_v4 && (self.bits == 0 || (own ^ its) >> (128 - self.bits) == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str, environment: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sealyard.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(Some(&path), environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())))
    }

    #[test]
    fn the_environment_overrides_the_file() {
        let config = load("finality = 10\nlisten = \"127.0.0.1:1\"", &[("SEALYARD_FINALITY", "20"), ("HOME", "/root")]).unwrap();
        assert_eq!((config.finality, config.listen.as_str()), (20, "127.0.0.1:1"));
    }

    #[test]
    fn unknown_keys_stop_the_start_and_are_named() {
        for result in [load("finallity = 10", &[]), load("", &[("SEALYARD_FINALLITY", "10")])] {
            let message = result.unwrap_err().to_string();
            assert!(message.contains("finallity"), "{message}");
        }
    }

    #[test]
    fn the_winners_share_follows_its_schedule() {
        let config = load("winners_share = [[100, 950], [200, 900]]", &[]).unwrap();
        let at = |epoch| config.winners_permille(epoch);
        assert_eq!((at(0), at(99), at(100), at(199), at(1000)), (1000, 1000, 950, 950, 900));
    }

    #[test]
    fn networks_contain_their_addresses() {
        let contains = |network: &str, address: &str| Network::parse(network).unwrap().contains(address.parse().unwrap());
        for (network, address, expected) in [
            ("10.0.0.0/8", "10.255.1.2", true),
            ("10.0.0.0/8", "11.0.0.1", false),
            ("127.0.0.1", "127.0.0.1", true),
            ("127.0.0.1", "127.0.0.2", false),
            ("0.0.0.0/0", "8.8.8.8", true),
            ("0.0.0.0/0", "::1", false),
            ("fd00::/8", "fd12::1", true),
            ("::1", "::1", true),
        ] {
            assert_eq!(contains(network, address), expected, "{network} {address}");
        }
        assert!(["10.0.0.0/33", "x", "10.0.0/8", ""].iter().all(|text| Network::parse(text).is_none()));
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
        assert_eq!((config.fallback_nodes.len(), config.smtp_password.as_str(), config.lease_s), (1, "1234", 60));
        assert_eq!(config.public_url, "https://yard.example", "links are made with one slash");
        let message = load("", &[("SEALYARD_LEASE_S", "hunter2")]).unwrap_err().to_string();
        assert!(!message.contains("hunter2") && message.contains("lease_s"), "{message}");
    }

    #[test]
    fn an_unworkable_setting_stops_the_start_and_names_the_remedy() {
        let sound = "session_secret = \"0123456789abcdef0123456789abcdef\"\n";
        load(sound, &[]).unwrap().check().unwrap();
        for (line, words) in [
            ("public_url = \"http://yard.example\"", "must begin with https://"),
            ("public_url = \"http://10.0.0.7:8080\"", "must begin with https://"),
            ("listen = \":8080\"", "like 127.0.0.1:8080"),
            ("listen = \"8080\"", "like 127.0.0.1:8080"),
            ("node_url = \"http://127.0.0.1:1234\"", "/rpc/v1"),
            ("max_fee_window_post = \"0\"", "more than 0 FIL"),
            ("trusted_proxies = [\"10.0.0.0/99\"]", "networks like 10.0.0.0/8"),
        ] {
            let error = load(&format!("{sound}{line}"), &[]).unwrap().check().unwrap_err().to_string();
            assert!(error.contains(words), "{line}: {error}");
        }
        for good in ["public_url = \"http://localhost:1\"", "public_url = \"http://[::1]:1\"", "metrics_listen = \"\""] {
            load(&format!("{sound}{good}"), &[]).unwrap().check().unwrap();
        }
        let error = load("max_fee_recover = 1", &[]).unwrap_err().to_string();
        assert!(error.contains("max_fee_recover"), "{error}");
    }
}
