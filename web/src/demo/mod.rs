//! The whole installation on embedded defaults, driven through its public interfaces, with
//! stand-ins for the outside world.

mod chain_clock;
mod clock_driver;
mod fake_stripe;
mod mail_sink;
mod mailbox;
mod purchase;
mod seed;
mod setup;
mod story;
mod upgrade;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use sealyard_core::{
    clock::{Month, SystemClock},
    contracts::Contract,
};

pub use fake_stripe::{FakeStripeOptions, run as fake_stripe};
pub use mail_sink::run as mail_sink;
#[cfg(test)]
pub use seed::ADMIN;
pub use seed::seed;

use crate::{app::App, commands::make_parameters, config::Config, serve, worker};
use chain_clock::ChainClock;
use clock_driver::Driver;
use story::Story;

#[derive(clap::Args)]
pub struct Options {
    /// Folder for everything that the demo writes.
    #[arg(long, default_value = "var/demo")]
    pub dir: PathBuf,
    /// `sqlite://…` (default: a file in the demo's folder) or `postgres://…`.
    #[arg(long)]
    database_url: Option<String>,
    #[arg(long, default_value = "127.0.0.1:8080")]
    listen: SocketAddr,
    /// Sectors to buy.
    #[arg(long, default_value_t = 2)]
    sectors: i64,
    /// Also live through the change to network version 29 (FIP-0118), with contracts from both
    /// sides of it.
    #[arg(long)]
    across_version_29: bool,
    /// Exit when the demo is complete. The exit code says whether every invariant held.
    #[arg(long)]
    exit: bool,
    /// When the demo is complete, seconds that an hour of the network's time takes.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    hour_s: u64,
    /// Proof parameters; made once and reused.
    #[arg(long)]
    parameters_dir: Option<PathBuf>,
    /// Start nothing: buy from the server that runs with `--config`, let its network's time pass,
    /// check it. Whatever was done before is found there, so this can be started again and again.
    #[arg(long)]
    pub attach: bool,
}

impl Options {
    pub fn parameters_dir(&self) -> PathBuf {
        self.parameters_dir
            .clone()
            .unwrap_or_else(|| PathBuf::from("var/proof-params"))
    }
}

pub async fn run(options: Options) -> anyhow::Result<()> {
    let story = Story::new();
    let parameters = options.parameters_dir();
    story
        .step("Proof parameters", async {
            let dir = parameters.clone();
            tokio::task::spawn_blocking(move || make_parameters(&dir)).await?
        })
        .await?;
    std::fs::create_dir_all(&options.dir)?;
    let dir = options.dir.canonicalize()?;
    let listener = serve::bind(&options.listen.to_string())?;
    let public_url = format!("http://{}", listener.local_addr()?);

    let devnet = setup::start_devnet(&dir).await?;
    story.say(&format!(
        "network {} with miner {} on {}",
        setup::NETWORK,
        devnet.ready.miner,
        devnet.ready.url
    ));
    let outside = setup::Outside::start(&dir, &public_url).await?;
    let config = setup::config(&options, &dir, &public_url, &devnet.ready, &outside)?;
    let clock = Arc::new(ChainClock::start(
        dir.join("clock"),
        setup::head_at(&devnet.ready).await?,
    ));
    let app = App::new(config, clock.clone())?;
    app.db.migrate()?;
    seed::seed(&app)?;
    tokio::spawn(serve::start(app.clone(), listener)?);
    tokio::spawn(worker::run_until(app.clone(), std::future::pending()));
    let _agents = setup::start_agents(&app, &dir, &public_url, &parameters.canonicalize()?)?;
    story.say(&format!(
        "site, worker, two sealing machines and one storage machine are running: {public_url}"
    ));

    let driver = Driver::new(app.clone(), Some(clock)).await?;
    let sound = live(&story, &driver, &dir, &options).await?;
    print_logins(&public_url);
    anyhow::ensure!(sound, "an invariant does not hold");
    if options.exit {
        return Ok(());
    }
    stay_up(&driver, options.hour_s).await?;
    devnet.stop().await;
    Ok(())
}

fn print_logins(public_url: &str) {
    println!("\nSign in at {public_url}/login");
    println!(
        "  investor  {}  password  {}",
        seed::INVESTOR,
        seed::PASSWORD
    );
    println!("  operator  {}  password  {}", seed::ADMIN, seed::PASSWORD);
}

/// Lets the network's time pass until the process is told to stop.
async fn stay_up(driver: &Driver, hour_s: u64) -> anyhow::Result<()> {
    let (hour, day) = (hour_s, hour_s * 24);
    println!(
        "\nThe site stays up until you press Ctrl-C. An hour of the network's time passes every \
         {hour} s, a day every {day} s;"
    );
    println!(
        "it waits while machines seal and while an order waits for its payment. Buy something: \
         it is sealed, proven, and earns."
    );
    tokio::select! {
        () = driver.go_on(Duration::from_secs(hour_s)) => {}
        asked = serve::shutdown_requested() => asked?,
    }
    Ok(())
}

/// Runs the same story with an installation whose parts are separate processes. Mails are expected
/// in `mail` under the given folder.
pub async fn attach(options: Options, config: Config) -> anyhow::Result<()> {
    let story = Story::new();
    let app = App::new(config, Arc::new(SystemClock))?;
    app.db.migrate()?;
    seed::seed(&app)?;
    let driver = Driver::new(app, None).await?;
    let sound = live(&story, &driver, &options.dir, &options).await?;
    anyhow::ensure!(sound, "an invariant does not hold");
    Ok(())
}

/// Runs one purchase, from the order to the statement of the first month in which it earned. True
/// if every invariant holds.
async fn live(
    story: &Story,
    driver: &Driver,
    dir: &Path,
    options: &Options,
) -> anyhow::Result<bool> {
    let app = &driver.app;
    let public_url = &app.config.public_url;
    let buyer = purchase::Buyer {
        url: public_url.clone(),
        outside: app.config.stripe_api.clone(),
    };
    let contract = story
        .step("Purchase", buyer.buy(app, options.sectors))
        .await?;
    story.link(
        "contract",
        &format!("{public_url}/contracts/{}", contract.public_id),
    );

    story
        .step("Sealing and activation", driver.until_on_chain(contract.id))
        .await?;
    story
        .step(
            "First WindowPoSt: the network counts the power",
            driver.until_active(contract.id),
        )
        .await?;
    let across = if options.across_version_29 {
        Some(upgrade::live_through(story, driver, &buyer, &contract).await?)
    } else {
        None
    };
    let month = earning_month(driver, &contract).await?;
    let end_day = month.days().context("month")?.1;
    let name = format!("{}: daily proofs, rewards, closed days", month.long_text());
    story
        .step(&name, driver.until_month_closed(contract.id, end_day))
        .await?;
    let sent = story
        .step(
            "Statement",
            mailbox::wait_for(app, &contract, month, &dir.join("mail")),
        )
        .await?;
    story.link("mail", &sent.file.display().to_string());
    story.finish(app, &contract, (month, &sent), across).await
}

/// The first calendar month in which the sectors earn from the first day on.
async fn earning_month(driver: &Driver, contract: &Contract) -> anyhow::Result<Month> {
    let start = driver.first_power_day(contract.id).await?;
    Month::of_day(start + 1).context("month")
}
