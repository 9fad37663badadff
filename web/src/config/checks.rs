//! Checks of the configuration beyond its syntax. Each error names the key and the remedy.

use std::net::IpAddr;

use super::{Config, ConfigError, Network};

impl Config {
    /// Checks the keys that `serve` and `work` need.
    pub fn check(&self) -> Result<(), ConfigError> {
        self.check_public_url()?;
        check_listen("listen", &self.listen)?;
        if !self.metrics_listen.is_empty() {
            check_listen("metrics_listen", &self.metrics_listen)?;
        }
        self.check_node_url()?;
        self.check_proxies()?;
        self.check_texts()?;
        self.check_fees()?;
        self.check_order_limits()?;
        self.check_times()
    }

    fn check_public_url(&self) -> Result<(), ConfigError> {
        if !self.public_url.starts_with("https://") && !self.public_url.starts_with("http://") {
            return must(
                "public_url",
                "must begin with https:// (or http://, where nobody else can listen)",
            );
        }
        let is_elsewhere = |host: &str| {
            host != "localhost"
                && !host
                    .parse::<IpAddr>()
                    .is_ok_and(|address| address.is_loopback())
        };
        let plain_host = self.public_url.strip_prefix("http://").map(host);
        if plain_host.is_some_and(is_elsewhere) {
            return must(
                "public_url",
                "must begin with https:// unless it is on this machine: otherwise passwords and \
                 sessions can be read on the way",
            );
        }
        Ok(())
    }

    fn check_node_url(&self) -> Result<(), ConfigError> {
        let is_api = ["/rpc/v1", "/rpc/v1/"]
            .iter()
            .any(|end| self.node_url.ends_with(end));
        if !self.node_url.starts_with("http") || !is_api {
            return must(
                "node_url",
                "must be the node's API, like http://127.0.0.1:1234/rpc/v1",
            );
        }
        Ok(())
    }

    fn check_proxies(&self) -> Result<(), ConfigError> {
        let bad = self
            .trusted_proxies
            .iter()
            .find(|text| Network::parse(text).is_none());
        if let Some(bad) = bad {
            tracing::error!(bad, "not an address or a network");
            return must(
                "trusted_proxies",
                "must be addresses, or networks like 10.0.0.0/8",
            );
        }
        Ok(())
    }

    fn check_texts(&self) -> Result<(), ConfigError> {
        if self.session_secret.len() < 32 {
            return must(
                "session_secret",
                "must have at least 32 characters; make one with `openssl rand -hex 32`",
            );
        }
        if !["starttls", "tls", "none"].contains(&self.smtp_security.as_str()) {
            return must("smtp_security", "must be starttls, tls or none");
        }
        if !["text", "json"].contains(&self.log_format.as_str()) {
            return must("log_format", "must be text or json");
        }
        if self.stripe_secret_key.is_empty() != self.stripe_webhook_secret.is_empty() {
            return must(
                "stripe_webhook_secret",
                "and stripe_secret_key must be given together",
            );
        }
        Ok(())
    }

    fn check_fees(&self) -> Result<(), ConfigError> {
        let share = &self.winners_share;
        let is_permille = |(_, permille): &(i64, i64)| (0..=1000).contains(permille);
        if !share.is_sorted_by_key(|(epoch, _)| *epoch) || !share.iter().all(is_permille) {
            return must(
                "winners_share",
                "must be pairs of ascending epochs and 0 to 1000 per mille",
            );
        }
        let fees = [
            self.max_fee_pre_commit,
            self.max_fee_prove_commit,
            self.max_fee_window_post,
            self.max_fee_recover,
        ];
        if fees.iter().any(|fee| fee.0 <= 0) {
            return must(
                "max_fee_pre_commit, max_fee_prove_commit, max_fee_window_post, max_fee_recover",
                "must be more than 0 FIL",
            );
        }
        Ok(())
    }

    fn check_order_limits(&self) -> Result<(), ConfigError> {
        let percents = [self.unpaid_percent, self.new_unpaid_percent];
        if self.unpaid_orders < 1
            || self.new_unpaid_orders < 1
            || percents.iter().any(|p| !(0..=100).contains(p))
        {
            return must(
                "unpaid_orders, unpaid_percent, new_unpaid_orders, new_unpaid_percent",
                "must be at least 1 (orders), and 0 to 100 (percent)",
            );
        }
        Ok(())
    }

    fn check_times(&self) -> Result<(), ConfigError> {
        if self.confirmations < 0 || self.head_lag_epochs < 0 || self.stuck_after_s < 1 {
            return must(
                "confirmations, head_lag_epochs, stuck_after_s",
                "must be at least 0, 0 and 1",
            );
        }
        let times = [self.lease_s, self.silent_s, self.machine_lost_s];
        if self.finality < 0
            || times.iter().any(|s| *s < 1)
            || self.poll_ms < 10
            || self.database_connections < 4
        {
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

fn check_listen(key: &'static str, address: &str) -> Result<(), ConfigError> {
    let has_host = address
        .rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok());
    if has_host {
        return Ok(());
    }
    must(
        key,
        "must be an address with a port, like 127.0.0.1:8080, or 0.0.0.0:8080 for all addresses \
         of this machine",
    )
}

/// The host of an address without its `http://`.
fn host(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority
        .strip_prefix('[')
        .and_then(|v6| v6.split_once(']'))
    {
        Some((v6, _)) => v6,
        None => authority.split(':').next().unwrap_or_default(),
    }
}
