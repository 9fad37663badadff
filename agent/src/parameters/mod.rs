//! Where the proof parameters are, and `sealyard-agent parameters`, which fetches the official
//! ones.

mod download;

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use sealyard_filecoin::{
    params::{
        DevnetParams,
        official::{self, Extent, Flaw, OfficialFile},
    },
    sector::SealProof,
};

use download::{Patience, Wanted};

/// The folder that all programs of the network use unless they are told another.
const USUAL: &str = "/var/tmp/filecoin-proof-parameters";
/// Sector sizes as options name them.
const SIZES: [(&str, SealProof); 5] = [
    ("2KiB", SealProof::Drg2KiB),
    ("8MiB", SealProof::Drg8MiB),
    ("512MiB", SealProof::Drg512MiB),
    ("32GiB", SealProof::Drg32GiB),
    ("64GiB", SealProof::Drg64GiB),
];

#[derive(clap::Args)]
pub struct Options {
    /// Size of the sectors: 2KiB, 8MiB, 512MiB, 32GiB or 64GiB.
    #[arg(long, value_parser = sector_size)]
    sector_size: SealProof,
    /// Folder for the parameters; default: FIL_PROOFS_PARAMETER_CACHE, or without it
    /// /var/tmp/filecoin-proof-parameters.
    #[arg(long, env = "SEALYARD_PARAMETERS_DIR")]
    dir: Option<PathBuf>,
    /// IPFS gateway to fetch from; each file is checked against its published digest.
    #[arg(
        long,
        env = "SEALYARD_PARAMETERS_MIRROR",
        default_value = "https://proofs.filecoin.io/ipfs"
    )]
    mirror: String,
    /// Also fetch the files for sector updates and aggregated proofs, which Sealyard does not make.
    #[arg(long)]
    all: bool,
}

/// The folder with the proof parameters: the given one, else that of the proofs library's own
/// variable, else the usual one.
pub fn folder_of(given: Option<&Path>) -> PathBuf {
    chosen(given, std::env::var_os("FIL_PROOFS_PARAMETER_CACHE"))
}

fn chosen(given: Option<&Path>, cache: Option<OsString>) -> PathBuf {
    let cache = cache.filter(|folder| !folder.is_empty());
    given
        .map(Path::to_owned)
        .or(cache.map(PathBuf::from))
        .unwrap_or_else(|| USUAL.into())
}

/// Reads a sector size as operators write it.
pub fn sector_size(text: &str) -> Result<SealProof, String> {
    SIZES
        .into_iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(text))
        .map(|(_, size)| size)
        .ok_or_else(|| "sector sizes are 2KiB, 8MiB, 512MiB, 32GiB and 64GiB".to_owned())
}

pub fn size_name(size: SealProof) -> &'static str {
    SIZES
        .into_iter()
        .find(|(_, named)| *named == size)
        .map_or("unknown", |(name, _)| name)
}

/// Without parameters every proof would fail at once, and the sectors would be blamed.
pub fn require(dir: &Path) -> Result<()> {
    let is_parameters = |entry: fs::DirEntry| {
        entry
            .path()
            .extension()
            .is_some_and(|extension| extension == "params")
    };
    let found =
        fs::read_dir(dir).is_ok_and(|entries| entries.filter_map(Result::ok).any(is_parameters));
    if !found {
        bail!(
            "{dir} holds no proof parameters; fetch the official ones with `sealyard-agent \
             parameters --sector-size 32GiB --dir {dir}`, or for a devnet make them with `sealyard \
             parameters {dir}`",
            dir = dir.display(),
        );
    }
    Ok(())
}

