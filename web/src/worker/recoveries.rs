//! Declares faulty sectors recovered once they can be proven again, in time for their next window.

use std::collections::BTreeMap;

use anyhow::Context;
use sealyard_core::{
    capacity::Pool,
    clock::Micros,
    ids,
    proving::{self, Readability},
    sealing::{self, MessageRequest, Purpose, Sector},
    store::{AnyConnection, DbResult},
};
use sealyard_filecoin::{
    actor::{self, Method, SectorsAt},
    rpc::ProvingDeadline,
};

use super::{TurnResult, pipeline::miner_address, pools};
use crate::app::{Shared, read, write};

/// Most sectors of one miner (32 GiB of them make 3 PiB).
const MOST_SECTORS: usize = 100_000;
/// Epochs that a message may take to land.
const INCLUSION: i64 = 20;
/// Epochs before the last moment for a declaration.
const LAST_CALL: i64 = 60;

pub async fn turn(app: Shared) -> TurnResult {
    for pool in pools(&app).await? {
        let miner = miner_address(&pool)?;
        let too_many = "more faulty sectors than this program expects of one miner";
        let faulty = app
            .node
            .faults(&miner)
            .await?
            .numbers(MOST_SECTORS)
            .context(too_many)?;
        if faulty.is_empty() {
            continue;
        }
        let declared = app
            .node
            .recoveries(&miner)
            .await?
            .numbers(MOST_SECTORS)
            .context(too_many)?;
        let deadline = app.node.proving_deadline(&miner).await?;
        let mut by_place: BTreeMap<(i64, i64), Vec<Sector>> = BTreeMap::new();
        for number in faulty
            .into_iter()
            .filter(|number| !declared.contains(number))
        {
            let (id, number) = (pool.id, i64::try_from(number)?);
            let sector = read(&app, move |conn| sealing::by_number(conn, id, number)).await?;
            if let Some((sector, place)) =
                sector.and_then(|s| Some((s.deadline?, s.partition?)).map(|place| (s, place)))
            {
                by_place.entry(place).or_default().push(sector);
            }
        }
        for (place, sectors) in by_place {
            recover(&app, &pool, &deadline, place, sectors).await?;
        }
    }
    Ok(())
}

/// The epoch at which `deadline`'s next window opens, if a declaration for it can still land before
/// its cutoff. The chain applies a declaration to the first window that has not closed, so none can
/// be made while the window is open.
fn declarable_opening(now: &ProvingDeadline, deadline: i64) -> Option<i64> {
    let this_period = now.period_start + deadline * now.challenge_window;
    let closed = this_period + now.challenge_window <= now.current_epoch;
    let opens = if closed {
        this_period + now.proving_period
    } else {
        this_period
    };
    (now.current_epoch + INCLUSION < opens - now.fault_declaration_cutoff).then_some(opens)
}

/// A partition, and the epoch at which the window opens that its recoveries are declared for.
#[derive(Clone, Copy)]
struct Declared {
    deadline: i64,
    partition: i64,
    opens: i64,
}

/// Declares the recovered sectors of a partition in one message, once all that are stored have been
/// read.
async fn recover(
    app: &Shared,
    pool: &Pool,
    now: &ProvingDeadline,
    (deadline, partition): (i64, i64),
    sectors: Vec<Sector>,
) -> TurnResult {
    let Some(opens) = declarable_opening(now, deadline) else {
        return Ok(());
    };
    // Provable sectors do not wait for ever for those that are still being read.
    let last_call =
        now.current_epoch + INCLUSION + LAST_CALL >= opens - now.fault_declaration_cutoff;
    let place = Declared {
        deadline,
        partition,
        opens,
    };
    let (pool, at) = (pool.clone(), app.now());
    let built = write(app, move |conn| {
        let mut good = Vec::new();
        let mut waits = false;
        for sector in &sectors {
            match proving::readability(conn, &pool, sector, opens, at)? {
                Readability::Provable => good.push(sector),
                Readability::Checking => waits = true,
                Readability::Damaged => {}
            }
        }
        if waits && !last_call {
            return Ok(0);
        }
        declare(conn, place, &good, at)
    })
    .await?;
    if built > 0 {
        tracing::info!(
            deadline,
            partition,
            sectors = built,
            opens,
            "declaring sectors recovered"
        );
    }
    Ok(())
}

/// Builds the message that declares these sectors recovered. Returns how many it declares.
fn declare(
    conn: &mut AnyConnection,
    place: Declared,
    good: &[&Sector],
    now: Micros,
) -> DbResult<usize> {
    let Some(first) = good.first() else {
        return Ok(0);
    };
    let to_number = |number: i64| u64::try_from(number).unwrap_or_default();
    let numbers: Vec<u64> = good.iter().map(|s| to_number(s.number)).collect();
    let at = SectorsAt {
        deadline: to_number(place.deadline),
        partition: to_number(place.partition),
        sectors: &numbers,
    };
    let Ok(params) = actor::declare_faults_recovered(&at) else {
        return Ok(0);
    };
    let request = MessageRequest {
        pool: first.pool_id,
        purpose: Purpose::Recover,
        subject: first.id.0,
        attempt: attempt(place.opens, &numbers),
        method: Method::DeclareFaultsRecovered.number(),
        params: &params,
    };
    sealing::build_message(conn, &request, now)?;
    Ok(good.len())
}

/// The same sectors are declared once for each window, so the attempt's number is a digest of both.
fn attempt(opens: i64, numbers: &[u64]) -> i64 {
    let digest = ids::digest(&format!("{opens}:{numbers:?}"));
    digest
        .get(..15)
        .and_then(|part| i64::from_str_radix(part, 16).ok())
        .unwrap_or(opens)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(epoch: i64) -> ProvingDeadline {
        ProvingDeadline {
            current_epoch: epoch,
            period_start: 1000,
            index: 0,
            open: 1000,
            close: 1060,
            challenge: 980,
            fault_cutoff: 930,
            period_deadlines: 48,
            proving_period: 2880,
            challenge_window: 60,
            challenge_lookback: 20,
            fault_declaration_cutoff: 70,
        }
    }

    #[test]
    fn a_recovery_is_declared_only_if_it_can_land_before_the_cutoff() {
        // Deadline 5 opens at 1300; declarations must land before 1230.
        assert_eq!(declarable_opening(&at(1010), 5), Some(1300));
        assert_eq!(declarable_opening(&at(1209), 5), Some(1300));
        assert_eq!(declarable_opening(&at(1210), 5), None);
        assert_eq!(declarable_opening(&at(1299), 5), None);
        assert_eq!(
            declarable_opening(&at(1300), 5),
            None,
            "its window is open: the chain would take it for this one, and refuse"
        );
        assert_eq!(declarable_opening(&at(1359), 5), None);
        assert_eq!(
            declarable_opening(&at(1360), 5),
            Some(1300 + 2880),
            "it has closed: the next one counts"
        );
    }
}
