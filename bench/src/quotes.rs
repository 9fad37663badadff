//! Are quotes kept? Simulates a fleet with its own noise and failures. A model that may be wrong
//! quotes every order on arrival, and the order is then simulated to its end.

use std::sync::Arc;

use anyhow::{Context, ensure};
use sealyard_core::scheduler::live_policy;
use sealyard_planner::{
    Calibration, FailureModel, Fleet, Forecast, KindIx, Order, OrderIx, PoolIx, Rng, Rollouts,
    Sampler, Secs, Step, World, forecast, log_normal,
};

use crate::{DAY, HOUR, QuoteOptions, instance, process::processor};

/// Rates are in millionths of a sector per hour.
const MILLION: i64 = 1_000_000;

/// The outcome of one quote.
struct Asked {
    order: OrderIx,
    at: Secs,
    p95: Secs,
    p50: Secs,
    counted: bool,
    settled: bool,
    done: Option<Secs>,
}

#[derive(Default)]
struct Tally {
    quotes: u32,
    refused: u64,
    accepted: u64,
    processor_ms: u128,
    most_ms: u128,
}

pub fn run(options: &QuoteOptions) -> anyhow::Result<()> {
    let fleet = instance::load(&options.fleet, false)?.fleet;
    ensure!(
        fleet.kinds.len() == 1,
        "a world of quotes has one sector size; this fleet is made for {}",
        fleet.kinds.len()
    );
    let mut market = Market::open(options, &fleet)?;
    let end = options.days * DAY;
    market.trade_until(end)?;
    market.complete()?;
    market.report(i64::from(end / HOUR) * market.rate() / MILLION);
    Ok(())
}

/// A fleet and those who order from it.
struct Market<'a> {
    options: &'a QuoteOptions,
    /// Throughput of each pool.
    rates: Vec<i64>,
    world: World<'a>,
    /// Assumed by quotes. The world's own failures may be others.
    model: Arc<FailureModel>,
    rng: Rng,
    asked: Vec<Asked>,
    tally: Tally,
    calibration: Calibration,
}

impl<'a> Market<'a> {
    fn open(options: &'a QuoteOptions, fleet: &'a Fleet) -> anyhow::Result<Self> {
        let rates: Vec<i64> = fleet
            .pools
            .keys()
            .map(|pool| bottleneck(fleet, pool))
            .collect();
        ensure!(rates.iter().sum::<i64>() > 0, "this fleet seals nothing");
        let failure_model = |noise: i64, days: i32| FailureModel {
            spread: log_normal(noise * 10),
            between_failures: days.saturating_mul(DAY),
            ..FailureModel::default()
        };
        let mut world = World::new(fleet, live_policy());
        world.resample(Sampler {
            rng: Rng::new(options.seed + 77),
            failure_model: Arc::new(failure_model(options.noise, options.failure_days)),
        });
        Ok(Self {
            options,
            rates,
            world,
            model: Arc::new(failure_model(
                options.model_noise.unwrap_or(options.noise),
                options.model_failure_days.unwrap_or(options.failure_days),
            )),
            rng: Rng::new(options.seed),
            asked: Vec::new(),
            tally: Tally::default(),
            calibration: Calibration::default(),
        })
    }

    fn rate(&self) -> i64 {
        self.rates.iter().sum()
    }

    /// Lets orders arrive, and quotes them. Quotes of the first days are not measured: the fleet
    /// begins empty.
    fn trade_until(&mut self, end: Secs) -> anyhow::Result<()> {
        let options = self.options;
        let sizes = log_normal(900);
        let mut at: Secs = 0;
        while at < end {
            self.world.run_until(at);
            let n = u32::try_from(self.rng.spread(options.sectors * 2 / 3, &sizes))
                .unwrap_or(1)
                .max(1);
            let order = self.arrival(n, at);
            self.settle();
            self.world.forget_stored();
            let counted = at >= 3 * DAY;
            let quoted = self.quote(&order, counted)?;
            if options.longest_lead_h > 0 && quoted.p95 - at > options.longest_lead_h * HOUR {
                self.tally.refused += u64::from(n);
            } else {
                self.accept(order, &quoted, counted);
            }
            let gap = i64::from(n) * MILLION * i64::from(HOUR) / self.rate() * 100
                / i64::from(options.load);
            let gap = Secs::try_from(gap).unwrap_or(Secs::MAX);
            at += self.rng.wait(gap).max(1);
        }
        Ok(())
    }

    /// An order of `n` sectors from a pool. Pools are drawn by their shares of the throughput.
    fn arrival(&mut self, n: u32, at: Secs) -> Order {
        let below = self.rng.below(usize::try_from(self.rate()).unwrap_or(1));
        let mut lot = i64::try_from(below).unwrap_or(0);
        let mut pool = PoolIx(0);
        for (number, own) in (0u32..).zip(&self.rates) {
            pool = PoolIx(number);
            if lot < *own {
                break;
            }
            lot -= own;
        }
        Order {
            id: 0,
            pool: Some(pool),
            kind: KindIx(0),
            n,
            release: at,
            step: 0,
            due: 0,
            weight: 1,
            known: at,
        }
    }

