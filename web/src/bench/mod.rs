//! `sealyard bench …`: the planner on instances from outside.

mod instance;
mod schedule;

use std::path::PathBuf;

#[derive(clap::Subcommand)]
pub enum Bench {
    /// Plan an instance (`sealsched-instance/1`) and write the schedule (`sealsched-schedule/1`).
    Schedule(ScheduleOptions),
}

#[derive(clap::Args)]
pub struct ScheduleOptions {
    #[arg(long)]
    instance: PathBuf,
    #[arg(long)]
    out: PathBuf,
    /// Every order is known from the start; otherwise none is seen before its release.
    #[arg(long)]
    clairvoyant: bool,
    /// Milliseconds of processor time for improving on the rules; 0: rules alone.
    #[arg(long, default_value_t = 2000)]
    budget_ms: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub fn run(what: &Bench) -> anyhow::Result<()> {
    match what {
        Bench::Schedule(options) => schedule::run(options),
    }
}
