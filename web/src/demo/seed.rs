//! People, a pool and a plan for the demo; a second run finds them there.

use fvm_shared::address::Address;
use sealyard_core::{
    accounts::{self, NewUser, Registration, Role},
    capacity::{self, NewPool},
    catalog::{self, NewPlan, Pledge, Shortfall, Terms},
    clock::Micros,
    money::Fiat,
    store::{Database, DbFault},
};

use crate::app::Shared;

pub const INVESTOR: &str = "ada@sealyard.example";
pub const INVESTOR_NAME: &str = "Ada Lindqvist";
pub const ADMIN: &str = "operator@sealyard.example";
pub const PASSWORD: &str = "demo-password";

#[derive(clap::Args)]
pub struct PoolOptions {
    #[arg(long)]
    pub name: String,
    /// Actor id of the miner: 1000, or f01000.
    #[arg(long, value_parser = miner_id)]
    pub miner_id: i64,
    /// Number of the first sector to seal here. A miner never uses a number twice: choose one above
    /// every number that it has ever used.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub first_sector: i64,
    /// Bytes of one sector: 34359738368 for 32 GiB.
    #[arg(long, value_parser = sector_size)]
    pub sector_bytes: i64,
    /// Bytes that the pool's machines can store.
    #[arg(long)]
    pub capacity_bytes: i64,
    /// Term, in days, of the plan to put on sale. A unit is one sector.
    #[arg(long, default_value_t = 540, value_parser = clap::value_parser!(i64).range(SHORTEST_DAYS..=LONGEST_DAYS))]
    pub days: i64,
    /// Price of one sector for the whole term, in minor units.
    #[arg(long, value_parser = clap::value_parser!(i64).range(1..))]
    pub price_minor: i64,
    /// Currency of the prices. Its minor unit must be a hundredth.
    #[arg(long, default_value = "USD", value_parser = currency)]
    pub currency: String,
    /// Service fee, in basis points.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(i64).range(0..=10_000))]
    pub fee_bp: i64,
    /// Also sell a second plan, under which investors provide the pledge, at this price per sector
    /// in minor units.
    #[arg(long, requires = "own_pledge_fee_bp", value_parser = clap::value_parser!(i64).range(1..))]
    pub own_pledge_price_minor: Option<i64>,
    /// Service fee of that plan, in basis points.
    #[arg(long, requires = "own_pledge_price_minor", value_parser = clap::value_parser!(i64).range(0..=10_000))]
    pub own_pledge_fee_bp: Option<i64>,
    /// Extend the term of that plan for missing power by at most this many days, instead of paying
    /// compensation. Sectors are committed for up to 30 days more than the term.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..=28))]
    pub added_days: i64,
}

/// The protocol's shortest life of a sector, and what its longest (1278 days) leaves for sealing, the first proof and added days.
const SHORTEST_DAYS: i64 = 180;
const LONGEST_DAYS: i64 = 1185;

/// Sectors that there are: of 2 KiB, 8 MiB and 512 MiB on test networks, of 32 and 64 GiB.
fn sector_size(text: &str) -> Result<i64, String> {
    const SIZES: [i64; 5] = [2048, 8 << 20, 512 << 20, 32 << 30, 64 << 30];
    let bytes = text.parse().map_err(|_| "write a number of bytes".to_owned())?;
    if SIZES.contains(&bytes) { Ok(bytes) } else { Err(format!("no sector has this size; sizes are {SIZES:?} bytes")) }
}

/// `1000`, `f01000` or `t01000`.
fn miner_id(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix("f0").or_else(|| text.strip_prefix("t0")).unwrap_or(text);
    match digits.parse() {
        Ok(id) if id > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(id),
        _ => Err("write the miner's actor id, like 1000 or f01000".to_owned()),
    }
}

impl PoolOptions {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub const fn sector_bytes(&self) -> i64 {
        self.sector_bytes
    }

    pub fn miner(&self) -> anyhow::Result<Address> {
        Ok(Address::new_id(u64::try_from(self.miner_id)?))
    }
}

/// Two pools would give two sectors one name, or one miner's sectors one number.
fn check_new(pools: &[capacity::Pool], options: &PoolOptions) -> anyhow::Result<()> {
    for pool in pools {
        anyhow::ensure!(pool.name != options.name, "there is a pool called {} already; choose another name", pool.name);
        anyhow::ensure!(
            pool.miner_id != options.miner_id,
            "pool {} already exists for miner {}; `sealyard capacity {} BYTES` makes it larger",
            pool.name,
            pool.miner,
            pool.name
        );
    }
    Ok(())
}

