//! Limits on attempts to sign in or up. Guessing a password must take more than a lifetime, and a
//! stranger's guesses must not lock the owner out.

use std::net::IpAddr;

use actix_web::HttpRequest;
use sealyard_core::{
    accounts::attempts::{self, Limit},
    clock::{HOUR, MINUTE},
    store::DbFault,
};

use crate::{
    app::{Shared, read, write},
    config::Network,
};

/// Wrong passwords for one account from one address.
const WRONG_FOR_ONE: Limit = Limit {
    most: 8,
    window: 10 * MINUTE,
};
/// Wrong passwords from one address, for any accounts.
const WRONG_FROM_ONE: Limit = Limit {
    most: 60,
    window: 10 * MINUTE,
};
/// New accounts from one address.
const SIGN_UPS: Limit = Limit {
    most: 10,
    window: HOUR,
};

/// A visitor's address. IPv6 users have whole networks, so only the first 64 bits count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin(String);

impl Origin {
    /// The peer. If that is a trusted proxy: the last forwarded address that is not one.
    pub fn of(app: &Shared, request: &HttpRequest) -> Self {
        let peer = request.peer_addr().map(|peer| peer.ip());
        let forwarded = request
            .headers()
            .get("x-forwarded-for")
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default();
        let trusted: Vec<Network> = app
            .config
            .trusted_proxies
            .iter()
            .filter_map(|text| Network::parse(text))
            .collect();
        Self(shown(origin(peer, forwarded, &trusted)))
    }
}

fn origin(peer: Option<IpAddr>, forwarded: &str, trusted: &[Network]) -> Option<IpAddr> {
    let is_proxy = |address: IpAddr| trusted.iter().any(|network| network.contains(address));
    let mut at = peer?;
    for text in forwarded.rsplit(',') {
        if !is_proxy(at) {
            break;
        }
        let Ok(before) = text.trim().parse() else {
            break;
        };
        at = before;
    }
    Some(at)
}

fn shown(address: Option<IpAddr>) -> String {
    match address {
        Some(IpAddr::V6(v6)) => match v6.to_ipv4_mapped() {
            Some(v4) => v4.to_string(),
            None => format!("{:x}/64", v6.to_bits() >> 64),
        },
        Some(v4) => v4.to_string(),
        None => "unknown".into(),
    }
}

fn keys(email: &str, Origin(origin): &Origin) -> [(String, Limit); 2] {
    let email = email.trim().to_lowercase();
    [
        (
            format!("wrong:{}:{origin}", sealyard_core::ids::digest(&email)),
            WRONG_FOR_ONE,
        ),
        (format!("wrong:{origin}"), WRONG_FROM_ONE),
    ]
}

/// False when too many wrong passwords came from this address.
pub async fn may_sign_in(app: &Shared, email: &str, origin: &Origin) -> Result<bool, DbFault> {
    let (keys, now) = (keys(email, origin), app.now());
    read(app, move |conn| {
        let mut allowed = true;
        for (key, limit) in &keys {
            allowed &= attempts::is_allowed(conn, key, *limit, now)?;
        }
        Ok(allowed)
    })
    .await
}

/// Counts a wrong password.
pub async fn failed(app: &Shared, email: &str, origin: &Origin) -> Result<(), DbFault> {
    let (keys, now) = (keys(email, origin), app.now());
    write(app, move |conn| {
        for (key, limit) in &keys {
            attempts::count(conn, key, *limit, now)?;
        }
        Ok(())
    })
    .await
}

/// Forgets the wrong passwords before a right one: they were the owner's own.
pub async fn succeeded(app: &Shared, email: &str, origin: &Origin) -> Result<(), DbFault> {
    let [(key, _), _] = keys(email, origin);
    write(app, move |conn| attempts::forget(conn, &key)).await
}

/// Counts a new account. False when too many came from this address.
pub async fn may_sign_up(app: &Shared, Origin(origin): &Origin) -> Result<bool, DbFault> {
    let (key, now) = (format!("sign-up:{origin}"), app.now());
    write(app, move |conn| attempts::count(conn, &key, SIGN_UPS, now)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_addresses_count_only_from_trusted_proxies() {
        let trusted = [Network::parse("10.0.0.0/8").unwrap()];
        let at =
            |peer: &str, forwarded: &str| shown(origin(peer.parse().ok(), forwarded, &trusted));
        assert_eq!(
            at("8.8.8.8", "1.2.3.4"),
            "8.8.8.8",
            "anybody can write a header"
        );
        assert_eq!(at("10.0.0.1", "1.2.3.4"), "1.2.3.4");
        assert_eq!(
            at("10.0.0.1", "6.6.6.6, 1.2.3.4"),
            "1.2.3.4",
            "the first one is the visitor's own invention"
        );
        assert_eq!(at("10.0.0.1", "1.2.3.4, 10.0.0.2"), "1.2.3.4");
        assert_eq!(at("10.0.0.1", "nonsense"), "10.0.0.1");
        assert_eq!(
            at("2001:db8:1:2:3:4:5:6", ""),
            at("2001:db8:1:2::9", ""),
            "a network of one user"
        );
        assert_eq!(at("::ffff:9.9.9.9", ""), "9.9.9.9");
    }
}
