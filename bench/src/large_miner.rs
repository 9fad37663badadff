//! The cost of following a miner of many sectors: time, calls, bytes and memory of a turn that
//! reads half an hour of the chain.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use sealyard_core::{
    clock::{Clock, SystemClock},
    store::DbFault,
    yields,
};
use sealyard_devnet::large_miner::{LargeMiner, SECTOR_BYTES, Size};

use crate::{LargeMinerOptions, process::peak_mib};
use sealyard::{
    app::{self, Shared},
    commands::{self, PoolOptions},
    config::Config,
    worker,
};

/// Epochs of a chunk, and so of one turn here.
const CHUNK: i64 = 60;
/// The epoch at which reading begins.
const FIRST: i64 = 600;

fn open(options: &LargeMinerOptions, node_url: &str) -> anyhow::Result<Shared> {
    let config = Config {
        database_url: options.database.clone(),
        session_secret: "a bench has no sessions worth keeping".into(),
        node_url: node_url.to_owned(),
        finality: 0,
        head_lag_epochs: 0,
        ..Config::default()
    };
    Ok(app::App::new(config, Arc::new(SystemClock))?)
}

fn add_pool(app: &Shared) -> anyhow::Result<()> {
    app.db.migrate()?;
    let pool = PoolOptions {
        name: "Large".into(),
        miner_id: 1000,
        first_sector: 1 << 40,
        sector_bytes: SECTOR_BYTES,
        capacity_bytes: 1 << 50,
        days: 360,
        price_minor: 1000,
        currency: "USD".into(),
        fee_bp: 2000,
        own_pledge_price_minor: None,
        own_pledge_fee_bp: None,
        added_days: 0,
    };
    commands::add_pool(&app.db, &pool, SystemClock.now())
}

/// Runs one turn of the loop that reads the chain, and prints its traffic. Returns its duration.
async fn turn(app: &Shared, node: &LargeMiner, name: &str) -> anyhow::Result<Duration> {
    let _ = node.traffic();
    let began = Instant::now();
    worker::follow_chain(app.clone()).await?;
    let took = began.elapsed();
    let (calls, bytes) = node.traffic();
    println!(
        "{name}: {took:.1?}, {calls} calls, {} KiB, peak memory {} MiB",
        bytes >> 10,
        peak_mib()?
    );
    Ok(took)
}

pub fn run(options: &LargeMinerOptions) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(follow(options))
}

async fn follow(options: &LargeMinerOptions) -> anyhow::Result<()> {
    let size = Size {
        sectors: options.sectors,
        new_each_window: options.new,
        epochs: FIRST + CHUNK * (i64::from(options.turns) + 4),
        serves_objects: !options.without_objects,
    };
    let node = LargeMiner::start(size, FIRST)?;
    let mut app = open(options, &node.url)?;
    add_pool(&app)?;
    turn(&app, &node, "first look").await?;
    node.set_head(FIRST + CHUNK);
    turn(&app, &node, "taking over all sectors").await?;
    let mut usual = Vec::new();
    for at in 2..i64::from(options.turns) + 2 {
        node.set_head(FIRST + at * CHUNK);
        usual.push(turn(&app, &node, "usual turn").await?);
    }
    app = open(options, &node.url)?;
    let last = FIRST + (i64::from(options.turns) + 2) * CHUNK;
    node.set_head(last);
    turn(&app, &node, "first turn after a restart").await?;
    check(&app, options, last)?;
    usual.sort_unstable();
    println!(
        "usual turn, median: {:.1?}",
        usual.get(usual.len() / 2).copied().unwrap_or_default()
    );
    Ok(())
}

/// Checks that all sectors of the miner at this epoch are recorded.
fn check(app: &Shared, options: &LargeMinerOptions, epoch: i64) -> anyhow::Result<()> {
    let pools = app
        .db
        .read(|conn| sealyard_core::capacity::pools(conn).map_err(DbFault::from))?;
    let pool = pools.first().context("no pool")?.id;
    let (numbers, power) = app
        .db
        .read(move |conn| yields::counting_now(conn, pool).map_err(DbFault::from))?;
    let expected = options.sectors + options.new * u64::try_from(epoch / CHUNK)?;
    ensure!(
        u64::try_from(numbers.len())? == expected
            && power == i128::from(SECTOR_BYTES) * i128::from(expected),
        "{} sectors with {power} bytes are recorded, the miner has {expected}",
        numbers.len()
    );
    Ok(())
}
