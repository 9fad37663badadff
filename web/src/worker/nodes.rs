//! Compares the nodes' heads: a node that answers may still be a day behind.

use std::time::Duration;

use sealyard_core::{
    clock::SECOND,
    jobs::{self, AlertKind},
};
use sealyard_filecoin::rpc::Freshness;

use super::TurnResult;
use crate::app::{Shared, write};

const PAUSE: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// Looks at every node's head for ever. Each process does so for itself, because each has its own
/// list of nodes that it does not use.
pub async fn watch(app: Shared) {
    loop {
        if let Err(error) = look(&app).await {
            tracing::debug!(error = format!("{error:#}"), "the nodes cannot be compared");
        }
        tokio::time::sleep(
            PAUSE.min(FIRST_PAUSE.max(Duration::from_millis(app.config.poll_ms * 5))),
        )
        .await;
    }
}

/// Raises an alert for each node that is behind or does not answer, and clears those that are over.
pub async fn look(app: &Shared) -> TurnResult {
    if app.config.head_lag_epochs == 0 {
        return Ok(());
    }
    let epoch_seconds = app.epoch_seconds().await;
    let freshness = Freshness {
        now: Some(app.now() / SECOND),
        most_epochs: app.config.head_lag_epochs,
        epoch_seconds,
    };
    let heads = app.node.look_at_heads(freshness).await;
    let now = app.now();
    write(app, move |conn| {
        for head in &heads {
            match &head.problem {
                Some(why) => {
                    let text = format!("the node at {} is not used: {why}", head.url);
                    if jobs::raise(conn, AlertKind::Node, &head.url, &text, now)? {
                        tracing::error!(url = head.url, why, "a node is not used");
                    }
                }
                None => {
                    if jobs::clear(conn, AlertKind::Node, &head.url)? {
                        tracing::info!(url = head.url, "the node is used again");
                    }
                }
            }
        }
        Ok(())
    })
    .await?;
    Ok(())
}