/// Fetches the official files that are missing or wrong.
pub fn main(options: &Options) -> Result<()> {
    let dir = folder_of(options.dir.as_deref());
    refuse_devnet(&dir)?;
    fs::create_dir_all(&dir)
        .with_context(|| format!("creating {}; is it writable?", dir.display()))?;
    let extent = if options.all {
        Extent::All
    } else {
        Extent::Needed
    };
    let files = official::files(options.sector_size.sector_bytes(), extent);
    let flaws = official::flaws(&dir, &files, &mut |file| {
        if dir.join(&file.name).exists() {
            println!("checking {}", file.name);
        }
    });
    let wanted = wanted(&flaws, &options.mirror)?;
    println!(
        "{} of {} files for {} are in {} and right",
        files.len().saturating_sub(wanted.len()),
        files.len(),
        size_name(options.sector_size),
        dir.display()
    );
    let say = |line: &str| println!("{line}");
    let fetched = download::fetch_all(&dir, &wanted, Patience::USUAL, &say);
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?
        .block_on(fetched)?;
    println!("complete");
    Ok(())
}

/// The devnet's files have the names of official ones for 2 KiB. A folder with both would prove
/// with keys that anybody can forge, or break the devnet.
fn refuse_devnet(dir: &Path) -> Result<()> {
    if DevnetParams::found(dir).is_some() {
        bail!(
            "{} holds the devnet's own proof parameters; choose another --dir for the official \
             ones",
            dir.display()
        );
    }
    Ok(())
}

/// The files to fetch, with their addresses.
fn wanted(flaws: &[(OfficialFile, Flaw)], mirror: &str) -> Result<Vec<Wanted>> {
    let mut wanted = Vec::new();
    for (file, flaw) in flaws {
        match flaw {
            Flaw::Missing => {}
            Flaw::Wrong { .. } => println!(
                "{} has not the digest that was published; it is fetched again",
                file.name
            ),
            Flaw::Unreadable { reason } => bail!(
                "{} cannot be read: {reason}; let this user read and write the folder",
                file.name
            ),
        }
        wanted.push(Wanted {
            name: file.name.clone(),
            url: format!("{}/{}", mirror.trim_end_matches('/'), file.cid),
            digest: file.digest.clone(),
        });
    }
    Ok(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_option_wins_over_the_librarys_variable_and_that_over_the_usual_folder() {
        for (given, cache, folder) in [
            (Some("/given"), Some("/cache"), "/given"),
            (Some("/given"), None, "/given"),
            (None, Some("/cache"), "/cache"),
            (None, Some(""), USUAL),
            (None, None, USUAL),
        ] {
            let found = chosen(given.map(Path::new), cache.map(OsString::from));
            assert_eq!(found, Path::new(folder), "{given:?} {cache:?}");
        }
    }

    #[test]
    fn sector_sizes_are_read_and_written_alike() {
        for (name, size) in SIZES {
            assert_eq!(sector_size(name), Ok(size));
            assert_eq!(sector_size(&name.to_lowercase()), Ok(size));
            assert_eq!(size_name(size), name);
        }
        for text in ["", "32", "4KiB", "32 GiB"] {
            assert!(sector_size(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_folder_with_the_devnets_parameters_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        refuse_devnet(dir.path()).unwrap();
        DevnetParams::open(dir.path(), "sealyard-devnet-1").unwrap();
        let error = refuse_devnet(dir.path()).unwrap_err().to_string();
        assert!(error.contains("choose another --dir"), "{error}");
    }

    #[test]
    fn missing_and_wrong_files_are_fetched_from_the_mirror() {
        let file = OfficialFile {
            name: "v28-x.vk".into(),
            cid: "Qm1".into(),
            digest: "00".into(),
        };
        let wrong = Flaw::Wrong { found: "11".into() };
        let unreadable = Flaw::Unreadable {
            reason: "denied".into(),
        };
        for flaw in [Flaw::Missing, wrong] {
            let wanted = wanted(&[(file.clone(), flaw)], "https://mirror/ipfs/").unwrap();
            let urls: Vec<&str> = wanted.iter().map(|file| file.url.as_str()).collect();
            assert_eq!(urls, ["https://mirror/ipfs/Qm1"]);
        }
        assert!(wanted(&[(file, unreadable)], "https://mirror").is_err());
    }
}
