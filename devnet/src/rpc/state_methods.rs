//! State methods about the network, and whole actor states.

use fil_actors_shared::v19::reward::FilterEstimate;
use fvm_shared::{bigint::BigInt, econ::TokenAmount};
use sealyard_filecoin::{
    actor::ids,
    economics::{NetworkEstimate, SOLSTICE},
    rpc::{
        ActorState, CirculatingSupply, Claim, MinerPower, MinerState, PowerState, RewardState,
        Smoothed,
    },
};
use serde_json::{Value, json};

use super::{Params, RpcFailure};
use crate::{
    miner,
    state::{Chain, block_cid},
};

type Answer = Result<Value, RpcFailure>;

pub fn call(chain: &Chain, name: &str, params: &Params) -> Option<Answer> {
    Some(match name {
        "StateNetworkName" => Ok(json!(chain.config.network_name)),
        "StateNetworkVersion" => params
            .epoch(chain, 0)
            .map(|epoch| json!(chain.config.network_version(epoch))),
        "StateGetNetworkParams" => Ok(network_params(chain)),
        "StateVMCirculatingSupplyInternal" => supply(chain),
        "StateMinerPower" => params.miner(chain, 0).and_then(|()| power(chain, params)),
        "StateReadState" => read_state(chain, params),
        "StateLookupID" | "StateAccountKey" => params
            .get::<String>(0)
            .and_then(|address| known(chain, address)),
        _ => return None,
    })
}

/// Names of the main network's upgrades that lie before genesis here.
const UPGRADES: &str = "\
    Smoke Breeze Ignition Liftoff Assembly Refuel Tape Kumquat Calico Persian Orange Claus \
    Trust Norwegian Turbo Hyperdrive Chocolate OhSnap Skyr Shark Hygge Lightning Thunder \
    Watermelon Dragon Phoenix Waffle Tuktuk Teep Tock GoldenWeek FireHorse";
/// An epoch that is never reached.
const NEVER: i64 = 999_999_999;

fn network_params(chain: &Chain) -> Value {
    let config = &chain.config;
    let seal_proofs = config.seal_proof().map(|proof| vec![proof.number()]);
    let past = UPGRADES
        .split_whitespace()
        .map(|name| (format!("Upgrade{name}Height"), json!(-1)));
    let rest = [
        ("BreezeGasTampingDuration".to_owned(), json!(0)),
        (
            "UpgradeSolsticeHeight".to_owned(),
            json!(config.solstice_epoch.unwrap_or(NEVER)),
        ),
    ];
    json!({
        "ForkUpgradeParams": past.chain(rest).collect::<serde_json::Map<_, _>>(),
        "Eip155ChainID": 31_415_926,
        "GenesisTimestamp": config.genesis_timestamp,
        "NetworkName": config.network_name,
        "BlockDelaySecs": config.epoch_seconds,
        "ConsensusMinerMinPower": config.minimum_power.to_string(),
        "PreCommitChallengeDelay": config.seed_delay,
        "SupportedProofTypes": seal_proofs.unwrap_or_default(),
    })
}

/// This network has no keys, so an account's ID address is also its key address.
fn known(chain: &Chain, address: String) -> Answer {
    let is_miner = address.get(1..) == Some(format!("0{}", chain.config.miner_id).as_str());
    if is_miner || chain.wallet_id(&address).is_some() {
        Ok(json!(address))
    } else {
        Err(RpcFailure::new(1, format!("actor not found: {address}")))
    }
}

fn supply(chain: &Chain) -> Answer {
    let circulating = chain.circulating();
    Ok(serde_json::to_value(CirculatingSupply {
        fil_vested: circulating.clone(),
        fil_mined: TokenAmount::default(),
        fil_burnt: chain.world.burnt.clone(),
        fil_locked: TokenAmount::default(),
        fil_circulating: circulating,
        fil_reserve_disbursed: TokenAmount::default(),
    })?)
}

fn power(chain: &Chain, params: &Params) -> Answer {
    let snapshot = params.state(chain, 1)?;
    let others = BigInt::from(chain.config.other_power);
    let ours = Claim {
        raw_byte_power: snapshot.raw_power.clone(),
        quality_adj_power: snapshot.qa_power.clone(),
    };
    let total = Claim {
        raw_byte_power: &others + &ours.raw_byte_power,
        quality_adj_power: others + &ours.quality_adj_power,
    };
    let has_min_power = ours.raw_byte_power >= BigInt::from(chain.config.minimum_power);
    Ok(serde_json::to_value(MinerPower {
        miner_power: ours,
        total_power: total,
        has_min_power,
    })?)
}

