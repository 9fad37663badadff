//! From the chain to the books: the chain's records, the split of earnings by power, vesting, and
//! closing each day once.

mod attribute;
mod audit;
mod calendar;
mod close;
mod correct;
mod explain;
mod flows;
mod forecast;
mod parties;
mod pledges;
mod record;
mod vest;

pub use attribute::{Costs, Day, Interval, MadeUp, Member, Rates, Share, attribute, power_epochs};
pub use audit::{Difference, audit};
pub use calendar::calendar;
pub use close::{CHAIN_UNLOCKS_WITHIN, CloseError, Closed, close_day, next_day_to_close, won};
pub use correct::{Correction, CorrectionError, NewCorrection, correct, correction};
pub use explain::explain;
pub use flows::{
    Flow, FlowKind, FlowSums, NO_SECTOR, flow_sums, has_flows, open_flows, record_flows,
};
pub use forecast::{
    Forecast, Outcomes, Projection, Range, forecast, keep_forecast, latest_forecasts, outcomes,
};
pub use record::{
    ChainDay, Cursor, PoolDay, PowerOn, Win, advance_cursor, chain_day, chain_days, counting,
    counting_now, cursor, days, full_quality_after, init_cursor, name_network, power_counting,
    power_off, power_on, record_chain_day, record_win, wins,
};
pub use vest::{Vesting, part, rest, tranche};
