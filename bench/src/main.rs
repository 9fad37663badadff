//! Benchmarks: the planner on external instances, the books with many contracts, the server under
//! greedy visitors.

mod close;
mod heartbeats;
mod instance;
mod large_miner;
mod live;
mod process;
mod quotes;
mod replan;
mod schedule;

use std::path::PathBuf;

use sealyard_planner::Secs;

const HOUR: Secs = 3600;
const DAY: Secs = 24 * HOUR;

#[derive(clap::Parser)]
#[command(
    name = "sealyard-bench",
    version,
    about = "Measures Sealyard: plans, quotes, books, heartbeats, large miners"
)]
struct Cli {
    #[command(subcommand)]
    what: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Plan an instance (`sealsched-instance/1`) and write the schedule (`sealsched-schedule/1`).
    Schedule(ScheduleOptions),
    /// Quote every order of a simulated fleet on its arrival, simulate it to the end, and report
    /// how many quotes were kept.
    Quotes(QuoteOptions),
    /// Apply events to a busy fleet, and report the cost of one event and the steadiness of the
    /// plan.
    Replan(ReplanOptions),
    /// Close one day with many contracts, and compare with the fastest way to write the same lots
    /// and balances.
    Close(CloseOptions),
    /// Send a machine's heartbeats without other traffic, then while many connections request pages
    /// without a pause.
    Heartbeats(HeartbeatOptions),
    /// Follow a simulated miner of many sectors, and report the cost of a turn.
    LargeMiner(LargeMinerOptions),
}

#[derive(clap::Args)]
struct LargeMinerOptions {
    /// Sectors that the miner has at first.
    #[arg(long, default_value_t = 1_000_000)]
    sectors: u64,
    /// Sectors that are new in each turn.
    #[arg(long, default_value_t = 20)]
    new: u64,
    /// Usual turns to measure, after the first two.
    #[arg(long, default_value_t = 7)]
    turns: u32,
    /// Use a node that does not serve the chain's objects by their CIDs.
    #[arg(long)]
    without_objects: bool,
    /// An empty database that may be filled and thrown away.
    #[arg(long)]
    database: String,
}

#[derive(clap::Args)]
struct HeartbeatOptions {
    /// Connections that send requests without a pause.
    #[arg(long, default_value_t = 32)]
    greedy: u32,
    /// Heartbeats to measure, idle and busy each.
    #[arg(long, default_value_t = 1000)]
    times: u32,
    /// An empty database that may be filled and thrown away.
    #[arg(long)]
    database: String,
}

#[derive(clap::Args)]
struct CloseOptions {
    #[arg(long, default_value_t = 1_000_000)]
    contracts: i64,
    #[arg(long, default_value_t = 200_000)]
    accounts: i64,
    #[arg(long, default_value_t = 5)]
    pools: i64,
    /// Latest days that already have lots; the two days that matter for vesting always do.
    #[arg(long, default_value_t = 3)]
    past_days: i64,
    /// An empty database that may be filled and thrown away.
    #[arg(long)]
    database: String,
}

#[derive(clap::Args)]
struct QuoteOptions {
    /// An instance (`sealsched-instance/1`); its machines are the fleet, its orders are not used.
    #[arg(long)]
    fleet: PathBuf,
    /// Demand, per cent of what the fleet can seal.
    #[arg(long, default_value_t = 85)]
    load: u32,
    /// Standard deviation of the logarithm of step durations, per cent.
    #[arg(long, default_value_t = 12)]
    noise: i64,
    /// Days between breakdowns of one machine; 0: none.
    #[arg(long, default_value_t = 45)]
    failure_days: i32,
    /// Noise that the quoting model assumes, if not the real one.
    #[arg(long)]
    model_noise: Option<i64>,
    #[arg(long)]
    model_failure_days: Option<i32>,
    /// Refuse orders whose p95 is further away, hours; 0: refuse none.
    #[arg(long, default_value_t = 0)]
    longest_lead_h: i32,
    #[arg(long, default_value_t = 40)]
    days: i32,
    /// Sectors of an average order.
    #[arg(long, default_value_t = 60)]
    sectors: i32,
    #[arg(long, default_value_t = 64)]
    rounds: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
struct ScheduleOptions {
    #[arg(long)]
    instance: PathBuf,
    #[arg(long)]
    out: PathBuf,
    /// Every order is known from the start; otherwise none is seen before its release.
    #[arg(long)]
    clairvoyant: bool,
    /// Milliseconds of processor time for the search; 0: only try all rules and take the best.
    #[arg(long, default_value_t = 2000)]
    budget_ms: u64,
    /// Use only the usual rule: the quickest plan. Always so with more than 50,000 sectors.
    #[arg(long)]
    one_rule: bool,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(clap::Args)]
struct ReplanOptions {
    #[arg(long)]
    instance: PathBuf,
    #[arg(long, default_value_t = 2000)]
    events: usize,
    /// Standard deviation of the logarithm of step durations while churn is measured, per cent.
    #[arg(long, default_value_t = 12)]
    noise: i64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> std::process::ExitCode {
    let cli = <Cli as clap::Parser>::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::WARN)
        .init();
    match run(&cli.what) {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sealyard-bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn run(what: &Bench) -> anyhow::Result<()> {
    match what {
        Bench::Schedule(options) => schedule::run(options),
        Bench::Quotes(options) => quotes::run(options),
        Bench::Replan(options) => replan::run(options),
        Bench::Close(options) => close::run(options),
        Bench::Heartbeats(options) => heartbeats::run(options),
        Bench::LargeMiner(options) => large_miner::run(options),
    }
}
