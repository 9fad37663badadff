//! Misbehaviour of the outside world: nodes, machines, payers and mail servers that lose, delay,
//! repeat, lie and forget.

mod basics;
pub mod customer;
mod keys;
mod machines;
pub mod mail;
mod messages;
mod nodes;
mod operator;
mod outages;
mod payment_events;
mod payments;
mod results;
mod yard;

use sealyard_core::store::{AnyConnection, Database, DbFault, DbResult};

/// The number of random or repeated trials. `SEALYARD_TRIALS=1000` runs as many as the project goal
/// asks for.
pub fn trials() -> u32 {
    std::env::var("SEALYARD_TRIALS")
        .ok()
        .and_then(|n| n.parse().ok())
        .unwrap_or(25)
}

/// Reads something that must be readable.
fn read<T>(db: &Database, mut work: impl FnMut(&mut AnyConnection) -> DbResult<T>) -> T {
    db.read(|conn| work(conn).map_err(DbFault::from)).unwrap()
}
