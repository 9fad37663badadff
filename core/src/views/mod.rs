//! One call reads all figures and rows that a page or an answer shows, of several modules, without
//! words. Above every other module of the core; none of them knows it.

mod books;
mod contract;
mod fleet;
mod ledger;
mod offer;
mod pipeline;
mod portfolio;
mod storefront;

pub use books::{ChainBooks, PoolBooks, books};
pub use contract::{ContractView, DayOfContract, SectorView, contract};
pub use fleet::{FleetView, MachineView, fleet};
pub use ledger::{LedgerEntry, LedgerView, Wallet, ledger};
pub use offer::{ForecastWithRecord, Offer, offer};
pub use pipeline::{Attention, PipelineView, SectorInPipeline, StepView, pipeline};
pub use portfolio::{Balances, Holding, OrderView, Portfolio, order, portfolio};
pub use storefront::{PoolSupply, Storefront, storefront};
