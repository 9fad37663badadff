//! Miner events that no message causes: rewards, and the end of each deadline (builtin-actors v19
//! `handle_proving_deadline`).

use anyhow::Result;
use fil_actor_miner_state::v19::{State, daily_proof_fee_payable};
use fvm_shared::{clock::ChainEpoch, econ::TokenAmount};
use sealyard_filecoin::economics::{EPOCHS_PER_DAY, locked_part};

use super::{estimate, faults::process_early_terminations, post::add_power};
use crate::state::Chain;

/// Pays a block reward with its tips: three quarters vest, the rest is available at once.
pub fn award(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    reward: TokenAmount,
) -> Result<()> {
    chain.world.miner_balance += &reward;
    state.add_locked_funds(
        &chain.blocks,
        epoch,
        &locked_part(&reward),
        &chain.config.vesting(),
    )?;
    repay(chain, state, epoch)
}

/// Runs at every epoch; acts at the last epoch of each deadline.
pub fn cron(chain: &mut Chain, state: &mut State, epoch: ChainEpoch) -> Result<()> {
    if !state.deadline_cron_active || state.deadline_info(&chain.policy, epoch).last() != epoch {
        return Ok(());
    }
    let policy = chain.policy.clone();
    state.unlock_vested_funds(&chain.blocks, epoch)?;
    let lost_deposits = state.cleanup_expired_pre_commits(&policy, &chain.blocks, epoch)?;
    state.apply_penalty(&lost_deposits)?;

    let result = state.advance_deadline(&policy, &chain.blocks, epoch)?;
    add_power(chain, &result.power_delta);
    let estimate = estimate(chain, epoch);
    // Newly missed sectors pay no fee on their first day; sectors that were already faulty do.
    state.apply_penalty(&estimate.fault_fee(&result.previously_faulty_power.qa))?;
    let day_reward = estimate.expected_reward(&result.live_power.qa, EPOCHS_PER_DAY);
    state.apply_penalty(&daily_proof_fee_payable(
        &policy,
        &result.daily_fee,
        &day_reward,
    ))?;
    repay(chain, state, epoch)?;
    process_early_terminations(chain, state, epoch)?;
    state.deadline_cron_active = state.continue_deadline_cron();
    Ok(())
}

fn repay(chain: &mut Chain, state: &mut State, epoch: ChainEpoch) -> Result<()> {
    let (burn, _) = state.repay_partial_debt_in_priority_order(
        &chain.blocks,
        epoch,
        &chain.world.miner_balance,
    )?;
    chain.burn_from_miner(&burn);
    Ok(())
}
