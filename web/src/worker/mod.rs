//! The worker's loops: planning and leases, the sealing pipeline, proofs, messages, reading the chain, closing days, jobs.
//!
//! Every loop claims its name first, so any number of `sealyard work` processes share one database and one of them acts. A loop
//! that fails says so, waits longer each time, and goes on when the cause is gone.

mod chain;
mod collateral;
mod fees;
mod forecasts;
mod job_runner;
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

pub use chain::{DeadlineCache, Followed, turn as follow_chain};

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use sealyard_core::{
    capacity::{self, Pool},
    clock::SECOND,
    ids, jobs,
    store::DbFault,
};
use sealyard_filecoin::rpc::RpcError;

use crate::app::{Shared, read, write};

/// A claim that is not renewed for so long is free.
const CLAIM_S: i64 = 15;
/// Turns of other loops for each turn of a loop that simulates the whole fleet.
const SLOWLY: u32 = 20;
/// Turns of other loops for one that compares everything with the chain.
const RARELY: u32 = 150;
/// Before the database is asked again: whoever waits for it waits no longer than it takes.
const DATABASE_AWAY: Duration = Duration::from_millis(500);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Runs every loop until it is told to stop; then gives its claims up, so that a process that stands by goes on at once.
pub async fn run_until(app: Shared, stop: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let holder = ids::public_id("wrk");
    tracing::info!(worker = holder, "working: this process runs every loop that no other process holds, stands by for the rest");
    let stopped = tokio::select! {
        () = run(app.clone(), holder.clone()) => Ok(()),
        stopped = stop => stopped,
    };
    let holding = holder.clone();
    let given_up = write(&app, move |conn| jobs::release_claims(conn, &holding)).await;
    tracing::info!(worker = holder, loops = given_up.unwrap_or_default(), "stopped; its loops are free");
    stopped
}

async fn run(app: Shared, holder: String) {
    // Before anything is read from a node that may be behind.
    if let Err(error) = nodes::look(&app).await {
        tracing::warn!(error = format!("{error:#}"), "the nodes cannot be compared");
    }
    // They end with the set, when this is told to stop.
    let mut loops = tokio::task::JoinSet::new();
    loops.spawn(nodes::watch(app.clone()));
    loops.spawn(repeat(app.clone(), holder.clone(), ("maintenance", 1), maintenance::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("pipeline", 1), pipeline::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("promises", SLOWLY), promises::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("collateral", SLOWLY), collateral::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("forecasts", SLOWLY), forecasts::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("window-posts", 1), window_posts::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("recoveries", 1), recoveries::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("messages", 1), messages::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("reconcile", RARELY), reconcile::turn));
    loops.spawn(repeat(app.clone(), holder.clone(), ("chain", 1), chain::turn));
    loops.spawn(repeat(app, holder, ("jobs", 1), job_runner::turn));
    while loops.join_next().await.is_some() {}
}

/// The result of a loop's turn. Only the text of an error is used.
pub type TurnResult = anyhow::Result<()>;

/// Things that a turn does one after the other: none keeps the next from being tried, and the first error is told.
#[derive(Default)]
struct Each(Option<anyhow::Error>);

impl Each {
    fn note(&mut self, outcome: TurnResult) {
        if let Err(error) = outcome {
            tracing::debug!("{error:#}");
            self.0.get_or_insert(error);
        }
    }

    /// As [`Self::note`]; false when the node cannot be reached: whatever is next would only wait for it as well.
    fn goes_on(&mut self, outcome: TurnResult) -> bool {
        let is_away =
            outcome.as_ref().err().and_then(|error| error.downcast_ref::<RpcError>()).is_some_and(RpcError::is_temporary);
        self.note(outcome);
        !is_away
    }

    fn end(self) -> TurnResult {
        self.0.map_or(Ok(()), Err)
    }
}

async fn repeat<F: Future<Output = TurnResult> + Send>(
    app: Shared,
    holder: String,
    (name, every): (&'static str, u32),
    turn: fn(Shared) -> F,
) {
    let pause = Duration::from_millis(app.config.poll_ms) * every;
    let mut wait = pause;
    // The outcome that was recorded last.
    let mut told = None;
    let mut away = false;
    loop {
        let claim = claimed(&app, name, &holder).await;
        if claim.is_ok() && std::mem::take(&mut away) {
            tracing::info!(worker = name, "the database answers again");
        }
        match claim {
            Ok(true) => {
                // A turn that panics has failed like any other: the loop goes on, and the console says so.
                let ended = AssertUnwindSafe(turn(app.clone())).catch_unwind().await;
                let error = match ended {
                    Ok(result) => result.err().map(|error| format!("{error:#}")),
                    Err(_) => Some("it stopped because of a defect in the program; see the log".to_owned()),
                };
                wait = if error.is_none() { pause } else { (wait * 2).min(LONGEST_WAIT) };
                if told.as_ref() != Some(&error) {
                    // One line for each outage, and one when it is over.
                    match (&error, &told) {
                        (Some(error), Some(Some(_))) => tracing::debug!(worker = name, error, "still fails"),
                        (Some(error), _) => tracing::warn!(worker = name, error, "fails; it is retried until it succeeds"),
                        (None, Some(Some(_))) => tracing::info!(worker = name, "works again"),
                        (None, _) => tracing::info!(worker = name, "takes the loop over"),
                    }
                    told = tell(&app, name, error.clone()).await.is_ok().then_some(error);
                }
            }
            Ok(false) => {
                told = None;
                wait = Duration::from_secs(1).max(pause);
            }
            Err(error) => {
                if !away {
                    tracing::error!(worker = name, %error, "the database does not answer; retrying until it does");
                }
                away = true;
                wait = DATABASE_AWAY;
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// For the operator's console.
async fn tell(app: &Shared, name: &'static str, error: Option<String>) -> Result<(), DbFault> {
    let now = app.now();
    write(app, move |conn| jobs::note_turn(conn, name, error.as_deref(), now)).await
}

async fn claimed(app: &Shared, name: &'static str, holder: &str) -> Result<bool, DbFault> {
    let (holder, now) = (holder.to_owned(), app.now());
    write(app, move |conn| jobs::claim(conn, name, &holder, now + CLAIM_S * SECOND, now)).await
}

/// Every pool, to be worked on one after the other.
async fn pools(app: &Shared) -> Result<Vec<Pool>, DbFault> {
    read(app, capacity::pools).await
}
