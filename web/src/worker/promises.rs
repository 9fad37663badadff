//! What became of promises, and what is expected of those that are open.

use sealyard_core::{capacity, scheduler, store::DbFault, units::Bytes};

use super::TurnResult;
use crate::app::{Shared, read, transact};

pub async fn turn(app: Shared) -> TurnResult {
    let now = app.now();
    let snapshot = read(&app, move |conn| scheduler::load(conn, now)).await?;
    let backed = scheduler::disk_left(&snapshot);
    for (pool, change) in transact(&app, move |conn| capacity::book_down(conn, backed, now)).await? {
        let bytes = Bytes(change.abs());
        match change {
            1.. => tracing::warn!(%pool, %bytes, "no working machine has room for so much: it is not sold"),
            _ => tracing::info!(%pool, %bytes, "can be sold again"),
        }
    }
    // Playing a large house on takes a while; nothing waits for it.
    let (snapshot, outlook) = tokio::task::spawn_blocking(move || {
        let outlook = scheduler::outlook(&snapshot);
        (snapshot, outlook)
    })
    .await?;
    let settled = transact(&app, move |conn| {
        scheduler::forecast_again(conn, &snapshot, &outlook)?;
        Ok::<_, DbFault>(scheduler::settle(conn, now)?)
    })
    .await?;
    if settled > 0 {
        tracing::info!(settled, "promises settled");
    }
    Ok(())
}
