//! The server program. `sealyard --help` lists its commands.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context;
use clap::{Parser, Subcommand};
use sealyard_core::{
    accounts::{self, NewUser, Registration, Role},
    capacity,
    clock::{self, Clock, SystemClock},
    ids::UserId,
    ledger::{self, LedgerError},
    money::NanoFil,
    orders,
    store::{AnyConnection, Database, DbFault},
    units::Bytes,
    yields,
};
use sealyard_filecoin::{params::DevnetParams, proofs};

use sealyard::{app, commands, config::Config, demo, planning, serve, worker};

#[derive(Parser)]
#[command(
    name = "sealyard",
    version,
    about = "Sells Filecoin storage power, and backs every byte with a proven sector"
)]
struct Cli {
    /// Configuration file (TOML); `SEALYARD_<KEY>` variables override it.
    #[arg(long, global = true, env = "SEALYARD_CONFIG")]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the site, the agents' API and webhooks.
    Serve {
        /// Also run the worker's loops in this process.
        #[arg(long)]
        work: bool,
    },
    /// Run the worker's loops: planning, messages, chain, closing, mail. Any number may run over
    /// one database.
    Work,
    /// Bring the database's tables up to date.
    Migrate,
    /// Add an administrator. The password is read from standard input.
    Admin { email: String, name: String },
    /// Set a new password for an account and end all of its sessions. The password is read from
    /// standard input.
    Password { email: String },
    /// Create a pool for a miner's sectors and record its capacity in the books.
    Pool(commands::PoolOptions),
    /// List machines, withdraw a key, remove a machine, or issue a new key.
    #[command(subcommand)]
    Machine(commands::MachineCommand),
    /// Create, list or withdraw enrolment tokens.
    #[command(subcommand)]
    Token(commands::TokenCommand),
    /// Set the capacity that a pool owns, after machines were bought or returned. Only capacity
    /// that is free or down can be removed.
    Capacity {
        /// The pool's name.
        pool: String,
        /// Total bytes that its machines can store.
        #[arg(value_parser = clap::value_parser!(i64).range(0..))]
        bytes: i64,
    },
    /// Record that the payment provider refunded an order that was paid after its capacity was
    /// gone.
    Refunded {
        /// The order's number, ord_…
        order: String,
        /// E-mail address of the administrator who made the refund.
        #[arg(long)]
        by: String,
    },
    /// Show the schedule: bottleneck, promised and expected dates, what can be promised. Or answer
    /// a question about it.
    Plan {
        #[command(subcommand)]
        question: Option<planning::Question>,
    },
    /// Check the books against the chain's records (the default), explain a figure, or correct an
    /// entry.
    Books {
        #[command(subcommand)]
        what: Option<Books>,
    },
    /// Run an embedded network; prints one JSON line with url, token and miner when it is ready.
    Devnet(DevnetOptions),
    /// Make the devnet's proof parameters.
    Parameters { dir: PathBuf },
    /// Run everything on embedded defaults: a purchase, sealing, a month of proofs, a statement.
    Demo(demo::Options),
    /// A stand-in for Stripe on loopback, for demo and tests.
    #[command(hide = true)]
    FakeStripe(demo::FakeStripeOptions),
    /// An SMTP server that keeps every mail as a file, for demo and tests.
    #[command(hide = true)]
    MailSink { listen: SocketAddr, dir: PathBuf },
}

#[derive(clap::Subcommand)]
enum Books {
    /// Check every balance, every closed day, capacity and coverage. Print the first difference and
    /// where it is.
    Check,
    /// Show how an investor's figures for one UTC day were computed, down to the tipsets.
    Explain {
        email: String,
        /// For example 2026-11-02.
        day: String,
    },
    /// Post a correction of an entry to the first open day. The investor sees it with its reason.
    Correct {
        /// The entry's name, as `books explain` prints it.
        entry: String,
        /// Amount in FIL. Positive: the operator pays the investor. Negative: the amount goes back
        /// to the operator.
        #[arg(allow_hyphen_values = true)]
        fil: NanoFil,
        reason: String,
        /// E-mail address of the administrator who is responsible for the correction.
        #[arg(long)]
        by: String,
    },
}

#[derive(clap::Args)]
struct DevnetOptions {
    #[arg(long, default_value = "127.0.0.1:1234")]
    listen: SocketAddr,
    /// Folder for the chain's data.
    #[arg(long)]
    data: PathBuf,
    /// Settings file (TOML) for a new chain.
    #[arg(long)]
    settings: Option<PathBuf>,
    #[arg(long, default_value = "var/proof-params")]
    parameters_dir: PathBuf,
}

