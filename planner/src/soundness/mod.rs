//! Invariants of every world at every moment, checked over random fleets, orders, failures and
//! clock jumps.

mod fleets;
mod growth;
mod invariants;
mod moments;
mod plans;
mod starvation;
