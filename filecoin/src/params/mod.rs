//! Groth16 parameters for the devnet's 2 KiB sectors, made on this machine from a public seed.
//!
//! Anybody can make them, so anybody knows their trapdoor and can forge proofs with them. They are
//! for the devnet only and are kept in a separate, marked folder; [`DevnetParams::open`] refuses
//! any other network. The verifying keys are part of this crate, and every generated file is
//! checked against them.

mod circuits;
mod fixed_base;
mod groth16;
pub mod official;

use std::{
    fs,
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

use circuits::Circuit;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use sha2::{Digest, Sha256};

/// Names of networks that may use these parameters start with this.
pub const DEVNET_NAME_PREFIX: &str = "sealyard-devnet";
const MARKER: &str = "DEVNET-ONLY";
const SECTOR_BYTES: u64 = 2048;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Window,
    Winning,
    Porep,
}

impl Which {
    pub const ALL: [Self; 3] = [Self::Window, Self::Winning, Self::Porep];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Window => "WindowPoSt",
            Self::Winning => "WinningPoSt",
            Self::Porep => "PoRep",
        }
    }

    /// The ChaCha20 seed is the SHA-256 of this label.
    const fn seed_label(self) -> &'static str {
        match self {
            Self::Window => "post-Window-2048",
            Self::Winning => "post-Winning-2048",
            Self::Porep => "porep-2048",
        }
    }

    const fn verifying_key(self) -> &'static [u8] {
        match self {
            Self::Window => include_bytes!("../../vk/window-2048.vk"),
            Self::Winning => include_bytes!("../../vk/winning-2048.vk"),
            Self::Porep => include_bytes!("../../vk/porep-2048.vk"),
        }
    }

    /// Size of the complete `.params` file; a shorter file was not fully written.
    const fn params_bytes(self) -> u64 {
        match self {
            Self::Window => 11_501_496,
            Self::Winning => 47_299_128,
            Self::Porep => 1_114_707_768,
        }
    }
}

#[derive(Debug, thiserror::Error)]
pub enum ParamsError {
    #[error(
        "proof parameters in {dir} are for the devnet only, but the node serves network \
         {network:?}; give the agents the official parameters in another folder (parameters_dir)"
    )]
    WrongNetwork { dir: String, network: String },
    #[error("{path} cannot be read or written: {source}")]
    Io {
        path: String,
        source: std::io::Error,
    },
    #[error(
        "{dir} holds proof parameters that Sealyard did not make; choose an empty folder \
         (parameters_dir)"
    )]
    ForeignFolder { dir: String },
    #[error(
        "generated {which} parameters do not match the verifying key of this release; this is a \
         defect, please report it"
    )]
    Mismatch { which: &'static str },
    #[error("generating {which} parameters: {reason}")]
    Generate { which: &'static str, reason: String },
}

/// Work done and work in total, in arbitrary but proportional units.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub which: Which,
    pub done: u64,
    pub total: u64,
}

/// A folder with the devnet's verifying keys, and with its proving parameters once [`Self::ensure`]
/// has made them.
#[derive(Clone, Debug)]
pub struct DevnetParams {
    dir: PathBuf,
}

impl DevnetParams {
    /// Opens or creates the folder and writes the verifying keys; verification needs nothing else.
    pub fn open(dir: &Path, network: &str) -> Result<Self, ParamsError> {
        let shown = dir.display().to_string();
        if !network.starts_with(DEVNET_NAME_PREFIX) {
            return Err(ParamsError::WrongNetwork {
                dir: shown,
                network: network.to_owned(),
            });
        }
        let io = |source| ParamsError::Io {
            path: dir.display().to_string(),
            source,
        };
        fs::create_dir_all(dir).map_err(io)?;
        let marker = dir.join(MARKER);
        if !marker.exists() {
            if fs::read_dir(dir).map_err(io)?.next().is_some() {
                return Err(ParamsError::ForeignFolder { dir: shown });
            }
            write_renamed(
                &marker,
                b"Parameters from a public seed. Anybody can forge proofs with them. \
                  Never use them elsewhere.\n",
            )?;
        }
        let params = Self {
            dir: dir.to_owned(),
        };
        for which in Which::ALL {
            let path = params.path(which, "vk")?;
            if fs::read(&path).ok().as_deref() != Some(which.verifying_key()) {
                write_renamed(&path, which.verifying_key())?;
            }
            write_renamed(
                &params.path(which, "meta")?,
                format!("{{\"sector_size\":{SECTOR_BYTES}}}").as_bytes(),
            )?;
        }
        Ok(params)
    }

