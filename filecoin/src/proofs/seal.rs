//! Interactive PoRep of committed-capacity sectors: PC1, PC2, (seed), C1, C2, verify, finalize.
//!
//! Steps pass their results on as JSON bytes, so that each can run in its own process, and C2 on
//! another machine.

use std::{fs, io::Read, path::PathBuf};

use filecoin_proofs_api::{
    PaddedBytesAmount, PieceInfo, SectorId, UnpaddedBytesAmount,
    seal::{self, SealCommitPhase1Output, SealPreCommitPhase1Output, SealPreCommitPhase2Output},
};
use serde::{Deserialize, Serialize};

use super::ProofError;
use crate::{
    hash::Hash32,
    sector::{SealProof, SectorIdent},
};

/// Locations of a sector's files on its machine, during and after sealing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct SealFiles {
    /// The replica, one sector size.
    pub sealed: PathBuf,
    /// Layers and trees while sealing (up to 14.1 sector sizes), a small auxiliary cache
    /// afterwards.
    pub cache: PathBuf,
}

impl SealFiles {
    #[must_use]
    pub fn under(folder: &std::path::Path) -> Self {
        Self {
            sealed: folder.join("sealed"),
            cache: folder.join("cache"),
        }
    }
}

/// The commitments of PC2. `pc2` is the library's own output, needed again by C1.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Sealed {
    pub comm_r: Hash32,
    pub comm_d: Hash32,
    pub pc2: serde_json::Value,
}

/// The pieces of a sector without data: a single piece of zeros that fills it.
fn zero_pieces(proof: SealProof) -> Result<Vec<PieceInfo>, ProofError> {
    let unpadded = UnpaddedBytesAmount::from(PaddedBytesAmount(proof.sector_bytes()));
    let zeros = std::io::repeat(0).take(u64::from(unpadded));
    seal::generate_piece_commitment(proof.prover(), zeros, unpadded)
        .map(|piece| vec![piece])
        .map_err(ProofError::failed("piece commitment"))
}

/// CommD of a sector without data. Reads a whole sector of zeros: instant for test sizes, minutes
/// for 32 GiB.
pub fn zero_comm_d(proof: SealProof) -> Result<Hash32, ProofError> {
    seal::compute_comm_d(proof.prover(), &zero_pieces(proof)?)
        .map(Hash32)
        .map_err(ProofError::failed("CommD"))
}

/// PC1: the sequential SDR layers. Starts afresh: files of an earlier try are removed. Returns JSON
/// for [`pc2`].
pub fn pc1(sector: &SectorIdent, files: &SealFiles, ticket: Hash32) -> Result<Vec<u8>, ProofError> {
    let step = "PC1";
    let io = |error: std::io::Error| ProofError::Failed {
        step,
        reason: format!("preparing {}: {error}", files.cache.display()),
    };
    if files.cache.exists() {
        fs::remove_dir_all(&files.cache).map_err(io)?;
    }
    fs::create_dir_all(&files.cache).map_err(io)?;
    fs::File::create(&files.sealed).map_err(io)?;
    let out = seal::seal_pre_commit_phase1(
        sector.proof.prover(),
        &files.cache,
        std::path::Path::new("/dev/zero"),
        &files.sealed,
        sector.prover_id(),
        SectorId::from(sector.number),
        ticket.0,
        &zero_pieces(sector.proof)?,
    )
    .map_err(ProofError::failed(step))?;
    encode(step, &out)
}

/// PC2: trees and the replica. Needs the same [`SealFiles`] as PC1, on the same machine.
pub fn pc2(files: &SealFiles, pc1_output: &[u8]) -> Result<Sealed, ProofError> {
    let step = "PC2";
    let pc1: SealPreCommitPhase1Output = decode(step, pc1_output)?;
    let out = seal::seal_pre_commit_phase2(pc1, &files.cache, &files.sealed)
        .map_err(ProofError::failed(step))?;
    let pc2 = serde_json::to_value(&out).map_err(|error| ProofError::Failed {
        step,
        reason: error.to_string(),
    })?;
    Ok(Sealed {
        comm_r: Hash32(out.comm_r),
        comm_d: Hash32(out.comm_d),
        pc2,
    })
}

/// Inputs of C1 besides the files.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct C1Input {
    pub ticket: Hash32,
    pub seed: Hash32,
    pub pc2: serde_json::Value,
}

/// C1: vanilla proofs for the challenges that the seed selects. The output is 100 KB for 2 KiB
/// sectors, tens of MB for 32 GiB.
pub fn c1(sector: &SectorIdent, files: &SealFiles, input: &C1Input) -> Result<Vec<u8>, ProofError> {
    let step = "C1";
    let pc2: SealPreCommitPhase2Output =
        serde_json::from_value(input.pc2.clone()).map_err(|error| ProofError::Rejected {
            step,
            reason: format!("PC2 output: {error}"),
        })?;
    let out = seal::seal_commit_phase1(
        &files.cache,
        &files.sealed,
        sector.prover_id(),
        SectorId::from(sector.number),
        input.ticket.0,
        input.seed.0,
        pc2,
        &zero_pieces(sector.proof)?,
    )
    .map_err(ProofError::failed(step))?;
    encode(step, &out)
}

/// C2: the Groth16 proof (192 bytes for test sizes, 1,920 for 32 and 64 GiB). Needs the PoRep
/// parameters but no sector files.
pub fn c2(sector: &SectorIdent, c1_output: &[u8]) -> Result<Vec<u8>, ProofError> {
    let step = "C2";
    let c1: SealCommitPhase1Output = decode(step, c1_output)?;
    seal::seal_commit_phase2(c1, sector.prover_id(), SectorId::from(sector.number))
        .map(|out| out.proof)
        .map_err(ProofError::failed(step))
}

/// Deletes the layers and large trees; the rest is enough for WindowPoSt.
pub fn finalize(files: &SealFiles) -> Result<(), ProofError> {
    seal::clear_cache(&files.cache).map_err(ProofError::failed("finalize"))
}

/// The statement that a PoRep proof proves.
#[derive(Clone, Copy, Debug)]
pub struct SealClaim {
    pub sector: SectorIdent,
    pub comm_r: Hash32,
    pub comm_d: Hash32,
    pub ticket: Hash32,
    pub seed: Hash32,
}

/// Verifies a PoRep proof. Takes milliseconds and needs only the verifying key. A malformed proof
/// is `Ok(false)`, like a wrong one; `Err` means that this machine could not decide (no verifying
/// key).
pub fn verify_seal(claim: &SealClaim, proof: &[u8]) -> Result<bool, ProofError> {
    let result = seal::verify_seal(
        claim.sector.proof.prover(),
        claim.comm_r.0,
        claim.comm_d.0,
        claim.sector.prover_id(),
        SectorId::from(claim.sector.number),
        claim.ticket.0,
        claim.seed.0,
        proof,
    );
    super::post::undecided_only_without_keys("verify seal", result)
}

fn encode<T: Serialize>(step: &'static str, value: &T) -> Result<Vec<u8>, ProofError> {
    serde_json::to_vec(value).map_err(|error| ProofError::Failed {
        step,
        reason: error.to_string(),
    })
}

fn decode<T: for<'a> Deserialize<'a>>(step: &'static str, bytes: &[u8]) -> Result<T, ProofError> {
    serde_json::from_slice(bytes).map_err(|error| ProofError::Rejected {
        step,
        reason: format!("the previous step's output is unreadable: {error}"),
    })
}
