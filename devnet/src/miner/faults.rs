//! DeclareFaults, DeclareFaultsRecovered and TerminateSectors.

use fil_actor_miner_state::v19::{
    DeadlineInfo, DeclareFaultsParams, DeclareFaultsRecoveredParams, PartitionSectorMap, Sectors,
    State, TerminateSectorsParams, TerminateSectorsReturn, new_deadline_info, qa_power_for_sector,
};
use fvm_ipld_bitfield::BitField;
use fvm_shared::{clock::ChainEpoch, econ::TokenAmount};
use sealyard_filecoin::economics::termination_fee;

use super::{Abort, decode, estimate, post::add_power, repay_debts, sector_size};
use crate::state::Chain;

/// The next opening of `deadline`. Aborts if it is too late to declare its faults.
fn declarable(
    chain: &Chain,
    state: &State,
    epoch: ChainEpoch,
    deadline: u64,
) -> Result<DeadlineInfo, Abort> {
    let start = state.current_proving_period_start(&chain.policy, epoch);
    let info = new_deadline_info(&chain.policy, start, deadline, epoch).next_not_elapsed();
    if info.fault_cutoff_passed() {
        return Err(Abort::argument(format!(
            "deadline {deadline} is too close: declare at least {} epochs before it opens",
            chain.policy.fault_declaration_cutoff
        )));
    }
    Ok(info)
}

fn map_of(partition: u64, sectors: BitField) -> Result<PartitionSectorMap, Abort> {
    let mut map = PartitionSectorMap::default();
    map.add(partition, sectors)
        .map_err(|error| Abort::argument(error.to_string()))?;
    Ok(map)
}

pub fn declare(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    params: &[u8],
) -> Result<Vec<u8>, Abort> {
    let DeclareFaultsParams { faults } = decode(params)?;
    let size = sector_size(chain)?;
    for fault in faults {
        let info = declarable(chain, state, epoch, fault.deadline)?;
        let sectors = Sectors::load(&chain.blocks, &state.sectors).map_err(Abort::state)?;
        let mut deadlines = state.load_deadlines(&chain.blocks).map_err(Abort::state)?;
        let mut deadline = deadlines
            .load_deadline(&chain.blocks, fault.deadline)
            .map_err(Abort::state)?;
        let expiration = info.last() + chain.policy.fault_max_age;
        let delta = deadline
            .record_faults(
                &chain.blocks,
                &sectors,
                size,
                info.quant_spec(),
                expiration,
                &mut map_of(fault.partition, fault.sectors)?,
            )
            .map_err(|error| Abort::argument(format!("{error:#}")))?;
        deadlines
            .update_deadline(&chain.policy, &chain.blocks, fault.deadline, &deadline)
            .map_err(Abort::state)?;
        state
            .save_deadlines(&chain.blocks, deadlines)
            .map_err(Abort::state)?;
        add_power(chain, &delta);
    }
    Ok(Vec::new())
}

pub fn declare_recovered(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    params: &[u8],
) -> Result<Vec<u8>, Abort> {
    let DeclareFaultsRecoveredParams { recoveries } = decode(params)?;
    let size = sector_size(chain)?;
    repay_debts(chain, state)?;
    for recovery in recoveries {
        declarable(chain, state, epoch, recovery.deadline)?;
        let sectors = Sectors::load(&chain.blocks, &state.sectors).map_err(Abort::state)?;
        let mut deadlines = state.load_deadlines(&chain.blocks).map_err(Abort::state)?;
        let mut deadline = deadlines
            .load_deadline(&chain.blocks, recovery.deadline)
            .map_err(Abort::state)?;
        deadline
            .declare_faults_recovered(
                &chain.blocks,
                &sectors,
                size,
                &mut map_of(recovery.partition, recovery.sectors)?,
            )
            .map_err(|error| Abort::argument(format!("{error:#}")))?;
        deadlines
            .update_deadline(&chain.policy, &chain.blocks, recovery.deadline, &deadline)
            .map_err(Abort::state)?;
        state
            .save_deadlines(&chain.blocks, deadlines)
            .map_err(Abort::state)?;
    }
    Ok(Vec::new())
}

pub fn terminate(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    params: &[u8],
) -> Result<Vec<u8>, Abort> {
    let TerminateSectorsParams { terminations } = decode(params)?;
    let size = sector_size(chain)?;
    for termination in terminations {
        let sectors = Sectors::load(&chain.blocks, &state.sectors).map_err(Abort::state)?;
        let quant = state.quant_spec_for_deadline(&chain.policy, termination.deadline);
        let mut deadlines = state.load_deadlines(&chain.blocks).map_err(Abort::state)?;
        let mut deadline = deadlines
            .load_deadline(&chain.blocks, termination.deadline)
            .map_err(Abort::state)?;
        let mut map = map_of(termination.partition, termination.sectors)?;
        let lost = deadline
            .terminate_sectors(
                &chain.policy,
                &chain.blocks,
                &sectors,
                epoch,
                &mut map,
                size,
                quant,
            )
            .map_err(|error| Abort::argument(format!("{error:#}")))?;
        state.early_terminations.set(termination.deadline);
        deadlines
            .update_deadline(
                &chain.policy,
                &chain.blocks,
                termination.deadline,
                &deadline,
            )
            .map_err(Abort::state)?;
        state
            .save_deadlines(&chain.blocks, deadlines)
            .map_err(Abort::state)?;
        add_power(chain, &-lost);
    }
    process_early_terminations(chain, state, epoch).map_err(Abort::state)?;
    fvm_ipld_encoding::to_vec(&TerminateSectorsReturn {
        done: state.early_terminations.is_empty(),
    })
    .map_err(Abort::state)
}

/// Charges termination fees for sectors that ended early, and releases their pledge.
pub fn process_early_terminations(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
) -> anyhow::Result<()> {
    let policy = chain.policy.clone();
    let (result, _) = state.pop_early_terminations(
        &policy,
        &chain.blocks,
        policy.addressed_partitions_max,
        policy.addressed_sectors_max,
    )?;
    if result.is_empty() {
        return Ok(());
    }
    let size = sector_size(chain).map_err(|abort| anyhow::anyhow!(abort.reason))?;
    let estimate = estimate(chain, epoch);
    let mut pledge = TokenAmount::default();
    let sectors = Sectors::load(&chain.blocks, &state.sectors)?;
    for (ended, numbers) in result.iter() {
        for info in sectors
            .load_sectors(numbers)
            .map_err(|error| anyhow::anyhow!("{error}"))?
        {
            let fault_fee = estimate.fault_fee(&qa_power_for_sector(size, &info));
            state.apply_penalty(&termination_fee(
                &info.initial_pledge,
                ended - info.activation,
                &fault_fee,
            ))?;
            pledge += &info.initial_pledge;
        }
    }
    state.add_initial_pledge(&-pledge)?;
    let (burn, _) = state.repay_partial_debt_in_priority_order(
        &chain.blocks,
        epoch,
        &chain.world.miner_balance,
    )?;
    chain.burn_from_miner(&burn);
    Ok(())
}
