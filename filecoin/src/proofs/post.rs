//! WindowPoSt in two parts: a cheap vanilla proof per sector on the machine that stores it, then
//! one SNARK per partition on any machine.

use std::{collections::BTreeMap, panic, path::PathBuf};

use filecoin_proofs_api::{
    PrivateReplicaInfo, PublicReplicaInfo, SectorId,
    post::{
        generate_fallback_sector_challenges, generate_single_vanilla_proof,
        generate_window_post_with_vanilla, verify_window_post as verify,
    },
};
use serde::{Deserialize, Serialize};

use super::{ProofError, SealFiles};
use crate::{hash::Hash32, sector::SectorIdent};

/// A stored sector, as the machine that stores it sees it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Replica {
    pub sector: SectorIdent,
    pub comm_r: Hash32,
    pub files: SealFiles,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct VanillaProof {
    pub sector: u64,
    #[serde(with = "base64_bytes")]
    pub proof: Vec<u8>,
}

/// The vanilla proofs, and the sectors that could not be proven, each with the reason.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct VanillaOutcome {
    pub proofs: Vec<VanillaProof>,
    pub faulty: Vec<(u64, String)>,
}

/// Reads the challenged leaves of each replica. A replica that cannot be proven (missing, truncated
/// or damaged) is reported faulty; the others are still proven.
#[must_use]
pub fn window_vanilla(replicas: &[Replica], randomness: Hash32) -> VanillaOutcome {
    let mut outcome = VanillaOutcome::default();
    for replica in replicas {
        match vanilla_of(replica, randomness) {
            Ok(proof) => outcome.proofs.push(VanillaProof {
                sector: replica.sector.number,
                proof,
            }),
            Err(reason) => outcome.faulty.push((replica.sector.number, reason)),
        }
    }
    outcome
}

fn vanilla_of(replica: &Replica, randomness: Hash32) -> Result<Vec<u8>, String> {
    let kind = replica.sector.proof.window_prover();
    let id = SectorId::from(replica.sector.number);
    let prover = replica.sector.prover_id();
    // In window proofs 1.2 a challenge depends on the randomness and the sector number, not on the
    // position in the partition.
    let challenges =
        generate_fallback_sector_challenges(kind, &randomness.as_field_element().0, &[id], prover)
            .map_err(|error| format!("{error:#}"))?;
    let challenge = challenges
        .get(&id)
        .ok_or("no challenge was drawn for this sector")?;
    let private = PrivateReplicaInfo::new(
        kind,
        replica.comm_r.0,
        replica.files.cache.clone(),
        replica.files.sealed.clone(),
    );
    // The proofs library panics on a replica overwritten with bytes that are not field elements.
    panic::catch_unwind(panic::AssertUnwindSafe(|| {
        generate_single_vanilla_proof(kind, id, &private, challenge)
    }))
    .map_err(|_| "the replica holds bytes that no sealing could have written".to_owned())?
    .map_err(|error| format!("{error:#}"))
}

/// The SNARK over all vanilla proofs of one partition, in sector order.
pub fn window_post(
    sector: &SectorIdent,
    vanilla: &[VanillaProof],
    randomness: Hash32,
) -> Result<Vec<u8>, ProofError> {
    let step = "WindowPoSt";
    let mut sorted: Vec<&VanillaProof> = vanilla.iter().collect();
    sorted.sort_by_key(|v| v.sector);
    let bytes: Vec<Vec<u8>> = sorted.into_iter().map(|v| v.proof.clone()).collect();
    let kind = sector.proof.window_prover();
    let proofs = generate_window_post_with_vanilla(
        kind,
        &randomness.as_field_element().0,
        sector.prover_id(),
        &bytes,
    )
    .map_err(ProofError::failed(step))?;
    match <[_; 1]>::try_from(proofs) {
        Ok([(_, proof)]) => Ok(proof),
        Err(other) => Err(ProofError::Failed {
            step,
            reason: format!("expected one proof, got {}", other.len()),
        }),
    }
}

/// The chain's data about a stored sector.
#[derive(Clone, Copy, Debug)]
pub struct PublicReplica {
    pub number: u64,
    pub comm_r: Hash32,
}

/// Verifies one partition's (or, on chain, one message's) WindowPoSt. The prover id is not bound by
/// the proof itself: derive the randomness per miner.
pub fn verify_window_post(
    sector: &SectorIdent,
    replicas: &[PublicReplica],
    randomness: Hash32,
    proof: &[u8],
) -> Result<bool, ProofError> {
    let kind = sector.proof.window_prover();
    let public: BTreeMap<SectorId, PublicReplicaInfo> = replicas
        .iter()
        .map(|r| {
            (
                SectorId::from(r.number),
                PublicReplicaInfo::new(kind, r.comm_r.0),
            )
        })
        .collect();
    let result = verify(
        &randomness.as_field_element().0,
        &[(kind, proof)],
        &public,
        sector.prover_id(),
    );
    undecided_only_without_keys("verify WindowPoSt", result)
}

/// The library reports malformed proofs as errors ("not on curve", wrong length). To a verifier
/// they are simply wrong proofs; only a missing verifying key leaves the question open.
pub(super) fn undecided_only_without_keys(
    step: &'static str,
    result: anyhow::Result<bool>,
) -> Result<bool, ProofError> {
    match result {
        Ok(verdict) => Ok(verdict),
        Err(error) => {
            let reason = format!("{error:#}");
            if reason.contains("No cached parameters") || reason.contains("verifying key") {
                Err(ProofError::Failed { step, reason })
            } else {
                Ok(false)
            }
        }
    }
}

/// The folder of a sector in a machine's store.
#[must_use]
pub fn sector_folder(store: &std::path::Path, sector: &SectorIdent) -> PathBuf {
    store.join(folder_name(sector.miner, sector.number))
}

/// The name of a sector's folder.
#[must_use]
pub fn folder_name(miner: u64, number: u64) -> String {
    format!("s-f0{miner}-{number}")
}

/// Miner and number of the sector to which a folder belongs, by the folder's name. `None` if the
/// name is not a sector's.
#[must_use]
pub fn sector_of_folder(name: &str) -> Option<(u64, u64)> {
    let (miner, number) = name.strip_prefix("s-f0")?.split_once('-')?;
    let found = (miner.parse().ok()?, number.parse().ok()?);
    (folder_name(found.0, found.1) == name).then_some(found)
}

mod base64_bytes {
    use base64::{Engine, prelude::BASE64_STANDARD};
    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&BASE64_STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        BASE64_STANDARD
            .decode(String::deserialize(deserializer)?)
            .map_err(serde::de::Error::custom)
    }
}
