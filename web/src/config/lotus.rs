//! A node's address as Lotus' own tools are told it: `FULLNODE_API_INFO`, or the folder in
//! `LOTUS_PATH` with its files `api` and `token`.

use std::{collections::BTreeMap, fs, path::Path};

use super::ConfigError;

/// A node's JSON-RPC address, and the token for it; empty: none is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeAddress {
    pub url: String,
    pub token: String,
}

/// The node that the environment names as Lotus does. `None`: it names none.
pub fn from_environment(
    environment: &BTreeMap<String, String>,
) -> Result<Option<NodeAddress>, ConfigError> {
    let set = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    if let Some(info) = set("FULLNODE_API_INFO") {
        return parse(info).map(Some);
    }
    set("LOTUS_PATH")
        .map(|path| from_folder(Path::new(path)))
        .transpose()
}

fn from_folder(folder: &Path) -> Result<NodeAddress, ConfigError> {
    let read = |name: &str| {
        let path = folder.join(name);
        fs::read_to_string(&path)
            .map(|text| text.trim().to_owned())
            .map_err(|error| ConfigError::Read {
                path: format!("{} (from LOTUS_PATH)", path.display()),
                reason: error.to_string(),
            })
    };
    let url = url(&read("api")?).ok_or(ConfigError::Value {
        key: "LOTUS_PATH",
        must: "must name the folder of a Lotus node, whose file `api` holds an address like \
               /ip4/127.0.0.1/tcp/1234/http",
    })?;
    Ok(NodeAddress {
        url,
        token: read("token")?,
    })
}

/// `TOKEN:/ip4/127.0.0.1/tcp/1234/http`, or without a token; a URL may stand for the multiaddr.
fn parse(info: &str) -> Result<NodeAddress, ConfigError> {
    let (token, address) = match info.split_once(':') {
        Some((token, address)) if is_token(token) => (token, address),
        _ => ("", info),
    };
    // The value may hold a token, so the message does not repeat it.
    let url = url(address).ok_or(ConfigError::Value {
        key: "FULLNODE_API_INFO",
        must: "must be a token, a colon and an address, like \
               eyJ….eyJ….abc:/ip4/127.0.0.1/tcp/1234/http",
    })?;
    Ok(NodeAddress {
        url,
        token: token.to_owned(),
    })
}

/// A JWT has three parts.
fn is_token(text: &str) -> bool {
    let is_part = |part: &str| {
        part.chars()
            .all(|c| c.is_ascii_alphanumeric() || "-_".contains(c))
    };
    text.split('.').count() == 3 && text.split('.').all(is_part)
}

fn url(address: &str) -> Option<String> {
    let base = match address.split_once("://") {
        Some(("http" | "ws", rest)) => format!("http://{rest}"),
        Some(("https" | "wss", rest)) => format!("https://{rest}"),
        Some(_) => return None,
        None => from_multiaddr(address)?,
    };
    let base = base.trim_end_matches('/');
    Some(if base.contains("/rpc/") {
        base.to_owned()
    } else {
        format!("{base}/rpc/v1")
    })
}

fn from_multiaddr(address: &str) -> Option<String> {
    let mut parts = address.strip_prefix('/')?.trim_end_matches('/').split('/');
    let host = match (parts.next()?, parts.next()?) {
        ("ip4", ip) => ip.parse::<std::net::Ipv4Addr>().ok()?.to_string(),
        ("ip6", ip) => format!("[{}]", ip.parse::<std::net::Ipv6Addr>().ok()?),
        ("dns" | "dns4" | "dns6", name) if !name.is_empty() => name.to_owned(),
        _ => return None,
    };
    if parts.next()? != "tcp" {
        return None;
    }
    let port: u16 = parts.next()?.parse().ok()?;
    let scheme = match parts.next() {
        None | Some("http" | "ws") => "http",
        Some("https" | "wss") => "https",
        Some("tls") => "https",
        Some(_) => return None,
    };
    Some(format!("{scheme}://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "eyJhbGciOi.eyJBbGxvdyI6.s_3-Kq";

    fn found(variables: &[(&str, &str)]) -> Result<Option<NodeAddress>, ConfigError> {
        let environment = variables
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        from_environment(&environment.collect())
    }

    #[test]
    fn api_info_is_read_with_and_without_a_token() {
        for (address, url) in [
            (
                "/ip4/127.0.0.1/tcp/1234/http",
                "http://127.0.0.1:1234/rpc/v1",
            ),
            ("/ip4/10.0.0.7/tcp/1234", "http://10.0.0.7:1234/rpc/v1"),
            ("/ip6/::1/tcp/1234/http", "http://[::1]:1234/rpc/v1"),
            (
                "/dns/node.example/tcp/443/https",
                "https://node.example:443/rpc/v1",
            ),
            (
                "/dns4/node.example/tcp/443/wss",
                "https://node.example:443/rpc/v1",
            ),
            (
                "http://node.example:1234",
                "http://node.example:1234/rpc/v1",
            ),
            ("wss://node.example", "https://node.example/rpc/v1"),
            (
                "https://node.example/rpc/v1/",
                "https://node.example/rpc/v1",
            ),
        ] {
            for token in ["", TOKEN] {
                let colon = if token.is_empty() { "" } else { ":" };
                let info = format!("{token}{colon}{address}");
                let node = found(&[("FULLNODE_API_INFO", &info)]).unwrap().unwrap();
                assert_eq!(
                    (node.url.as_str(), node.token.as_str()),
                    (url, token),
                    "{info}"
                );
            }
        }
    }

    #[test]
    fn a_wrong_address_is_refused_without_its_token() {
        for address in [
            "/ip4/127.0.0.1/udp/1234/quic",
            "/ip4/localhost/tcp/1234/http",
            "/ip4/127.0.0.1/tcp/http",
            "/ip4/127.0.0.1/tcp/99999/http",
            "ftp://node.example",
            "node.example:1234",
            "",
        ] {
            let info = format!("{TOKEN}:{address}");
            let said = found(&[("FULLNODE_API_INFO", &info)])
                .unwrap_err()
                .to_string();
            assert!(
                said.contains("FULLNODE_API_INFO") && !said.contains(TOKEN),
                "{said}"
            );
        }
    }

    #[test]
    fn a_nodes_folder_is_read_unless_api_info_is_set() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().display().to_string();
        let of_folder = [("LOTUS_PATH", folder.as_str())];
        let said = found(&of_folder).unwrap_err().to_string();
        assert!(
            said.contains("LOTUS_PATH") && said.contains(&folder),
            "{said}"
        );
        fs::write(dir.path().join("api"), "/ip4/127.0.0.1/tcp/1234/http\n").unwrap();
        fs::write(dir.path().join("token"), format!("{TOKEN}\n")).unwrap();
        let node = found(&of_folder).unwrap().unwrap();
        let (url, token) = ("http://127.0.0.1:1234/rpc/v1".to_owned(), TOKEN.to_owned());
        assert_eq!(node, NodeAddress { url, token });
        let both = [of_folder[0], ("FULLNODE_API_INFO", "/dns/other/tcp/1/http")];
        assert_eq!(found(&both).unwrap().unwrap().url, "http://other:1/rpc/v1");
        assert_eq!(
            found(&[("FULLNODE_API_INFO", ""), ("LOTUS_PATH", "")]).unwrap(),
            None
        );
    }
}
