//! The worker's loops in one process: each claims its name, takes turns, and records how they end.

use std::{future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use sealyard_core::{clock::SECOND, jobs, store::DbFault};
use tokio::task::JoinSet;

use super::TurnResult;
use crate::app::{Shared, write};

/// A claim expires if it is not renewed for this long.
const CLAIM_S: i64 = 15;
/// Pause before the database is asked again. It is short, so that an outage costs little more than
/// its own length.
const DATABASE_AWAY: Duration = Duration::from_millis(500);
const STANDBY: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// The running loops.
pub struct Loops {
    app: Shared,
    /// The name under which this process claims loops.
    holder: String,
    tasks: JoinSet<()>,
}

impl Loops {
    pub fn new(app: Shared, holder: String) -> Self {
        Self {
            app,
            holder,
            tasks: JoinSet::new(),
        }
    }

    /// Starts work that every process does for itself.
    pub fn watch(&mut self, work: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(work);
    }

    /// Starts a loop, with `every` pauses between two turns.
    pub fn start<F: Future<Output = TurnResult> + Send + 'static>(
        &mut self,
        name: &'static str,
        every: u32,
        turn: fn(Shared) -> F,
    ) {
        let pause = Duration::from_millis(self.app.config.poll_ms) * every;
        let state = Loop {
            app: self.app.clone(),
            name,
            holder: self.holder.clone(),
            pause,
            wait: pause,
            told: None,
            is_away: false,
        };
        self.tasks.spawn(state.repeat(turn));
    }

    pub async fn join(mut self) {
        while self.tasks.join_next().await.is_some() {}
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Works,
    Fails(String),
}

impl Outcome {
    fn error(&self) -> Option<&str> {
        match self {
            Self::Works => None,
            Self::Fails(error) => Some(error),
        }
    }
}

/// One loop, between two turns.
struct Loop {
    app: Shared,
    name: &'static str,
    holder: String,
    pause: Duration,
    /// Time until the next turn.
    wait: Duration,
    /// The outcome that was recorded last.
    told: Option<Outcome>,
    /// True while the database does not answer.
    is_away: bool,
}

impl Loop {
    async fn repeat<F: Future<Output = TurnResult> + Send>(mut self, turn: fn(Shared) -> F) {
        loop {
            self.try_turn(turn).await;
            tokio::time::sleep(self.wait).await;
        }
    }

    /// Takes a turn if this process holds the loop.
    async fn try_turn<F: Future<Output = TurnResult> + Send>(&mut self, turn: fn(Shared) -> F) {
        let is_ours = match self.claim().await {
            Ok(is_ours) => is_ours,
            Err(error) => {
                if !std::mem::replace(&mut self.is_away, true) {
                    tracing::error!(
                        worker = self.name,
                        %error,
                        "the database does not answer; retrying until it does"
                    );
                }
                self.wait = DATABASE_AWAY;
                return;
            }
        };
        if std::mem::take(&mut self.is_away) {
            tracing::info!(worker = self.name, "the database answers again");
        }
        if is_ours {
            self.take_turn(turn).await;
        } else {
            self.told = None;
            self.wait = STANDBY.max(self.pause);
        }
    }

    async fn take_turn<F: Future<Output = TurnResult> + Send>(&mut self, turn: fn(Shared) -> F) {
        // A turn that panics has failed like any other: the loop goes on, and the console says so.
        let ended = AssertUnwindSafe(turn(self.app.clone()))
            .catch_unwind()
            .await;
        let outcome = match ended {
            Ok(Ok(())) => Outcome::Works,
            Ok(Err(error)) => Outcome::Fails(format!("{error:#}")),
            Err(_) => Outcome::Fails(
                "it stopped because of a defect in the program; see the log".to_owned(),
            ),
        };
        self.wait = match outcome {
            Outcome::Works => self.pause,
            Outcome::Fails(_) => (self.wait * 2).min(LONGEST_WAIT),
        };
        if self.told.as_ref() != Some(&outcome) {
            self.log(&outcome);
            let recorded = self.record(&outcome).await;
            self.told = recorded.is_ok().then_some(outcome);
        }
    }

    /// Logs one line for each outage, and one when it is over.
    fn log(&self, outcome: &Outcome) {
        let worker = self.name;
        match (outcome, &self.told) {
            (Outcome::Fails(error), Some(Outcome::Fails(_))) => {
                tracing::debug!(worker, error, "still fails")
            }
            (Outcome::Fails(error), _) => {
                tracing::warn!(worker, error, "fails; it is retried until it succeeds")
            }
            (Outcome::Works, Some(Outcome::Fails(_))) => tracing::info!(worker, "works again"),
            (Outcome::Works, _) => tracing::info!(worker, "takes the loop over"),
        }
    }

    /// Records the outcome for the operator's console.
    async fn record(&self, outcome: &Outcome) -> Result<(), DbFault> {
        let (name, now) = (self.name, self.app.now());
        let error = outcome.error().map(str::to_owned);
        write(&self.app, move |conn| {
            jobs::note_turn(conn, name, error.as_deref(), now)
        })
        .await
    }

    async fn claim(&self) -> Result<bool, DbFault> {
        let (name, holder, now) = (self.name, self.holder.clone(), self.app.now());
        write(&self.app, move |conn| {
            jobs::claim(conn, name, &holder, now + CLAIM_S * SECOND, now)
        })
        .await
    }
}
