//! The official Groth16 parameters of the Filecoin network: names, addresses and digests, as the
//! proofs library publishes them.

use std::{
    fs,
    io::{self, Read},
    path::Path,
};

use storage_proofs_core::parameter_cache::{PARAMETERS, SRS_PARAMETERS};

use super::{DevnetParams, MARKER, Which};

/// Hexadecimal digits of a published digest: the first 16 bytes of BLAKE2b-512.
const DIGEST_DIGITS: usize = 32;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfficialFile {
    pub name: String,
    /// The content's address on IPFS.
    pub cid: String,
    pub digest: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// The files for sealing and for proofs of spacetime.
    Needed,
    /// The needed ones, and those for sector updates and aggregated proofs, which Sealyard does not
    /// make.
    All,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Flaw {
    Missing,
    Wrong { found: String },
    Unreadable { reason: String },
}

/// The files for a sector size, sorted by name. Empty if nothing is published for that size.
#[must_use]
pub fn files(sector_bytes: u64, extent: Extent) -> Vec<OfficialFile> {
    let is_needed = |name: &str| {
        name.contains("-stacked-proof-of-replication-")
            || name.contains("-proof-of-spacetime-fallback-")
    };
    let mut files: Vec<OfficialFile> = PARAMETERS
        .iter()
        .filter(|(name, data)| {
            data.sector_size == sector_bytes && (extent == Extent::All || is_needed(name))
        })
        .map(|(name, data)| OfficialFile {
            name: name.clone(),
            cid: data.cid.clone(),
            digest: data.digest.clone(),
        })
        .collect();
    if extent == Extent::All && !files.is_empty() {
        // One file for all sector sizes.
        files.extend(SRS_PARAMETERS.iter().map(|(name, data)| OfficialFile {
            name: name.clone(),
            cid: data.cid.clone(),
            digest: data.digest.clone(),
        }));
    }
    files.sort_by(|a, b| a.name.cmp(&b.name));
    files
}

/// The digest of a file's content, in the form in which digests are published.
pub fn digest(mut file: impl Read) -> io::Result<String> {
    let mut hasher = blake2b_simd::State::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => {
                hasher.update(buffer.get(..read).unwrap_or_default());
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let whole = hasher.finalize().to_hex();
    Ok(whole.chars().take(DIGEST_DIGITS).collect())
}

/// Reads the whole file; `None` if it is there and has the digest.
#[must_use]
pub fn flaw_of(path: &Path, expected: &str) -> Option<Flaw> {
    match fs::File::open(path).and_then(digest) {
        Ok(found) if found == expected => None,
        Ok(found) => Some(Flaw::Wrong { found }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Some(Flaw::Missing),
        Err(error) => Some(Flaw::Unreadable {
            reason: error.to_string(),
        }),
    }
}

/// The files that are missing or wrong in a folder. Reads every file whole, which takes minutes for
/// 32 GiB sectors; `looking` is called before each.
pub fn flaws(
    dir: &Path,
    files: &[OfficialFile],
    looking: &mut dyn FnMut(&OfficialFile),
) -> Vec<(OfficialFile, Flaw)> {
    let mut found = Vec::new();
    for file in files {
        looking(file);
        found.extend(flaw_of(&dir.join(&file.name), &file.digest).map(|flaw| (file.clone(), flaw)));
    }
    found
}

impl DevnetParams {
    /// The devnet's parameters in a folder that exists, complete or not. `None` if the folder is
    /// not theirs: it has neither their mark nor one of their verifying keys. Writes nothing.
    #[must_use]
    pub fn found(dir: &Path) -> Option<Self> {
        let params = Self {
            dir: dir.to_owned(),
        };
        let has_key = |which: Which| {
            params
                .path(which, "vk")
                .is_ok_and(|path| fs::read(path).is_ok_and(|key| key == which.verifying_key()))
        };
        let is_theirs = dir.join(MARKER).exists() || Which::ALL.into_iter().any(has_key);
        is_theirs.then_some(params)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::SealProof;

    #[test]
    fn every_sector_size_has_its_published_files() {
        for number in 5..=9 {
            let bytes = SealProof::try_from(number).unwrap().sector_bytes();
            let needed = files(bytes, Extent::Needed);
            assert_eq!(needed.len(), 6, "one PoRep and two PoSts, each with a key");
            for file in &needed {
                assert_eq!(file.digest.len(), DIGEST_DIGITS, "{}", file.name);
                assert!(file.cid.starts_with("Qm"), "{}", file.name);
            }
            let all = files(bytes, Extent::All);
            assert!(needed.iter().all(|file| all.contains(file)));
            assert!(all.iter().any(|file| file.name.ends_with(".srs")));
        }
        assert!(files(4096, Extent::All).is_empty());
    }

    #[test]
    fn the_devnet_and_the_network_use_the_same_names() {
        let dir = tempfile::tempdir().unwrap();
        let params = DevnetParams {
            dir: dir.path().to_owned(),
        };
        let names: Vec<String> = files(2048, Extent::Needed)
            .into_iter()
            .map(|file| file.name)
            .collect();
        for which in Which::ALL {
            for extension in ["params", "vk"] {
                let path = params.path(which, extension).unwrap();
                let name = path.file_name().unwrap().to_str().unwrap();
                assert!(names.iter().any(|official| official == name), "{name}");
            }
        }
    }

    #[test]
    fn a_digest_is_the_beginning_of_blake2b() {
        assert_eq!(
            digest(&b"abc"[..]).unwrap(),
            "ba80a53f981c4d0d6a2797b69f12f6e9"
        );
    }

    #[test]
    fn missing_and_wrong_files_are_found() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| OfficialFile {
            name: name.to_owned(),
            cid: "Qm".to_owned(),
            digest: digest(&b"good"[..]).unwrap(),
        };
        fs::write(dir.path().join("good"), "good").unwrap();
        fs::write(dir.path().join("bad"), "bad").unwrap();
        let mut looked = Vec::new();
        let found = flaws(
            dir.path(),
            &["absent", "bad", "good"].map(file),
            &mut |file| looked.push(file.name.clone()),
        );
        let wrong = Flaw::Wrong {
            found: digest(&b"bad"[..]).unwrap(),
        };
        assert_eq!(
            found,
            [(file("absent"), Flaw::Missing), (file("bad"), wrong)]
        );
        assert_eq!(looked, ["absent", "bad", "good"]);
    }

    #[test]
    fn the_devnets_folder_is_recognised_with_and_without_its_mark() {
        let dir = tempfile::tempdir().unwrap();
        assert!(DevnetParams::found(&dir.path().join("nowhere")).is_none());
        assert!(DevnetParams::found(dir.path()).is_none());
        DevnetParams::open(dir.path(), "sealyard-devnet-1").unwrap();
        assert!(DevnetParams::found(dir.path()).is_some());
        fs::remove_file(dir.path().join(MARKER)).unwrap();
        assert!(
            DevnetParams::found(dir.path()).is_some(),
            "by its verifying keys"
        );
    }
}