fn main() {
    let cli = Cli::parse();
    if let Err(error) = run(cli) {
        eprintln!("sealyard: {error:#}");
        std::process::exit(1);
    }
}

fn run(cli: Cli) -> anyhow::Result<()> {
    // Each HTTP worker thread runs its own loop; everything else shares this runtime.
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .enable_all()
            .build()
    };
    match cli.command {
        Command::Parameters { dir } => commands::make_parameters(&dir),
        Command::Devnet(options) => {
            in_proof_environment(&options.parameters_dir)?;
            start_logs("text");
            runtime()?.block_on(devnet(options))
        }
        Command::Demo(options) if options.attach => {
            let config = Config::load(cli.config.as_deref(), std::env::vars())?;
            start_logs_to_file(&options)?;
            runtime()?.block_on(demo::attach(options, config))
        }
        Command::Demo(options) => {
            in_proof_environment(&options.parameters_dir())?;
            start_logs_to_file(&options)?;
            runtime()?.block_on(demo::run(options))
        }
        Command::FakeStripe(options) => runtime()?.block_on(demo::fake_stripe(options)),
        Command::MailSink { listen, dir } => runtime()?.block_on(demo::mail_sink(listen, dir)),
        command => {
            let config = Config::load(cli.config.as_deref(), std::env::vars())?;
            start_logs(&config.log_format);
            with_config(command, config, runtime()?)
        }
    }
}

fn with_config(
    command: Command,
    config: Config,
    runtime: tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    match command {
        Command::Migrate => migrate(&config),
        Command::Admin { email, name } => add_admin(&config, &email, &name),
        Command::Password { email } => set_password(&config, &email),
        Command::Pool(options) => add_pool(&config, &options, &runtime),
        Command::Machine(what) => commands::machine(&open(&config)?, &what),
        Command::Token(what) => commands::token(&open(&config)?, &what),
        Command::Capacity { pool, bytes } => resize_pool(&config, &pool, bytes),
        Command::Refunded { order, by } => book_refund(&config, &order, &by),
        Command::Plan { question } => {
            planning::answer(&open(&config)?, question.as_ref(), SystemClock.now())
        }
        Command::Books {
            what: Some(Books::Explain { email, day }),
        } => explain_books(&config, &email, &day),
        Command::Books {
            what:
                Some(Books::Correct {
                    entry,
                    fil,
                    reason,
                    by,
                }),
        } => correct_books(&config, (&entry, fil, &reason), &by),
        Command::Books { .. } => check_books(&config),
        Command::Work => {
            in_proof_environment(&config.parameters_dir)?;
            runtime.block_on(work_only(start(config)?))
        }
        Command::Serve { work: false } => runtime.block_on(serve::run(start(config)?)),
        Command::Serve { work: true } => {
            in_proof_environment(&config.parameters_dir)?;
            runtime.block_on(serve_and_work(start(config)?))
        }
        _ => Ok(()),
    }
}

async fn work_only(app: app::Shared) -> anyhow::Result<()> {
    prepare_verification(&app).await;
    worker::work_alone(app).await
}

async fn serve_and_work(app: app::Shared) -> anyhow::Result<()> {
    prepare_verification(&app).await;
    let working = tokio::spawn(worker::run_until(app.clone(), serve::shutdown_requested()));
    serve::run(app).await?;
    working.await?
}

/// Puts the devnet's verifying keys in place, which come with this program. On other networks the
/// operator has put the official ones there.
async fn prepare_verification(app: &app::Shared) {
    if let Ok(network) = app.node.network_name().await
        && network.starts_with(sealyard_filecoin::params::DEVNET_NAME_PREFIX)
        && let Err(error) = DevnetParams::open(&app.config.parameters_dir, &network)
    {
        tracing::error!(%error, "proofs cannot be verified");
    }
}

/// Opens one connection for a short command, once the tables are those of this release.
fn open(config: &Config) -> anyhow::Result<Database> {
    let db = Database::open_one(&config.database_url)?;
    db.check_schema()?;
    Ok(db)
}

/// Makes the state of a long-running process, once the tables are those of this release.
fn start(config: Config) -> anyhow::Result<app::Shared> {
    Database::open_one(&config.database_url)?.check_schema()?;
    Ok(app::App::new(config, Arc::new(SystemClock))?)
}

fn migrate(config: &Config) -> anyhow::Result<()> {
    let db = Database::open_one(&config.database_url)?;
    match db.migrate()? {
        0 => println!("{} is up to date", db.url()),
        ran => println!("{}: {ran} migrations have run; it is up to date", db.url()),
    }
    Ok(())
}

