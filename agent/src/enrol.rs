//! Enrols a machine that is new, or whose key was withdrawn.

use std::time::Duration;

use anyhow::{Context, Result};
use sealyard_core::fleet::protocol::EnrolRequest;

use crate::{
    RunOptions,
    client::House,
    hardware,
    work_dir::{Key, WorkDir},
};

/// The token from the option or from the named file.
fn token(options: &RunOptions) -> Result<String> {
    if let Some(path) = &options.token_file {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("reading the token from {}", path.display()))?;
        return Ok(text.trim().to_owned());
    }
    options.token.clone().context(
        "this machine is new: give it the enrolment token that an administrator made (--token or \
         --token-file)",
    )
}

/// Gets this machine a key and stores it. Waits for a server that is down.
pub async fn enrol(options: &RunOptions, work: &WorkDir) -> Result<Key> {
    let token = token(options)?;
    let hardware = hardware::read(work.root(), options.offered());
    let house = House::new(&options.url, "")?;
    let request = EnrolRequest { token, hardware };
    let mut wait = Duration::from_millis(200);
    let answer = loop {
        match house.enrol(&request).await {
            Ok(answer) => break answer,
            // Retry only if the server cannot be reached; a refused token stays refused.
            Err(error) if error.downcast_ref::<reqwest::Error>().is_some() => {
                tracing::warn!(error = format!("{error:#}"), "will try again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(30));
            }
            Err(error) => return Err(error),
        }
    };
    let key = Key {
        machine: answer.machine,
        key: answer.key,
    };
    work.save_key(&key)?;
    Ok(key)
}
