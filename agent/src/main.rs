//! The program on a sealing machine: enrols, reports, takes leases, runs each step as a child process.
//!
//! Must not know: the database, customers. What a machine needs between two of its own restarts is in its folder.

mod client;
mod fetch;
mod files;
mod hardware;
mod run;
mod runner;
mod step;
mod work_dir;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "sealyard-agent", version, about = "Seals and proves sectors for a Sealyard server")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work for a server: enrol with a one-time token if this machine is new, then take leases until stopped.
    Run(Box<RunOptions>),
    /// Run one step (started by `run`, one process per step).
    #[command(hide = true)]
    Step { folder: PathBuf },
}

#[derive(clap::Args)]
struct RunOptions {
    /// The server, for example https://power.example.org.
    #[arg(long, env = "SEALYARD_URL")]
    url: String,
    /// Folder for sectors, work in progress and this machine's key.
    #[arg(long, env = "SEALYARD_AGENT_DIR")]
    dir: PathBuf,
    /// One-time enrolment token; needed once.
    #[arg(long, env = "SEALYARD_ENROL_TOKEN")]
    token: Option<String>,
    /// A file with the token, so that it does not stand in the list of processes.
    #[arg(long, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Take a new key with the token, although this machine has one: the old one was withdrawn, or others may know it.
    #[arg(long)]
    renew_key: bool,
    /// Folder with the proof parameters.
    #[arg(long, env = "SEALYARD_PARAMETERS_DIR")]
    parameters_dir: PathBuf,
    /// Milliseconds between two heartbeats.
    #[arg(long, default_value_t = 5000)]
    heartbeat_ms: u64,
    /// Seconds after which a step is killed.
    #[arg(long, default_value_t = 6 * 3600)]
    step_timeout_s: u64,
    /// Cores to offer; default: all.
    #[arg(long)]
    cores: Option<i64>,
    /// GPUs to offer, whatever is found here; default: those that are found.
    #[arg(long)]
    gpus: Option<usize>,
    /// Show sectors' files on this address (port 0: any free one) to other machines of the fleet, and fetch theirs: so layers go from
    /// machines for PC1 to machines with GPUs. For a network of your own: whoever reads a sector shows a pass, but nothing is encrypted.
    #[arg(long, env = "SEALYARD_FILES_LISTEN")]
    files_listen: Option<SocketAddr>,
    /// How other machines reach that address; default: as it is.
    #[arg(long, env = "SEALYARD_FILES_URL", requires = "files_listen")]
    files_url: Option<String>,
    /// This machine keeps what others seal, and seals nothing.
    #[arg(long, requires = "files_listen")]
    storage: bool,
    /// End when standard input ends, that is with the program that started this one.
    #[arg(long)]
    with_parent: bool,
}

impl RunOptions {
    /// Cores and GPUs, if not all.
    fn offered(&self) -> (Option<i64>, Option<usize>) {
        (self.cores, self.gpus)
    }
}

fn main() -> anyhow::Result<()> {
    match Cli::parse().command {
        Command::Step { folder } => step::main(&folder),
        Command::Run(options) => {
            tracing_subscriber::fmt()
                .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
                .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
                .with_writer(std::io::stderr)
                // A log on a full disk must not end the program.
                .log_internal_errors(false)
                .init();
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?.block_on(run::run(*options))
        }
    }
}
