//! The worker's loops: planning and leases, the sealing pipeline, proofs, messages, reading the
//! chain, closing days, jobs.
//!
//! Every loop claims its name first. Any number of `sealyard work` processes can therefore share
//! one database, and only one of them acts. A loop that fails logs that, waits longer each time,
//! and goes on when the cause is gone.

mod chain;
mod collateral;
mod fees;
mod forecasts;
mod job_runner;
mod loops;
mod maintenance;
mod messages;
mod nodes;
mod on_chain;
mod pipeline;
mod promises;
mod provisional;
mod reconcile;
mod recoveries;
mod window_posts;

pub use chain::{DeadlineCache, Followed, WinnersShares, turn as follow_chain};

use std::future::Future;

use sealyard_core::{
    capacity::{self, Pool},
    ids, jobs,
    store::DbFault,
};
use sealyard_filecoin::rpc::RpcError;

use crate::{
    app::{Shared, read, write},
    notify, serve,
};
use loops::Loops;

/// Pauses between two turns of a loop that simulates the whole fleet.
const SLOWLY: u32 = 20;
/// Pauses between two turns of the loop that compares everything with the chain.
const RARELY: u32 = 150;

/// Runs every loop until it is told to stop. It then releases its claims, so that another process
/// takes over at once.
pub async fn run_until(
    app: Shared,
    stop: impl Future<Output = anyhow::Result<()>>,
) -> anyhow::Result<()> {
    let holder = ids::public_id("wrk");
    tracing::info!(
        worker = holder,
        "working: this process runs every loop that no other process holds, stands by for the rest"
    );
    let stopped = tokio::select! {
        () = run(app.clone(), holder.clone()) => Ok(()),
        stopped = stop => stopped,
    };
    let holding = holder.clone();
    let given_up = write(&app, move |conn| jobs::release_claims(conn, &holding)).await;
    tracing::info!(
        worker = holder,
        loops = given_up.unwrap_or_default(),
        "stopped; its loops are free"
    );
    stopped
}

/// [`run_until`] this process is told to stop, as its only work.
pub async fn work_alone(app: Shared) -> anyhow::Result<()> {
    notify::ready();
    let stop = async {
        serve::shutdown_requested().await?;
        notify::stopping();
        Ok(())
    };
    run_until(app, stop).await
}

async fn run(app: Shared, holder: String) {
    // Before anything is read from a node that may be behind.
    if let Err(error) = nodes::look(&app).await {
        tracing::warn!(error = format!("{error:#}"), "the nodes cannot be compared");
    }
    // Dropping the set stops all loops.
    let mut loops = Loops::new(app.clone(), holder);
    loops.watch(nodes::watch(app));
    loops.start("maintenance", 1, maintenance::turn);
    loops.start("pipeline", 1, pipeline::turn);
    loops.start("promises", SLOWLY, promises::turn);
    loops.start("collateral", SLOWLY, collateral::turn);
    loops.start("forecasts", SLOWLY, forecasts::turn);
    loops.start("window-posts", 1, window_posts::turn);
    loops.start("recoveries", 1, recoveries::turn);
    loops.start("messages", 1, messages::turn);
    loops.start("reconcile", RARELY, reconcile::turn);
    loops.start("chain", 1, chain::turn);
    loops.start("jobs", 1, job_runner::turn);
    loops.join().await;
}

/// The result of a loop's turn. Only the error's text is used.
pub type TurnResult = anyhow::Result<()>;

/// Collects the outcomes of a turn's parts. A part that fails does not keep the next from being
/// tried, and the first error is reported.
#[derive(Default)]
struct Each(Option<anyhow::Error>);

impl Each {
    fn note(&mut self, outcome: TurnResult) {
        if let Err(error) = outcome {
            tracing::debug!("{error:#}");
            self.0.get_or_insert(error);
        }
    }

    /// [`Self::note`]; false if the node cannot be reached, because the next part would only wait
    /// for it as well.
    fn goes_on(&mut self, outcome: TurnResult) -> bool {
        let is_away = outcome
            .as_ref()
            .err()
            .and_then(|error| error.downcast_ref::<RpcError>())
            .is_some_and(RpcError::is_temporary);
        self.note(outcome);
        !is_away
    }

    fn end(self) -> TurnResult {
        self.0.map_or(Ok(()), Err)
    }
}

async fn pools(app: &Shared) -> Result<Vec<Pool>, DbFault> {
    read(app, capacity::pools).await
}
