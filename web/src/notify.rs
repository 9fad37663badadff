//! Tells systemd how this process is doing. Without systemd, nothing happens.

use std::time::Duration;

use sd_notify::NotifyState;

fn tell(state: &NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "systemd could not be told the state of this process");
    }
}

/// The process does its work. Also starts the watchdog's signs of life if the unit asks for them:
/// they come from the async threads, and stop when these are stuck.
pub fn ready() {
    tell(&NotifyState::Ready);
    if let Some(every) = sd_notify::watchdog_enabled() {
        tokio::spawn(async move {
            let mut ticks = tokio::time::interval((every / 2).max(Duration::from_millis(100)));
            loop {
                ticks.tick().await;
                tell(&NotifyState::Watchdog);
            }
        });
    }
}

pub fn stopping() {
    tell(&NotifyState::Stopping);
}
