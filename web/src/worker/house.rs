//! Leases, lost machines, the plan, expired orders.

use sealyard_core::{clock::SECOND, fleet, orders, scheduler, sealing, store::DbFault};

use super::TurnResult;
use crate::app::{Shared, transact};

pub async fn turn(app: Shared) -> TurnResult {
    let now = app.now();
    let lease = app.config.lease_s * SECOND;
    let patience = app.config.machine_lost_s * SECOND;
    transact(&app, move |conn| {
        fleet::look(conn, now)?;
        sealing::expire_leases(conn, now)?;
        for machine in sealing::give_up_lost(conn, patience, now)? {
            tracing::warn!(%machine, "machine lost");
        }
        scheduler::dispatch(conn, now, lease)?;
        Ok::<_, DbFault>(())
    })
    .await?;
    let expired = transact(&app, move |conn| orders::expire_due(conn, now)).await?;
    if expired > 0 {
        tracing::info!(expired, "orders expired unpaid");
    }
    Ok(())
}
