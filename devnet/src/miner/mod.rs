//! The miner actor: our own method bodies on the protocol's state machine
//! (`fil_actor_miner_state::v19`).

mod cron;
mod faults;
mod post;
mod pre_commit;
mod prove_commit;
mod randomness;
mod withdraw;

use anyhow::Result;
use base64::{Engine, prelude::BASE64_STANDARD};
use fil_actor_miner_state::v19::State;
use fil_actors_shared::v19::reward::FilterEstimate;
use fvm_shared::{bigint::BigInt, clock::ChainEpoch, error::ExitCode, sector::SectorSize};
use sealyard_filecoin::{actor::Method, economics::NetworkEstimate, rpc::Message};

pub use cron::{award, cron};
pub use post::proof_due;
pub use randomness::{Source, draw};

use crate::state::Chain;

/// The result of a message.
pub struct Outcome {
    pub exit_code: i64,
    pub return_base64: String,
    pub gas_used: i64,
    pub reason: Option<String>,
}

/// The reason why a method aborts. The state stays as it was.
#[derive(Debug)]
pub struct Abort {
    code: ExitCode,
    reason: String,
}

impl Abort {
    fn argument(reason: impl Into<String>) -> Self {
        Self {
            code: ExitCode::USR_ILLEGAL_ARGUMENT,
            reason: reason.into(),
        }
    }

    fn funds(reason: impl Into<String>) -> Self {
        Self {
            code: ExitCode::USR_INSUFFICIENT_FUNDS,
            reason: reason.into(),
        }
    }

    fn not_found(reason: impl Into<String>) -> Self {
        Self {
            code: ExitCode::USR_NOT_FOUND,
            reason: reason.into(),
        }
    }

    fn state(error: impl std::fmt::Display) -> Self {
        Self {
            code: ExitCode::USR_ILLEGAL_STATE,
            reason: error.to_string(),
        }
    }
}

fn decode<T: serde::de::DeserializeOwned>(params: &[u8]) -> Result<T, Abort> {
    fvm_ipld_encoding::from_slice(params).map_err(|error| Abort {
        code: ExitCode::USR_SERIALIZATION,
        reason: format!("parameters: {error}"),
    })
}

fn sector_size(chain: &Chain) -> Result<SectorSize, Abort> {
    chain
        .config
        .seal_proof()
        .map_err(Abort::state)?
        .chain()
        .sector_size()
        .map_err(Abort::state)
}

/// The network's estimates at `epoch`, as inputs for the protocol's formulas.
pub fn estimate(chain: &Chain, epoch: ChainEpoch) -> NetworkEstimate {
    let constant = |value: BigInt| FilterEstimate {
        position: value << 128,
        velocity: BigInt::from(0),
    };
    let reward = chain.config.reward().unwrap_or_default();
    let power = BigInt::from(chain.config.other_power) + &chain.world.qa_power;
    NetworkEstimate {
        reward: constant(reward.atto().clone()),
        baseline: power.clone(),
        power: constant(power),
        circulating: chain.circulating(),
        ramp_start: 0,
        ramp_epochs: 0,
        epoch,
    }
}

/// Gas that a message uses: a table based on FIP-0100's figures.
#[must_use]
pub fn gas_of(message: &Message) -> i64 {
    match Method::from_number(message.method) {
        Some(Method::PreCommitSectorBatch2) => 16_700_000,
        Some(Method::ProveCommitSectors3) => 267_000_000,
        Some(Method::SubmitWindowedPoSt) => 48_000_000,
        Some(Method::DeclareFaults | Method::DeclareFaultsRecovered) => 30_000_000,
        Some(Method::TerminateSectors) => 60_000_000,
        Some(Method::WithdrawBalance) => 10_000_000,
        Some(Method::Send) | None => 500_000,
    }
}

/// Executes a message: value first, then the method. A method that aborts costs gas but changes
/// nothing else.
pub fn execute(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    message: &Message,
) -> Outcome {
    let gas_used = gas_of(message);
    let (saved_state, saved_world) = (state.clone(), chain.world.clone());
    let result = transfer(chain, message).and_then(|()| call(chain, state, epoch, message));
    match result {
        Ok(bytes) => Outcome {
            exit_code: 0,
            return_base64: BASE64_STANDARD.encode(bytes),
            gas_used,
            reason: None,
        },
        Err(abort) => {
            *state = saved_state;
            chain.world = saved_world;
            let exit_code = i64::from(abort.code.value());
            Outcome {
                exit_code,
                return_base64: String::new(),
                gas_used,
                reason: Some(abort.reason),
            }
        }
    }
}

fn transfer(chain: &mut Chain, message: &Message) -> Result<(), Abort> {
    let from = chain
        .wallet_id(&message.from.to_string())
        .ok_or_else(|| Abort::not_found("sender"))?;
    let wallet = chain.world.accounts.entry(from).or_default();
    if wallet.balance < message.value {
        return Err(Abort::funds(format!(
            "{} holds less than the value sent",
            message.from
        )));
    }
    wallet.balance -= &message.value;
    match message.to.id() {
        Ok(id) if id == chain.config.miner_id => chain.world.miner_balance += &message.value,
        Ok(id) => chain.world.accounts.entry(id).or_default().balance += &message.value,
        Err(_) => {
            return Err(Abort::not_found(format!(
                "{} is not an actor of this network",
                message.to
            )));
        }
    }
    Ok(())
}

fn call(
    chain: &mut Chain,
    state: &mut State,
    epoch: ChainEpoch,
    message: &Message,
) -> Result<Vec<u8>, Abort> {
    let method = Method::from_number(message.method)
        .ok_or_else(|| Abort::argument(format!("no method {}", message.method)))?;
    if method == Method::Send {
        return Ok(Vec::new());
    }
    if message.to.id().ok() != Some(chain.config.miner_id) {
        return Err(Abort::not_found(format!("{} has no methods", message.to)));
    }
    let params = BASE64_STANDARD
        .decode(&message.params)
        .map_err(Abort::state)?;
    let out = match method {
        Method::Send => Ok(Vec::new()),
        Method::PreCommitSectorBatch2 => pre_commit::pre_commit(chain, state, epoch, &params),
        Method::ProveCommitSectors3 => prove_commit::prove_commit(chain, state, epoch, &params),
        Method::SubmitWindowedPoSt => post::submit(chain, state, epoch, &params),
        Method::DeclareFaults => faults::declare(chain, state, epoch, &params),
        Method::DeclareFaultsRecovered => faults::declare_recovered(chain, state, epoch, &params),
        Method::TerminateSectors => faults::terminate(chain, state, epoch, &params),
        Method::WithdrawBalance => withdraw::withdraw(chain, state, epoch, &params),
    }?;
    state
        .check_balance_invariants(&chain.world.miner_balance)
        .map_err(Abort::state)?;
    Ok(out)
}

/// Pays the miner's debts, which must come before it may commit, recover or withdraw.
fn repay_debts(chain: &mut Chain, state: &mut State) -> Result<(), Abort> {
    let debt = state
        .repay_debts(&chain.world.miner_balance)
        .map_err(|error| Abort::funds(error.to_string()))?;
    chain.burn_from_miner(&debt);
    Ok(())
}
