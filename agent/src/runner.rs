//! Runs steps as child processes. Each has its own log and a time limit, and is killed on request
//! or when the agent ends.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use sealyard_core::{
    fleet::protocol::{FailureLevel, Lease, Outcome, ReportRequest, Running, Usage},
    sealing::TaskKind,
};
use tokio::process::{Child, Command};

use crate::work_dir::{StepResult, WorkDir};

pub struct Step {
    pub lease: Lease,
    folder: PathBuf,
    child: Child,
    started: Instant,
}

impl Step {
    pub fn start(work: &WorkDir, parameters: &Path, lease: &Lease) -> Result<Self> {
        let folder = work.prepare(lease)?;
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(folder.join("log"))
            .context("opening the step's log")?;
        // The running program, also when an upgrade has replaced its file.
        let child = Command::new("/proc/self/exe")
            .arg("step")
            .arg(&folder)
            .envs(sealyard_filecoin::proofs::environment(parameters))
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .context("starting the step's process")?;
        Ok(Self {
            lease: lease.clone(),
            folder,
            child,
            started: Instant::now(),
        })
    }

    /// The report, if the child has ended. Kills a child that exceeds its time.
    pub fn poll(&mut self, timeout: Duration) -> Result<Option<ReportRequest>> {
        if self.started.elapsed() > timeout {
            self.child.start_kill()?;
        }
        let Some(status) = self.child.try_wait()? else {
            return Ok(None);
        };
        let result: StepResult = fs::read(self.folder.join("result.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_else(|| self.died(&status.to_string(), timeout));
        let Lease { task, fence, .. } = self.lease;
        Ok(Some(ReportRequest {
            task,
            fence,
            outcome: result.outcome,
            usage: result.usage,
        }))
    }

    /// A child that left no result panicked, was killed, or ran out of time.
    fn died(&self, status: &str, timeout: Duration) -> StepResult {
        let log = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        let last = log
            .lines()
            .rev()
            .find(|line| !line.trim().is_empty())
            .unwrap_or("no log")
            .chars()
            .take(300)
            .collect::<String>();
        let over = self.started.elapsed() > timeout;
        let reason = if self.is_disk_full() {
            format!("{status}: {DISK_FULL}")
        } else if over {
            format!("killed after {} s", timeout.as_secs())
        } else {
            format!("{status}: {last}")
        };
        let level = if over || log.contains("panicked") {
            FailureLevel::Permanent
        } else {
            FailureLevel::Temporary
        };
        let wall_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        StepResult {
            outcome: Outcome::Failed { level, reason },
            usage: Usage {
                wall_ms,
                ..Usage::default()
            },
        }
    }

    /// Probes the disk: a child cannot report a full disk if it could not even write its log.
    fn is_disk_full(&self) -> bool {
        let probe = self.folder.join("probe");
        let written = fs::write(&probe, [0; 4096]);
        let _ = fs::remove_file(&probe);
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    }

    pub fn running(&self) -> Running {
        let seconds = self.started.elapsed().as_secs();
        let memory = self.child.id().map(resident_mib).unwrap_or_default();
        let Lease {
            task, fence, kind, ..
        } = &self.lease;
        Running {
            task: *task,
            fence: *fence,
            progress: format!("{kind} for {seconds} s, {memory} MiB"),
        }
    }

    pub async fn stop(mut self) {
        let _ = self.child.kill().await;
    }
}

fn resident_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|rest| rest.split_whitespace().next())
        .and_then(|kib| kib.parse::<u64>().ok())
        .unwrap_or(0)
        / 1024
}

const DISK_FULL: &str = "No space left on device";

/// Whether the step fetches files.
pub fn is_transfer(lease: &Lease) -> bool {
    TaskKind::from_name(&lease.kind).is_some_and(TaskKind::is_transfer)
}

/// Whether the step only needs free disk space. It will then succeed later, so its failure is not
/// reported. A transfer's failure is: giving it up loses nothing, and the files that arrived may be
/// filling the disk.
pub fn wants_disk(lease: &Lease, report: &ReportRequest) -> bool {
    !is_transfer(lease)
        && matches!(&report.outcome, Outcome::Failed { reason, .. } if reason.contains(DISK_FULL))
}
