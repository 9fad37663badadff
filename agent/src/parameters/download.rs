//! Fetches large files over HTTP, each checked against its digest before it gets its name. A fetch
//! that was interrupted resumes where it stopped.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Error, Result, anyhow, bail};
use reqwest::{Client, Response, StatusCode, header};
use sealyard_core::units::Bytes;
use sealyard_filecoin::{http, params::official};

/// A server that sends nothing for so long is taken for dead.
const SILENCE: Duration = Duration::from_secs(60);
const BETWEEN_LINES: Duration = Duration::from_secs(10);
const MOST_REDIRECTS: usize = 10;

pub struct Wanted {
    pub name: String,
    pub url: String,
    pub digest: String,
}

/// How long a fetch that fails for now is tried again.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Attempts in a row that bring no byte before a fetch is given up.
    attempts: u32,
    /// The pause after the first of them; it doubles with each.
    pause: Duration,
}

impl Patience {
    pub const USUAL: Self = Self {
        attempts: 6,
        pause: Duration::from_secs(2),
    };
}

enum Fault {
    /// Another attempt may succeed.
    Temporary(Error),
    Permanent(Error),
}

/// Fetches the files one after the other into `dir`. `say` gets lines about the progress.
pub async fn fetch_all(
    dir: &Path,
    wanted: &[Wanted],
    patience: Patience,
    say: &dyn Fn(&str),
) -> Result<()> {
    let client = http::streaming_client(SILENCE)?;
    for file in wanted {
        let fetched = fetch(&client, file, dir, patience, say).await;
        fetched.with_context(|| format!("fetching {}", file.name))?;
        say(&format!("{} is fetched and right", file.name));
    }
    Ok(())
}

async fn fetch(
    client: &Client,
    file: &Wanted,
    dir: &Path,
    patience: Patience,
    say: &dyn Fn(&str),
) -> Result<()> {
    let part = dir.join(format!("{}.part", file.name));
    let opened = fs::OpenOptions::new().create(true).append(true).open(&part);
    let mut out = opened.with_context(|| format!("writing {}", part.display()))?;
    // The lock ends with `out`, when the file has its name.
    out.try_lock()
        .with_context(|| format!("another program is fetching into {}", part.display()))?;
    let fetched = fetch_rest(client, file, &mut out, patience, say).await;
    if fetched.is_err() && out.metadata()?.len() == 0 {
        fs::remove_file(&part)?;
    }
    fetched?;
    accept(file, &part, &dir.join(&file.name))
}

/// Brings the part up to the whole file, in as many attempts as bring bytes.
async fn fetch_rest(
    client: &Client,
    file: &Wanted,
    out: &mut fs::File,
    patience: Patience,
    say: &dyn Fn(&str),
) -> Result<()> {
    let mut failures = 0;
    loop {
        let before = out.metadata()?.len();
        let error = match rest(client, file, out, say).await {
            Ok(()) => return out.sync_all().context("writing to disk"),
            Err(Fault::Permanent(error)) => return Err(error),
            Err(Fault::Temporary(error)) => error,
        };
        let has_grown = out.metadata()?.len() > before;
        failures = if has_grown { 0 } else { failures + 1 };
        if failures >= patience.attempts {
            return Err(error.context(format!("given up after {failures} attempts")));
        }
        say(&format!("{}: will try again: {error:#}", file.name));
        let doubled = 2u32.saturating_pow(failures.saturating_sub(1));
        tokio::time::sleep(patience.pause.saturating_mul(doubled)).await;
    }
}

/// Checks the whole part and gives it its name. A wrong one is deleted.
fn accept(file: &Wanted, part: &Path, path: &Path) -> Result<()> {
    let digest = fs::File::open(part).and_then(official::digest);
    let digest = digest.with_context(|| format!("reading {}", part.display()))?;
    if digest != file.digest {
        fs::remove_file(part)?;
        bail!(
            "{} has the digest {digest} at {}, but {} was published; it was deleted. Try another \
             --mirror",
            file.name,
            file.url,
            file.digest
        );
    }
    fs::rename(part, path).with_context(|| format!("naming {}", path.display()))?;
    let folder = path.parent().context("a file without a folder")?;
    let synced = fs::File::open(folder).and_then(|folder| folder.sync_all());
    synced.context("writing to disk")
}