    fn quote(&mut self, order: &Order, counted: bool) -> anyhow::Result<Forecast> {
        let how = Rollouts {
            failure_model: Arc::clone(&self.model),
            rounds: if counted { self.options.rounds } else { 8 },
            seed: self.rng.roll(),
            calibration: self.calibration,
        };
        let before = processor();
        let quoted = forecast(&self.world, order, &how).context("an order can never be sealed")?;
        let used = processor().saturating_sub(before).as_millis();
        if counted {
            self.tally.quotes += 1;
            self.tally.processor_ms += used;
            self.tally.most_ms = self.tally.most_ms.max(used);
        }
        Ok(quoted)
    }

    fn accept(&mut self, mut order: Order, quoted: &Forecast, counted: bool) {
        self.tally.accepted += u64::from(order.n);
        let at = order.release;
        order.due = quoted.p95;
        self.asked.push(Asked {
            order: self.world.add_order(order),
            at,
            p95: quoted.p95,
            p50: quoted.p50,
            counted,
            settled: false,
            done: None,
        });
    }

    /// Updates the calibration with quotes whose outcome is now known.
    fn settle(&mut self) {
        for one in self.asked.iter_mut().filter(|a| a.done.is_none()) {
            one.done = self.world.done_at(one.order);
            if !one.settled && (one.done.is_some() || self.world.now > one.p95) {
                one.settled = true;
                let later_than = |date: Secs| one.done.is_none_or(|at| at > date);
                self.calibration = self
                    .calibration
                    .learn(later_than(one.p50), later_than(one.p95));
            }
        }
    }

    /// Simulates the accepted orders to their ends. No quote learns from these.
    fn complete(&mut self) -> anyhow::Result<()> {
        for one in &self.asked {
            ensure!(
                one.done.is_some() || self.world.run_until_done(one.order),
                "an accepted order was never completed"
            );
        }
        for one in self.asked.iter_mut().filter(|a| a.done.is_none()) {
            one.done = self.world.done_at(one.order);
        }
        Ok(())
    }

    /// Prints the results. The fleet could have sealed `could` sectors.
    fn report(&self, could: i64) {
        let tally = &self.tally;
        let counted: Vec<&Asked> = self.asked.iter().filter(|a| a.counted).collect();
        let number = i64::try_from(counted.len().max(1)).unwrap_or(1);
        let kept_by = |date: fn(&Asked) -> Secs| {
            let kept = counted
                .iter()
                .filter(|a| a.done.is_some_and(|done| done <= date(a)))
                .count();
            i64::try_from(kept).unwrap_or(0) * 1000 / number
        };
        let lead: i64 = counted.iter().map(|a| i64::from(a.p95 - a.at)).sum();
        let real: i64 = counted
            .iter()
            .filter_map(|a| a.done.map(|done| i64::from(done - a.at)))
            .sum();
        let tenths = |permille: i64| format!("{}.{} %", permille / 10, permille % 10);
        let sold = i64::try_from(tally.accepted).unwrap_or(0) * 1000 / could.max(1);
        let offered = i64::try_from(tally.accepted + tally.refused)
            .unwrap_or(1)
            .max(1);
        println!(
            "{} orders, {} sectors, {} attempts lost to failures | p95 kept {}, p50 kept {} | \
             lead quoted {} h, actual {} h, ratio {}.{:02} | {} ms of processor time per quote \
             (most {} ms) | refused {} of sectors, sold {} of the bottleneck | {:?}",
            counted.len(),
            tally.accepted,
            self.world.lost,
            tenths(kept_by(|a| a.p95)),
            tenths(kept_by(|a| a.p50)),
            tenths_of_hours(lead / number),
            tenths_of_hours(real / number),
            lead / real.max(1),
            lead * 100 / real.max(1) % 100,
            tally.processor_ms / u128::from(tally.quotes.max(1)),
            tally.most_ms,
            tenths(i64::try_from(tally.refused).unwrap_or(0) * 1000 / offered),
            tenths(sold),
            self.calibration,
        );
    }
}

/// Throughput of the pool's slower stage, in millionths of a sector per hour.
fn bottleneck(fleet: &Fleet, pool: PoolIx) -> i64 {
    let kind = KindIx(0);
    let Some(needs) = fleet.kinds.get(kind) else {
        return 0;
    };
    let (mut pc1, mut gpu) = (0, 0);
    for machine in fleet.machines.keys().filter(|m| fleet.pool(*m) == pool) {
        let class = fleet.class(machine);
        let of = |free: i32, need: i32| if need > 0 { free / need } else { i32::MAX };
        let slots = of(class.cores, needs.p1.cores)
            .min(of(class.memory, needs.p1.memory))
            .min(of(class.scratch, needs.scratch_full));
        let [p1, p2, c2] = [Step::P1, Step::P2, Step::C2]
            .map(|step| i64::from(fleet.duration(machine, kind, step)));
        if p1 > 0 {
            pc1 += i64::from(slots) * i64::from(HOUR) * MILLION / p1;
        }
        if p2 + c2 > 0 {
            gpu += i64::from(class.gpus) * i64::from(HOUR) * MILLION / (p2 + c2);
        }
    }
    pc1.min(gpu)
}

fn tenths_of_hours(seconds: i64) -> String {
    let tenths = seconds / 360;
    format!("{}.{}", tenths / 10, tenths % 10)
}
