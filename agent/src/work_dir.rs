//! The machine's folder: its key, its sectors, and one folder per step with input, log and result. A result stays until the
//! house has taken it, so that neither a crash here nor one there loses work.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sealyard_core::fleet::protocol::{Lease, Outcome, ReportRequest, Usage};
use sealyard_filecoin::{proofs::SealFiles, sector::SectorIdent};
use serde::{Deserialize, Serialize};

#[derive(Clone)]
pub struct WorkDir {
    root: PathBuf,
}

/// A step as its child process finds it.
#[derive(Serialize, Deserialize)]
pub struct StepInput {
    pub task: i64,
    pub fence: i64,
    pub kind: String,
    pub input: serde_json::Value,
    /// Where sectors are stored on this machine.
    pub store: PathBuf,
}

#[derive(Serialize, Deserialize)]
pub struct Key {
    pub machine: String,
    pub key: String,
}

impl WorkDir {
    pub fn open(root: &Path) -> Result<Self> {
        for folder in ["store", "steps"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).with_context(|| format!("creating {}; is --dir writable?", path.display()))?;
        }
        Ok(Self { root: root.canonicalize()? })
    }

    /// Held as long as the agent runs: two in one folder would undo each other's work.
    pub fn lock(&self) -> Result<fs::File> {
        let file = fs::File::create(self.root.join("lock")).context("creating the lock file")?;
        file.try_lock().with_context(|| format!("another agent works in {}", self.root.display()))?;
        Ok(file)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn key(&self) -> Result<Option<Key>> {
        match fs::read(self.root.join("machine.json")) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).context("machine.json is damaged; enrol again")?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("reading machine.json"),
        }
    }

    pub fn save_key(&self, key: &Key) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.root.join("machine.json");
        write_whole(&path, &serde_json::to_vec(key)?)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).context("protecting machine.json")
    }

    pub fn step_folder(&self, task: i64, fence: i64) -> PathBuf {
        self.root.join("steps").join(format!("{task}-{fence}"))
    }

    /// Makes the folder of a step that is about to run.
    pub fn prepare(&self, lease: &Lease) -> Result<PathBuf> {
        let folder = self.step_folder(lease.task, lease.fence);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let input = StepInput {
            task: lease.task,
            fence: lease.fence,
            kind: lease.kind.clone(),
            input: lease.input.clone(),
            store: self.root.join("store"),
        };
        // What an earlier try in this folder left is not this one's result.
        let _ = fs::remove_file(folder.join("result.json"));
        write_whole(&folder.join("input.json"), &serde_json::to_vec(&input)?)?;
        Ok(folder)
    }

    /// Keeps a result until it is delivered.
    pub fn keep(&self, report: &ReportRequest) -> Result<()> {
        write_whole(&self.step_folder(report.task, report.fence).join("report.json"), &serde_json::to_vec(report)?)
    }

    /// Results that the house has not taken yet.
    pub fn undelivered(&self) -> Vec<ReportRequest> {
        let Ok(entries) = fs::read_dir(self.root.join("steps")) else { return Vec::new() };
        let read = |entry: fs::DirEntry| serde_json::from_slice(&fs::read(entry.path().join("report.json")).ok()?).ok();
        entries.filter_map(Result::ok).filter_map(read).collect()
    }

    /// The house has it: input and result can go, the log of a failure stays.
    pub fn delivered(&self, report: &ReportRequest) {
        let folder = self.step_folder(report.task, report.fence);
        let _ = match report.outcome {
            Outcome::Done { .. } => fs::remove_dir_all(&folder),
            Outcome::Failed { .. } => fs::rename(folder.join("report.json"), folder.join("failed.json")),
        };
    }
}

/// Where a sector lives in a store.
pub fn sector_files(store: &Path, sector: &SectorIdent) -> (PathBuf, SealFiles) {
    let folder = sealyard_filecoin::proofs::sector_folder(store, sector);
    let files = SealFiles::under(&folder);
    (folder, files)
}

/// Writes a file so that it is there whole or not at all, also after a crash.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("tmp");
    let written = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&temporary, path)).with_context(|| format!("writing {}", path.display()))
}

/// What a child leaves behind.
#[derive(Serialize, Deserialize)]
pub struct StepResult {
    pub outcome: Outcome,
    pub usage: Usage,
}
