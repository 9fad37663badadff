//! `Devnet.*`: moves a stepped clock, and simulates trouble on the network.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Params, RpcFailure};
use crate::{config::Clock, state::Chain};

/// Most epochs of one step, so that the request is answered within seconds.
const MOST_EPOCHS: i64 = 100_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Step {
    epochs: i64,
    #[serde(default)]
    force: bool,
}

/// `depth` epochs are replaced; the first `shift` new ones include no messages.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Reorg {
    depth: i64,
    #[serde(default)]
    shift: i64,
}

pub fn call(chain: &mut Chain, name: &str, params: Params) -> Result<Value, RpcFailure> {
    match name {
        "Step" => {
            if chain.config.clock != Clock::Stepped {
                return Err(RpcFailure::new(
                    1,
                    "this network's clock ticks by itself; start it with a stepped clock",
                ));
            }
            let Step { epochs, force } = params.get(0)?;
            if !(0..=MOST_EPOCHS).contains(&epochs) {
                return Err(RpcFailure::new(
                    -32602,
                    format!("Epochs must be between 0 and {MOST_EPOCHS}"),
                ));
            }
            let stopped = chain.step(epochs, force)?;
            let waiting = chain.world.mempool.len();
            Ok(json!({"Height": chain.head(), "Stopped": stopped, "Mempool": waiting}))
        }
        "Reorg" => {
            let Reorg { depth, shift } = params.get(0)?;
            chain.reorg(depth, shift)?;
            Ok(json!({"Height": chain.head(), "Mempool": chain.world.mempool.len()}))
        }
        "SetBaseFee" => {
            chain.world.base_fee = params.get::<i64>(0)?.max(0);
            chain.commit()?;
            Ok(json!(chain.world.base_fee))
        }
        "Upgrade" => {
            chain.upgrade_after(params.get(0)?)?;
            Ok(json!(chain.config.solstice_epoch))
        }
        "Config" => Ok(serde_json::to_value(&chain.config)?),
        _ => Err(RpcFailure::new(
            -32601,
            format!("method 'Devnet.{name}' not found"),
        )),
    }
}
