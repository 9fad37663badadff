//! `sealyard plan`: the operator's view on the command line.

use anyhow::{Context, bail};
use sealyard_core::{
    capacity::Pool,
    clock::{Micros, minute_text},
    fleet::{self, Machine},
    ids::{MachineId, PoolId, SectorId},
    scheduler::{self, Change, Snapshot},
    store::{AnyConnection, Database, DbFault, DbResult},
};

use super::{EffectView, PlanView, effect_view, plan_view};

#[derive(clap::Subcommand)]
pub enum Question {
    /// Show why a sector's next step is on one machine and not on another.
    Sector {
        number: i64,
        /// The pool, if several pools have a sector with this number.
        #[arg(long)]
        pool: Option<String>,
    },
    /// Show the effect of draining a machine.
    Drain { machine: String },
    /// Show the effect of losing a machine and all its files.
    Fail { machine: String },
    /// Show the effect of one more machine like this one.
    Add { machine: String },
    /// Show the effect of an order for this many sectors of a pool.
    Order { pool: String, sectors: i64 },
}

/// Prints the plan, or the answer to a question about it.
pub fn answer(db: &Database, question: Option<&Question>, now: Micros) -> anyhow::Result<()> {
    let text = db.read(|conn| {
        let snapshot = scheduler::load(conn, now)?;
        Ok::<_, DbFault>(match question {
            None => Ok(plan_text(&plan_view(conn, &snapshot)?)),
            Some(Question::Sector { number, pool }) => {
                let pools = sealyard_core::capacity::pools(conn)?;
                sector(&snapshot, &pools, *number, pool.as_deref())
                    .and_then(|id| why_text(&snapshot, *number, id))
            }
            Some(other) => match change(conn, other)? {
                Ok((change, title)) => {
                    let effect = scheduler::what_if(&snapshot, &change);
                    Ok(effect_text(&effect_view(conn, &snapshot, &effect, title)?))
                }
                Err(error) => Err(error),
            },
        })
    })?;
    print!("{}", text?);
    Ok(())
}

/// The change that a question is about, and its name.
pub fn change(
    conn: &mut AnyConnection,
    question: &Question,
) -> DbResult<anyhow::Result<(Change, String)>> {
    let machines = fleet::machines(conn)?;
    let pools = sealyard_core::capacity::pools(conn)?;
    Ok(change_of(question, &machines, &pools))
}

fn change_of(
    question: &Question,
    machines: &[Machine],
    pools: &[Pool],
) -> anyhow::Result<(Change, String)> {
    Ok(match question {
        Question::Drain { machine } => (
            Change::Drain(machine_named(machines, machine)?),
            format!("{machine} is drained"),
        ),
        Question::Fail { machine } => (
            Change::Fail(machine_named(machines, machine)?),
            format!("{machine} is lost"),
        ),
        Question::Add { machine } => (
            Change::Add(machine_named(machines, machine)?),
            format!("there is one more machine like {machine}"),
        ),
        Question::Order { pool, sectors } => {
            let found = pool_named(pools, pool)?;
            if *sectors < 1 {
                bail!("an order is for at least one sector");
            }
            let order = Change::Order {
                pool: found.id,
                sector_bytes: found.sector_bytes,
                sectors: *sectors,
            };
            (
                order,
                format!("{sectors} more sectors are ordered from {pool}"),
            )
        }
        Question::Sector { number, .. } => bail!("sector {number} is not a change"),
    })
}

fn machine_named(machines: &[Machine], name: &str) -> anyhow::Result<MachineId> {
    let known: Vec<&str> = machines.iter().map(|m| m.name.as_str()).collect();
    let found = machines.iter().find(|m| m.name == name);
    let found = found.with_context(|| {
        format!(
            "there is no machine {name:?}; the machines are: {}",
            known.join(", ")
        )
    })?;
    Ok(found.id)
}

