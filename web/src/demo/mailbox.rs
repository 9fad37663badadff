//! The investor's mailbox, read with the programs that an investor would use.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, prelude::BASE64_STANDARD};
use sealyard_core::{
    clock::Month,
    contracts::Contract,
    statements::{self, Statement},
};

use crate::app::{Shared, read};

const PATIENCE: Duration = Duration::from_secs(60);

/// A statement, and the file of the mail that brought it.
pub struct Sent {
    pub statement: Statement,
    pub file: PathBuf,
    /// The Message-IDs in the mailbox, and how often each arrived.
    pub arrived: BTreeMap<String, usize>,
}

/// Waits for a month's statement of a contract's owner.
pub async fn wait_for(
    app: &Shared,
    contract: &Contract,
    month: Month,
    mailbox: &Path,
) -> Result<Sent> {
    let started = Instant::now();
    let (owner, wanted) = (contract.user_id, month.to_string());
    loop {
        let all = read(app, move |conn| statements::of_user(conn, owner)).await?;
        if let Some(statement) = all.into_iter().find(|s| s.month == wanted) {
            let mut arrived = BTreeMap::new();
            let mut file = None;
            for (path, id) in mails(mailbox)? {
                if id == statement.message_id {
                    file = Some(path);
                }
                *arrived.entry(id).or_insert(0) += 1;
            }
            if let Some(file) = file {
                return Ok(Sent {
                    statement,
                    file,
                    arrived,
                });
            }
        }
        ensure!(
            started.elapsed() < PATIENCE,
            "the statement of {month} did not arrive within {} s",
            PATIENCE.as_secs()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Each mail with its Message-ID.
fn mails(mailbox: &Path) -> Result<Vec<(PathBuf, String)>> {
    let mut found = Vec::new();
    for entry in
        std::fs::read_dir(mailbox).with_context(|| format!("reading {}", mailbox.display()))?
    {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "eml") {
            let text = String::from_utf8_lossy(&std::fs::read(&path)?).into_owned();
            let id = text
                .lines()
                .find_map(|line| line.strip_prefix("Message-ID: "))
                .unwrap_or_default();
            found.push((path, id.trim().trim_matches(['<', '>']).to_owned()));
        }
    }
    Ok(found)
}

/// The words of the PDF that a mail carries, as `pdftotext` reads them.
pub fn pdf_words(mail: &Path) -> Result<Vec<String>> {
    let pdf = attached_pdf(&String::from_utf8_lossy(&std::fs::read(mail)?))?;
    let file = mail.with_extension("pdf");
    std::fs::write(&file, pdf)?;
    let read = Command::new("pdftotext")
        .arg("-layout")
        .arg(&file)
        .arg("-")
        .output();
    let read = read
        .context("pdftotext, which reads the statement back, is missing; install poppler-utils")?;
    ensure!(
        read.status.success(),
        "pdftotext cannot read {}: {}",
        file.display(),
        String::from_utf8_lossy(&read.stderr)
    );
    Ok(String::from_utf8_lossy(&read.stdout)
        .split_whitespace()
        .map(str::to_owned)
        .collect())
}

fn attached_pdf(mail: &str) -> Result<Vec<u8>> {
    let Some((_, part)) = mail.split_once("Content-Type: application/pdf") else {
        bail!("the mail carries no PDF")
    };
    let part = part.replace("\r\n", "\n");
    let (_, body) = part
        .split_once("\n\n")
        .context("the mail's PDF has no body")?;
    let encoded: String = body
        .lines()
        .take_while(|line| !line.is_empty() && !line.starts_with("--"))
        .collect();
    BASE64_STANDARD
        .decode(encoded)
        .context("the mail's PDF is not base64")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pdf_attachment_is_found_and_a_mail_without_one_is_an_error() {
        let mail = "Subject: x\r\n\r\n--b\r\nContent-Type: application/pdf\r\n\
                    Content-Transfer-Encoding: base64\r\n\r\nJVBE\r\nRg==\r\n--b--\r\n";
        assert_eq!(attached_pdf(mail).unwrap(), b"%PDF");
        assert!(attached_pdf("Subject: x\r\n\r\nhello").is_err());
    }
}
