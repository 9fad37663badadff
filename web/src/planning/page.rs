//! The content of the plan page.

use sealyard_core::{
    capacity,
    clock::Micros,
    fleet, scheduler,
    store::{AnyConnection, DbResult},
};

use super::{EffectView, PlanView, Question, change, effect_view, plan_view};

pub struct PlanAnswer {
    pub view: PlanView,
    /// The effect of the change that was asked about.
    pub effect: Option<EffectView>,
    pub machines: Vec<String>,
    pub pools: Vec<String>,
}

/// The plan, and the answer to a question about it. The inner error: the question names something
/// that does not exist.
pub fn look(
    conn: &mut AnyConnection,
    question: Option<&Question>,
    now: Micros,
) -> DbResult<anyhow::Result<PlanAnswer>> {
    let snapshot = scheduler::load(conn, now)?;
    let effect = match question
        .map(|question| change(conn, question))
        .transpose()?
    {
        None => None,
        Some(Err(unknown)) => return Ok(Err(unknown)),
        Some(Ok((change, title))) => {
            let effect = scheduler::what_if(&snapshot, &change);
            Some(effect_view(conn, &snapshot, &effect, title)?)
        }
    };
    Ok(Ok(PlanAnswer {
        view: plan_view(conn, &snapshot)?,
        effect,
        machines: fleet::machines(conn)?.into_iter().map(|m| m.name).collect(),
        pools: capacity::pools(conn)?.into_iter().map(|p| p.name).collect(),
    }))
}
