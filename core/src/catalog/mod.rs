//! The plans on sale, and the terms that are frozen into each contract.

mod plan;
mod terms;

pub use plan::{NewPlan, Plan, create_plan, plan_by_public_id, plan_for, plans_on_sale};
pub use terms::{Pledge, Shortfall, Starts, Terms, terms_by_id, terms_row, terms_text};
