//! The operator's view of the plan, for the console and the command line: what limits it, what is promised and expected, what a
//! change would do.

mod command;
mod gantt;
mod view;

pub use command::{Question, answer, change, pool_named};
pub use gantt::Gantt;
pub use view::{EffectView, PlanView, effect_view, plan_view};