fn currency(text: &str) -> Result<String, String> {
    const HUNDREDTHS: [&str; 10] = ["USD", "EUR", "GBP", "CHF", "AUD", "CAD", "SGD", "HKD", "SEK", "NZD"];
    let code = text.to_uppercase();
    if HUNDREDTHS.contains(&code.as_str()) { Ok(code) } else { Err(format!("use one of {}", HUNDREDTHS.join(", "))) }
}

/// Under which investors put up the pledge themselves.
fn own_pledge(fee_bp: i64, added_days: i64) -> Terms {
    let shortfall = if added_days > 0 { Shortfall::AddedDays { most: added_days } } else { Shortfall::PaidInFil };
    Terms { pledge: Pledge::Investor { terminations_bp: 0 }, shortfall, ..Terms::standard(fee_bp) }
}

/// A pool with its capacity in the books and a plan of one sector a unit on sale.
pub fn add_pool(db: &Database, options: &PoolOptions, now: Micros) -> anyhow::Result<()> {
    anyhow::ensure!(options.capacity_bytes >= options.sector_bytes, "capacity_bytes must hold at least one sector");
    db.migrate()?;
    check_new(&db.read(|conn| capacity::pools(conn).map_err(DbFault::from))?, options)?;
    db.transact(|conn| {
        let pool = capacity::create_pool(
            conn,
            &NewPool::from_sector(options.first_sector, &options.name, options.miner_id, options.sector_bytes, now),
        )?;
        capacity::grow(conn, pool.id, "initial", options.capacity_bytes, now)?;
        let price = Fiat { minor: options.price_minor, currency: options.currency.clone() };
        let name = format!("{}, {} days", options.name, options.days);
        let plan = NewPlan::of_sectors(&pool, &name, options.days, price, Terms::standard(options.fee_bp), now);
        catalog::create_plan(conn, &plan)?;
        if let (Some(minor), Some(fee_bp)) = (options.own_pledge_price_minor, options.own_pledge_fee_bp) {
            let price = Fiat { minor, currency: options.currency.clone() };
            let terms = own_pledge(fee_bp, options.added_days);
            let plan = NewPlan::of_sectors(&pool, &format!("{name}, own pledge"), options.days, price, terms, now);
            catalog::create_plan(conn, &plan)?;
        }
        Ok::<_, sealyard_core::ledger::LedgerError>(())
    })?;
    Ok(())
}

/// The same power for a year: a day costs less, and the fee is lower.
fn add_longer_plan(app: &Shared, short: &PoolOptions, now: Micros) -> anyhow::Result<()> {
    app.db.transact(|conn| {
        let Some(pool) = capacity::pools(conn)?.pop() else { return Ok(()) };
        let (name, days) = (format!("{}, 365 days", short.name), 365);
        let price = Fiat { minor: 3900, currency: short.currency.clone() };
        let terms = Terms::standard(1800);
        catalog::create_plan(conn, &NewPlan::of_sectors(&pool, &name, days, price, terms, now))?;
        Ok::<_, sealyard_core::ledger::LedgerError>(())
    })?;
    Ok(())
}

/// The operator, the pool of the devnet's miner and its plans.
pub fn seed(app: &Shared) -> anyhow::Result<()> {
    let now = app.now();
    let seeded = app.db.read(|conn| accounts::by_email(conn, ADMIN).map_err(sealyard_core::store::DbFault::from))?.is_some();
    if seeded {
        return Ok(());
    }
    let options = PoolOptions {
        name: "Devnet".into(),
        miner_id: 1000,
        first_sector: 1,
        sector_bytes: 2048,
        capacity_bytes: 64 * 2048,
        days: 210,
        price_minor: 2400,
        currency: "USD".into(),
        fee_bp: 2000,
        own_pledge_price_minor: Some(1800),
        own_pledge_fee_bp: Some(1000),
        added_days: 25,
    };
    add_pool(&app.db, &options, now)?;
    add_longer_plan(app, &options, now)?;
    let operator = NewUser { email: ADMIN, name: "Operator", password: PASSWORD, role: Role::Admin };
    let operator = Registration::of(&operator)?;
    app.db.transact(|conn| accounts::register(conn, &operator, now))?;
    Ok(())
}
