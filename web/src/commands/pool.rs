//! `sealyard pool`: a pool with its capacity, and its plans.

use fvm_shared::address::Address;
use sealyard_core::{
    capacity::{self, NewPool},
    catalog::{self, NewPlan, Pledge, Shortfall, Terms},
    clock::Micros,
    ledger::LedgerError,
    money::Fiat,
    store::{Database, DbFault},
};

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
    #[arg(
        long,
        default_value_t = 540,
        value_parser = clap::value_parser!(i64).range(SHORTEST_DAYS..=LONGEST_DAYS)
    )]
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
    #[arg(
        long,
        requires = "own_pledge_price_minor",
        value_parser = clap::value_parser!(i64).range(0..=10_000)
    )]
    pub own_pledge_fee_bp: Option<i64>,
    /// Extend the term of that plan for missing power by at most this many days, instead of paying
    /// compensation. Sectors are committed for up to 30 days more than the term.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(i64).range(0..=28))]
    pub added_days: i64,
}

/// The shortest life of a sector under the protocol.
const SHORTEST_DAYS: i64 = 180;
/// The longest is 1278 days. Sealing, the first proof and added days need the difference.
const LONGEST_DAYS: i64 = 1185;

/// Parses one of the protocol's sector sizes: 2 KiB, 8 MiB and 512 MiB for test networks, 32 and 64
/// GiB.
fn sector_size(text: &str) -> Result<i64, String> {
    const SIZES: [i64; 5] = [2048, 8 << 20, 512 << 20, 32 << 30, 64 << 30];
    let bytes = text
        .parse()
        .map_err(|_| "write a number of bytes".to_owned())?;
    if SIZES.contains(&bytes) {
        Ok(bytes)
    } else {
        Err(format!(
            "no sector has this size; sizes are {SIZES:?} bytes"
        ))
    }
}

/// Parses `1000`, `f01000` or `t01000`.
fn miner_id(text: &str) -> Result<i64, String> {
    let digits = text
        .strip_prefix("f0")
        .or_else(|| text.strip_prefix("t0"))
        .unwrap_or(text);
    match digits.parse() {
        Ok(id) if id > 0 && digits.bytes().all(|byte| byte.is_ascii_digit()) => Ok(id),
        _ => Err("write the miner's actor id, like 1000 or f01000".to_owned()),
    }
}

/// A plan that a new pool puts on sale.
struct Offer {
    name: String,
    /// Price of one sector, in minor units.
    minor: i64,
    terms: Terms,
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

    fn offers(&self) -> Vec<Offer> {
        let name = format!("{}, {} days", self.name, self.days);
        let own_pledge = self.own_pledge_price_minor.zip(self.own_pledge_fee_bp);
        let own_pledge = own_pledge.map(|(minor, fee_bp)| Offer {
            name: format!("{name}, own pledge"),
            minor,
            terms: own_pledge_terms(fee_bp, self.added_days),
        });
        let standard = Offer {
            name,
            minor: self.price_minor,
            terms: Terms::standard(self.fee_bp),
        };
        [standard].into_iter().chain(own_pledge).collect()
    }
}

/// Refuses a second pool of the same name or miner: sectors would share names or numbers.
fn check_new(pools: &[capacity::Pool], options: &PoolOptions) -> anyhow::Result<()> {
    for pool in pools {
        anyhow::ensure!(
            pool.name != options.name,
            "there is a pool called {} already; choose another name",
            pool.name
        );
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
    const HUNDREDTHS: [&str; 10] = [
        "USD", "EUR", "GBP", "CHF", "AUD", "CAD", "SGD", "HKD", "SEK", "NZD",
    ];
    let code = text.to_uppercase();
    if HUNDREDTHS.contains(&code.as_str()) {
        Ok(code)
    } else {
        Err(format!("use one of {}", HUNDREDTHS.join(", ")))
    }
}

/// Terms under which investors provide the pledge themselves.
fn own_pledge_terms(fee_bp: i64, added_days: i64) -> Terms {
    let shortfall = if added_days > 0 {
        Shortfall::AddedDays { most: added_days }
    } else {
        Shortfall::PaidInFil
    };
    Terms {
        pledge: Pledge::Investor { terminations_bp: 0 },
        shortfall,
        ..Terms::standard(fee_bp)
    }
}

/// Adds a pool, with its capacity in the books and its plans on sale. A unit is one sector.
pub fn add_pool(db: &Database, options: &PoolOptions, now: Micros) -> anyhow::Result<()> {
    anyhow::ensure!(
        options.capacity_bytes >= options.sector_bytes,
        "capacity_bytes must hold at least one sector"
    );
    db.migrate()?;
    check_new(
        &db.read(|conn| capacity::pools(conn).map_err(DbFault::from))?,
        options,
    )?;
    db.transact(|conn| {
        let pool = capacity::create_pool(
            conn,
            &NewPool::from_sector(
                options.first_sector,
                &options.name,
                options.miner_id,
                options.sector_bytes,
                now,
            ),
        )?;
        capacity::grow(conn, pool.id, "initial", options.capacity_bytes, now)?;
        for Offer { name, minor, terms } in options.offers() {
            let price = Fiat {
                minor,
                currency: options.currency.clone(),
            };
            let plan = NewPlan::of_sectors(&pool, &name, options.days, price, terms, now);
            catalog::create_plan(conn, &plan)?;
        }
        Ok::<_, LedgerError>(())
    })?;
    Ok(())
}
