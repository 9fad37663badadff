//! Fetches a sector's files from the machine that has them, into a folder of their own. A fetch
//! that was interrupted resumes where it stopped.

use std::{
    fs,
    io::{Seek, SeekFrom, Write},
    path::Path,
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use reqwest::{StatusCode, header};
use sealyard_core::fleet::protocol::{MoveInput, StoredFile};
use sealyard_filecoin::sector::SealProof;

use crate::{files::inside, work_dir::WorkDir};

/// Files fetched at the same time: one stream does not fill a fast network.
const STREAMS: usize = 4;
/// Attempts in a row that bring no byte before a fetch is given up.
const ATTEMPTS: u32 = 6;
/// Longest list of files in bytes, and most files of a sector.
const LONGEST_LIST: usize = 1 << 20;
const MOST_FILES: usize = 1000;
/// Layers and trees take at most 14.1 sector sizes and the replica one more. All other files have a
/// fixed size.
const SECTORS_OF_FILES: u64 = 17;
const SMALL_FILES: u64 = 64 << 20;

/// Fetches all files of the sector.
pub async fn fetch(work: &WorkDir, task: i64, input: &MoveInput) -> Result<()> {
    let incoming = work.incoming(task);
    let source = Source::new(input)?;
    let mut files = source.list().await?;
    files.sort_by_key(|file| file.bytes);
    let mut running = tokio::task::JoinSet::new();
    loop {
        while running.len() < STREAMS
            && let Some(file) = files.pop()
        {
            let (source, incoming) = (source.clone(), incoming.clone());
            running.spawn(async move {
                source
                    .whole(&file, &incoming)
                    .await
                    .with_context(|| format!("fetching {}", file.path))
            });
        }
        match running.join_next().await {
            Some(ended) => ended.context("fetching ended early")??,
            None => return Ok(()),
        }
    }
}

#[derive(Clone)]
struct Source {
    http: reqwest::Client,
    url: String,
    pass: String,
    /// Most bytes that all files of the sector may have together.
    most_bytes: u64,
}

impl Source {
    fn new(input: &MoveInput) -> Result<Self> {
        let url = format!(
            "{}/files/v1/{}/{}",
            input.from.trim_end_matches('/'),
            input.sector.miner,
            input.sector.number
        );
        let sector_bytes = SealProof::try_from(input.sector.proof)?.sector_bytes();
        let most_bytes = sector_bytes
            .saturating_mul(SECTORS_OF_FILES)
            .saturating_add(SMALL_FILES);
        Ok(Self {
            http: sealyard_filecoin::http::streaming_client(Duration::from_secs(60))?,
            url,
            pass: input.pass.clone(),
            most_bytes,
        })
    }

    async fn list(&self) -> Result<Vec<StoredFile>> {
        let mut failures = 0;
        loop {
            match self.try_list().await {
                Ok(files) => return Ok(files),
                Err(error) => pause(&mut failures, error).await?,
            }
        }
    }

    async fn try_list(&self) -> Result<Vec<StoredFile>> {
        let mut response = self
            .http
            .get(&self.url)
            .bearer_auth(&self.pass)
            .send()
            .await?;
        let status = response.status();
        // The answer's text is not repeated: the address may be anybody's.
        ensure!(
            status.is_success(),
            "the machine that has the files answered {status}"
        );
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            ensure!(
                bytes.len() + chunk.len() <= LONGEST_LIST,
                "the list of files is longer than {LONGEST_LIST} bytes"
            );
            bytes.extend_from_slice(&chunk);
        }
        let files: Vec<StoredFile> = serde_json::from_slice(&bytes)
            .map_err(|_| anyhow::anyhow!("the list of files is unreadable"))?;
        ensure!(
            files.len() <= MOST_FILES,
            "the sector has more than {MOST_FILES} files"
        );
        let bytes = files
            .iter()
            .try_fold(0u64, |sum, file| sum.checked_add(file.bytes));
        ensure!(
            bytes.is_some_and(|bytes| bytes <= self.most_bytes),
            "the sector's files are larger than those of any sector"
        );
        Ok(files)
    }

    /// Fetches one file, starting where an interrupted attempt ended.
    async fn whole(&self, file: &StoredFile, into: &Path) -> Result<()> {
        let Some(below) = inside(&file.path) else {
            bail!("its path leads outside the sector's folder")
        };
        let path = into.join(below);
        fs::create_dir_all(path.parent().context("a file without a folder")?)?;
        let mut failures = 0;
        loop {
            let mut out = fs::OpenOptions::new()
                .create(true)
                .append(true)
                .open(&path)?;
            let have = out.seek(SeekFrom::End(0))?;
            if have == file.bytes {
                return out.sync_all().context("writing to disk");
            }
            if have > file.bytes {
                out.set_len(0)?;
                continue;
            }
            let result = self.rest(file, have, &mut out).await;
            if out.metadata()?.len() > have {
                failures = 0;
            }
            if let Err(error) = result {
                pause(&mut failures, error).await?;
            }
        }
    }

    /// Fetches the bytes after the first `have`.
    async fn rest(&self, file: &StoredFile, have: u64, out: &mut fs::File) -> Result<()> {
        let url = format!("{}/{}", self.url, file.path);
        let request = self
            .http
            .get(&url)
            .bearer_auth(&self.pass)
            .header(header::RANGE, format!("bytes={have}-"));
        let mut response = request.send().await?;
        let status = response.status();
        ensure!(
            status == StatusCode::PARTIAL_CONTENT || (have == 0 && status.is_success()),
            "the request for {} was answered with {status}",
            file.path
        );
        let mut left = file.bytes - have;
        while let Some(chunk) = response.chunk().await? {
            left = left
                .checked_sub(u64::try_from(chunk.len())?)
                .context("it is longer than announced")?;
            out.write_all(&chunk)?;
        }
        ensure!(left == 0, "it is {left} bytes shorter than announced");
        Ok(())
    }
}

