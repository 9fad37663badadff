//! The business: money, catalog, orders, contracts, capacity, fleet, sealing, scheduler, yields,
//! ledger, statements, jobs, store, views.
//!
//! Owns every rule and every row. Must not know: HTTP, HTML, Stripe, SMTP, proofs, JSON-RPC.

pub mod accounts;
pub mod capacity;
pub mod catalog;
pub mod clock;
pub mod contracts;
pub mod fleet;
pub mod ids;
pub mod jobs;
pub mod ledger;
pub mod money;
pub mod orders;
pub mod payments;
pub mod proving;
pub mod scheduler;
pub mod sealing;
pub mod statements;
pub mod store;
pub mod units;
pub mod views;
pub mod yields;
