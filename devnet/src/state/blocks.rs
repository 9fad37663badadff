//! A block store in memory that tracks which blocks are not on disk yet.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
};

use anyhow::Result;
use cid::Cid;
use fvm_ipld_blockstore::Blockstore;

#[derive(Default)]
pub struct Blocks {
    all: Mutex<HashMap<Cid, Vec<u8>>>,
    unsaved: Mutex<Vec<Cid>>,
}

impl Blocks {
    pub fn from_saved(blocks: HashMap<Cid, Vec<u8>>) -> Self {
        Self {
            all: Mutex::new(blocks),
            unsaved: Mutex::default(),
        }
    }

    /// Blocks put since the last call.
    pub fn take_unsaved(&self) -> Vec<(Cid, Vec<u8>)> {
        let cids =
            std::mem::take(&mut *self.unsaved.lock().unwrap_or_else(PoisonError::into_inner));
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        cids.into_iter()
            .filter_map(|cid| all.get(&cid).map(|bytes| (cid, bytes.clone())))
            .collect()
    }
}

impl Blockstore for Blocks {
    fn get(&self, k: &Cid) -> Result<Option<Vec<u8>>> {
        Ok(self
            .all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(k)
            .cloned())
    }

    fn put_keyed(&self, k: &Cid, block: &[u8]) -> Result<()> {
        let new = self
            .all
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(*k, block.to_vec())
            .is_none();
        if new {
            self.unsaved
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(*k);
        }
        Ok(())
    }
}

/// The on-chain CID of a piece of CBOR: dag-cbor, blake2b-256.
#[must_use]
pub fn block_cid(bytes: &[u8]) -> Cid {
    const DAG_CBOR: u64 = 0x71;
    const BLAKE2B_256: u64 = 0xb220;
    let digest = blake2b_simd::Params::new().hash_length(32).hash(bytes);
    let hash = cid::multihash::Multihash::wrap(BLAKE2B_256, digest.as_bytes()).unwrap_or_default();
    Cid::new_v1(DAG_CBOR, hash)
}
