//! The machine's folder: its key, its sectors, and one folder per step with input, log and result.
//! A result stays until the server has accepted it, so that no crash on either side loses work.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use sealyard_core::fleet::protocol::{Lease, Outcome, ReportRequest, StoredSector, Usage};
use sealyard_filecoin::{
    proofs::{self, SealFiles},
    sector::SectorIdent,
};
use serde::{Deserialize, Serialize};

/// Folders of sectors that are being deleted.
const DROPPED: &str = "dropped";
/// Folders of sectors that are being fetched, by task.
const INCOMING: &str = "incoming";

#[derive(Clone)]
pub struct WorkDir {
    root: PathBuf,
}

/// The input of a step's child process.
#[derive(Serialize, Deserialize)]
pub struct StepInput {
    pub task: i64,
    pub fence: i64,
    pub kind: String,
    pub input: Box<serde_json::value::RawValue>,
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
        for folder in ["store", "steps", DROPPED, INCOMING] {
            let path = root.join(folder);
            fs::create_dir_all(&path)
                .with_context(|| format!("creating {}; is --dir writable?", path.display()))?;
        }
        Ok(Self {
            root: root.canonicalize()?,
        })
    }

    /// Locks the folder while the agent runs: two agents in one folder would undo each other's
    /// work.
    pub fn lock(&self) -> Result<fs::File> {
        let file = fs::File::create(self.root.join("lock")).context("creating the lock file")?;
        file.try_lock()
            .with_context(|| format!("another agent is running in {}", self.root.display()))?;
        Ok(file)
    }

    /// The folder around `store`, for a child of the agent that holds the lock.
    pub fn of_store(store: &Path) -> Result<Self> {
        let root = store
            .parent()
            .context("a store without a folder around it")?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn key(&self) -> Result<Option<Key>> {
        match fs::read(self.root.join("machine.json")) {
            Ok(bytes) => Ok(Some(
                serde_json::from_slice(&bytes).context("machine.json is damaged; enrol again")?,
            )),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).context("reading machine.json"),
        }
    }

    pub fn save_key(&self, key: &Key) -> Result<()> {
        use std::os::unix::fs::PermissionsExt;
        let path = self.root.join("machine.json");
        write_whole(&path, &serde_json::to_vec(key)?)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))
            .context("protecting machine.json")
    }

    pub fn step_folder(&self, task: i64, fence: i64) -> PathBuf {
        self.root.join("steps").join(format!("{task}-{fence}"))
    }

    /// Creates the folder of a step that is about to run.
    pub fn prepare(&self, lease: &Lease) -> Result<PathBuf> {
        let folder = self.step_folder(lease.task, lease.fence);
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let input = StepInput {
            task: lease.task,
            fence: lease.fence,
            kind: lease.kind.clone(),
            input: lease.input.clone(),
            store: self.store(),
        };
        // A result that an earlier try left here is not this one's.
        let _ = fs::remove_file(folder.join("result.json"));
        write_whole(&folder.join("input.json"), &serde_json::to_vec(&input)?)?;
        Ok(folder)
    }

    /// Sectors that have files in the store.
    pub fn stored(&self) -> Result<Vec<StoredSector>> {
        let mut stored = Vec::new();
        for entry in fs::read_dir(self.store()).context("reading the store")? {
            let name = entry.context("reading the store")?.file_name();
            let sector = name.to_str().and_then(proofs::sector_of_folder);
            stored.extend(sector.map(|(miner, number)| StoredSector { miner, number }));
        }
        Ok(stored)
    }

    /// Removes a sector from the store; [`Self::empty`] frees its space.
    pub fn drop_sector(&self, sector: &StoredSector) -> Result<()> {
        self.take_out(&proofs::folder_name(sector.miner, sector.number))
    }

    fn take_out(&self, name: &str) -> Result<()> {
        self.put_away(&self.store().join(name), name)
    }

    fn put_away(&self, from: &Path, name: &str) -> Result<()> {
        // An earlier folder of this name may still be waiting for deletion.
        let to = (0..)
            .map(|n| self.root.join(DROPPED).join(format!("{name}-{n}")))
            .find(|to| !to.exists());
        fs::rename(from, to.unwrap_or_default())
            .with_context(|| format!("putting {} away", from.display()))
    }

    pub fn store(&self) -> PathBuf {
        self.root.join("store")
    }

    /// Where a task's files arrive.
    pub fn incoming(&self, task: i64) -> PathBuf {
        self.root.join(INCOMING).join(task.to_string())
    }

    /// Moves a complete sector into the store. It replaces any older copy, which is now worthless.
    pub fn take_in(&self, task: i64, name: &str) -> Result<()> {
        let (from, to) = (self.incoming(task), self.store().join(name));
        if to.exists() {
            self.take_out(name)?;
        }
        fs::rename(&from, &to).with_context(|| format!("taking {name} into the store"))?;
        let synced = fs::File::open(self.store()).and_then(|folder| folder.sync_all());
        synced.context("writing to disk")
    }

    /// Removes files that arrived for any other tasks; [`Self::empty`] frees their space.
    pub fn forget_incoming(&self, but: &[i64]) -> Result<()> {
        for entry in fs::read_dir(self.root.join(INCOMING)).context("reading what arrives")? {
            let entry = entry.context("reading what arrives")?;
            let task = entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok());
            if !task.is_some_and(|task: i64| but.contains(&task)) {
                self.put_away(&entry.path(), &entry.file_name().to_string_lossy())?;
            }
        }
        Ok(())
    }

    /// Deletes everything that was removed from the store. Large folders take a while.
    pub fn empty(&self) -> Result<()> {
        let mut stays = Ok(());
        for entry in
            fs::read_dir(self.root.join(DROPPED)).context("reading what is to be deleted")?
        {
            let path = entry.context("reading what is to be deleted")?.path();
            let deleted =
                fs::remove_dir_all(&path).with_context(|| format!("deleting {}", path.display()));
            stays = stays.and(deleted);
        }
        stays
    }

    /// Keeps a result until it is delivered.
    pub fn keep(&self, report: &ReportRequest) -> Result<()> {
        write_whole(
            &self
                .step_folder(report.task, report.fence)
                .join("report.json"),
            &serde_json::to_vec(report)?,
        )
    }

    /// Results that the server has not taken yet.
    pub fn undelivered(&self) -> Vec<ReportRequest> {
        let Ok(entries) = fs::read_dir(self.root.join("steps")) else {
            return Vec::new();
        };
        let read = |entry: fs::DirEntry| {
            serde_json::from_slice(&fs::read(entry.path().join("report.json")).ok()?).ok()
        };
        entries.filter_map(Result::ok).filter_map(read).collect()
    }

    /// Cleans up once the server has the result. Only the folder of a failed step stays, for its
    /// log.
    pub fn delivered(&self, report: &ReportRequest) {
        let folder = self.step_folder(report.task, report.fence);
        let _ = match report.outcome {
            Outcome::Done { .. } => fs::remove_dir_all(&folder),
            Outcome::Failed { .. } => {
                fs::rename(folder.join("report.json"), folder.join("failed.json"))
            }
        };
    }
}

