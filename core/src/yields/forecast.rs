//! Forecasts of a plan's earnings: the protocol's own projection, with the spread of block wins.
//! Every forecast is kept, to be compared with the outcome.

use std::collections::BTreeMap;

use diesel::prelude::*;
use sealyard_planner::Rng;

use crate::{
    clock::{DAY, Micros, SECONDS_A_DAY},
    ids::{ContractId, PlanId},
    ledger,
    money::{ATTO_PER_NANO, BasisPoints},
    on_conn,
    store::{
        AnyConnection, DbResult,
        schema::{contracts, forecasts, orders},
    },
};

/// Inputs of a forecast.
#[derive(Clone, Debug)]
pub struct Projection {
    /// attoFIL that the plan's power can expect on each day of its life, winner's share included.
    pub daily_atto: Vec<i128>,
    /// Blocks that the pool can expect to win in a day, in millionths.
    pub wins_millionths: i64,
    pub fee: BasisPoints,
    pub seed: u64,
}

/// Net nanoFIL, after the service fee. One outcome in ten is below `p10`, and one in ten is above
/// `p90`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Range {
    pub p10: i64,
    pub p50: i64,
    pub p90: i64,
}

/// Simulated lives.
const ROUNDS: u64 = 400;
/// With this many expected wins, chance changes the earnings by less than two per cent, so lives
/// are not simulated.
const PLENTY: i64 = 20_000;
const MILLION: i64 = 1_000_000;

/// Earnings of the first `days` of the plan's life. `None`: a number does not fit.
#[must_use]
pub fn forecast(projection: &Projection, days: usize) -> Option<Range> {
    let daily = projection
        .daily_atto
        .get(..days.min(projection.daily_atto.len()))?;
    let span = i64::try_from(daily.len()).ok()?;
    let wins = projection.wins_millionths.checked_mul(span)? / MILLION;
    let expected = net(daily.iter().sum(), projection.fee)?;
    if wins >= PLENTY {
        return Some(Range {
            p10: expected,
            p50: expected,
            p90: expected,
        });
    }
    let mut rng = Rng::new(projection.seed);
    let mut lives = (0..ROUNDS)
        .map(|_| net(life(projection, daily, &mut rng)?, projection.fee))
        .collect::<Option<Vec<_>>>()?;
    lives.sort_unstable();
    let at = |tenths: usize| {
        lives
            .get((lives.len() * tenths).div_ceil(10).saturating_sub(1))
            .copied()
    };
    Some(Range {
        p10: at(1)?,
        p50: at(5)?,
        p90: at(9)?,
    })
}

/// Simulates one life. Wins follow exponential waits, and each brings its day's expected part.
fn life(projection: &Projection, daily: &[i128], rng: &mut Rng) -> Option<i128> {
    if projection.wins_millionths <= 0 {
        return Some(0);
    }
    // Sample waits in hundredths of a second when wins are frequent, so that a short mean is not
    // cut to whole seconds.
    let unit = if projection.wins_millionths > MILLION {
        100
    } else {
        1
    };
    let mean = i32::try_from(SECONDS_A_DAY * unit * MILLION / projection.wins_millionths)
        .unwrap_or(i32::MAX);
    let (mut at, mut sum) = (0i64, 0i128);
    loop {
        at += i64::from(rng.wait(mean.max(1)));
        let Some(day) = usize::try_from(at / unit / SECONDS_A_DAY)
            .ok()
            .and_then(|day| daily.get(day))
        else {
            return Some(sum);
        };
        sum = sum.checked_add(
            day.checked_mul(i128::from(MILLION))? / i128::from(projection.wins_millionths),
        )?;
    }
}

fn net(atto: i128, fee: BasisPoints) -> Option<i64> {
    let gross = i64::try_from(atto / ATTO_PER_NANO).ok()?;
    Some(gross - fee.of(gross)?)
}

/// A forecast for one unit of a plan, as it was shown.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, Insertable)]
#[diesel(table_name = forecasts)]
pub struct Forecast {
    pub plan_id: PlanId,
    /// The day on which it was made.
    pub day: i64,
    /// Days of the contract's life that it looks at.
    pub horizon: i64,
    pub seed: i64,
    pub wins_millionths: i64,
    pub p10_nano: i64,
    pub p50_nano: i64,
    pub p90_nano: i64,
    pub made_at: Micros,
}

/// Stores a forecast. A day's first one stays.
pub fn keep_forecast(conn: &mut AnyConnection, forecast: &Forecast) -> DbResult<()> {
    on_conn!(&mut *conn, |c| diesel::insert_into(forecasts::table)
        .values(forecast)
        .on_conflict_do_nothing()
        .execute(c))
    .map(drop)
}

