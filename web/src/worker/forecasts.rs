//! A daily forecast of what a unit of each plan on sale may earn, from the chain's own projection.

use fvm_shared::bigint::BigInt;
use sealyard_core::{
    capacity::Pool,
    catalog::{self, Plan},
    clock::DAY,
    yields::{self, Forecast, Projection},
};
use sealyard_filecoin::economics::{
    EPOCHS_PER_DAY, EXPECTED_WINS, NetworkEstimate, new_sector_power,
};

use super::{TurnResult, pipeline::miner_address, pools};
use crate::app::{Shared, read, write};

/// Days of a contract's term that forecasts cover, besides the whole.
const HORIZONS: [i64; 3] = [30, 90, 180];
const MILLION: i64 = 1_000_000;

pub async fn turn(app: Shared) -> TurnResult {
    let today = app.now().div_euclid(DAY);
    for plan in read(&app, catalog::plans_on_sale).await? {
        let id = plan.id;
        let latest = read(&app, move |conn| yields::latest_forecasts(conn, id)).await?;
        if latest.first().is_none_or(|forecast| forecast.day < today) {
            forecast_plan(&app, &plan, today).await?;
        }
    }
    Ok(())
}

async fn forecast_plan(app: &Shared, plan: &Plan, today: i64) -> TurnResult {
    let Some(pool) = pools(app)
        .await?
        .into_iter()
        .find(|pool| pool.id == plan.pool_id)
    else {
        return Ok(());
    };
    let seed = plan.id.0 ^ today;
    let projection = projection(app, plan, &pool, seed).await?;
    let (plan_id, made_at) = (plan.id, app.now());
    let at = |horizon: i64| -> Option<Forecast> {
        let range = yields::forecast(&projection, usize::try_from(horizon).ok()?)?;
        Some(Forecast {
            plan_id,
            day: today,
            horizon,
            seed,
            wins_millionths: projection.wins_millionths,
            p10_nano: range.p10,
            p50_nano: range.p50,
            p90_nano: range.p90,
            made_at,
        })
    };
    let shorter = HORIZONS.into_iter().filter(|days| *days < plan.days);
    let made: Vec<Forecast> = shorter.chain([plan.days]).filter_map(at).collect();
    write(app, move |conn| {
        for forecast in &made {
            yields::keep_forecast(conn, forecast)?;
        }
        Ok(())
    })
    .await?;
    Ok(())
}

async fn projection(
    app: &Shared,
    plan: &Plan,
    pool: &Pool,
    seed: i64,
) -> anyhow::Result<Projection> {
    let head = app.node.chain_head().await?;
    let network = app.node.network_estimate(&head).await?;
    let power = app
        .node
        .miner_power(&miner_address(pool)?, &head.cids)
        .await?;
    let all = power.total_power.quality_adj_power;
    // By today's rules, even shortly before they change: a forecast promises nothing.
    let version = app.node.network_version(&head.cids).await?;
    let unit = new_sector_power(u64::try_from(plan.unit_bytes)?, version);
    // The pool's present power, or this unit's if the pool has less.
    let pools_power = (power.miner_power.quality_adj_power).max(unit.clone());
    let wins_a_day = BigInt::from(EXPECTED_WINS * EPOCHS_PER_DAY * MILLION) * pools_power
        / all.max(BigInt::from(1));
    Ok(Projection {
        daily_atto: daily(app, &network, &unit, plan.days)?,
        wins_millionths: i64::try_from(wins_a_day)?,
        fee: plan.fee(),
        seed: u64::try_from(seed.max(0))?,
    })
}

/// attoFIL that `power` can expect on each coming day: BR of the smoothed estimates, times the
/// winner's share on that day.
fn daily(
    app: &Shared,
    network: &NetworkEstimate,
    power: &BigInt,
    days: i64,
) -> anyhow::Result<Vec<i128>> {
    let mut before = BigInt::from(0);
    (1..=days)
        .map(|day| {
            let until = network
                .expected_reward(power, day * EPOCHS_PER_DAY)
                .atto()
                .clone();
            let gross = i128::try_from(&until - &before)?;
            before = until;
            let epoch = network.epoch + day * EPOCHS_PER_DAY;
            Ok(gross.max(0) * i128::from(app.config.winners_permille(epoch)) / 1000)
        })
        .collect()
}
