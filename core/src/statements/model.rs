//! A statement as data: amounts in nanoFIL, days counted from 1970-01-01. Renderers only format it.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatementModel {
    /// `2026-10`.
    pub month: String,
    pub name: String,
    pub email: String,
    pub first_day: i64,
    /// The day after the last one.
    pub end_day: i64,
    pub available: AccountLine,
    pub vesting: AccountLine,
    #[serde(default)]
    pub pledged: AccountLine,
    pub contracts: Vec<ContractLine>,
    pub days: Vec<DayLine>,
}

/// `closing = opening + moved_in - moved_out`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AccountLine {
    pub opening: i64,
    pub moved_in: i64,
    pub moved_out: i64,
    pub closing: i64,
}

/// `gross = fee + cost + net`.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ContractLine {
    pub contract: String,
    pub bytes: i64,
    pub gross: i64,
    pub fee: i64,
    /// The chain's costs that the contract bears, and the charge for the pledge.
    #[serde(default)]
    pub cost: i64,
    pub net: i64,
    /// Compensation for promised power that was missing.
    #[serde(default)]
    pub compensation: i64,
}

/// One day, summed over all contracts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DayLine {
    pub day: i64,
    /// Service fee and costs.
    pub fee: i64,
    pub to_available: i64,
    pub to_vesting: i64,
    pub vested: i64,
}
