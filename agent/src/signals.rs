//! The signals that tell the agent to end.

use anyhow::{Context, Result};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGTERM and Ctrl-C, from [`Self::listen`] on. A signal that comes while nothing waits for it is
/// kept for the next wait.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    pub fn listen() -> Result<Self> {
        let on = |kind| signal(kind).context("listening for signals");
        Ok(Self {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }

    /// Waits for a signal and returns its name.
    pub async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// Leaves the end of this process to its parent. Ctrl-C in a terminal and some service managers
/// signal every process of the agent, and a step that they ended would count as a failure of its
/// sector. Call it before any thread starts.
pub fn leave_to_parent() -> Result<()> {
    use nix::sys::signal::{SigSet, Signal};
    let mut left = SigSet::empty();
    left.add(Signal::SIGTERM);
    left.add(Signal::SIGINT);
    left.thread_block().context("blocking signals")
}

#[cfg(test)]
mod tests {
    use nix::sys::signal::{Signal, raise};

    use super::*;

    #[tokio::test]
    async fn a_signal_that_came_before_the_wait_is_kept() {
        let mut signals = Signals::listen().unwrap();
        for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGTERM] {
            raise(signal).unwrap();
            assert_eq!(signals.next().await, signal.as_str());
        }
    }
}
