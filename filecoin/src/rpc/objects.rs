//! Reads parts of a miner's state by CID. The object of a CID never changes, so a deadline with the
//! same CID need not be read again.

use base64::{Engine, prelude::BASE64_STANDARD};
use cid::Cid;
use fil_actor_miner_state::v19::Deadline;
use fvm_ipld_encoding::from_slice;
use fvm_shared::{address::Address, bigint::BigInt, econ::TokenAmount};
use serde::de::DeserializeOwned;
use serde_json::json;

use super::{BitFieldJson, CidJson, Node, Numbers, Partition, RpcError, TipSetKey};

/// The multihash code of BLAKE2b-256, which the chain uses for its objects' CIDs.
const BLAKE2B_256: u64 = 0xb220;
/// More sectors than any miner has. A node that names more is not believed.
const MOST_SECTORS: u64 = 1 << 24;
const READ: &str = "Filecoin.ChainReadObj";

/// A deadline's totals, as its object records them.
#[derive(Clone, Debug)]
pub struct DeadlineTotals {
    /// Quality-adjusted bytes of its live sectors.
    pub live_qa_power: BigInt,
    /// Fee of its sectors per day (FIP-0100).
    pub daily_fee: TokenAmount,
}

/// Sectors of one deadline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeadlineSectors {
    /// Not terminated.
    pub live: Numbers,
    /// Live, proven and not faulty.
    pub active: Numbers,
    pub faulty: Numbers,
}

impl DeadlineSectors {
    /// `None` if the partitions name more sectors than there can be.
    #[must_use]
    pub fn of(partitions: &[Partition]) -> Option<Self> {
        let union = |of: fn(&Partition) -> &BitFieldJson| {
            let sets: Option<Vec<Numbers>> = partitions
                .iter()
                .map(|partition| Numbers::from_bits(of(partition)))
                .collect();
            sets.map(|sets| Numbers::union(&sets))
                .filter(|set| set.len() <= MOST_SECTORS)
        };
        Some(Self {
            live: union(|partition| &partition.live_sectors)?,
            active: union(|partition| &partition.active_sectors)?,
            faulty: union(|partition| &partition.faulty_sectors)?,
        })
    }
}

impl Node {
    /// The bytes of the object with this CID, verified against it.
    pub async fn read_object(&self, cid: &Cid) -> Result<Vec<u8>, RpcError> {
        let malformed = |reason: String| RpcError::Malformed {
            method: READ.to_owned(),
            reason,
        };
        let text: String = self.call(READ, json!([CidJson::from(*cid)])).await?;
        let bytes = BASE64_STANDARD
            .decode(text)
            .map_err(|error| malformed(error.to_string()))?;
        if cid.hash().code() != BLAKE2B_256 {
            return Err(malformed(format!(
                "{cid} does not name an object of the chain"
            )));
        }
        let digest = blake2b_simd::Params::new().hash_length(32).hash(&bytes);
        if digest.as_bytes() != cid.hash().digest() {
            return Err(malformed(format!(
                "{} bytes that are not those of {cid}",
                bytes.len()
            )));
        }
        Ok(bytes)
    }

    async fn object<T: DeserializeOwned>(&self, cid: &Cid) -> Result<T, RpcError> {
        let bytes = self.read_object(cid).await?;
        from_slice(&bytes).map_err(|error| RpcError::Malformed {
            method: READ.to_owned(),
            reason: format!("{cid}: {error}"),
        })
    }

    /// CIDs of a miner's deadlines, by index. `deadlines` comes from the miner's state.
    pub async fn deadline_cids(&self, deadlines: &Cid) -> Result<Vec<Cid>, RpcError> {
        let (due,) = self.object::<(Vec<Cid>,)>(deadlines).await?;
        Ok(due)
    }

    pub async fn deadline_totals(&self, deadline: &Cid) -> Result<DeadlineTotals, RpcError> {
        let deadline: Deadline = self.object(deadline).await?;
        Ok(DeadlineTotals {
            live_qa_power: deadline.live_power.qa,
            daily_fee: deadline.daily_fee,
        })
    }

    pub async fn deadline_sectors(
        &self,
        miner: &Address,
        index: u64,
        tsk: &TipSetKey,
    ) -> Result<DeadlineSectors, RpcError> {
        let partitions = self.partitions(miner, index, tsk).await?;
        DeadlineSectors::of(&partitions).ok_or_else(|| RpcError::Malformed {
            method: "Filecoin.StateMinerPartitions".to_owned(),
            reason: format!("deadline {index} names more sectors than there can be"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deadline_with_impossibly_many_sectors_is_refused() {
        let none = || BitFieldJson(vec![0]);
        let partition = |live: Vec<u64>| Partition {
            all_sectors: none(),
            faulty_sectors: none(),
            recovering_sectors: none(),
            live_sectors: BitFieldJson(live),
            active_sectors: none(),
        };
        let most = DeadlineSectors::of(&[partition(vec![7, MOST_SECTORS])]).unwrap();
        assert_eq!(most.live.len(), MOST_SECTORS);
        assert_eq!(
            DeadlineSectors::of(&[partition(vec![7, MOST_SECTORS + 1])]),
            None
        );
        assert_eq!(DeadlineSectors::of(&[partition(vec![0, 1 << 60])]), None);
        assert_eq!(DeadlineSectors::of(&[partition(vec![u64::MAX, 1])]), None);
    }
}
