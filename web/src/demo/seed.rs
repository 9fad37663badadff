//! People, a pool and plans for the demo. A second run finds them and adds nothing.

use sealyard_core::{
    accounts::{self, NewUser, Registration, Role},
    capacity,
    catalog::{self, NewPlan, Terms},
    clock::Micros,
    ledger::LedgerError,
    money::Fiat,
    store::DbFault,
};

use crate::{
    app::Shared,
    commands::{PoolOptions, add_pool},
};

pub const INVESTOR: &str = "ada@sealyard.example";
pub const INVESTOR_NAME: &str = "Ada Lindqvist";
pub const ADMIN: &str = "operator@sealyard.example";
pub const PASSWORD: &str = "demo-password";

/// Adds a plan for a year of the same power, at a lower price per day and a lower fee.
fn add_longer_plan(app: &Shared, short: &PoolOptions, now: Micros) -> anyhow::Result<()> {
    app.db.transact(|conn| {
        let Some(pool) = capacity::pools(conn)?.pop() else {
            return Ok(());
        };
        let (name, days) = (format!("{}, 365 days", short.name), 365);
        let price = Fiat {
            minor: 3900,
            currency: short.currency.clone(),
        };
        let terms = Terms::standard(1800);
        catalog::create_plan(
            conn,
            &NewPlan::of_sectors(&pool, &name, days, price, terms, now),
        )?;
        Ok::<_, LedgerError>(())
    })?;
    Ok(())
}

/// Adds the operator, and the pool of the devnet's miner with its plans.
pub fn seed(app: &Shared) -> anyhow::Result<()> {
    let now = app.now();
    let seeded = app
        .db
        .read(|conn| accounts::by_email(conn, ADMIN).map_err(DbFault::from))?
        .is_some();
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
    let operator = NewUser {
        email: ADMIN,
        name: "Operator",
        password: PASSWORD,
        role: Role::Admin,
    };
    let operator = Registration::of(&operator)?;
    app.db
        .transact(|conn| accounts::register(conn, &operator, now))?;
    Ok(())
}
