//! Expired orders, leases, lost machines, the plan, what is down.

use sealyard_core::{capacity, clock::SECOND, fleet, orders, scheduler, sealing, store::DbFault, units::Bytes};

use super::TurnResult;
use crate::app::{Shared, transact};

pub async fn turn(app: Shared) -> TurnResult {
    let now = app.now();
    let lease = app.config.lease_s * SECOND;
    let patience = app.config.machine_lost_s * SECOND;
    // By itself: every heartbeat writes that row as well.
    transact(&app, move |conn| Ok::<_, DbFault>(fleet::look(conn, now)?)).await?;
    let expired = transact(&app, move |conn| orders::expire_due(conn, now)).await?;
    if expired > 0 {
        tracing::info!(expired, "orders expired unpaid");
    }
    let changes = transact(&app, move |conn| {
        sealing::expire_leases(conn, now)?;
        for machine in sealing::give_up_lost(conn, patience, now)? {
            tracing::warn!(%machine, "machine lost");
        }
        let snapshot = scheduler::take_turn(conn, now)?;
        scheduler::grant(conn, &snapshot, lease)?;
        capacity::book_down(conn, scheduler::disk_left(&snapshot), now)
    })
    .await?;
    for (pool, change) in changes {
        let bytes = Bytes(change.abs());
        match change {
            1.. => tracing::warn!(%pool, %bytes, "no working machine has room for so much: it is not sold"),
            _ => tracing::info!(%pool, %bytes, "can be sold again"),
        }
    }
    Ok(())
}