fn plan_text(view: &PlanView) -> String {
    let mut text = format!(
        "{}\nAll commitments are completed by {} UTC; lateness {}.\n",
        view.summary, view.done, view.lateness
    );
    text += "\nOne more machine like            done sooner by   lateness saved\n";
    for gain in &view.gains {
        text += &format!(
            "  {:<30} {:>14}   {:>14}\n",
            gain.machine, gain.sooner, gain.lateness
        );
    }
    text += "\nContract              sectors  promised (UTC)    expected (UTC)\n";
    for date in &view.dates {
        let mark = if date.is_late { "LATE" } else { "" };
        text += &format!(
            "  {:<20} {:>6}  {}  {}  {mark} {}\n",
            date.contract, date.sectors, date.promised, date.expected, date.why
        );
    }
    text += &format!(
        "\nCan be promised, sectors   {}\n",
        view.horizons.join("  ")
    );
    for row in &view.promisable {
        let sectors: Vec<String> = row.sectors.iter().map(|n| format!("{n:>9}")).collect();
        text += &format!(
            "  {:<22} {}   (storage {}, collateral {})\n",
            row.pool,
            sectors.join("  "),
            row.storage,
            row.collateral
        );
    }
    text += "\nCapacity in the books              owned        free        held        \
             sold     own use        down\n";
    for row in &view.capacity {
        let parts: Vec<String> = row.parts.iter().map(|part| format!("{part:>10}")).collect();
        text += &format!("  {:<26} {}\n", row.pool, parts.join("  "));
    }
    text
}

pub fn pool_named<'p>(pools: &'p [Pool], name: &str) -> anyhow::Result<&'p Pool> {
    let known: Vec<&str> = pools.iter().map(|p| p.name.as_str()).collect();
    let found = pools.iter().find(|p| p.name == name);
    found.with_context(|| {
        format!(
            "there is no pool {name:?}; the pools are: {}",
            known.join(", ")
        )
    })
}

/// The sector with this number. If several pools have one, `pool` says which is meant.
fn sector(
    snapshot: &Snapshot,
    pools: &[Pool],
    number: i64,
    pool: Option<&str>,
) -> anyhow::Result<SectorId> {
    let name = |id: PoolId| {
        pools
            .iter()
            .find(|p| p.id == id)
            .map_or("", |p| p.name.as_str())
    };
    let mut found = scheduler::numbered(snapshot, number);
    found.retain(|(id, _)| pool.is_none_or(|wanted| name(*id) == wanted));
    match found.as_slice() {
        [(_, id)] => Ok(*id),
        [] => bail!("sector {number} is not being sealed; `sealyard plan` lists what is"),
        several => {
            let names: Vec<&str> = several.iter().map(|(id, _)| name(*id)).collect();
            bail!(
                "there is a sector {number} in {}; say which with --pool",
                names.join(" and in ")
            )
        }
    }
}

fn why_text(snapshot: &Snapshot, number: i64, id: SectorId) -> anyhow::Result<String> {
    let why = scheduler::why(snapshot, id)
        .with_context(|| format!("sector {number} is not being sealed any more"))?;
    let mut text = format!(
        "Sector {number}: {}, promised {} UTC\n",
        why.state.name().replace('_', " "),
        minute_text(why.promised_at)
    );
    match why.step {
        Some(step) => text += &format!("next step: {}\n", step.name()),
        None => text += "no machine has a step to run for it now\n",
    }
    for (machine, reason) in &why.machines {
        text += &format!("  {machine:<20} {reason}\n");
    }
    Ok(text)
}

fn effect_text(view: &EffectView) -> String {
    let mut text = format!("If {}:\n{}\n", view.title, view.summary);
    for row in &view.moved {
        let mark = if row.breaks { "BREAKS ITS PROMISE" } else { "" };
        text += &format!(
            "  {:<20} promised {}  expected {} -> {}  {mark}\n",
            row.contract, row.promised, row.before, row.after
        );
    }
    text
}
