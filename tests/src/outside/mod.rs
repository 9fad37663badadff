//! Misbehaviour of the outside world: nodes, machines, payers and mail servers that lose, delay,
//! repeat, lie and forget.

mod basics;
mod customer;
mod machines;
mod mail;
mod messages;
mod nodes;
mod operator;
mod payments;
mod yard;

/// The number of random or repeated trials. `SEALYARD_TRIALS=1000` runs as many as the project goal
/// asks for.
pub fn trials() -> u32 {
    std::env::var("SEALYARD_TRIALS").ok().and_then(|n| n.parse().ok()).unwrap_or(25)
}
