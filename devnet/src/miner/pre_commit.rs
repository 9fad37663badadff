//! PreCommitSectorBatch2: deposits, sector numbers, and the start of the wait for the seed.

use fil_actor_miner_state::v19::{
    CollisionPolicy, PreCommitSectorBatchParams2, SectorPreCommitInfo, SectorPreCommitOnChainInfo,
    State, can_pre_commit_seal_proof, is_sealed_sector, max_prove_commit_duration, qa_power_max,
    seal_proof_sector_maximum_lifetime,
};
use fvm_ipld_bitfield::BitField;
use fvm_shared::{clock::ChainEpoch, econ::TokenAmount};

use super::{Abort, decode, estimate, repay_debts, sector_size};
use crate::state::Chain;

pub fn pre_commit(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    params: &[u8],
) -> Result<Vec<u8>, Abort> {
    let PreCommitSectorBatchParams2 { sectors } = decode(params)?;
    if sectors.is_empty() {
        return Err(Abort::argument("the batch is empty"));
    }
    for sector in &sectors {
        check(chain, epoch, sector)?;
    }
    repay_debts(chain, state)?;
    let size = sector_size(chain)?;
    let deposit = estimate(chain, epoch).pre_commit_deposit(&qa_power_max(size));
    let total = &deposit * u64::try_from(sectors.len()).map_err(Abort::state)?;
    let available = state
        .get_available_balance(&chain.world.miner_balance)
        .map_err(Abort::state)?;
    if available < total {
        return Err(Abort::funds(format!(
            "the miner has {available} FIL available, the deposits need {total} FIL"
        )));
    }
    record(chain, state, epoch, sectors, &deposit)?;
    state.add_pre_commit_deposit(&total).map_err(Abort::state)?;
    state.deadline_cron_active = true;
    Ok(Vec::new())
}

fn record(
    chain: &Chain,
    state: &mut State,
    epoch: ChainEpoch,
    sectors: Vec<SectorPreCommitInfo>,
    deposit: &TokenAmount,
) -> Result<(), Abort> {
    let numbers =
        BitField::try_from_bits(sectors.iter().map(|s| s.sector_number)).map_err(Abort::state)?;
    if numbers.len() != u64::try_from(sectors.len()).map_err(Abort::state)? {
        return Err(Abort::argument("a sector number occurs twice"));
    }
    state
        .allocate_sector_numbers(&chain.blocks, &numbers, CollisionPolicy::DenyCollisions)
        .map_err(|error| Abort::argument(error.to_string()))?;
    let mut clean_ups = Vec::new();
    for sector in &sectors {
        let window = max_prove_commit_duration(&chain.policy, sector.seal_proof)
            .ok_or_else(|| Abort::argument("seal proof"))?;
        clean_ups.push((
            epoch + window + chain.policy.expired_pre_commit_clean_up_delay,
            sector.sector_number,
        ));
    }
    let on_chain = sectors
        .into_iter()
        .map(|info| SectorPreCommitOnChainInfo {
            info,
            pre_commit_deposit: deposit.clone(),
            pre_commit_epoch: epoch,
        })
        .collect();
    state
        .put_precommitted_sectors(&chain.blocks, on_chain)
        .map_err(Abort::state)?;
    state
        .add_pre_commit_clean_ups(&chain.policy, &chain.blocks, clean_ups)
        .map_err(Abort::state)
}

fn check(chain: &Chain, epoch: ChainEpoch, sector: &SectorPreCommitInfo) -> Result<(), Abort> {
    let policy = &chain.policy;
    let number = sector.sector_number;
    if !can_pre_commit_seal_proof(policy, sector.seal_proof) {
        return Err(Abort::argument(format!(
            "sector {number}: seal proof {:?} is not accepted",
            sector.seal_proof
        )));
    }
    if !is_sealed_sector(&sector.sealed_cid) {
        return Err(Abort::argument(format!(
            "sector {number}: {} is no CommR",
            sector.sealed_cid
        )));
    }
    if sector.unsealed_cid.0.is_some() || !sector.deal_ids.is_empty() {
        return Err(Abort::argument(format!(
            "sector {number}: this network takes committed-capacity sectors only"
        )));
    }
    if sector.seal_rand_epoch >= epoch
        || sector.seal_rand_epoch < epoch - policy.max_pre_commit_randomness_lookback
    {
        return Err(Abort::argument(format!(
            "sector {number}: ticket of epoch {} is not within {} epochs before {epoch}",
            sector.seal_rand_epoch, policy.max_pre_commit_randomness_lookback
        )));
    }
    check_expiration(chain, epoch, sector)
}

/// Checks the expiration as if the sector were activated at the last legal moment.
fn check_expiration(
    chain: &Chain,
    epoch: ChainEpoch,
    sector: &SectorPreCommitInfo,
) -> Result<(), Abort> {
    let policy = &chain.policy;
    let activation =
        max_prove_commit_duration(policy, sector.seal_proof).map_or(epoch, |window| epoch + window);
    let lifetime = seal_proof_sector_maximum_lifetime(sector.seal_proof).unwrap_or_default();
    let earliest = activation + policy.min_sector_expiration;
    let latest = (epoch + policy.max_sector_expiration_extension).min(activation + lifetime);
    if !(earliest..=latest).contains(&sector.expiration) {
        let number = sector.sector_number;
        return Err(Abort::argument(format!(
            "sector {number}: expiration {} is not between {earliest} and {latest}",
            sector.expiration
        )));
    }
    Ok(())
}
