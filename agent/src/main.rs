//! The program on a sealing machine: it enrols, sends heartbeats, takes leases, and runs each step
//! as a child process.
//!
//! Must not know: the database, customers. Everything that must survive a restart is in the
//! machine's folder.

mod check;
mod client;
mod enrol;
mod fetch;
mod files;
mod hardware;
mod parameters;
mod run;
mod runner;
mod signals;
mod step;
mod work_dir;

use std::{net::SocketAddr, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    name = "sealyard-agent",
    version,
    about = "Seals and proves sectors for a Sealyard server"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Work for a server: enrol with a one-time token if this machine is new, then take leases
    /// until stopped.
    Run(Box<RunOptions>),
    /// Look at this machine's hardware, parameters, clock and way to the server, and say what to
    /// correct. The exit code is 1 if there is a problem.
    Check(check::Options),
    /// Fetch the official proof parameters for a sector size.
    Parameters(parameters::Options),
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
    /// Folder with the proof parameters; default: FIL_PROOFS_PARAMETER_CACHE, or without it
    /// /var/tmp/filecoin-proof-parameters.
    #[arg(long, env = "SEALYARD_PARAMETERS_DIR")]
    parameters_dir: Option<PathBuf>,
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

    fn parameters(&self) -> PathBuf {
        parameters::folder_of(self.parameters_dir.as_deref())
    }
}

fn main() -> anyhow::Result<ExitCode> {
    match Cli::parse().command {
        Command::Step { folder } => step::main(&folder)?,
        Command::Check(options) => return check::main(&options),
        Command::Parameters(options) => parameters::main(&options)?,
        Command::Run(options) => {
            log_to_stderr();
            let runtime = tokio::runtime::Builder::new_multi_thread()
                .worker_threads(2)
                .enable_all()
                .build()?;
            let ended = runtime.block_on(run::run(*options));
            // A deletion of large folders may still be running; the next start resumes it.
            runtime.shutdown_background();
            ended?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn log_to_stderr() {
    tracing_subscriber::fmt()
        .with_env_filter(
            tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()),
        )
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        .with_writer(std::io::stderr)
        // A log on a full disk must not end the program.
        .log_internal_errors(false)
        .init();
}
