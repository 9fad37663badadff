//! Which machine does what next, and when an order will be done: pure, no clock, no database. A snapshot goes in, assignments
//! and dates come out. What is kept of promises is beside it.

mod dispatch;
mod drawing;
mod explain;
#[cfg(test)]
mod fixture;
mod history;
mod house;
mod plan;
mod promise;
mod snapshot;
mod storing;
mod what_if;

pub use dispatch::{dispatch, grant, need_tickets, take_turn};
pub use drawing::{Drawn, keep_drawing};
pub use explain::{Bottleneck, Gain, Why, bottleneck, gains, numbered, why};
pub use history::History;
pub use house::{FIRST_POST, House, Played, disk_left, house_policy};
pub use plan::{Assignment, plan};
pub use promise::{
    MonthRecord, Promisable, Promise, Promised, available_to_promise, can_give, forecast_again, lessons, months,
    of_order as promise_of_order, paid_late, promise, record, settle,
};
pub use snapshot::{FileMoves, MachineView, Owed, SectorView, Snapshot, TaskView, load};
pub use what_if::{Change, Effect, Outlook, Planned, outlook, what_if};
