//! Leases, lost machines, the plan, expired orders.

use sealyard_core::{clock::SECOND, fleet, orders, scheduler, sealing, store::DbFault};

use super::TurnResult;
use crate::app::{Shared, transact};

pub async fn turn(app: Shared) -> TurnResult {
    let now = app.now();
    let lease = app.config.lease_s * SECOND;
    let silent_since = now - app.config.machine_lost_s * SECOND;
    transact(&app, move |conn| {
        sealing::expire_leases(conn, now)?;
        let lost = fleet::mark_lost(conn, silent_since)?;
        for machine in lost {
            tracing::warn!(%machine, "machine lost");
            sealing::release_lost(conn, machine)?;
            for sector in sealing::all_sectors(conn, i64::MAX)?.into_iter().filter(|s| s.machine_id == Some(machine)) {
                sealing::machine_lost(conn, sector, now)?;
            }
        }
        let snapshot = scheduler::load(conn, now)?;
        for assignment in scheduler::plan(&snapshot, None) {
            sealing::assign(conn, assignment.task, assignment.machine, now, now + lease)?;
        }
        Ok::<_, DbFault>(())
    })
    .await?;
    let expired = transact(&app, move |conn| orders::expire_due(conn, now)).await?;
    if expired > 0 {
        tracing::info!(expired, "orders expired unpaid");
    }
    Ok(())
}
