//! ProveCommitSectors3: verifies each PoRep proof and activates the sectors, unproven until their
//! first WindowPoSt.

use fil_actor_miner_state::v19::{
    ProveCommitSectors3Params, SectorOnChainInfo, SectorOnChainInfoFlags,
    SectorPreCommitOnChainInfo, State, max_prove_commit_duration, qa_power_for_sector,
};
use fvm_shared::{clock::ChainEpoch, econ::TokenAmount, sector::SectorSize};
use sealyard_filecoin::{
    actor::{RandomnessTag, comm_r_from_cid, miner_entropy},
    economics::SOLSTICE,
    proofs::{SealClaim, verify_seal, zero_comm_d},
    sector::{SealProof, SectorIdent},
};

use super::{Abort, Source, decode, draw, estimate, sector_size};
use crate::state::Chain;

pub fn prove_commit(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    params: &[u8],
) -> Result<Vec<u8>, Abort> {
    let params: ProveCommitSectors3Params = decode(params)?;
    if params.sector_activations.is_empty()
        || params.sector_activations.len() != params.sector_proofs.len()
    {
        return Err(Abort::argument("one proof per sector is needed"));
    }
    let numbers: Vec<u64> = params
        .sector_activations
        .iter()
        .map(|s| s.sector_number)
        .collect();
    let pre_commits = state
        .get_precommitted_sectors(&chain.blocks, &numbers)
        .map_err(|error| Abort::not_found(error.to_string()))?;
    for (pre_commit, proof) in pre_commits.iter().zip(&params.sector_proofs) {
        verify(chain, epoch, pre_commit, proof.bytes())?;
    }
    let size = sector_size(chain)?;
    activate(chain, state, epoch, size, pre_commits)?;
    Ok(Vec::new())
}

fn verify(
    chain: &Chain,
    epoch: ChainEpoch,
    pre_commit: &SectorPreCommitOnChainInfo,
    proof: &[u8],
) -> Result<(), Abort> {
    let info = &pre_commit.info;
    let number = info.sector_number;
    let seed_epoch = pre_commit.pre_commit_epoch + chain.policy.pre_commit_challenge_delay;
    if epoch <= seed_epoch {
        return Err(Abort {
            code: fvm_shared::error::ExitCode::USR_FORBIDDEN,
            reason: format!("sector {number}: too early"),
        });
    }
    let window = max_prove_commit_duration(&chain.policy, info.seal_proof).unwrap_or_default();
    if epoch > pre_commit.pre_commit_epoch + window {
        return Err(Abort::argument(format!(
            "sector {number}: its PreCommit of epoch {} has expired",
            pre_commit.pre_commit_epoch
        )));
    }
    let entropy = miner_entropy(chain.config.miner_id);
    let sector = SectorIdent {
        miner: chain.config.miner_id,
        number,
        proof: SealProof::try_from(i64::from(info.seal_proof)).map_err(Abort::state)?,
    };
    let seal = RandomnessTag::SealRandomness.number();
    let interactive = RandomnessTag::InteractiveSealChallengeSeed.number();
    let claim = SealClaim {
        sector,
        comm_r: comm_r_from_cid(&info.sealed_cid).map_err(Abort::state)?,
        comm_d: zero_comm_d(sector.proof).map_err(Abort::state)?,
        ticket: draw(chain, Source::Tickets, seal, info.seal_rand_epoch, &entropy),
        seed: draw(chain, Source::Beacon, interactive, seed_epoch, &entropy),
    };
    if verify_seal(&claim, proof).map_err(Abort::state)? {
        Ok(())
    } else {
        Err(Abort::argument(format!(
            "sector {number}: its PoRep proof does not verify"
        )))
    }
}

/// Sectors as they are recorded when they become active.
struct Activated {
    sectors: Vec<SectorOnChainInfo>,
    /// Of all sectors: what their PreCommits deposited, and what they pledge now.
    deposits: TokenAmount,
    pledge: TokenAmount,
}

impl Activated {
    fn price(
        chain: &Chain,
        epoch: ChainEpoch,
        size: SectorSize,
        pre_commits: Vec<SectorPreCommitOnChainInfo>,
    ) -> Self {
        let estimate = estimate(chain, epoch);
        let mut activated = Self {
            sectors: Vec::with_capacity(pre_commits.len()),
            deposits: TokenAmount::default(),
            pledge: TokenAmount::default(),
        };
        let mut flags = SectorOnChainInfoFlags::SIMPLE_QA_POWER;
        if chain.config.network_version(epoch) >= SOLSTICE {
            flags |= SectorOnChainInfoFlags::FULL_QA_POWER;
        }
        for pre_commit in pre_commits {
            let info = pre_commit.info;
            let mut sector = SectorOnChainInfo {
                sector_number: info.sector_number,
                seal_proof: info.seal_proof,
                sealed_cid: info.sealed_cid,
                activation: epoch,
                expiration: info.expiration,
                power_base_epoch: epoch,
                flags,
                ..SectorOnChainInfo::default()
            };
            let power = qa_power_for_sector(size, &sector);
            sector.initial_pledge = estimate.initial_pledge(&power);
            sector.daily_fee = estimate.daily_fee(&power);
            activated.deposits += &pre_commit.pre_commit_deposit;
            activated.pledge += &sector.initial_pledge;
            activated.sectors.push(sector);
        }
        activated
    }
}

fn activate(
    chain: &Chain,
    state: &mut State,
    epoch: ChainEpoch,
    size: SectorSize,
    pre_commits: Vec<SectorPreCommitOnChainInfo>,
) -> Result<(), Abort> {
    let Activated {
        sectors,
        deposits,
        pledge,
    } = Activated::price(chain, epoch, size, pre_commits);
    let numbers: Vec<u64> = sectors.iter().map(|s| s.sector_number).collect();
    let partition_sectors = state
        .get_info(&chain.blocks)
        .map_err(Abort::state)?
        .window_post_partition_sectors;
    state
        .put_sectors(&chain.blocks, sectors.clone())
        .map_err(Abort::state)?;
    state
        .delete_precommitted_sectors(&chain.blocks, &numbers)
        .map_err(Abort::state)?;
    state
        .assign_sectors_to_deadlines(
            &chain.policy,
            &chain.blocks,
            epoch,
            sectors,
            partition_sectors,
            size,
        )
        .map_err(Abort::state)?;
    state
        .add_pre_commit_deposit(&-deposits)
        .map_err(Abort::state)?;
    let unlocked = state
        .get_unlocked_balance(&chain.world.miner_balance)
        .map_err(Abort::state)?;
    if unlocked < pledge {
        return Err(Abort::funds(format!(
            "the miner has {unlocked} FIL unlocked, the pledge is {pledge} FIL"
        )));
    }
    state.add_initial_pledge(&pledge).map_err(Abort::state)
}
