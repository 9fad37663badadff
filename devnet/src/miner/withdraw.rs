//! WithdrawBalance: pays only funds that are not locked, pledged, deposited or owed, and only to
//! the owner.

use fil_actor_miner_state::v19::{State, WithdrawBalanceParams, WithdrawBalanceReturn};
use fvm_shared::{clock::ChainEpoch, error::ExitCode};

use super::{Abort, decode, repay_debts};
use crate::state::{Chain, OWNER_ID};

pub fn withdraw(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    params: &[u8],
) -> Result<Vec<u8>, Abort> {
    let WithdrawBalanceParams { amount_requested } = decode(params)?;
    if amount_requested.is_negative() {
        return Err(Abort::argument("a negative amount cannot be withdrawn"));
    }
    if !state.early_terminations.is_empty() {
        return Err(Abort {
            code: ExitCode::USR_FORBIDDEN,
            reason: "early terminations are pending".into(),
        });
    }
    state
        .unlock_vested_funds(&chain.blocks, epoch)
        .map_err(Abort::state)?;
    repay_debts(chain, state)?;
    let available = state
        .get_available_balance(&chain.world.miner_balance)
        .map_err(Abort::state)?;
    let amount_withdrawn = amount_requested.min(available);
    chain.world.miner_balance -= &amount_withdrawn;
    chain.world.accounts.entry(OWNER_ID).or_default().balance += &amount_withdrawn;
    fvm_ipld_encoding::to_vec(&WithdrawBalanceReturn { amount_withdrawn }).map_err(Abort::state)
}