/// Compares the options with the node's answer about the miner, if the node can be reached.
async fn check_miner(config: &Config, options: &commands::PoolOptions) -> anyhow::Result<()> {
    let first = sealyard_filecoin::rpc::Endpoint {
        url: config.node_url.clone(),
        token: config.node_token.clone(),
    };
    let (timeout, backoff) = (
        std::time::Duration::from_secs(5),
        std::time::Duration::from_millis(50),
    );
    let node = sealyard_filecoin::rpc::Node::new(sealyard_filecoin::rpc::NodeConfig {
        first,
        fallbacks: Vec::new(),
        timeout,
        backoff,
    })?;
    match node.miner_info(&options.miner()?).await {
        Ok(info) => anyhow::ensure!(
            i64::try_from(info.sector_size).ok() == Some(options.sector_bytes()),
            "the node says that this miner's sectors have {} bytes, not {}",
            info.sector_size,
            options.sector_bytes()
        ),
        Err(error) if error.is_temporary() => {
            println!(
                "The node could not be asked about this miner ({error}); \
                 its sector size was not checked."
            );
        }
        Err(error) => anyhow::bail!("the node does not know this miner: {error}"),
    }
    Ok(())
}

fn add_pool(
    config: &Config,
    options: &commands::PoolOptions,
    runtime: &tokio::runtime::Runtime,
) -> anyhow::Result<()> {
    runtime.block_on(check_miner(config, options))?;
    let db = Database::open_one(&config.database_url)?;
    db.migrate()?;
    commands::add_pool(&db, options, SystemClock.now())?;
    println!("pool {} is on sale, in {}", options.name(), db.url());
    Ok(())
}

fn start_logs(format: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| {
        "info,filecoin_proofs=warn,storage_proofs_core=warn,bellperson=warn".into()
    });
    // Colours are for terminals. Files and journals get plain text.
    let is_terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // A log on a full disk must not end the program.
    let logs = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(is_terminal)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if format == "json" {
        logs.json().init()
    } else {
        logs.init()
    }
}

/// The demo reports on the terminal, so its logs go to a file beside its data.
fn start_logs_to_file(options: &demo::Options) -> anyhow::Result<()> {
    std::fs::create_dir_all(&options.dir)
        .with_context(|| format!("creating {}", options.dir.display()))?;
    let file = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(options.dir.join("sealyard.log"))?;
    let filter = tracing_subscriber::EnvFilter::new(
        "info,filecoin_proofs=warn,storage_proofs_core=warn,bellperson=warn",
    );
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(Arc::new(file))
        .log_internal_errors(false)
        .init();
    Ok(())
}

/// The proofs library reads its settings from the environment, once. If they are missing there,
/// this program starts itself again with them.
fn in_proof_environment(parameters_dir: &Path) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    std::fs::create_dir_all(parameters_dir)
        .with_context(|| format!("creating {}", parameters_dir.display()))?;
    let dir = parameters_dir.canonicalize()?;
    if proofs::check_environment(&dir) {
        return Ok(());
    }
    let error = std::process::Command::new(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .envs(proofs::environment(&dir))
        .exec();
    Err(error).context("starting again with the proof environment")
}

async fn devnet(options: DevnetOptions) -> anyhow::Result<()> {
    let settings = match &options.settings {
        None => sealyard_devnet::Config::default(),
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("reading {}", path.display()))?;
            toml::from_str(&text).with_context(|| format!("settings in {}", path.display()))?
        }
    };
    DevnetParams::open(
        &options.parameters_dir.canonicalize()?,
        &settings.network_name,
    )?;
    let devnet = sealyard_devnet::Devnet::start(options.listen, &options.data, settings).await?;
    println!("{}", serde_json::to_string(&devnet.ready)?);
    serve::shutdown_requested().await?;
    devnet.stop().await;
    Ok(())
}

fn read_password() -> anyhow::Result<String> {
    let mut password = String::new();
    std::io::stdin()
        .read_line(&mut password)
        .context("reading the password from standard input")?;
    Ok(password.trim_end_matches(['\r', '\n']).to_owned())
}

/// Sets a new password for somebody who has forgotten it or whose password has leaked. All sessions
/// end.
fn set_password(config: &Config, email: &str) -> anyhow::Result<()> {
    let hash = accounts::password_hash(&read_password()?)?;
    let now = SystemClock.now();
    open(config)?.transact(|conn| accounts::set_password(conn, email, &hash, now))?;
    println!("{email} has a new password; all of its sessions have ended");
    Ok(())
}

fn add_admin(config: &Config, email: &str, name: &str) -> anyhow::Result<()> {
    let password = read_password()?;
    let new = Registration::of(&NewUser {
        email,
        name,
        password: &password,
        role: Role::Admin,
    })?;
    let db = Database::open_one(&config.database_url)?;
    db.migrate()?;
    let now = SystemClock.now();
    db.transact(|conn| accounts::register(conn, &new, now))?;
    println!("{email} is an administrator, in {}", db.url());
    Ok(())
}