/// The forecasts of a plan's latest day, shortest horizon first.
pub fn latest_forecasts(conn: &mut AnyConnection, plan: PlanId) -> DbResult<Vec<Forecast>> {
    let of_plan = forecasts::table.filter(forecasts::plan_id.eq(plan));
    let Some(day) = of_plan
        .select(diesel::dsl::max(forecasts::day))
        .first::<Option<i64>>(conn)?
    else {
        return Ok(Vec::new());
    };
    of_plan
        .filter(forecasts::day.eq(day))
        .order(forecasts::horizon.asc())
        .load(conn)
}

/// Contracts that were bought on a day with a forecast, counted by where their earnings came out
/// after its horizon.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Outcomes {
    pub below: i64,
    pub within: i64,
    pub above: i64,
}

impl Outcomes {
    fn count(&mut self, forecast: &Forecast, net: i64) {
        if net < forecast.p10_nano {
            self.below += 1;
        } else if net > forecast.p90_nano {
            self.above += 1;
        } else {
            self.within += 1;
        }
    }
}

/// Compares a plan's past forecasts with the earnings of the contracts that were bought on their
/// days, by horizon.
pub fn outcomes(
    conn: &mut AnyConnection,
    plan: PlanId,
    today: i64,
) -> DbResult<Vec<(i64, Outcomes)>> {
    let mut found: BTreeMap<i64, Outcomes> = BTreeMap::new();
    for contract in bought(conn, plan)? {
        let made: Vec<Forecast> = forecasts::table
            .filter(
                forecasts::plan_id
                    .eq(plan)
                    .and(forecasts::day.eq(contract.ordered_on)),
            )
            .load(conn)?;
        let past = |forecast: &Forecast| contract.first + forecast.horizon <= today;
        for forecast in made.into_iter().filter(past) {
            let net = contract.net_per_unit(conn, forecast.horizon)?;
            let outcome = found.entry(forecast.horizon).or_default();
            outcome.count(&forecast, net);
        }
    }
    Ok(found.into_iter().collect())
}

/// An activated contract of a plan.
struct Bought {
    id: ContractId,
    units: i64,
    ordered_on: i64,
    /// The first whole day after its activation.
    first: i64,
}

fn bought(conn: &mut AnyConnection, plan: PlanId) -> DbResult<Vec<Bought>> {
    let rows: Vec<(ContractId, i64, Micros, Option<Micros>)> = contracts::table
        .inner_join(orders::table.on(orders::id.eq(contracts::order_id)))
        .filter(
            orders::plan_id
                .eq(plan)
                .and(contracts::active_at.is_not_null()),
        )
        .select((
            contracts::id,
            orders::units,
            orders::created_at,
            contracts::active_at,
        ))
        .load(conn)?;
    let bought = rows
        .into_iter()
        .filter_map(|(id, units, ordered_at, active_at)| {
            Some(Bought {
                id,
                units,
                ordered_on: ordered_at.div_euclid(DAY),
                first: active_at?.div_euclid(DAY) + 1,
            })
        });
    Ok(bought.collect())
}

impl Bought {
    /// Net nanoFIL that one unit earned in the first `days`.
    fn net_per_unit(&self, conn: &mut AnyConnection, days: i64) -> DbResult<i64> {
        let span = self.first..self.first + days;
        let lots = ledger::lots_of_contract(conn, self.id, span, i64::MAX)?;
        let net: i64 = lots
            .iter()
            .map(|lot| lot.available_nano + lot.locked_nano)
            .sum();
        Ok(net / self.units.max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn projection(wins_millionths: i64) -> Projection {
        Projection {
            daily_atto: vec![3_620_426_829_268_292; 540],
            wins_millionths,
            fee: BasisPoints(2000),
            seed: 7,
        }
    }

    #[test]
    fn forecasts_of_small_pools_spread_more_than_those_of_large_ones() {
        // 10 TiB of 14,760 PiB: 0.0095 wins a day. 1 PiB: one a day. 100 PiB: 98 a day.
        let (small, middle, large) = (
            projection(9_500),
            projection(975_000),
            projection(97_500_000),
        );
        let spread = |p: &Projection| {
            let range = forecast(p, 540).unwrap();
            assert_eq!(
                forecast(p, 540),
                Some(range),
                "the same seed gives the same forecast"
            );
            (range.p90 - range.p10) * 1000 / range.p50.max(1)
        };
        // Relative standard deviations of 44 %, 4.4 % and 0.4 %; ten to ninety per cent is 2.56 of
        // them.
        assert!((700..1500).contains(&spread(&small)), "{}", spread(&small));
        assert!((80..150).contains(&spread(&middle)), "{}", spread(&middle));
        assert_eq!(spread(&large), 0, "not played");
        let expected = 3_620_426 * 540 / 10 * 8;
        let middle = forecast(&middle, 540).unwrap().p50;
        assert!(
            (middle - expected).abs() < expected / 50,
            "{middle} is not about {expected}"
        );
        assert_eq!(
            forecast(&projection(0), 540),
            Some(Range {
                p10: 0,
                p50: 0,
                p90: 0
            }),
            "below the power that can win"
        );
    }
}
