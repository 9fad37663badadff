//! Dates that can be given before a sale, and how many sectors can be sold for a date.

use sealyard_planner::{Calibration, Rollouts, Waits, World, availability, forecast};

use super::{FIRST_POST, FleetModel, Snapshot};
use crate::clock::{Micros, SECOND};

/// Simulations of the fleet for one quote.
const ROUNDS: u32 = 64;
/// Outcomes that make a calibration trustworthy. With fewer, each lead time is half as long again.
const YOUNG: i64 = 50;

/// A date that can be given.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Promised {
    pub p50: Micros,
    /// Kept 95 times of 100.
    pub p95: Micros,
    /// Sectors of other orders that go first.
    pub ahead: i64,
    pub why: String,
}

/// The date by which `sectors` more of a size would all count, behind everything that is owed
/// already. `None`: no machine here can seal them, or only by breaking a promise.
#[must_use]
pub fn promise(
    snapshot: &Snapshot,
    sector_bytes: i64,
    sectors: i64,
    (calibration, outcomes): (Calibration, i64),
) -> Option<Promised> {
    let fleet_model = FleetModel::for_dates(snapshot);
    let order = fleet_model.order(0, sector_bytes, sectors, snapshot.now)?;
    let found = forecast(
        &fleet_model.world().world,
        &order,
        &rollouts(snapshot, calibration),
    )?;
    let young = outcomes < YOUNG;
    let mut p95 = careful(snapshot, fleet_model.moment(found.p95), young);
    if breaks_a_promise(&fleet_model, sector_bytes, sectors, p95) {
        // The earliest due date goes first, so the order is due no earlier than anything that is
        // promised.
        p95 = snapshot
            .commitments
            .iter()
            .map(|o| o.promised_at)
            .fold(p95, Micros::max);
        if breaks_a_promise(&fleet_model, sector_bytes, sectors, p95) {
            return None;
        }
    }
    // No two orders are due in the same second, so that nothing else decides which goes first.
    while is_given(snapshot, p95) {
        p95 += SECOND;
    }
    let ahead = i64::try_from(found.ahead).unwrap_or(i64::MAX);
    Some(Promised {
        p50: fleet_model.moment(found.p50) + FIRST_POST / 2,
        p95,
        ahead,
        why: reason(found.waits, ahead, young),
    })
}

/// Whether a date that was shown a moment ago can still be given: no older promise suffers, and
/// nothing else is due in that second.
#[must_use]
pub fn can_give(snapshot: &Snapshot, sector_bytes: i64, sectors: i64, date: Micros) -> bool {
    let fleet_model = FleetModel::for_dates(snapshot);
    !is_given(snapshot, date) && !breaks_a_promise(&fleet_model, sector_bytes, sectors, date)
}

fn is_given(snapshot: &Snapshot, date: Micros) -> bool {
    snapshot
        .commitments
        .iter()
        .any(|o| o.promised_at / SECOND == date / SECOND)
}

/// The same state of the fleet gives the same dates.
fn rollouts(snapshot: &Snapshot, calibration: Calibration) -> Rollouts {
    let seed =
        u64::try_from(snapshot.commitments.iter().map(|o| o.id).max().unwrap_or(0)).unwrap_or(0);
    Rollouts {
        failure_model: snapshot.history.failure_model(),
        rounds: ROUNDS,
        seed,
        calibration,
    }
}

/// The date to give for sectors that are expected to be active at `expected`.
const fn careful(snapshot: &Snapshot, expected: Micros, young: bool) -> Micros {
    let lead = expected - snapshot.now;
    snapshot.now + if young { lead + lead / 2 } else { lead } + FIRST_POST
}

/// Whether an order that is due at `promised_at` would make an older one late, or delay one that is
/// already late by more than a step that cannot be interrupted.
fn breaks_a_promise(
    fleet_model: &FleetModel<'_>,
    sector_bytes: i64,
    sectors: i64,
    promised_at: Micros,
) -> bool {
    let mut before = fleet_model.world();
    let mut after = fleet_model.world();
    let Some(order) = fleet_model.order(0, sector_bytes, sectors, promised_at) else {
        return true;
    };
    after.world.add_order(order);
    if !before.world.run() || !after.world.run() {
        return true;
    }
    before.orders.iter().any(|(order, commitment)| {
        let counts = |world: &World<'_>| {
            world
                .done_at(*order)
                .map_or(Micros::MAX, |at| fleet_model.moment(at) + FIRST_POST)
        };
        let (was, is) = (counts(&before.world), counts(&after.world));
        is > commitment.promised_at
            && (was <= commitment.promised_at
                || is > was.saturating_add(fleet_model.longest_step()))
    })
}

/// Sectors that can be promised for one date.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Promisable {
    pub by: Micros,
    pub sectors: i64,
}

/// How many sectors of a size can be promised for each of `dates`, behind everything that is owed:
/// at most `room`, the number that storage and collateral allow.
#[must_use]
pub fn available_to_promise(
    snapshot: &Snapshot,
    sector_bytes: i64,
    room: i64,
    (calibration, outcomes): (Calibration, i64),
    dates: &[Micros],
) -> Vec<Promisable> {
    let fleet_model = FleetModel::for_dates(snapshot);
    let order = fleet_model.order(0, sector_bytes, room, snapshot.now);
    let ends = order
        .map(|order| {
            availability(
                &fleet_model.world().world,
                &order,
                &rollouts(snapshot, calibration),
            )
        })
        .unwrap_or_default();
    let given: Vec<Micros> = ends
        .iter()
        .map(|at| careful(snapshot, fleet_model.moment(*at), outcomes < YOUNG))
        .collect();
    let until =
        |by: Micros| i64::try_from(given.iter().filter(|at| **at <= by).count()).unwrap_or(0);
    dates
        .iter()
        .map(|by| Promisable {
            by: *by,
            sectors: until(*by),
        })
        .collect()
}

