//! CommR as the CID that the chain stores.

use cid::Cid;
use fvm_shared::commcid::{FIL_COMMITMENT_SEALED, POSEIDON_BLS12_381_A1_FC1};

use crate::hash::Hash32;

#[derive(Debug, thiserror::Error)]
#[error("{0} is not the CID of a sealed sector")]
pub struct NotACommitment(Cid);

/// The CID of a CommR. It cannot fail: any 32 bytes have one.
#[must_use]
pub fn sealed_cid(comm_r: Hash32) -> Cid {
    let hash =
        cid::multihash::Multihash::wrap(POSEIDON_BLS12_381_A1_FC1, &comm_r.0).unwrap_or_default();
    Cid::new_v1(FIL_COMMITMENT_SEALED, hash)
}

pub fn comm_r_from_cid(cid: &Cid) -> Result<Hash32, NotACommitment> {
    let hash = cid.hash();
    if cid.codec() != FIL_COMMITMENT_SEALED || hash.code() != POSEIDON_BLS12_381_A1_FC1 {
        return Err(NotACommitment(*cid));
    }
    Hash32::from_slice(hash.digest()).map_err(|_| NotACommitment(*cid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commitment_survives_a_round_trip() {
        let comm_r = Hash32([7; 32]);
        let cid = sealed_cid(comm_r);
        assert!(cid.to_string().starts_with("bagboea4b5abc"), "{cid}");
        assert_eq!(comm_r_from_cid(&cid).unwrap(), comm_r);
        assert!(fil_actor_miner_state::v19::is_sealed_sector(&cid));
    }
}
