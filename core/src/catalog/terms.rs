//! The terms of a contract, as the investor saw them when buying. Stored with the contract and never changed.

use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Version of this text; a reader of old contracts needs it.
    pub version: u32,
    pub service_fee_bp: i64,
    /// Of each day's net: available at once, basis points; the rest vests.
    pub available_bp: i64,
    /// Daily parts in which the rest is released.
    pub vesting_days: i64,
    /// Who pays gas, the protocol's daily fee, faults and terminations.
    pub chain_costs: Bearer,
    /// Whose FIL secures the sectors.
    pub pledge: Bearer,
    /// When earning starts: with the first successful WindowPoSt of each sector.
    pub starts: Starts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Bearer {
    Operator,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    PowerOn,
}

impl Terms {
    #[must_use]
    pub fn standard(service_fee_bp: i64) -> Self {
        Self {
            version: 1,
            service_fee_bp,
            available_bp: 2500,
            vesting_days: 180,
            chain_costs: Bearer::Operator,
            pledge: Bearer::Operator,
            starts: Starts::PowerOn,
        }
    }
}
