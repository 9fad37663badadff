//! Dates before the sale. The fleet is simulated many times, each time with another sampler, with
//! the requested order behind everything that has been promised.

use std::sync::Arc;

use crate::{
    DAY, HOUR, Order, OrderIx, Secs,
    model::failure::{FailureModel, Rng, Sampler},
    sim::world::World,
};

/// The forecast for an order before it is placed. Moments are seconds since the plan's origin.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Forecast {
    /// It is complete by then in half of all cases.
    pub p50: Secs,
    /// It is complete by then 95 times of 100.
    pub p95: Secs,
    /// Sectors of other orders that compete for the same pool and are not active yet. All of them
    /// go first.
    pub ahead: u64,
    pub waits: Waits,
}

/// Where the time goes if nothing fails: mean seconds per sector.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Waits {
    /// Waiting for a PC1 slot.
    pub pc1: i64,
    /// Waiting for a GPU, or for the network on the way to it.
    pub gpu: i64,
    /// Steps, moves and the chain's own delays.
    pub work: i64,
}

/// Settings of a forecast.
#[derive(Clone, Debug)]
pub struct Rollouts {
    pub failure_model: Arc<FailureModel>,
    pub rounds: u32,
    pub seed: u64,
    pub calibration: Calibration,
}

/// Correction learnt from the outcomes of earlier forecasts. It makes up for anything that the
/// model does not know: later orders that get in the way, wrong failure rates.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Calibration {
    /// Factor for the time until p50, in parts per million.
    pub shift: i32,
    /// Factor for the span from p50 to p95, in parts per million.
    pub stretch: i32,
}

impl Default for Calibration {
    /// Without experience the span is widened by half: in simulated worlds the plain span is always
    /// too narrow.
    fn default() -> Self {
        Self {
            shift: MILLION,
            stretch: MILLION / 2 * 3,
        }
    }
}

const MILLION: i32 = 1_000_000;

impl Calibration {
    /// Learns from one outcome. The shift is multiplied by `exp(η (late − 0.50))`, the stretch by
    /// `exp(η (late − 0.04))`, `η = 0.02`. They settle when half of all orders are later than p50
    /// and 1 of 25 is later than p95. That is fewer than promised, because calibration lags behind.
    #[must_use]
    pub fn learn(self, later_than_p50: bool, later_than_p95: bool) -> Self {
        let shift = times(self.shift, if later_than_p50 { 1_010_050 } else { 990_050 });
        let stretch = times(
            self.stretch,
            if later_than_p95 { 1_019_386 } else { 999_200 },
        );
        Self {
            shift: shift.clamp(MILLION / 2, MILLION * 4),
            stretch: stretch.clamp(MILLION / 2, MILLION * 10),
        }
    }

    /// p50 and p95, calibrated, of sorted completion times.
    fn apply(self, now: Secs, ends: &[Secs]) -> (Secs, Secs) {
        let p50 = median(ends);
        let shifted = now.saturating_add(times(p50.saturating_sub(now), self.shift));
        (
            shifted,
            shifted.saturating_add(times(span(now, ends), self.stretch)),
        )
    }
}

/// `amount · millionths / 10⁶`, rounded down.
fn times(amount: i32, millionths: i32) -> i32 {
    i32::try_from(i64::from(amount) * i64::from(millionths) / i64::from(MILLION))
        .unwrap_or(i32::MAX)
}

/// Span from p50 to p95 before calibration: half the mean delay of the latest three sixteenths,
/// plus half a quarter of the time until p50, as if nothing were known. That mean varies less from
/// quote to quote than a quantile would: whether a breakdown hits 1 of 20 rollouts is itself
/// chance.
fn span(now: Secs, ends: &[Secs]) -> Secs {
    let p50 = median(ends);
    let late = ends
        .get(ends.len() - (ends.len() * 3).div_ceil(16)..)
        .unwrap_or_default();
    let sum: i64 = late
        .iter()
        .map(|end| i64::from(end.saturating_sub(p50)))
        .sum();
    let tail = sum / i64::try_from(late.len().max(1)).unwrap_or(1);
    let share = i64::from(p50.saturating_sub(now)) / 4;
    Secs::try_from(i64::midpoint(tail, share)).unwrap_or(Secs::MAX)
}

/// Least lead time of the provisional due date.
const LEAST_LEAD: Secs = 6 * HOUR;

/// Simulates `world` with `order`, whose due date is set behind everything promised in its pool, so
/// that no older promise suffers. `None`: some sector of it can never be sealed here.
#[must_use]
pub fn forecast(world: &World<'_>, order: &Order, how: &Rollouts) -> Option<Forecast> {
    let mut order = order.clone();
    order.due = last_due(world, &order).max(world.now.saturating_add(LEAST_LEAD));
    let usual = world.simulate_until_done(&order, None)?;
    let mut ends = Vec::new();
    let mut rng = Rng::new(how.seed);
    for _ in 0..how.rounds {
        let sampler = Sampler {
            rng: Rng::new(rng.roll()),
            failure_model: Arc::clone(&how.failure_model),
        };
        let (simulated, id) = world.simulate_until_done(&order, Some(sampler))?;
        ends.push(simulated.done_at(id)?);
    }
    let (simulated, id) = usual;
    if ends.is_empty() {
        ends.push(simulated.done_at(id)?);
    }
    ends.sort_unstable();
    let (p50, p95) = how.calibration.apply(world.now, &ends);
    Some(Forecast {
        p50,
        p95,
        ahead: ahead(world, &order),
        waits: simulated.waits(id),
    })
}

