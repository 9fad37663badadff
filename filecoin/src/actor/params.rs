//! CBOR parameters of the miner actor's methods.

use fil_actor_miner_state::v19::{
    CompactCommD, DeclareFaultsParams, DeclareFaultsRecoveredParams, FaultDeclaration,
    PoStPartition, PreCommitSectorBatchParams2, ProveCommitSectors3Params, RecoveryDeclaration,
    SectorActivationManifest, SectorPreCommitInfo, SubmitWindowedPoStParams,
    TerminateSectorsParams, TerminationDeclaration, WithdrawBalanceParams,
};
use fvm_ipld_bitfield::BitField;
use fvm_ipld_encoding::{RawBytes, to_vec};
use fvm_shared::{econ::TokenAmount, randomness::Randomness, sector::PoStProof};

use super::sealed_cid;
use crate::{hash::Hash32, sector::SealProof};

#[derive(Debug, thiserror::Error)]
#[error("cannot encode message parameters: {0}")]
pub struct ParamsError(String);

fn encode<T: serde::Serialize>(params: &T) -> Result<Vec<u8>, ParamsError> {
    to_vec(params).map_err(|error| ParamsError(error.to_string()))
}

fn bits(numbers: &[u64]) -> Result<BitField, ParamsError> {
    BitField::try_from_bits(numbers.iter().copied()).map_err(|error| ParamsError(error.to_string()))
}

/// One committed-capacity sector to pre-commit.
#[derive(Clone, Debug)]
pub struct PreCommit {
    pub proof: SealProof,
    pub number: u64,
    pub comm_r: Hash32,
    pub ticket_epoch: i64,
    pub expiration: i64,
}

/// PreCommitSectorBatch2 for sectors without data.
pub fn pre_commit(sectors: &[PreCommit]) -> Result<Vec<u8>, ParamsError> {
    let sectors = sectors
        .iter()
        .map(|s| SectorPreCommitInfo {
            seal_proof: s.proof.chain(),
            sector_number: s.number,
            sealed_cid: sealed_cid(s.comm_r),
            seal_rand_epoch: s.ticket_epoch,
            deal_ids: Vec::new(),
            expiration: s.expiration,
            unsealed_cid: CompactCommD::empty(),
        })
        .collect();
    encode(&PreCommitSectorBatchParams2 { sectors })
}

#[derive(Clone, Debug)]
pub struct ProveCommit {
    pub number: u64,
    pub proof: Vec<u8>,
}

/// ProveCommitSectors3 with one proof per sector. It fails as a whole if any sector cannot be
/// activated.
pub fn prove_commit(sectors: &[ProveCommit]) -> Result<Vec<u8>, ParamsError> {
    let manifests = sectors
        .iter()
        .map(|s| SectorActivationManifest {
            sector_number: s.number,
            pieces: Vec::new(),
        })
        .collect();
    encode(&ProveCommitSectors3Params {
        sector_activations: manifests,
        sector_proofs: sectors
            .iter()
            .map(|s| RawBytes::new(s.proof.clone()))
            .collect(),
        aggregate_proof: RawBytes::default(),
        aggregate_proof_type: None,
        require_activation_success: true,
        require_notification_success: true,
    })
}

/// One partition's WindowPoSt.
#[derive(Clone, Debug)]
pub struct PostSubmission<'a> {
    pub deadline: u64,
    pub partition: u64,
    /// Sectors that could not be proven; the chain marks them faulty.
    pub skipped: &'a [u64],
    pub seal_proof: SealProof,
    pub proof: &'a [u8],
    pub commit_epoch: i64,
    pub commit_randomness: Hash32,
}

pub fn submit_window_post(post: &PostSubmission<'_>) -> Result<Vec<u8>, ParamsError> {
    encode(&SubmitWindowedPoStParams {
        deadline: post.deadline,
        partitions: vec![PoStPartition {
            index: post.partition,
            skipped: bits(post.skipped)?,
        }],
        proofs: vec![PoStProof {
            post_proof: post.seal_proof.chain_window(),
            proof_bytes: post.proof.to_vec(),
        }],
        chain_commit_epoch: post.commit_epoch,
        chain_commit_rand: Randomness(post.commit_randomness.0.to_vec()),
    })
}

/// Sectors of one partition of one deadline.
#[derive(Clone, Debug)]
pub struct SectorsAt<'a> {
    pub deadline: u64,
    pub partition: u64,
    pub sectors: &'a [u64],
}

pub fn declare_faults(at: &SectorsAt<'_>) -> Result<Vec<u8>, ParamsError> {
    let faults = vec![FaultDeclaration {
        deadline: at.deadline,
        partition: at.partition,
        sectors: bits(at.sectors)?,
    }];
    encode(&DeclareFaultsParams { faults })
}

pub fn declare_faults_recovered(at: &SectorsAt<'_>) -> Result<Vec<u8>, ParamsError> {
    let recoveries = vec![RecoveryDeclaration {
        deadline: at.deadline,
        partition: at.partition,
        sectors: bits(at.sectors)?,
    }];
    encode(&DeclareFaultsRecoveredParams { recoveries })
}

pub fn terminate_sectors(at: &SectorsAt<'_>) -> Result<Vec<u8>, ParamsError> {
    let terminations = vec![TerminationDeclaration {
        deadline: at.deadline,
        partition: at.partition,
        sectors: bits(at.sectors)?,
    }];
    encode(&TerminateSectorsParams { terminations })
}

/// `amount` in attoFIL.
pub fn withdraw_balance(amount: &TokenAmount) -> Result<Vec<u8>, ParamsError> {
    encode(&WithdrawBalanceParams {
        amount_requested: amount.clone(),
    })
}