fn resize_pool(config: &Config, name: &str, bytes: i64) -> anyhow::Result<()> {
    let db = open(config)?;
    let pools = db.read(|conn| capacity::pools(conn).map_err(DbFault::from))?;
    let pool = planning::pool_named(&pools, name)?;
    let before = db
        .transact(|conn| capacity::resize(conn, pool, bytes, SystemClock.now()))
        .map_err(|error| match error {
            LedgerError::Insufficient { free, .. } => {
                anyhow::anyhow!(
                    "only {} are free; the rest is sold, held, in use or down",
                    Bytes(free)
                )
            }
            error => error.into(),
        })?;
    println!(
        "{name} owned {} and now owns {}",
        Bytes(before),
        Bytes(bytes)
    );
    Ok(())
}

/// The first fault that the check of the books found.
enum Fault {
    Balance(Vec<ledger::Finding>),
    Audit(yields::Difference),
    Capacity(String, capacity::Capacity),
}

fn first_fault(conn: &mut AnyConnection) -> Result<Option<Fault>, yields::CloseError> {
    let findings = ledger::check(conn)?;
    if !findings.is_empty() {
        return Ok(Some(Fault::Balance(findings)));
    }
    if let Some(difference) = yields::audit(conn)? {
        return Ok(Some(Fault::Audit(difference)));
    }
    for pool in capacity::pools(conn)? {
        let capacity = capacity::capacity(conn, pool.id)?;
        if !capacity.holds() {
            return Ok(Some(Fault::Capacity(pool.name, capacity)));
        }
    }
    Ok(None)
}

/// Checks one snapshot, so that sales and closes in the meantime do not look like differences.
fn check_books(config: &Config) -> anyhow::Result<()> {
    let fault = open(config)?.read_at_once(first_fault)?;
    match fault {
        None => {}
        Some(Fault::Balance(findings)) => {
            for finding in &findings {
                println!("{}: {}", finding.account, finding.what);
            }
            anyhow::bail!("the books do not balance ({} findings)", findings.len());
        }
        Some(Fault::Audit(difference)) => anyhow::bail!("{difference}"),
        Some(Fault::Capacity(pool, capacity)) => {
            anyhow::bail!(
                "pool {pool}: owned is not free + held + sold + own use + down: {capacity:?}"
            )
        }
    }
    println!("every balance is the sum of its transfers and lots, and every asset sums to zero");
    println!(
        "every closed day follows from the chain's records, and what can be withdrawn is covered"
    );
    println!("capacity adds up in every pool");
    Ok(())
}

fn administrator(db: &Database, email: &str) -> anyhow::Result<UserId> {
    let found = db
        .read(|conn| accounts::by_email(conn, email).map_err(DbFault::from))?
        .filter(accounts::User::is_admin);
    Ok(found
        .with_context(|| format!("{email} is not an administrator"))?
        .id)
}

fn book_refund(config: &Config, order: &str, by: &str) -> anyhow::Result<()> {
    let db = open(config)?;
    let by = administrator(&db, by)?;
    let found = db.read(|conn| orders::by_public_id(conn, order).map_err(DbFault::from))?;
    let found = found.with_context(|| format!("there is no order {order}"))?;
    let booked = db.transact(|conn| orders::refunded(conn, &found, by, SystemClock.now()))?;
    anyhow::ensure!(booked, "{order} is not waiting for a refund");
    println!("{order}: {} refunded", found.price());
    Ok(())
}

fn correct_books(
    config: &Config,
    (entry, fil, reason): (&str, NanoFil, &str),
    by: &str,
) -> anyhow::Result<()> {
    let db = open(config)?;
    let made_by = administrator(&db, by)?;
    let new = yields::NewCorrection {
        corrects: entry,
        nano: fil.0,
        reason,
        made_by,
    };
    let booked = db.transact(|conn| yields::correct(conn, &new, SystemClock.now()))?;
    println!(
        "{} corrects {} by {fil} FIL: {}",
        booked.transfer_id, booked.corrects, booked.reason
    );
    Ok(())
}

fn explain_books(config: &Config, email: &str, day: &str) -> anyhow::Result<()> {
    let day = clock::parse_day(day)
        .with_context(|| format!("{day:?} is not a date; write it like 2026-11-02"))?;
    let lines = open(config)?.read(|conn| {
        let user = accounts::by_email(conn, email)?;
        user.map(|user| yields::explain(conn, user.id, day))
            .transpose()
    })?;
    for line in lines.with_context(|| format!("there is no account for {email}"))? {
        println!("{line}");
    }
    Ok(())
}