/// By when the first, the first two, … sectors of an order would be active, 95 times of 100, behind
/// everything that is promised: the number that can be sold for each date. Ends before the first
/// sector that can never be sealed here.
#[must_use]
pub fn availability(world: &World<'_>, order: &Order, how: &Rollouts) -> Vec<Secs> {
    let mut order = order.clone();
    order.due = last_due(world, &order).max(world.now.saturating_add(LEAST_LEAD));
    let mut usual = world.clone();
    let id = usual.add_order(order.clone());
    usual.run_until_done(id);
    order.n -= usual.open[id];
    let mut rng = Rng::new(how.seed);
    let mut rounds: Vec<Vec<Secs>> = Vec::new();
    for _ in 0..how.rounds.max(1) {
        let sampler = Sampler {
            rng: Rng::new(rng.roll()),
            failure_model: Arc::clone(&how.failure_model),
        };
        let Some((simulated, id)) = world.simulate_until_done(&order, Some(sampler)) else {
            return Vec::new();
        };
        let mut ends: Vec<Secs> = simulated
            .sectors_of(id)
            .map(|s| simulated.sectors[s].row.vc)
            .collect();
        ends.sort_unstable();
        rounds.push(ends);
    }
    let of_each = (0..usize::try_from(order.n).unwrap_or(0)).map(|k| {
        let mut ends: Vec<Secs> = rounds
            .iter()
            .filter_map(|round| round.get(k).copied())
            .collect();
        ends.sort_unstable();
        how.calibration.apply(world.now, &ends).1
    });
    of_each.collect()
}

fn median(sorted: &[Secs]) -> Secs {
    sorted
        .get(sorted.len().div_ceil(2).saturating_sub(1))
        .copied()
        .unwrap_or(FAR)
}

fn competes(one: &Order, other: &Order) -> bool {
    one.pool.is_none() || other.pool.is_none() || one.pool == other.pool
}

fn last_due(world: &World<'_>, order: &Order) -> Secs {
    let open = world
        .orders
        .pairs()
        .filter(|(id, other)| world.open[*id] > 0 && competes(order, other));
    open.map(|(_, other)| other.due).max().unwrap_or(0)
}

fn ahead(world: &World<'_>, order: &Order) -> u64 {
    world
        .orders
        .pairs()
        .filter(|(_, other)| competes(order, other))
        .map(|(id, _)| u64::from(world.open[id]))
        .sum()
}

impl<'f> World<'f> {
    fn simulate_until_done(
        &self,
        order: &Order,
        sampler: Option<Sampler>,
    ) -> Option<(World<'f>, OrderIx)> {
        let mut world = self.clone();
        if let Some(sampler) = sampler {
            world.resample(sampler);
        }
        let id = world.add_order(order.clone());
        world.run_until_done(id).then_some((world, id))
    }

    /// Simulates until every sector of an order is active. False: that never happens.
    pub fn run_until_done(&mut self, order: OrderIx) -> bool {
        while self.open[order] > 0 {
            if !self.step() || self.now > FAR {
                return false;
            }
        }
        true
    }

    fn waits(&self, order: OrderIx) -> Waits {
        let mut waits = Waits::default();
        let mut n = 0;
        for sector in self.sectors_of(order) {
            let row = self.sectors[sector].row;
            let moved = if row.xs >= 0 { row.xe - row.xs } else { 0 };
            let gpu =
                i64::from((row.s2 - row.e1 - moved).max(0)) + i64::from((row.s3 - row.c1e).max(0));
            let pc1 = i64::from((row.s1 - self.orders[order].release).max(0));
            waits.pc1 += pc1;
            waits.gpu += gpu;
            waits.work += i64::from(row.vc - self.orders[order].release) - pc1 - gpu;
            n += 1;
        }
        let mean = |sum: i64| sum / n.max(1);
        Waits {
            pc1: mean(waits.pc1),
            gpu: mean(waits.gpu),
            work: mean(waits.work),
        }
    }
}

/// Nothing is simulated beyond this: with failures, a fleet that cannot seal anything would go on
/// for ever.
const FAR: Secs = 10 * 365 * DAY;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calibration_settles_where_the_promised_share_is_kept() {
        let mut calibration = Calibration::default();
        for n in 0..20_000 {
            calibration = calibration.learn(n % 2 == 0, n % 25 == 0);
        }
        assert!(
            (950_000..1_050_000).contains(&calibration.shift),
            "{calibration:?}"
        );
        assert!(
            (1_300_000..1_700_000).contains(&calibration.stretch),
            "as wide as at first: {calibration:?}"
        );
        let late = (0..100).fold(Calibration::default(), |l, _| l.learn(true, true));
        assert!(
            late.stretch > 5_000_000 && late.shift > 2_000_000,
            "{late:?}"
        );
    }
}
