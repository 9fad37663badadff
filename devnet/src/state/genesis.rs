//! The start of a network: one miner that has sealed nothing.

use std::collections::BTreeMap;

use anyhow::Result;
use cid::Cid;
use fil_actor_miner_state::v19::{MinerInfo, State};
use fil_actors_shared::v19::runtime::Policy;
use fvm_ipld_encoding::CborStore;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};

use super::{
    Blocks,
    world::{Account, BASE_FEE, World},
};
use crate::config::Config;

pub const OWNER_ID: u64 = 100;
const WORKER_ID: u64 = 101;

/// The CID of the miner's state at genesis, and the world around it.
pub fn genesis(config: &Config, policy: &Policy, blocks: &Blocks) -> Result<(Cid, World)> {
    let proof = config.seal_proof()?.chain_window();
    let error = |error: fil_actors_shared::v19::ActorError| anyhow::anyhow!("genesis: {error}");
    let control = config.control_addresses.clone();
    let info = MinerInfo::new(
        OWNER_ID,
        WORKER_ID,
        control.clone(),
        b"sealyard-devnet".to_vec(),
        Vec::new(),
        proof,
    )
    .map_err(error)?;
    let info_cid = blocks.put_cbor(&info, multihash_codetable::Code::Blake2b256)?;
    let state = State::new(policy, blocks, info_cid, 0, 0).map_err(error)?;
    let root = blocks.put_cbor(&state, multihash_codetable::Code::Blake2b256)?;
    let start = || TokenAmount::from_whole(config.initial_balance);
    let accounts: BTreeMap<u64, Account> = [OWNER_ID, WORKER_ID]
        .into_iter()
        .chain(control)
        .map(|id| {
            (
                id,
                Account {
                    balance: start(),
                    nonce: 0,
                },
            )
        })
        .collect();
    let world = World {
        epoch: 0,
        miner_balance: start(),
        raw_power: BigInt::from(0),
        qa_power: BigInt::from(0),
        accounts,
        mempool: Vec::new(),
        sent: BTreeMap::new(),
        burnt: TokenAmount::default(),
        token_secret: hex::encode(rand::random::<[u8; 32]>()),
        base_fee: BASE_FEE,
        forks: Vec::new(),
    };
    Ok((root, world))
}