/// Appends what the part lacks.
async fn rest(
    client: &Client,
    file: &Wanted,
    out: &mut fs::File,
    say: &dyn Fn(&str),
) -> Result<(), Fault> {
    let disk = |error: std::io::Error| Fault::Permanent(Error::new(error).context("writing"));
    let have = out.seek(SeekFrom::End(0)).map_err(disk)?;
    let mut response = ask(client, &file.url, have).await?;
    let range = response
        .headers()
        .get(header::CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    match read_answer(response.status(), range, have) {
        Answer::Rest => {}
        Answer::Whole => out.set_len(0).map_err(disk)?,
        Answer::Complete => return Ok(()),
        Answer::StartOver(reason) => {
            out.set_len(0).map_err(disk)?;
            return Err(Fault::Temporary(anyhow!(reason)));
        }
        Answer::Refused(fault) => return Err(fault),
    }
    let mut size = out.metadata().map_err(disk)?.len();
    let whole = response
        .content_length()
        .map(|left| size.saturating_add(left));
    let mut said = Instant::now();
    while let Some(chunk) = response.chunk().await.map_err(cut)? {
        out.write_all(&chunk).map_err(disk)?;
        size = size.saturating_add(u64::try_from(chunk.len()).unwrap_or(u64::MAX));
        if said.elapsed() >= BETWEEN_LINES {
            said = Instant::now();
            say(&progress(&file.name, size, whole));
        }
    }
    Ok(())
}

fn cut(error: reqwest::Error) -> Fault {
    if error.is_builder() {
        return Fault::Permanent(error.into());
    }
    Fault::Temporary(error.into())
}

fn progress(name: &str, size: u64, whole: Option<u64>) -> String {
    let bytes = |n: u64| Bytes(i64::try_from(n).unwrap_or(i64::MAX));
    match whole {
        Some(whole) => format!("{name}: {} of {}", bytes(size), bytes(whole)),
        None => format!("{name}: {}", bytes(size)),
    }
}

/// Asks for the bytes after the first `have`. Follows redirects, as gateways use them; the digest
/// says whether the content is right, whoever sent it.
async fn ask(client: &Client, url: &str, have: u64) -> Result<Response, Fault> {
    let mut at = reqwest::Url::parse(url)
        .map_err(|error| Fault::Permanent(anyhow!("{url} is not an address: {error}")))?;
    for _ in 0..MOST_REDIRECTS {
        let mut request = client.get(at.clone());
        if have > 0 {
            request = request.header(header::RANGE, format!("bytes={have}-"));
        }
        let response = request.send().await.map_err(cut)?;
        if !response.status().is_redirection() {
            return Ok(response);
        }
        let to = response
            .headers()
            .get(header::LOCATION)
            .and_then(|to| to.to_str().ok())
            .ok_or_else(|| Fault::Permanent(anyhow!("{at} redirects to nowhere")))?;
        at = at
            .join(to)
            .map_err(|error| Fault::Permanent(anyhow!("{at} redirects to {to:?}: {error}")))?;
    }
    Err(Fault::Permanent(anyhow!(
        "{url} redirects more than {MOST_REDIRECTS} times"
    )))
}

/// How an answer goes on from the bytes at hand.
enum Answer {
    /// The bytes that are missing.
    Rest,
    /// The file from its beginning.
    Whole,
    /// Nothing is missing.
    Complete,
    /// The bytes at hand do not fit.
    StartOver(String),
    Refused(Fault),
}

/// Reads the status and the `Content-Range` of an answer to a request for the bytes after `have`.
fn read_answer(status: StatusCode, range: Option<&str>, have: u64) -> Answer {
    let range = range.and_then(|range| range.strip_prefix("bytes "));
    match status {
        StatusCode::OK => Answer::Whole,
        StatusCode::PARTIAL_CONTENT => {
            let from = range
                .and_then(|range| range.split_once('-'))
                .and_then(|(from, _)| from.parse::<u64>().ok());
            match from {
                Some(from) if from == have => Answer::Rest,
                _ => Answer::StartOver(format!(
                    "the server sent {}, not the bytes from {have} on",
                    range.unwrap_or("an unknown range")
                )),
            }
        }
        StatusCode::RANGE_NOT_SATISFIABLE if have > 0 => {
            let whole = range
                .and_then(|range| range.strip_prefix("*/"))
                .and_then(|whole| whole.parse::<u64>().ok());
            match whole {
                Some(whole) if whole == have => Answer::Complete,
                _ => Answer::StartOver("the part does not belong to the server's file".to_owned()),
            }
        }
        _ => Answer::Refused(refusal(status)),
    }
}

/// Refusals that come from the server's load or state pass; others stay.
fn refusal(status: StatusCode) -> Fault {
    let error = anyhow!("the server answered {status}");
    let passes = status.is_server_error()
        || status == StatusCode::REQUEST_TIMEOUT
        || status == StatusCode::TOO_MANY_REQUESTS;
    if passes {
        Fault::Temporary(error)
    } else {
        Fault::Permanent(error)
    }
}

#[cfg(test)]
#[path = "download_tests.rs"]
mod tests;