fn read_state(chain: &Chain, params: &Params) -> Answer {
    let address: String = params.get(0)?;
    let epoch = params.epoch(chain, 1)?;
    let estimate = miner::estimate(chain, epoch);
    let actors = chain.config.network_version(epoch) - 10;
    let code = |kind: &str| format!("fil/{actors}/{kind}");
    let id = address
        .get(2..)
        .and_then(|digits| digits.parse::<u64>().ok());
    match id {
        Some(ids::REWARD) => {
            let state = reward(&estimate, chain)?;
            actor(chain.circulating(), &code("reward"), state)
        }
        Some(ids::POWER) => {
            let state = network_power(&estimate, chain)?;
            actor(TokenAmount::default(), &code("power"), state)
        }
        Some(id) if id == chain.config.miner_id => {
            let snapshot = params.state(chain, 1)?;
            let state = chain.miner_at(snapshot)?;
            let vesting = serde_json::to_value(&state.vesting_funds).unwrap_or_default();
            let view = MinerState {
                pre_commit_deposits: state.pre_commit_deposits,
                locked_funds: state.locked_funds,
                fee_debt: state.fee_debt,
                initial_pledge: state.initial_pledge,
                proving_period_start: state.proving_period_start,
                current_deadline: state.current_deadline,
                deadline_cron_active: state.deadline_cron_active,
                deadlines: Some(state.deadlines.into()),
                vesting_funds: vesting,
            };
            actor(snapshot.miner_balance.clone(), &code("storageminer"), view)
        }
        _ => Err(RpcFailure::new(1, format!("actor not found: {address}"))),
    }
}

fn actor<T: serde::Serialize>(balance: TokenAmount, code: &str, state: T) -> Answer {
    let code = block_cid(code.as_bytes()).into();
    Ok(serde_json::to_value(ActorState {
        balance,
        code,
        state,
    })?)
}

fn smoothed(estimate: &FilterEstimate) -> Smoothed {
    Smoothed {
        position_estimate: estimate.position.clone(),
        velocity_estimate: estimate.velocity.clone(),
    }
}

/// Fields of the reward actor that Sealyard does not read, and whose names tell the versions apart.
fn other_reward_fields(version: u32) -> Value {
    if version < SOLSTICE {
        json!({
            "CumsumBaseline": "0", "CumsumRealized": "0", "EffectiveNetworkTime": 0,
            "EffectiveBaselinePower": "0", "TotalStoragePowerReward": "0", "SimpleTotal": "0",
            "BaselineTotal": "0",
        })
    } else {
        json!({
            "CumsumBaseline": "0", "CumsumRealized": "0", "EffectiveNetworkTime": 0,
            "EffectiveBaselinePower": "0", "TotalMintedReward": "0", "TotalBurnMinted": "0",
            "TotalExplicitMinted": "0", "StreamsRoot": null, "SwaActor": null,
        })
    }
}

fn reward(estimate: &NetworkEstimate, chain: &Chain) -> Result<Value, RpcFailure> {
    let state = RewardState {
        this_epoch_reward: chain
            .config
            .reward()
            .map_err(|error| RpcFailure::new(1, error.to_string()))?,
        this_epoch_reward_smoothed: smoothed(&estimate.reward),
        this_epoch_baseline_power: estimate.baseline.clone(),
        epoch: estimate.epoch,
    };
    let mut state = serde_json::to_value(state)?;
    let more = other_reward_fields(chain.config.network_version(estimate.epoch));
    if let (Some(state), Value::Object(more)) = (state.as_object_mut(), more) {
        state.extend(more);
    }
    Ok(state)
}

fn network_power(estimate: &NetworkEstimate, chain: &Chain) -> Result<PowerState, RpcFailure> {
    Ok(PowerState {
        this_epoch_qa_power_smoothed: smoothed(&estimate.power),
        ramp_start_epoch: estimate.ramp_start,
        ramp_duration_epochs: estimate.ramp_epochs,
        total_pledge_collateral: chain.miner()?.initial_pledge,
    })
}