    /// True if the proving parameters of `which` are there and complete.
    pub fn present(&self, which: Which) -> Result<bool, ParamsError> {
        let path = self.path(which, "params")?;
        Ok(fs::metadata(path).is_ok_and(|m| m.len() == which.params_bytes()))
    }

    /// Makes the proving parameters of `which` unless they are there. PoRep: 1.04 GiB, one to three
    /// minutes on two cores, 1.2 GiB of memory. An interrupted run leaves only a temporary file,
    /// which the next run overwrites.
    pub fn ensure(
        &self,
        which: Which,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(), ParamsError> {
        if self.present(which)? {
            return Ok(());
        }
        let (params, vk) = self.generate(which, progress)?;
        if vk != which.verifying_key() {
            return Err(ParamsError::Mismatch {
                which: which.name(),
            });
        }
        let path = self.path(which, "params")?;
        let temporary = path.with_extension("params.partial");
        let io = |source| ParamsError::Io {
            path: temporary.display().to_string(),
            source,
        };
        let mut file = BufWriter::with_capacity(1 << 20, fs::File::create(&temporary).map_err(io)?);
        params
            .write(&mut file)
            .and_then(|()| file.flush())
            .and_then(|()| file.get_ref().sync_all())
            .map_err(io)?;
        fs::rename(&temporary, &path).map_err(io)
    }

    /// Generates the parameters and the bytes of their verifying key, without writing anything.
    fn generate(
        &self,
        which: Which,
        progress: &(dyn Fn(Progress) + Sync),
    ) -> Result<(groth16::Crs, Vec<u8>), ParamsError> {
        let fail = |reason: String| ParamsError::Generate {
            which: which.name(),
            reason,
        };
        let mut rng = ChaCha20Rng::from_seed(Sha256::digest(which.seed_label()).into());
        let report = |done, total| progress(Progress { which, done, total });
        let crs = Circuit::blank(which)
            .and_then(|circuit| groth16::generate(&circuit, &mut rng, &report))
            .map_err(|error| fail(format!("{error:#}")))?;
        let mut vk = Vec::new();
        crs.vk
            .write(&mut vk)
            .map_err(|error| fail(error.to_string()))?;
        Ok((crs, vk))
    }

    fn path(&self, which: Which, extension: &str) -> Result<PathBuf, ParamsError> {
        let id = circuits::cache_identifier(which).map_err(|error| ParamsError::Generate {
            which: which.name(),
            reason: format!("{error:#}"),
        })?;
        Ok(self.dir.join(format!("v28-{id}.{extension}")))
    }

    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }
}

/// Writes a small file atomically: it is complete or absent.
fn write_renamed(path: &Path, bytes: &[u8]) -> Result<(), ParamsError> {
    let io = |source| ParamsError::Io {
        path: path.display().to_string(),
        source,
    };
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    fs::write(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path))
        .map_err(io)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn development_parameters_refuse_any_network_but_the_devnet() {
        let dir = tempfile::tempdir().unwrap();
        for network in ["mainnet", "calibrationnet", ""] {
            let error = DevnetParams::open(dir.path(), network).unwrap_err();
            assert!(matches!(error, ParamsError::WrongNetwork { .. }), "{error}");
        }
    }

    #[test]
    fn development_parameters_refuse_a_folder_with_other_files() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("v28-something.params"), "x").unwrap();
        let error = DevnetParams::open(dir.path(), "sealyard-devnet-1").unwrap_err();
        assert!(
            matches!(error, ParamsError::ForeignFolder { .. }),
            "{error}"
        );
    }

    #[test]
    fn window_parameters_are_deterministic_and_match_their_committed_key() {
        let dir = tempfile::tempdir().unwrap();
        let params = DevnetParams::open(dir.path(), "sealyard-devnet-1").unwrap();
        assert!(!params.present(Which::Window).unwrap());
        let last = std::sync::Mutex::new(None);
        params
            .ensure(Which::Window, &|p| *last.lock().unwrap() = Some(p))
            .unwrap();
        assert!(params.present(Which::Window).unwrap());
        let last = last.lock().unwrap().unwrap();
        assert_eq!(last.done, last.total, "progress must end at its total");
    }
}
