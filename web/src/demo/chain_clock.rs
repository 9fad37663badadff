//! The demo's one clock: the server's time is the chain's. It runs on by itself, and jumps ahead when the chain does.

use std::{
    path::PathBuf,
    sync::{Mutex, PoisonError},
    time::Instant,
};

use sealyard_core::clock::{Clock, Micros};

pub struct ChainClock {
    /// A moment of the chain's time, and when it was.
    set: Mutex<(Micros, Instant)>,
    /// Keeps the time from one run to the next: it never goes back.
    file: PathBuf,
}

impl ChainClock {
    /// Goes on from where an earlier run stopped, or from `head`, the chain's latest moment.
    pub fn start(file: PathBuf, head: Micros) -> Self {
        let earlier = std::fs::read_to_string(&file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(head);
        Self { set: Mutex::new((head.max(earlier), Instant::now())), file }
    }

    /// The chain is at `head`: it is not earlier than that.
    pub fn reach(&self, head: Micros) {
        let now = self.now().max(head);
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = (now, Instant::now());
        if let Err(error) = std::fs::write(&self.file, now.to_string()) {
            tracing::warn!(%error, "the demo's time is not kept");
        }
    }
}

impl Clock for ChainClock {
    fn now(&self) -> Micros {
        let (at, since) = *self.set.lock().unwrap_or_else(PoisonError::into_inner);
        at.saturating_add(Micros::try_from(since.elapsed().as_micros()).unwrap_or(Micros::MAX))
    }
}

#[cfg(test)]
mod tests {
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
        assert!(ChainClock::start(file, 7).now() >= 90_000_000, "the next run goes on from there");
    }
}
