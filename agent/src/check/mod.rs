//! `sealyard-agent check`: looks at everything on this machine that decides whether and how fast it
//! seals, and says what to do where something is wrong.

mod cpu;
mod disk;
mod gpus;
mod memory;
mod needs;
mod parameters;
mod server;

use std::{fmt, path::PathBuf, process::ExitCode};

use anyhow::Result;
use sealyard_filecoin::sector::SealProof;

use crate::parameters::{folder_of, sector_size};

#[derive(clap::Args)]
pub struct Options {
    /// The server; without it, neither the way to it nor the clock is checked.
    #[arg(long, env = "SEALYARD_URL")]
    url: Option<String>,
    /// The agent's folder; without it, no disk is checked. 256 MiB are written there and deleted.
    #[arg(long, env = "SEALYARD_AGENT_DIR")]
    dir: Option<PathBuf>,
    /// Folder with the proof parameters; default: FIL_PROOFS_PARAMETER_CACHE, or without it
    /// /var/tmp/filecoin-proof-parameters.
    #[arg(long, env = "SEALYARD_PARAMETERS_DIR")]
    parameters_dir: Option<PathBuf>,
    /// Size of the sectors: 2KiB, 8MiB, 512MiB, 32GiB or 64GiB; without it, the machine is measured
    /// against nothing and no parameters are checked.
    #[arg(long, value_parser = sector_size)]
    sector_size: Option<SealProof>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Ok,
    /// The machine works, but slower than it could or not at every step.
    Warning,
    /// The machine cannot work.
    Problem,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    pub subject: &'static str,
    pub value: String,
    /// The way to set it right. Empty if nothing is wrong.
    pub remedy: String,
}

impl Finding {
    pub fn ok(subject: &'static str, value: impl Into<String>) -> Self {
        Self {
            level: Level::Ok,
            subject,
            value: value.into(),
            remedy: String::new(),
        }
    }

    pub fn warning(
        subject: &'static str,
        value: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Warning,
            subject,
            value: value.into(),
            remedy: remedy.into(),
        }
    }

    pub fn problem(
        subject: &'static str,
        value: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            level: Level::Problem,
            ..Self::warning(subject, value, remedy)
        }
    }
}

impl fmt::Display for Finding {
    /// One line: level, subject, value, and the remedy if there is one.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Ok => "ok",
            Level::Warning => "warning",
            Level::Problem => "problem",
        };
        write!(f, "{level:<9}{:<12}{}", self.subject, self.value)?;
        if self.remedy.is_empty() {
            return Ok(());
        }
        write!(f, " -> {}", self.remedy)
    }
}

/// Prints each finding as soon as it is known. The exit code is 1 if there is a problem.
pub fn main(options: &Options) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut problems = 0usize;
    let mut tell = |findings: Vec<Finding>| {
        for finding in findings {
            println!("{finding}");
            problems = problems.saturating_add(usize::from(finding.level == Level::Problem));
        }
    };
    let size = options.sector_size;
    tell(cpu::findings(size));
    tell(vec![memory::finding(size)]);
    tell(gpus::findings(size));
    if let Some(dir) = &options.dir {
        tell(disk::findings(dir, size));
    }
    if let Some(size) = size {
        let dir = folder_of(options.parameters_dir.as_deref());
        tell(parameters::findings(&dir, size));
    }
    if let Some(url) = &options.url {
        tell(runtime.block_on(server::findings(url)));
    }
    if let Some(left_out) = left_out(options) {
        println!("not checked: {left_out}");
    }
    Ok(match problems {
        0 => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// The subjects that lack an option, with the option.
fn left_out(options: &Options) -> Option<String> {
    let subjects = [
        (options.dir.is_none(), "the disk (--dir)"),
        (
            options.sector_size.is_none(),
            "the needs of a sector size and its parameters (--sector-size)",
        ),
        (options.url.is_none(), "the server and the clock (--url)"),
    ];
    let missing: Vec<&str> = subjects
        .into_iter()
        .filter_map(|(is_missing, subject)| is_missing.then_some(subject))
        .collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_one_line() {
        for (finding, line) in [
            (
                Finding::ok("memory", "256 GiB"),
                "ok       memory      256 GiB",
            ),
            (
                Finding::warning("sha", "none", "take another"),
                "warning  sha         none -> take another",
            ),
            (
                Finding::problem("disk read", "0", "replace it"),
                "problem  disk read   0 -> replace it",
            ),
        ] {
            assert_eq!(finding.to_string(), line);
        }
    }

    #[test]
    fn the_report_says_which_options_would_check_more() {
        let mut options = Options {
            url: None,
            dir: Some("/sealing".into()),
            parameters_dir: None,
            sector_size: Some(SealProof::Drg2KiB),
        };
        let said = left_out(&options);
        assert_eq!(said.as_deref(), Some("the server and the clock (--url)"));
        options.url = Some("https://power.example.org".into());
        assert_eq!(left_out(&options), None);
    }
}
