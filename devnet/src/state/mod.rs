//! The chain's data, in memory and on disk: one state per epoch, tipsets, messages. `chain` and
//! `miner` change it; it knows neither.

mod blocks;
mod genesis;
mod store;
mod world;

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
};

use anyhow::{Context, Result, ensure};
use fil_actor_miner_state::v19::State;
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_encoding::CborStore;
use fvm_shared::econ::TokenAmount;
use sealyard_filecoin::economics::SOLSTICE;

pub use blocks::{Blocks, block_cid};
pub use genesis::OWNER_ID;
pub use world::{Account, MessageRecord, Snapshot, TipsetRecord, World};

use crate::config::Config;
use store::Store;

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
    pub epoch_of_block: HashMap<String, i64>,
    /// The worlds of the latest epochs, as far back as a reorganisation may go.
    pub past: VecDeque<World>,
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
        let (miner_root, world) = genesis::genesis(&config, &policy, &blocks)?;
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

    /// Must be called whenever tipsets were replaced.
    pub fn index_blocks(&mut self) {
        let cids = self
            .tipsets
            .iter()
            .filter(|t| !t.null)
            .map(|t| (t.cid.to_string(), t.epoch));
        self.epoch_of_block = cids.collect();
    }

    /// The state as it is now, to be recorded as that after `epoch`.
    pub fn snapshot(&self, epoch: i64, miner_root: cid::Cid) -> Snapshot {
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
        self.store.commit(
            &self.world,
            &self.blocks,
            &self.tipsets,
            &self.snapshots,
            &self.messages,
        )
    }

    /// Plans network version 29: `epoch` is the last one with version 28. The past does not change.
    pub fn upgrade_after(&mut self, epoch: i64) -> Result<()> {
        let head = self.head();
        ensure!(
            epoch >= head && self.config.network_version(head) < SOLSTICE,
            "the chain is at epoch {head}; an upgrade can only be planned after it, and once"
        );
        self.config.solstice_epoch = Some(epoch);
        self.store.save_config(&self.config)
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
        self.blocks
            .get_cbor(&snapshot.miner_root)?
            .context("the miner's state is missing from the block store")
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

    /// How many reorganisations branched off before `epoch`.
    #[must_use]
    pub fn forks_before(&self, epoch: i64) -> usize {
        self.world
            .forks
            .iter()
            .filter(|fork| **fork < epoch)
            .count()
    }

    /// 32 bytes from the network's seed, a purpose and an epoch.
    pub fn digest(&self, purpose: &str, epoch: i64) -> [u8; 32] {
        let text = format!(
            "{}/{}/{purpose}/{epoch}",
            self.config.network_name, self.config.seed
        );
        let hash = blake2b_simd::Params::new()
            .hash_length(32)
            .hash(text.as_bytes());
        hash.as_bytes().try_into().unwrap_or([0; 32])
    }

    /// Actor id of one of the node's wallets. Only ID addresses are known: a network of one node
    /// needs no robust ones.
    pub fn wallet_id(&self, address: &str) -> Option<u64> {
        let id = address
            .get(2..)
            .filter(|_| address.starts_with("f0") || address.starts_with("t0"))?
            .parse()
            .ok()?;
        self.world.accounts.contains_key(&id).then_some(id)
    }

    /// Moves `amount` from the miner's balance to the burnt funds.
    pub fn burn_from_miner(&mut self, amount: &TokenAmount) {
        self.world.miner_balance -= amount;
        self.world.burnt += amount;
    }
}
