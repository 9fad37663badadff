//! The chain: one state per epoch, tipsets, the mempool, and the passing of epochs.

mod blocks;
mod epoch;
mod messages;
mod reorg;
mod store;
mod world;

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
};

use anyhow::{Context, Result};
use fil_actor_miner_state::v18::State;
use fil_actors_shared::v18::runtime::Policy;
use fvm_ipld_encoding::CborStore;
use fvm_shared::econ::TokenAmount;

pub use blocks::{Blocks, block_cid};
pub use messages::{BASE_FEE, MessageRecord, PushError};
pub use world::{Account, Snapshot, TipsetRecord, World};

use crate::{config::Config, miner};
use store::Store;

pub const OWNER_ID: u64 = 100;
pub const WORKER_ID: u64 = 101;

/// A chain. Its state is in memory, and every change is on disk before the request is answered.
pub struct Chain {
    pub config: Config,
    pub policy: Policy,
    pub world: World,
    pub blocks: Blocks,
    /// By epoch; index 0 is genesis.
    pub tipsets: Vec<TipsetRecord>,
    /// State after an epoch, for epochs in which it changed, ascending.
    pub snapshots: Vec<Snapshot>,
    /// By message CID text.
    pub messages: HashMap<String, MessageRecord>,
    epoch_of_block: HashMap<String, i64>,
    /// The worlds of the latest epochs, as far back as a reorganisation may go.
    past: VecDeque<World>,
    store: Store,
}

impl Chain {
    /// Opens the chain in `data_dir`, or creates it there with its genesis.
    pub fn open(data_dir: &Path, config: Config) -> Result<Self> {
        let (store, saved) = Store::open(data_dir)?;
        let policy = config.policy();
        if let Some(saved) = saved {
            let config = saved.config;
            let mut chain = Self {
                policy: config.policy(),
                config,
                world: saved.world,
                blocks: saved.blocks,
                tipsets: saved.tipsets,
                snapshots: saved.snapshots,
                messages: saved.messages,
                epoch_of_block: HashMap::new(),
                past: VecDeque::new(),
                store,
            };
            chain.index_blocks();
            return Ok(chain);
        }
        let blocks = Blocks::default();
        let (miner_root, world) = miner::genesis(&config, &policy, &blocks)?;
        let mut chain = Self {
            config,
            policy,
            world,
            blocks,
            tipsets: Vec::new(),
            snapshots: Vec::new(),
            messages: HashMap::new(),
            epoch_of_block: HashMap::new(),
            past: VecDeque::new(),
            store,
        };
        chain.snapshots.push(chain.snapshot(0, miner_root));
        chain.tipsets.push(TipsetRecord::genesis(&chain.config));
        chain.index_blocks();
        chain.store.save_config(&chain.config)?;
        chain.commit()?;
        Ok(chain)
    }

    fn index_blocks(&mut self) {
        let cids = self.tipsets.iter().filter(|t| !t.null).map(|t| (t.cid.to_string(), t.epoch));
        self.epoch_of_block = cids.collect();
    }

    fn snapshot(&self, epoch: i64, miner_root: cid::Cid) -> Snapshot {
        Snapshot {
            epoch,
            miner_root,
            miner_balance: self.world.miner_balance.clone(),
            raw_power: self.world.raw_power.clone(),
            qa_power: self.world.qa_power.clone(),
        }
    }

    /// Writes all changes in one transaction. No request is answered before this returns.
    pub fn commit(&mut self) -> Result<()> {
        self.store.commit(&self.world, &self.blocks, &self.tipsets, &self.snapshots, &self.messages)
    }

    #[must_use]
    pub fn head(&self) -> i64 {
        self.world.epoch
    }

    /// The tipset at `epoch`, or the latest one before it that was not null.
    #[must_use]
    pub fn tipset(&self, epoch: i64) -> Option<&TipsetRecord> {
        let at = usize::try_from(epoch.min(self.head())).ok()?;
        self.tipsets.get(..=at)?.iter().rev().find(|t| !t.null)
    }

    #[must_use]
    pub fn epoch_of(&self, block: &str) -> Option<i64> {
        self.epoch_of_block.get(block).copied()
    }

    /// The state after `epoch`.
    #[must_use]
    pub fn state_after(&self, epoch: i64) -> Option<&Snapshot> {
        let behind = self.snapshots.partition_point(|s| s.epoch <= epoch);
        self.snapshots.get(behind.checked_sub(1)?)
    }

    pub fn miner_at(&self, snapshot: &Snapshot) -> Result<State> {
        self.blocks.get_cbor(&snapshot.miner_root)?.context("the miner's state is missing from the block store")
    }

    /// The miner's newest state.
    pub fn miner(&self) -> Result<State> {
        self.miner_at(self.snapshots.last().context("no state yet")?)
    }

    /// A constant: the supply does not follow what the network locks or burns.
    #[must_use]
    pub fn circulating(&self) -> TokenAmount {
        TokenAmount::from_whole(self.config.circulating_supply)
    }
}
