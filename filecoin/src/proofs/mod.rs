//! Makes and verifies real proofs with `filecoin-proofs-api`. Each function's comment says when to
//! call it and what to watch for.
//!
//! The proofs library reads its settings once, from the environment. A process that proves or
//! verifies must therefore be started with [`environment`]; [`check_environment`] says whether it
//! was.

use std::{ffi::OsString, path::Path};

mod post;
mod seal;

pub use post::{
    PublicReplica, Replica, VanillaOutcome, VanillaProof, folder_name, sector_folder,
    sector_of_folder, verify_window_post, window_post, window_vanilla,
};
pub use seal::{
    C1Input, SealClaim, SealFiles, Sealed, c1, c2, finalize, pc1, pc2, verify_seal, zero_comm_d,
};

/// Settings that must be in the environment before the first call into the proofs library.
const PARAMETER_CACHE: &str = "FIL_PROOFS_PARAMETER_CACHE";

#[derive(Debug, thiserror::Error)]
pub enum ProofError {
    /// The inputs are at fault, not the machine: retrying the same step cannot help.
    #[error("{step}: {reason}")]
    Rejected { step: &'static str, reason: String },
    /// Files of this sector are missing or damaged.
    #[error("sector {sector}: {reason}")]
    FaultySector { sector: u64, reason: String },
    #[error("{step}: {reason}")]
    Failed { step: &'static str, reason: String },
}

impl ProofError {
    fn failed(step: &'static str) -> impl FnOnce(anyhow::Error) -> Self {
        move |error| Self::Failed {
            step,
            reason: format!("{error:#}"),
        }
    }
}

/// The environment for a process that proves or verifies with the parameters in `params_dir`.
#[must_use]
pub fn environment(params_dir: &Path) -> Vec<(OsString, OsString)> {
    // The library concatenates the second one without a separator, so it needs the trailing slash.
    let mut caches = params_dir.as_os_str().to_owned();
    caches.push("/");
    vec![
        (PARAMETER_CACHE.into(), params_dir.into()),
        ("FIL_PROOFS_CACHE_DIR".into(), caches),
    ]
}

/// True if this process was started with the [`environment`] of the same folder.
#[must_use]
pub fn check_environment(params_dir: &Path) -> bool {
    environment(params_dir)
        .into_iter()
        .all(|(key, value)| std::env::var_os(key).is_some_and(|v| v == value))
}
