//! A proxy between the client and its node. It records requests and answers, and can spoil the
//! answers.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

/// The answer that the client gets in place of the node's.
pub struct Reply {
    pub status: u16,
    pub body: Vec<u8>,
    pub after: Duration,
}

impl Reply {
    pub fn ok(body: Vec<u8>) -> Self {
        Self {
            status: 200,
            body,
            after: Duration::ZERO,
        }
    }
}

type Spoil = dyn Fn(&str, Vec<u8>) -> Reply + Send + Sync;
/// Answers requests that are not to reach the node.
type Gate = dyn Fn(&Value) -> Option<Reply> + Send + Sync;

#[derive(Clone)]
struct Way {
    node: String,
    header: &'static str,
    gate: Arc<Gate>,
    spoil: Arc<Spoil>,
    kept: Arc<Mutex<Vec<(Value, Value)>>>,
}

pub struct Proxy {
    pub url: String,
    /// Requests with the node's own answers.
    pub passed: Arc<Mutex<Vec<(Value, Value)>>>,
}

impl Proxy {
    /// Passes everything on as it is.
    pub async fn honest(node: &str) -> Self {
        Self::start(node, |_, body| Reply::ok(body)).await
    }

    pub async fn start(
        node: &str,
        spoil: impl Fn(&str, Vec<u8>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::open(node, "x-proxy: yes", |_| None, spoil).await
    }

    /// Like [`Self::start`], with a header in each answer.
    pub async fn start_with_header(
        node: &str,
        header: &'static str,
        spoil: impl Fn(&str, Vec<u8>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::open(node, header, |_| None, spoil).await
    }

    /// Starts a proxy with a gate before the node.
    pub async fn open(
        node: &str,
        header: &'static str,
        gate: impl Fn(&Value) -> Option<Reply> + Send + Sync + 'static,
        spoil: impl Fn(&str, Vec<u8>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/rpc/v1", listener.local_addr().unwrap());
        let passed = Arc::new(Mutex::new(Vec::new()));
        let way = Way {
            node: node.to_owned(),
            header,
            gate: Arc::new(gate),
            spoil: Arc::new(spoil),
            kept: Arc::clone(&passed),
        };
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, way.clone()));
            }
        });
        Self { url, passed }
    }
}

async fn pass(mut client: TcpStream, way: Way) -> Option<()> {
    let (head, body) = request(&mut client).await?;
    let asked: Value = serde_json::from_slice(&body).ok()?;
    if let Some(reply) = (way.gate)(&asked) {
        return send(&mut client, way.header, reply).await;
    }
    let token = head.lines().find_map(|line| {
        line.to_lowercase()
            .starts_with("authorization:")
            .then(|| line[14..].trim().to_owned())
    });
    let mut forwarded = reqwest::Client::new()
        .post(&way.node)
        .header("content-type", "application/json")
        .body(body);
    if let Some(token) = token {
        forwarded = forwarded.header("authorization", token);
    }
    let answer = forwarded.send().await.ok()?.bytes().await.ok()?.to_vec();
    if let Ok(answer) = serde_json::from_slice(&answer) {
        way.kept.lock().unwrap().push((asked.clone(), answer));
    }
    let reply = (way.spoil)(asked["method"].as_str().unwrap_or_default(), answer);
    send(&mut client, way.header, reply).await
}

async fn send(
    client: &mut TcpStream,
    header: &str,
    Reply {
        status,
        body,
        after,
    }: Reply,
) -> Option<()> {
    tokio::time::sleep(after).await;
    let head = format!(
        "HTTP/1.1 {status} X\r\n\
         content-type: application/json\r\n\
         content-length: {}\r\n\
         {header}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    client.write_all(head.as_bytes()).await.ok()?;
    client.write_all(&body).await.ok()
}

async fn request(client: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut bytes = Vec::new();
    let end = loop {
        let mut part = [0; 4096];
        let n = client.read(&mut part).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&part[..n]);
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            break end + 4;
        }
    };
    let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
    let length = head.lines().find_map(|line| {
        line.to_lowercase()
            .strip_prefix("content-length:")
            .map(|n| n.trim().parse().unwrap())
    });
    let mut body = bytes.split_off(end);
    let wanted: usize = length?;
    while body.len() < wanted {
        let mut part = [0; 4096];
        let n = client.read(&mut part).await.ok().filter(|n| *n > 0)?;
        body.extend_from_slice(&part[..n]);
    }
    Some((head, body))
}
