//! SubmitWindowedPoSt: every proof is verified at once. (Mainnet accepts proofs optimistically and
//! lets others dispute them; a devnet has no others.)

use fil_actor_miner_state::v19::{Deadline, PowerPair, Sectors, State, SubmitWindowedPoStParams};
use fvm_ipld_bitfield::BitField;
use fvm_shared::clock::ChainEpoch;
use sealyard_filecoin::{
    actor::{RandomnessTag, comm_r_from_cid, miner_entropy},
    proofs::{PublicReplica, verify_window_post},
    sector::SectorIdent,
};

use super::{Abort, Source, decode, draw, sector_size};
use crate::state::{Blocks, Chain};

pub fn submit(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    params: &[u8],
) -> Result<Vec<u8>, Abort> {
    let mut params: SubmitWindowedPoStParams = decode(params)?;
    let info = state.deadline_info(&chain.policy, epoch);
    if params.deadline != info.index || !info.is_open() {
        return Err(Abort::argument(format!(
            "deadline {} is not open at epoch {epoch}; {} is",
            params.deadline, info.index
        )));
    }
    check_commitment(chain, epoch, info.challenge, &params)?;
    let [proof] = params.proofs.as_slice() else {
        return Err(Abort::argument("exactly one proof is needed"));
    };
    let size = sector_size(chain)?;
    let sectors = Sectors::load(&chain.blocks, &state.sectors).map_err(Abort::state)?;
    let mut deadlines = state.load_deadlines(&chain.blocks).map_err(Abort::state)?;
    let mut deadline = deadlines
        .load_deadline(&chain.blocks, params.deadline)
        .map_err(Abort::state)?;
    let fault_expiration = info.last() + chain.policy.fault_max_age;
    let result = deadline
        .record_proven_sectors(
            &chain.blocks,
            &sectors,
            size,
            info.quant_spec(),
            fault_expiration,
            &mut params.partitions,
        )
        .map_err(|error| Abort::argument(format!("{error:#}")))?;
    verify(
        chain,
        info.challenge,
        &sectors,
        &result.sectors,
        &result.ignored_sectors,
        &proof.proof_bytes,
    )?;
    deadlines
        .update_deadline(&chain.policy, &chain.blocks, params.deadline, &deadline)
        .map_err(Abort::state)?;
    state
        .save_deadlines(&chain.blocks, deadlines)
        .map_err(Abort::state)?;
    add_power(chain, &result.power_delta);
    Ok(Vec::new())
}

fn check_commitment(
    chain: &Chain,
    epoch: ChainEpoch,
    challenge: ChainEpoch,
    params: &SubmitWindowedPoStParams,
) -> Result<(), Abort> {
    let committed = params.chain_commit_epoch;
    if committed < challenge || committed >= epoch {
        return Err(Abort::argument(format!(
            "chain commitment of epoch {committed} is not between {challenge} and {epoch}"
        )));
    }
    let expected = draw(
        chain,
        Source::Tickets,
        RandomnessTag::PoStChainCommit.number(),
        committed,
        &[],
    );
    if params.chain_commit_rand.0 != expected.0 {
        return Err(Abort::argument("the chain commitment is of another chain"));
    }
    Ok(())
}

fn verify(
    chain: &Chain,
    challenge: ChainEpoch,
    sectors: &Sectors<'_, Blocks>,
    proven: &BitField,
    ignored: &BitField,
    proof: &[u8],
) -> Result<(), Abort> {
    let infos = sectors
        .load_for_proof(proven, ignored)
        .map_err(Abort::state)?;
    let mut replicas = Vec::with_capacity(infos.len());
    for info in &infos {
        replicas.push(PublicReplica {
            number: info.sector_number,
            comm_r: comm_r_from_cid(&info.sealed_cid).map_err(Abort::state)?,
        });
    }
    let Some(first) = infos.first() else {
        return Err(Abort::argument(
            "no sector of these partitions can be proven",
        ));
    };
    let seal_proof = i64::from(first.seal_proof)
        .try_into()
        .map_err(Abort::state)?;
    let sector = SectorIdent {
        miner: chain.config.miner_id,
        number: first.sector_number,
        proof: seal_proof,
    };
    let tag = RandomnessTag::WindowedPoStChallengeSeed.number();
    let randomness = draw(
        chain,
        Source::Beacon,
        tag,
        challenge,
        &miner_entropy(chain.config.miner_id),
    );
    if verify_window_post(&sector, &replicas, randomness, proof).map_err(Abort::state)? {
        Ok(())
    } else {
        Err(Abort::argument("the WindowPoSt does not verify"))
    }
}

/// Adds to the power that counts in elections.
pub fn add_power(chain: &mut Chain, delta: &PowerPair) {
    chain.world.raw_power += &delta.raw;
    chain.world.qa_power += &delta.qa;
}

/// True when a partition of the deadline open at `epoch` has sectors to prove and no proof yet.
pub fn proof_due(chain: &Chain, epoch: ChainEpoch) -> anyhow::Result<bool> {
    let state = chain.miner()?;
    let info = state.deadline_info(&chain.policy, epoch);
    if !info.is_open() {
        return Ok(false);
    }
    let deadlines = state
        .load_deadlines(&chain.blocks)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let deadline: Deadline = deadlines
        .load_deadline(&chain.blocks, info.index)
        .map_err(|error| anyhow::anyhow!("{error}"))?;
    let mut due = false;
    deadline.for_each(&chain.blocks, |index, partition| {
        let provable = !partition.active_sectors().is_empty()
            || !partition.unproven.is_empty()
            || !partition.recoveries.is_empty();
        due |= provable && !deadline.partitions_posted.get(index);
        Ok(())
    })?;
    Ok(due)
}
