//! Measures: the planner on instances from outside, the books with many contracts, the server beside greedy visitors.

mod close;
mod heartbeats;
mod instance;
mod large_miner;
mod live;
mod quotes;
mod replan;
mod schedule;

use std::path::PathBuf;

#[derive(clap::Parser)]
#[command(name = "sealyard-bench", version, about = "Measures Sealyard: plans, quotes, books, heartbeats, large miners")]
struct Cli {
    #[command(subcommand)]
    what: Bench,
}

#[derive(clap::Subcommand)]
enum Bench {
    /// Plan an instance (`sealsched-instance/1`) and write the schedule (`sealsched-schedule/1`).
    Schedule(ScheduleOptions),
    /// Quote every order of a simulated world on its arrival, play the world on, and say how many quotes were kept.
    Quotes(QuoteOptions),
    /// Let things happen to a busy fleet, and say what one event costs and how steady the plan is.
    Replan(ReplanOptions),
    /// Close one day of many contracts, and compare with the fastest way to write as many lots and balances.
    Close(CloseOptions),
    /// Send a machine's heartbeats while nobody else asks, then while many connections ask for pages without a pause.
    Heartbeats(HeartbeatOptions),
    /// Follow a simulated miner of many sectors, and say what a turn costs.
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
    /// Turns after the first ones.
    #[arg(long, default_value_t = 7)]
    turns: u32,
    /// The node does not serve the chain's objects by their CIDs.
    #[arg(long)]
    without_objects: bool,
    /// An empty database that may be filled and thrown away.
    #[arg(long)]
    database: String,
}

#[derive(clap::Args)]
struct HeartbeatOptions {
    /// Connections that ask without a pause.
    #[arg(long, default_value_t = 32)]
    greedy: u32,
    /// Heartbeats that are measured, idle and busy.
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
    /// Days that are in the books already; at least three that matter for vesting are.
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
    /// Demand, in hundredths of what the fleet can seal.
    #[arg(long, default_value_t = 85)]
    load: u32,
    /// Standard deviation of the logarithm of step times, per cent.
    #[arg(long, default_value_t = 12)]
    noise: i64,
    /// Days between breakdowns of one machine; 0: none.
    #[arg(long, default_value_t = 45)]
    failure_days: i32,
    /// What the quoting model believes instead.
    #[arg(long)]
    model_noise: Option<i64>,
    #[arg(long)]
    model_failure_days: Option<i32>,
    /// Refuse orders whose p95 is further away, hours; 0: refuse none.
    #[arg(long, default_value_t = 0)]
    longest_lead_h: i32,
    #[arg(long, default_value_t = 40)]
    days: i32,
    /// Sectors of a usual order.
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
    /// Milliseconds of processor time for improving on the rules; 0: the best of all rules.
    #[arg(long, default_value_t = 2000)]
    budget_ms: u64,
    /// The usual rule, once: the quickest plan. With more than 50,000 sectors there is no other.
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
    /// Standard deviation of the logarithm of step times while churn is measured, per cent.
    #[arg(long, default_value_t = 12)]
    noise: i64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

fn main() -> std::process::ExitCode {
    let cli = <Cli as clap::Parser>::parse();
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::WARN).init();
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
