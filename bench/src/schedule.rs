//! Plans an instance and writes the resulting schedule.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::Duration,
};

use anyhow::Context;
use sealyard_planner::{
    Aim, Budget, Effort, MachineIx, Order, Policy, Rounds, Row, SectorIx, World,
};

use crate::{ScheduleOptions, instance, live::live, process::processor};

/// With more sectors than this, a single plan takes about as long as a whole search may.
const MOST_FOR_SEARCH: u32 = 50_000;

/// Most plans of one arrangement when more may follow. Early arrangements have few orders, so a
/// good plan is found soon.
const MOST_PLANS: u32 = 300;

/// Processor time, shared among the arrangements. Each may use a seventh of the rest, so that there
/// is always some left for the next. If everything is known from the start, the only arrangement
/// may use all.
struct ProcessorTime {
    left: Duration,
    divisor: u32,
    /// Plans made for the current arrangement.
    plans: Rounds,
    share: Duration,
    began: Duration,
    effort: Effort,
}

impl Budget for ProcessorTime {
    fn effort(&self) -> Effort {
        self.effort
    }

    fn begin(&mut self) {
        let now = processor();
        self.left = self
            .left
            .saturating_sub(now.saturating_sub(self.began).min(self.share));
        self.began = now;
        self.plans.begin();
        self.share = self.left / self.divisor;
    }

    fn used(&mut self) -> u32 {
        let gone = processor().saturating_sub(self.began).as_micros() * 1000
            / self.share.as_micros().max(1);
        u32::try_from(gone)
            .unwrap_or(u32::MAX)
            .max(self.plans.used())
    }
}

/// The budget for these orders, `sectors` in all, of a run that began at `began`.
fn budget(
    options: &ScheduleOptions,
    orders: &[Order],
    sectors: u32,
    began: Duration,
) -> ProcessorTime {
    let effort = match options.budget_ms {
        _ if options.one_rule || sectors > MOST_FOR_SEARCH => Effort::OneRule,
        0 => Effort::Rules,
        _ => Effort::Search,
    };
    let (divisor, most) = if orders.iter().all(|o| o.known == 0) {
        (1, u32::MAX)
    } else {
        (7, MOST_PLANS)
    };
    ProcessorTime {
        left: Duration::from_millis(options.budget_ms),
        divisor,
        plans: Rounds::most(most),
        share: Duration::ZERO,
        began,
        effort,
    }
}

pub fn run(options: &ScheduleOptions) -> anyhow::Result<()> {
    let loaded = instance::load(&options.instance, options.clairvoyant)?;
    let sectors: u32 = loaded.orders.iter().map(|o| o.n).sum();
    let began = processor();
    let mut budget = budget(options, &loaded.orders, sectors, began);
    // When all orders are known, the search need not prepare for others.
    let aim = if options.clairvoyant {
        Aim::Exact
    } else {
        Aim::Open
    };
    let world = live(
        &loaded.fleet,
        &loaded.orders,
        Policy::default(),
        aim,
        options.seed,
        &mut budget,
    );
    let used = processor().saturating_sub(began);
    write(&options.out, &loaded.name, &world, used)
        .with_context(|| format!("writing {}", options.out.display()))?;
    let cost = world.cost();
    eprintln!(
        "{} sectors, weighted tardiness {} weight·s, {} wasted, {} not stored, {:.3} s",
        sectors,
        cost.tardiness,
        world.wasted.len(),
        world.left(),
        used.as_secs_f64()
    );
    anyhow::ensure!(
        world.left() == 0,
        "{} sectors can never be sealed on this fleet",
        world.left()
    );
    Ok(())
}

fn write(path: &Path, name: &str, world: &World<'_>, used: Duration) -> anyhow::Result<()> {
    let mut out = BufWriter::new(File::create(path)?);
    let columns = [
        "o", "i", "m1", "s1", "e1", "xs", "xe", "m2", "s2", "e2", "pc", "c1e", "m3", "s3", "e3",
        "vc", "ms", "ys", "ye",
    ];
    write!(
        out,
        "{{\"format\":\"sealsched-schedule/1\",\"instance\":{},\"scheduler\":\"sealyard\",\
         \"wall_s\":{:.3},\"columns\":{},\"rows\":[",
        serde_json::to_string(name)?,
        used.as_secs_f64(),
        serde_json::to_string(&columns)?
    )?;
    let rows = world
        .wasted
        .iter()
        .copied()
        .chain(world.sectors.pairs().map(|(sector, s)| (sector, s.row)));
    for (at, (sector, row)) in rows.enumerate() {
        if at > 0 {
            out.write_all(b",")?;
        }
        write_row(&mut out, world, sector, &row)?;
    }
    out.write_all(b"]}\n")?;
    Ok(out.flush()?)
}

fn write_row(
    out: &mut impl Write,
    world: &World<'_>,
    sector: SectorIx,
    row: &Row,
) -> std::io::Result<()> {
    let machine = |m: MachineIx| if m.is_some() { i64::from(m.0) } else { -1 };
    let id = world
        .orders
        .get(world.order_of(sector))
        .map_or(-1, |order| order.id);
    let Row {
        s1,
        e1,
        xs,
        xe,
        s2,
        e2,
        pc,
        c1e,
        s3,
        e3,
        vc,
        ys,
        ye,
        ..
    } = *row;
    let (m1, m2, m3, ms) = (
        machine(row.m1),
        machine(row.m2),
        machine(row.m3),
        machine(row.ms),
    );
    let place = world.place_in_order(sector);
    write!(
        out,
        "[{id},{place},{m1},{s1},{e1},{xs},{xe},{m2},{s2},{e2},{pc},{c1e},{m3},{s3},{e3},{vc},\
         {ms},{ys},{ye}]"
    )
}
