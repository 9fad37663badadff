//! A date that can be promised before the sale: everything ahead in the queue, one step after the other, with a margin.

use crate::{
    clock::{DAY, MINUTE, Micros, SECOND},
    sealing::{TaskKind, typical_seconds},
};

/// What has to be sealed before and with an order.
#[derive(Clone, Copy, Debug)]
pub struct Backlog {
    pub sectors_ahead: i64,
    pub sectors: i64,
    pub machines: usize,
    pub sector_bytes: i64,
}

/// The wait for the seed, and the first WindowPoSt at the latest a day after activation.
const CHAIN_WAIT: Micros = 75 * MINUTE + DAY;

/// Time from now until an order should count in full: deliberately careful.
#[must_use]
pub fn promise(backlog: &Backlog) -> Micros {
    let one: i64 = [TaskKind::PreCommit1, TaskKind::PreCommit2, TaskKind::Commit1, TaskKind::Commit2, TaskKind::Finalize]
        .into_iter()
        .map(|kind| typical_seconds(kind, backlog.sector_bytes))
        .sum();
    let machines = i64::try_from(backlog.machines.max(1)).unwrap_or(i64::MAX);
    let rounds = (backlog.sectors_ahead.saturating_add(backlog.sectors)).div_euclid(machines).saturating_add(1);
    let sealing = one.saturating_mul(rounds).saturating_mul(SECOND);
    // Half as much again for failures and batching.
    sealing.saturating_mul(3) / 2 + CHAIN_WAIT
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_work_is_promised_later_and_more_machines_sooner() {
        let of = |ahead, machines| promise(&Backlog { sectors_ahead: ahead, sectors: 2, machines, sector_bytes: 2048 });
        assert!(of(10, 1) > of(0, 1));
        assert!(of(10, 1) > of(10, 5));
        assert!(of(0, 0) > CHAIN_WAIT);
    }
}