fn reason(waits: Waits, ahead: i64, young: bool) -> String {
    let (queue, place) = match (waits.pc1, waits.gpu) {
        (pc1, gpu) if pc1 > gpu => (pc1, "for a sealing slot"),
        (_, gpu) => (gpu, "for a GPU"),
    };
    let mut text = if queue < 60 {
        String::from("The machines can start at once; the time is what sealing and the chain take.")
    } else {
        let go = if ahead == 1 {
            "sector goes"
        } else {
            "sectors go"
        };
        format!(
            "{ahead} {go} first: a sector waits {} {place}, then takes {}.",
            hours(queue),
            hours(waits.work)
        )
    };
    if young {
        text.push_str(" There is little history yet, so we allow half as much time again.");
    }
    text
}

fn hours(seconds: i64) -> String {
    if seconds < 7200 {
        format!("{} min", seconds / 60)
    } else {
        format!("{} h", seconds / 3600)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        clock::{DAY, HOUR},
        ids::MachineId,
        scheduler::{
            FileMoves, History, MachineView, disk_left,
            fixture::{GIB, NOW, commitment, one_disk},
        },
        sealing::TaskKind,
    };

    /// Whether so many more sectors of 32 GiB can be promised.
    fn can(fleet_model: &Snapshot, sectors: i64) -> bool {
        promise(fleet_model, 32 * GIB, sectors, (Calibration::default(), 0)).is_some()
    }

    /// One machine for PC1, one with a GPU and a disk for 3 sectors, and a storage machine for 100.
    fn split() -> Snapshot {
        let mut fleet_model = one_disk(3, 0);
        for id in 2..=3 {
            fleet_model.machines.push(MachineView {
                id: MachineId(id),
                ..fleet_model.machines[0].clone()
            });
        }
        fleet_model
            .machines
            .iter_mut()
            .for_each(|m| m.moves = FileMoves::Now);
        (fleet_model.machines[1].gpus, fleet_model.machines[2].keeps) = (1, true);
        fleet_model.machines[2].disk_bytes = 100 * 32 * GIB;
        fleet_model.machines[2].disk_free_bytes = 100 * 32 * GIB;
        fleet_model
    }

    #[test]
    fn sealed_sectors_are_kept_where_there_is_free_space() {
        let mut fleet_model = split();
        assert_eq!(
            disk_left(&fleet_model),
            104 * 32 * GIB,
            "and the last ones where they are sealed"
        );
        assert!(can(&fleet_model, 104) && !can(&fleet_model, 105));
        let second = &mut fleet_model.machines[1];
        (second.stored_bytes, second.disk_bytes) =
            (10 * 32 * GIB, second.disk_bytes + 10 * 32 * GIB);
        assert_eq!(
            disk_left(&fleet_model),
            104 * 32 * GIB,
            "what leaves makes room"
        );
        assert!(can(&fleet_model, 94), "what is sealed already comes first");
        fleet_model.machines[2].moves = FileMoves::NotNow;
        assert!(
            can(&fleet_model, 94),
            "a transfer that has just failed says nothing of the days to come"
        );
        fleet_model.machines[1].moves = FileMoves::Never;
        assert!(
            can(&fleet_model, 4),
            "with nobody to get at it, it stays where PC2 was done"
        );
        let mut alone = split();
        alone.machines.pop();
        assert_eq!(disk_left(&alone), 4 * 32 * GIB);
        alone.machines[0].moves = FileMoves::NotNow;
        assert!(can(&alone, 4) && !can(&alone, 5));
        alone.machines[1].leftover_bytes = 2 * 32 * GIB;
        assert!(
            disk_left(&alone) == 2 * 32 * GIB && can(&alone, 2) && !can(&alone, 3),
            "what is about to be deleted is still there"
        );
    }

    #[test]
    fn frequent_step_failures_make_promises_later() {
        let date = |failed: i64| {
            let mut fleet_model = one_disk(50, 0);
            fleet_model.history = History::with_failures(TaskKind::PreCommit1, (300, failed));
            promise(&fleet_model, 32 * GIB, 20, (Calibration::default(), 0)).unwrap()
        };
        let (sound, frail) = (date(0), date(100));
        assert!(
            frail.p50 > sound.p50 + 2 * HOUR && frail.p95 > sound.p95 + 6 * HOUR,
            "{sound:?} {frail:?}"
        );
    }

    #[test]
    fn sectors_that_no_disk_can_keep_are_not_promised() {
        let empty = one_disk(10, 0);
        assert!(
            can(&empty, 11) && !can(&empty, 12),
            "the last one's scratch becomes its place"
        );
        let fuller = one_disk(10, 4 * 32);
        assert!(can(&fuller, 7) && !can(&fuller, 8));
        let later = [NOW + 100 * DAY];
        let most = |fleet_model: &Snapshot, room| {
            available_to_promise(
                fleet_model,
                32 * GIB,
                room,
                (Calibration::default(), 0),
                &later,
            )[0]
            .sectors
        };
        assert_eq!(
            (most(&empty, 100), most(&empty, 3), most(&fuller, 100)),
            (11, 3, 7)
        );
        let mut promised = one_disk(10, 0);
        let (mut contract, _) = commitment(1, 90);
        (contract.sector_bytes, contract.held) = (32 * GIB, 9);
        contract.sectors.clear();
        promised.commitments.push(contract);
        assert!(
            can(&promised, 2) && !can(&promised, 3),
            "a disk is promised once"
        );
    }
}
