//! Upkeep of the books: expired orders and leases, lost machines, the plan, capacity that is down.

use sealyard_core::{
    capacity,
    clock::{DAY, HOUR, Micros, SECOND, SECONDS_A_DAY},
    fleet, jobs, orders, scheduler, sealing,
    units::Bytes,
};

use super::TurnResult;
use crate::app::{Shared, transact, write};

pub async fn turn(app: Shared) -> TurnResult {
    let now = app.now();
    let lease = app.config.lease_s * SECOND;
    let silent = app.config.silent_s * SECOND;
    let patience = app.config.machine_lost_s * SECOND;
    // In its own transaction, because every heartbeat writes that row as well.
    write(&app, move |conn| fleet::look(conn, now)).await?;
    ask_the_rail(&app).await?;
    let changes = transact(&app, move |conn| {
        sealing::expire_leases(conn, now)?;
        for machine in sealing::give_up_lost(conn, patience, now)? {
            tracing::warn!(%machine, "machine lost");
        }
        let mut snapshot = scheduler::take_turn(conn, now)?;
        snapshot.leave_out_silent(&fleet::heard_lately(conn, silent, now)?);
        scheduler::grant(conn, &snapshot, lease)?;
        capacity::book_down(conn, scheduler::disk_left(&snapshot), now)
    })
    .await?;
    for (pool, change) in changes {
        let bytes = Bytes(change.abs());
        match change {
            1.. => {
                tracing::warn!(
                    %pool,
                    %bytes,
                    "no working machine has space for this capacity; it is not sold"
                )
            }
            _ => tracing::info!(%pool, %bytes, "this capacity can be sold again"),
        }
    }
    Ok(())
}

/// A day's events may arrive this long after its end.
const LATE_EVENTS: Micros = HOUR;

/// Queues the questions to the payment rail: about orders whose time to pay has run out, and once a
/// day for all events of the day before.
async fn ask_the_rail(app: &Shared) -> TurnResult {
    let now = app.now();
    let today = (app.outside_now() - LATE_EVENTS).div_euclid(DAY);
    write(app, move |conn| {
        for (order, _) in orders::due(conn, now)? {
            let payload = serde_json::json!({"order": order.id.0}).to_string();
            jobs::enqueue(
                conn,
                "order_expiry",
                &format!("{}:{}", order.public_id, order.expires_at),
                &payload,
                now,
            )?;
        }
        let (from, to) = ((today - 1) * SECONDS_A_DAY, today * SECONDS_A_DAY);
        let payload = serde_json::json!({"from": from, "to": to}).to_string();
        jobs::enqueue(conn, "payment_events", &today.to_string(), &payload, now)?;
        Ok(())
    })
    .await?;
    Ok(())
}
