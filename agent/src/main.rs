//! The program on a sealing machine: it enrols, sends heartbeats, takes leases, and runs each step
//! as a child process.
//!
//! Must not know: the database, customers. Everything that must survive a restart is in the
//! machine's folder.

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
    /// File that contains the token, so that the token does not appear in the process list.
    #[arg(long, conflicts_with = "token")]
    token_file: Option<PathBuf>,
    /// Get a new key with the token although this machine has one, because the old key was
    /// withdrawn or may be known to others.
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
    /// GPUs to offer, whatever is detected; default: those that are detected.
    #[arg(long)]
    gpus: Option<usize>,
    /// Serve sectors' files on this address (port 0: any free port) to other machines of the fleet,
    /// and fetch theirs, so that layers move from PC1 machines to GPU machines. Use it only on a
    /// private network: readers need a pass, but nothing is encrypted.
    #[arg(long, env = "SEALYARD_FILES_LISTEN")]
    files_listen: Option<SocketAddr>,
    /// URL at which other machines reach that address; default: the address itself.
    #[arg(long, env = "SEALYARD_FILES_URL", requires = "files_listen")]
    files_url: Option<String>,
    /// Store sectors that other machines seal, and seal none here.
    #[arg(long, requires = "files_listen")]
    storage: bool,
    /// Exit when standard input closes, that is, when the program that started this one exits.
    #[arg(long)]
    with_parent: bool,
}

impl RunOptions {
    /// The cores and GPUs to offer; `None` means all.
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