/// A sector's folder and files in a store.
pub fn sector_files(store: &Path, sector: &SectorIdent) -> (PathBuf, SealFiles) {
    let folder = proofs::sector_folder(store, sector);
    let files = SealFiles::under(&folder);
    (folder, files)
}

/// Writes a file atomically: even after a crash it is complete or absent.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    use std::io::Write;
    let temporary = path.with_extension("tmp");
    let written = fs::File::create(&temporary).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("writing {}", path.display()))
}

/// The outcome of a child process.
#[derive(Serialize, Deserialize)]
pub struct StepResult {
    pub outcome: Outcome,
    pub usage: Usage,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dropping_a_sector_removes_only_that_sector_from_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::open(dir.path()).unwrap();
        let make = |name: &str| {
            fs::create_dir_all(work.root().join("store").join(name).join("cache")).unwrap();
            fs::write(
                work.root().join("store").join(name).join("cache/layer-1"),
                [1; 100],
            )
            .unwrap();
        };
        for name in [
            "s-f01000-7",
            "s-f01000-8",
            "s-f01000-08",
            "mine",
            "s-f01000-x",
        ] {
            make(name);
        }
        let seven = StoredSector {
            miner: 1000,
            number: 7,
        };
        let all = || {
            let mut stored = work.stored().unwrap();
            stored.sort_by_key(|s| s.number);
            stored
        };
        assert_eq!(
            all(),
            [
                seven,
                StoredSector {
                    miner: 1000,
                    number: 8
                }
            ]
        );
        work.drop_sector(&seven).unwrap();
        make("s-f01000-7");
        work.drop_sector(&seven).unwrap();
        assert!(all().iter().all(|s| s.number == 8));
        assert!(work.drop_sector(&seven).is_err());
        work.empty().unwrap();
        let left = fs::read_dir(work.root().join(DROPPED)).unwrap().count();
        assert_eq!(
            (
                left,
                fs::read_dir(work.root().join("store")).unwrap().count()
            ),
            (0, 4)
        );
    }

    #[test]
    fn abandoned_incoming_files_are_deleted_and_live_ones_kept() {
        let dir = tempfile::tempdir().unwrap();
        let work = WorkDir::open(dir.path()).unwrap();
        for task in [4, 5] {
            fs::create_dir_all(work.incoming(task).join("cache")).unwrap();
        }
        work.forget_incoming(&[5]).unwrap();
        assert!(!work.incoming(4).exists() && work.incoming(5).exists());
    }
}