/// Waits before another attempt. Gives up after too many failures, and at once after any failure
/// that is not the network's, such as a refusal or a full disk.
async fn pause(failures: &mut u32, error: anyhow::Error) -> Result<()> {
    *failures += 1;
    if *failures >= ATTEMPTS || error.downcast_ref::<reqwest::Error>().is_none() {
        return Err(error);
    }
    eprintln!("will try again: {error:#}");
    tokio::time::sleep(Duration::from_secs(1 << *failures)).await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use sealyard_core::{
        clock::{Clock, HOUR, SystemClock},
        fleet::{
            Pass,
            protocol::{SectorInput, StoredSector},
        },
        ids::digest,
    };

    use super::*;
    use crate::files;

    const SEVEN: StoredSector = StoredSector {
        miner: 1000,
        number: 7,
    };

    fn write(folder: &Path, name: &str, bytes: &[u8]) {
        fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
        fs::write(folder.join(name), bytes).unwrap();
    }

    /// Serves sector 7 from a machine in `dir`. Returns the input of a move from there, with a pass
    /// for the sector `of`.
    fn source(dir: &Path, of: StoredSector) -> MoveInput {
        let work = WorkDir::open(dir).unwrap();
        let folder = work.store().join("s-f01000-7");
        write(&folder, "cache/layer-1", &[1; 300_000]);
        write(&folder, "cache/empty", &[]);
        write(&folder, "sealed", &[3; 70_000]);
        let (_, at) =
            files::serve("127.0.0.1:0".parse().unwrap(), work.store(), "key".into()).unwrap();
        let pass = Pass {
            sector: of,
            until: SystemClock.now() + HOUR,
        }
        .sign(&digest("key"));
        let (ticket, seed, comm_r, pc2) = Default::default();
        let sector = SectorInput {
            miner: 1000,
            number: 7,
            proof: 8,
            ticket,
            seed,
            comm_r,
            pc2,
        };
        MoveInput {
            sector,
            from: format!("http://{at}/"),
            pass,
            prove_with: String::new(),
        }
    }

    #[tokio::test]
    async fn a_fetch_resumes_partial_files_and_completes_the_sector() {
        let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let input = source(there.path(), SEVEN);
        let work = WorkDir::open(here.path()).unwrap();
        write(&work.incoming(5), "cache/layer-1", &[9; 100_000]);
        write(&work.incoming(5), "sealed", &[9; 80_000]);
        write(&work.store(), "s-f01000-7/cache/old", &[1]);
        fetch(&work, 5, &input).await.unwrap();
        work.take_in(5, "s-f01000-7").unwrap();
        let read = |name: &str| fs::read(work.store().join("s-f01000-7").join(name)).unwrap();
        assert_eq!(
            read("cache/layer-1"),
            [vec![9; 100_000], vec![1; 200_000]].concat(),
            "it went on where it had ended"
        );
        assert_eq!(
            read("sealed"),
            vec![3; 70_000],
            "what is longer than it can be is fetched again"
        );
        assert_eq!(read("cache/empty"), Vec::<u8>::new());
        assert!(
            !work.store().join("s-f01000-7/cache/old").exists(),
            "an earlier attempt's files do not get among them"
        );
        assert!(!work.incoming(5).exists());
    }

    /// `cargo test --release -p sealyard-agent -- --ignored --nocapture` measures how fast files
    /// move on this machine.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    #[ignore = "a measurement"]
    async fn fetching_eight_gib_is_timed() {
        let (there, here) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let input = source(there.path(), SEVEN);
        for layer in 0..8 {
            let path = there
                .path()
                .join(format!("store/s-f01000-7/cache/large-{layer}"));
            let mut file = fs::File::create(path).unwrap();
            (0..1024).for_each(|_| file.write_all(&[layer; 1 << 20]).unwrap());
        }
        let work = WorkDir::open(here.path()).unwrap();
        let began = std::time::Instant::now();
        fetch(&work, 5, &input).await.unwrap();
        println!(
            "8 GiB in {:.1?}, both ends on this machine",
            began.elapsed()
        );
    }

    #[tokio::test]
    async fn no_file_is_served_without_a_pass_for_its_sector() {
        let there = tempfile::tempdir().unwrap();
        write(there.path(), "machine.json", b"secret");
        let input = source(there.path(), SEVEN);
        let get = async |path: &str, pass: &str| {
            let http = sealyard_filecoin::http::client(Duration::from_secs(10)).unwrap();
            let url = format!("{}files/v1/{path}", input.from);
            http.get(url)
                .bearer_auth(pass)
                .send()
                .await
                .unwrap()
                .status()
                .as_u16()
        };
        assert_eq!(get("1000/7", &input.pass).await, 200);
        assert_eq!(get("1000/7/sealed", &input.pass).await, 200);
        assert_eq!(get("1000/7/nothing", &input.pass).await, 404);
        for (path, pass) in [
            ("1000/7", ""),
            ("1000/7/sealed", "1.00"),
            ("1000/8", &*input.pass),
            ("1001/7/sealed", &input.pass),
        ] {
            assert_eq!(get(path, pass).await, 403, "{path}");
        }
        for path in [
            "1000/7/..%2f..%2fmachine.json",
            "1000/7/%2e%2e/%2e%2e/machine.json",
            "1000/7/%2fetc%2fpasswd",
        ] {
            assert_ne!(get(path, &input.pass).await, 200, "{path}");
        }
        let other = source(
            tempfile::tempdir().unwrap().path(),
            StoredSector { number: 8, ..SEVEN },
        );
        let here = tempfile::tempdir().unwrap();
        let refused = fetch(&WorkDir::open(here.path()).unwrap(), 1, &other)
            .await
            .unwrap_err();
        assert!(format!("{refused:#}").contains("403"), "{refused:#}");
    }
}
