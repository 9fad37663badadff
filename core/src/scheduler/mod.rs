//! Decides which machine does which step next, and when an order will be done. Planning is pure,
//! without clock or database: a snapshot goes in, assignments and dates come out. Snapshots,
//! leases, the previous plan and promises are read and stored by separate functions.

mod beside_sealing;
mod dates;
mod disk;
mod dispatch;
mod explain;
#[cfg(test)]
mod fixture;
mod fleet_model;
mod history;
mod machine_class;
mod plan;
mod previous_plan;
mod progress;
mod promise;
mod snapshot;
mod storing;
mod what_if;

pub use dates::{Promisable, Promised, available_to_promise, can_give, promise};
pub use disk::disk_left;
pub use dispatch::{dispatch, grant, need_tickets, take_turn};
pub use explain::{Bottleneck, Gain, Why, bottleneck, gains, numbered, why};
pub use fleet_model::{FIRST_POST, FleetModel, Simulation, live_policy};
pub use history::History;
pub use plan::{Assignment, plan};
pub use previous_plan::{PlannedBegin, keep_plan};
pub use promise::{
    MonthRecord, Promise, calibration, forecast_again, months, of_order as promise_of_order,
    paid_late, record, settle,
};
pub use snapshot::{Commitment, FileMoves, MachineView, SectorView, Snapshot, TaskView, load};
pub use what_if::{Change, Effect, Outlook, Planned, outlook, what_if};
