//! Settles kept and broken promises, renews the forecasts of open ones, and keeps the latest plan.

use sealyard_core::scheduler;

use super::TurnResult;
use crate::app::{Shared, read, write};

pub async fn turn(app: Shared) -> TurnResult {
    let now = app.now();
    let snapshot = read(&app, move |conn| scheduler::load(conn, now)).await?;
    // The simulation of a large fleet takes a while, so it runs off the async threads.
    let (snapshot, outlook) = tokio::task::spawn_blocking(move || {
        let outlook = scheduler::outlook(&snapshot);
        (snapshot, outlook)
    })
    .await?;
    let settled = write(&app, move |conn| {
        scheduler::forecast_again(conn, &snapshot, &outlook)?;
        scheduler::keep_plan(conn, &snapshot, &outlook)?;
        scheduler::settle(conn, now)
    })
    .await?;
    if settled > 0 {
        tracing::info!(settled, "promises settled");
    }
    Ok(())
}
