//! The operator's view of the plan, for the console and the command line: its bottleneck, promised
//! and expected dates, the effect of a change.

mod command;
mod gantt;
mod page;
mod view;

pub use command::{Question, answer, change, pool_named};
pub use gantt::Gantt;
pub use page::{PlanAnswer, look};
pub use view::{EffectView, PlanView, effect_view, plan_view};
