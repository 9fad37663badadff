//! The demo's only clock: the server's time is the chain's. It runs by itself, and jumps ahead when
//! the chain does.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use sealyard_core::clock::{Clock, Micros, SECOND};

/// The clock waits for a chain that is this far behind it: the chain stands still while a proof is
/// due, and a node whose head is many epochs behind the clock is not used.
const MOST_AHEAD: Micros = 100 * SECOND;

/// A moment that was set, and when that was.
#[derive(Clone, Copy)]
struct Set {
    at: Micros,
    since: Instant,
    /// The chain's latest moment.
    head: Micros,
}

impl Set {
    fn now(self) -> Micros {
        let elapsed = Micros::try_from(self.since.elapsed().as_micros()).unwrap_or(Micros::MAX);
        let latest = self.at.max(self.head.saturating_add(MOST_AHEAD));
        self.at.saturating_add(elapsed).min(latest)
    }
}

pub struct ChainClock {
    set: Mutex<Set>,
    /// Keeps the time from one run to the next, so that it never goes back.
    file: PathBuf,
}

impl ChainClock {
    /// Continues where an earlier run stopped, or at `head`, the chain's latest moment.
    pub fn start(file: PathBuf, head: Micros) -> Self {
        let earlier = std::fs::read_to_string(&file)
            .ok()
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(head);
        let (at, since) = (head.max(earlier), Instant::now());
        Self {
            set: Mutex::new(Set { at, since, head }),
            file,
        }
    }

    /// Moves the clock to `head`, the chain's latest moment, unless it is already later.
    pub fn reach(&self, head: Micros) {
        let (at, since) = (self.now().max(head), Instant::now());
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = Set { at, since, head };
        if let Err(error) = std::fs::write(&self.file, at.to_string()) {
            tracing::warn!(%error, "the demo's time is not kept");
        }
    }
}

impl Clock for ChainClock {
    fn now(&self) -> Micros {
        self.set
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .now()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_clock_follows_the_chain_and_never_goes_back() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("clock");
        let clock = ChainClock::start(file.clone(), 1_000_000);
        assert!((1_000_000..2_000_000).contains(&clock.now()));
        clock.reach(90_000_000);
        assert!(clock.now() >= 90_000_000);
        clock.reach(5);
        assert!(clock.now() >= 90_000_000);
        assert!(
            ChainClock::start(file, 7).now() >= 90_000_000,
            "the next run goes on from there"
        );
    }

    #[test]
    fn the_clock_waits_for_a_chain_that_stands_still() {
        let since = Instant::now()
            .checked_sub(Duration::from_secs(300))
            .expect("the machine has been up for five minutes");
        let now = |at, head| Set { at, since, head }.now();
        assert_eq!(now(0, 0), MOST_AHEAD);
        assert!((300 * SECOND..301 * SECOND).contains(&now(0, 1000 * SECOND)));
        assert_eq!(
            now(1000 * SECOND, 0),
            1000 * SECOND,
            "it does not go back either"
        );
    }
}
