//! A sector's identity, size and proof type. Numbers are the protocol's own (`RegisteredSealProof`,
//! FIP-0059 family).

use filecoin_proofs_api::{RegisteredPoStProof, RegisteredSealProof};
use fvm_shared::sector as chain;
use serde::{Deserialize, Serialize};

/// Interactive stacked-DRG PoRep, version 1.1, by sector size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "i64", into = "i64")]
pub enum SealProof {
    Drg2KiB,
    Drg8MiB,
    Drg512MiB,
    Drg32GiB,
    Drg64GiB,
}

#[derive(Debug, thiserror::Error)]
pub enum UnknownProof {
    #[error(
        "Sealyard cannot seal with proof {0}; it seals with 5 (2 KiB), 6 (8 MiB), 7 (512 MiB), \
         8 (32 GiB), 9 (64 GiB)"
    )]
    Number(i64),
    #[error("no sector has {0} bytes; sizes are 2 KiB, 8 MiB, 512 MiB, 32 GiB and 64 GiB")]
    Size(u64),
}

impl SealProof {
    const ALL: [Self; 5] = [
        Self::Drg2KiB,
        Self::Drg8MiB,
        Self::Drg512MiB,
        Self::Drg32GiB,
        Self::Drg64GiB,
    ];

    pub fn for_size(bytes: u64) -> Result<Self, UnknownProof> {
        Self::ALL
            .into_iter()
            .find(|p| p.sector_bytes() == bytes)
            .ok_or(UnknownProof::Size(bytes))
    }

    /// Raw bytes of one sector.
    #[must_use]
    pub const fn sector_bytes(self) -> u64 {
        match self {
            Self::Drg2KiB => 2 << 10,
            Self::Drg8MiB => 8 << 20,
            Self::Drg512MiB => 512 << 20,
            Self::Drg32GiB => 32 << 30,
            Self::Drg64GiB => 64 << 30,
        }
    }

    /// The protocol's `RegisteredSealProof` number.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Drg2KiB => 5,
            Self::Drg8MiB => 6,
            Self::Drg512MiB => 7,
            Self::Drg32GiB => 8,
            Self::Drg64GiB => 9,
        }
    }

    #[must_use]
    pub fn prover(self) -> RegisteredSealProof {
        match self {
            Self::Drg2KiB => RegisteredSealProof::StackedDrg2KiBV1_1,
            Self::Drg8MiB => RegisteredSealProof::StackedDrg8MiBV1_1,
            Self::Drg512MiB => RegisteredSealProof::StackedDrg512MiBV1_1,
            Self::Drg32GiB => RegisteredSealProof::StackedDrg32GiBV1_1,
            Self::Drg64GiB => RegisteredSealProof::StackedDrg64GiBV1_1,
        }
    }

    #[must_use]
    pub fn window_prover(self) -> RegisteredPoStProof {
        match self {
            Self::Drg2KiB => RegisteredPoStProof::StackedDrgWindow2KiBV1_2,
            Self::Drg8MiB => RegisteredPoStProof::StackedDrgWindow8MiBV1_2,
            Self::Drg512MiB => RegisteredPoStProof::StackedDrgWindow512MiBV1_2,
            Self::Drg32GiB => RegisteredPoStProof::StackedDrgWindow32GiBV1_2,
            Self::Drg64GiB => RegisteredPoStProof::StackedDrgWindow64GiBV1_2,
        }
    }

    #[must_use]
    pub fn chain(self) -> chain::RegisteredSealProof {
        chain::RegisteredSealProof::from(self.number())
    }

    #[must_use]
    pub fn chain_window(self) -> chain::RegisteredPoStProof {
        match self {
            Self::Drg2KiB => chain::RegisteredPoStProof::StackedDRGWindow2KiBV1P1,
            Self::Drg8MiB => chain::RegisteredPoStProof::StackedDRGWindow8MiBV1P1,
            Self::Drg512MiB => chain::RegisteredPoStProof::StackedDRGWindow512MiBV1P1,
            Self::Drg32GiB => chain::RegisteredPoStProof::StackedDRGWindow32GiBV1P1,
            Self::Drg64GiB => chain::RegisteredPoStProof::StackedDRGWindow64GiBV1P1,
        }
    }
}

impl TryFrom<i64> for SealProof {
    type Error = UnknownProof;

    fn try_from(number: i64) -> Result<Self, Self::Error> {
        Self::ALL
            .into_iter()
            .find(|p| p.number() == number)
            .ok_or(UnknownProof::Number(number))
    }
}

impl From<SealProof> for i64 {
    fn from(proof: SealProof) -> Self {
        proof.number()
    }
}

/// One sector of one miner actor; `miner` is the actor id (1000 for f01000).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SectorIdent {
    pub miner: u64,
    pub number: u64,
    pub proof: SealProof,
}

impl SectorIdent {
    /// The prover id that proofs are bound to: the payload of the miner's ID address (LEB128),
    /// zero-padded to 32 bytes.
    #[must_use]
    pub fn prover_id(&self) -> [u8; 32] {
        let mut id = [0; 32];
        for (slot, byte) in id.iter_mut().zip(leb128(self.miner)) {
            *slot = byte;
        }
        id
    }
}

/// Unsigned LEB128, as in address payloads.
fn leb128(mut value: u64) -> impl Iterator<Item = u8> {
    let mut done = false;
    std::iter::from_fn(move || {
        if done {
            return None;
        }
        let low = u8::try_from(value & 0x7f).unwrap_or_default();
        value >>= 7;
        done = value == 0;
        Some(if done { low } else { low | 0x80 })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prover_id_is_the_address_payload() {
        let sector = SectorIdent {
            miner: 1000,
            number: 1,
            proof: SealProof::Drg2KiB,
        };
        assert_eq!(sector.prover_id()[..3], [0xe8, 0x07, 0x00]);
    }

    #[test]
    fn proof_sizes_and_numbers_match_the_protocol() {
        for proof in SealProof::ALL {
            assert_eq!(SealProof::for_size(proof.sector_bytes()).unwrap(), proof);
            assert_eq!(SealProof::try_from(proof.number()).unwrap(), proof);
            assert_eq!(
                u64::from(proof.prover().sector_size()),
                proof.sector_bytes()
            );
        }
        assert!(SealProof::for_size(4096).is_err());
    }
}
