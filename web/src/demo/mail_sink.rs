//! An SMTP server that accepts every mail and keeps it as a file named after its Message-ID.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use sealyard_core::ids;
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

/// Bytes of the longest mail that is accepted.
const LONGEST: usize = 32 << 20;

/// Serves until the process ends.
pub async fn run(listen: SocketAddr, dir: PathBuf) -> anyhow::Result<()> {
    start(listen, dir).await?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Starts in the background; returns where it listens.
pub async fn start(listen: SocketAddr, dir: PathBuf) -> anyhow::Result<SocketAddr> {
    tokio::fs::create_dir_all(&dir)
        .await
        .with_context(|| format!("creating {}", dir.display()))?;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("the mail sink cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let dir = dir.clone();
            tokio::spawn(async move {
                if let Err(error) = talk(stream, &dir).await {
                    tracing::warn!(error = format!("{error:#}"), "mail sink");
                }
            });
        }
    });
    Ok(address)
}

async fn talk(stream: TcpStream, dir: &Path) -> anyhow::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 sealyard mail sink\r\n").await?;
    let mut line = String::new();
    loop {
        line.clear();
        if stream.read_line(&mut line).await? == 0 {
            return Ok(());
        }
        let verb = line
            .split_whitespace()
            .next()
            .unwrap_or_default()
            .to_ascii_uppercase();
        match verb.as_str() {
            "EHLO" | "HELO" => {
                stream
                    .write_all(b"250-sealyard\r\n250 8BITMIME\r\n")
                    .await?
            }
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let mail = body(&mut stream).await?;
                keep(dir, &mail).await?;
                stream.write_all(b"250 kept\r\n").await?;
            }
            "QUIT" => {
                stream.write_all(b"221 bye\r\n").await?;
                return Ok(());
            }
            "MAIL" | "RCPT" | "RSET" | "NOOP" => stream.write_all(b"250 ok\r\n").await?,
            _ => stream.write_all(b"500 what?\r\n").await?,
        }
    }
}

/// Reads a mail up to the line with a lone dot, and removes the extra dot at the start of a line.
async fn body(stream: &mut BufReader<TcpStream>) -> anyhow::Result<Vec<u8>> {
    let mut mail = Vec::new();
    let mut line = Vec::new();
    loop {
        line.clear();
        anyhow::ensure!(
            stream.read_until(b'\n', &mut line).await? > 0,
            "the mail was cut off"
        );
        if line == b".\r\n" {
            return Ok(mail);
        }
        mail.extend_from_slice(line.strip_prefix(b".").unwrap_or(&line));
        anyhow::ensure!(mail.len() <= LONGEST, "the mail is too long");
    }
}

async fn keep(dir: &Path, mail: &[u8]) -> anyhow::Result<()> {
    let text = String::from_utf8_lossy(mail);
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("Message-ID: "))
        .unwrap_or_default();
    // A second delivery of the same mail becomes a second file.
    let name = format!(
        "{}-{}",
        ids::digest(id.trim()).get(..16).unwrap_or_default(),
        ids::public_id("eml")
    );
    let temporary = dir.join(format!("{name}.tmp"));
    tokio::fs::write(&temporary, mail).await?;
    tokio::fs::rename(&temporary, dir.join(format!("{name}.eml"))).await?;
    Ok(())
}
