//! Takes what the chain says of a sector: receipts, its power, and what a reorganisation undid.

use diesel::prelude::*;

use super::{
    Sector, TaskKind,
    advance::{others, queue, restart},
    failure::count_failure,
    message::{Purpose, latest, reopen},
    state::{Event, SectorState},
    task::{Of, cancel_open},
};
use crate::{
    capacity::take_number,
    clock::Micros,
    contracts,
    ledger::LedgerError,
    store::{AnyConnection, DbResult, schema::sectors},
};

/// The chain's record of an activated sector.
#[derive(Clone, Copy, Debug)]
pub struct Activation {
    pub activation: i64,
    pub expiration: i64,
    pub deadline: i64,
    pub partition: i64,
}

/// Facts about a sector that only the chain can tell.
#[derive(Clone, Debug)]
pub enum OnChain {
    PreCommitted {
        seed_epoch: i64,
    },
    /// The seed at the same epoch is now another one.
    SeedReplaced,
    /// It was pre-committed, and no longer is.
    PreCommitLost,
    /// It was activated, and no longer is.
    ActivationLost,
    /// Another replica's sector has its number.
    NumberTaken,
    Activated(Activation),
    MessageFailed {
        reason: String,
    },
    /// It has power; `at` is the chain's time when this was seen.
    Counts {
        at: Micros,
    },
    Faulty,
    Gone,
}

/// Applies a fact that the chain tells about a sector.
pub fn mark_on_chain(
    conn: &mut AnyConnection,
    mut sector: Sector,
    fact: OnChain,
    now: Micros,
) -> Result<(), LedgerError> {
    match fact {
        OnChain::PreCommitted { seed_epoch } => pre_committed(conn, sector, seed_epoch, now)?,
        OnChain::SeedReplaced => {
            if sector.apply(conn, Event::SeedMoved, now)?.is_some() {
                seed_moved(conn, &sector, now)?;
            }
        }
        OnChain::PreCommitLost => pre_commit_lost(conn, sector, now)?,
        OnChain::ActivationLost => activation_lost(conn, sector, now)?,
        OnChain::NumberTaken => number_taken(conn, sector, now)?,
        OnChain::Activated(at) => activated(conn, sector, at, now)?,
        OnChain::MessageFailed { reason } => message_failed(conn, sector, &reason, now)?,
        OnChain::Counts { at } => {
            if sector.apply(conn, Event::PowerOn, now)?.is_some()
                && others(conn, &sector, SectorState::Active)? == 0
            {
                contracts::mark_active(conn, sector.contract_id, at)?;
            }
        }
        OnChain::Faulty => drop(sector.apply(conn, Event::FaultSeen, now)?),
        OnChain::Gone => gone(conn, sector, now)?,
    }
    Ok(())
}

/// Waits for the PreCommit to land again, and for the seed that follows from it.
fn pre_commit_lost(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::PreCommitLost, now)?.is_none() {
        return Ok(());
    }
    let reason = "the chain was reorganised: its PreCommit has to land again";
    undo(conn, &sector, Purpose::PreCommit, reason, now)?;
    let nothing = (
        sectors::seed_epoch.eq(None::<i64>),
        sectors::seed.eq(None::<&str>),
    );
    diesel::update(sectors::table.find(sector.id))
        .set(nothing)
        .execute(conn)
        .map(drop)
}

/// Waits for the ProveCommit to land again.
fn activation_lost(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::ActivationLost, now)?.is_none() {
        return Ok(());
    }
    let reason = "the chain was reorganised: its ProveCommit has to land again";
    undo(conn, &sector, Purpose::ProveCommit, reason, now)?;
    let nothing = (
        sectors::activation.eq(None::<i64>),
        sectors::deadline.eq(None::<i64>),
        sectors::partition.eq(None::<i64>),
    );
    diesel::update(sectors::table.find(sector.id))
        .set(nothing)
        .execute(conn)
        .map(drop)
}

/// Records where and how long the sector is on chain, and queues the clean-up of its files.
fn activated(
    conn: &mut AnyConnection,
    mut sector: Sector,
    at: Activation,
    now: Micros,
) -> DbResult<()> {
    let landed = sector.apply(conn, Event::ProveCommitLanded, now)?.is_some();
    // After a reorganisation the sector may have been activated at another epoch.
    if landed || sector.state.is_on_chain() {
        diesel::update(sectors::table.find(sector.id))
            .set((
                sectors::activation.eq(at.activation),
                sectors::expiration.eq(at.expiration),
                sectors::deadline.eq(at.deadline),
                sectors::partition.eq(at.partition),
            ))
            .execute(conn)?;
    }
    if landed {
        cancel_open(conn, Of::Sector(sector.id), "the chain has the sector", now)?;
        queue(conn, &sector, TaskKind::Finalize, now)?;
    }
    Ok(())
}

/// The sector has ended, and its contract with it if this was the last one.
fn gone(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> Result<(), LedgerError> {
    if sector.apply(conn, Event::RanOut, now)?.is_none() {
        return Ok(());
    }
    let reason = "the sector has ended on chain";
    cancel_open(conn, Of::Sector(sector.id), reason, now)?;
    if others(conn, &sector, SectorState::Expired)? == 0 {
        contracts::end(conn, sector.contract_id, now)?;
    }
    Ok(())
}

/// Takes a PreCommit that landed for the first time, or again at another epoch and so with another
/// seed.
fn pre_committed(
    conn: &mut AnyConnection,
    mut sector: Sector,
    seed_epoch: i64,
    now: Micros,
) -> DbResult<()> {
    if sector.apply(conn, Event::PreCommitLanded, now)?.is_none() {
        if sector.seed_epoch == Some(seed_epoch) {
            return Ok(());
        }
        if sector.apply(conn, Event::SeedMoved, now)?.is_some() {
            seed_moved(conn, &sector, now)?;
        } else if sector.state != SectorState::WaitSeed {
            return Ok(());
        }
    }
    let values = (
        sectors::seed_epoch.eq(seed_epoch),
        sectors::seed.eq(None::<&str>),
    );
    diesel::update(sectors::table.find(sector.id))
        .set(values)
        .execute(conn)
        .map(drop)
}

/// Cancels work with the old seed.
fn seed_moved(conn: &mut AnyConnection, sector: &Sector, now: Micros) -> DbResult<()> {
    let reason = "the chain was reorganised: its seed is another one";
    cancel_open(conn, Of::Sector(sector.id), reason, now)?;
    let values = (sectors::reason.eq(reason), sectors::seed.eq(None::<&str>));
    diesel::update(sectors::table.find(sector.id))
        .set(values)
        .execute(conn)
        .map(drop)
}

/// Waits again for a fact that the chain took back, and cancels the work that followed from it.
fn undo(
    conn: &mut AnyConnection,
    sector: &Sector,
    purpose: Purpose,
    reason: &str,
    now: Micros,
) -> DbResult<()> {
    cancel_open(conn, Of::Sector(sector.id), reason, now)?;
    if let Some(message) = latest(conn, purpose, sector.id.0)? {
        reopen(conn, message.id, now)?;
    }
    diesel::update(sectors::table.find(sector.id))
        .set(sectors::reason.eq(reason))
        .execute(conn)
        .map(drop)
}

/// The number belongs to a sector that is not in our books, so this one gets the pool's next
/// number.
fn number_taken(conn: &mut AnyConnection, mut sector: Sector, now: Micros) -> DbResult<()> {
    if sector.apply(conn, Event::NumberTaken, now)?.is_none() {
        return Ok(());
    }
    let number = take_number(conn, sector.pool_id)?;
    let reason = format!(
        "the chain has another sector under its old number {}",
        sector.number
    );
    let renewed = (
        sectors::number.eq(number),
        sectors::seed_epoch.eq(None::<i64>),
        sectors::seed.eq(None::<&str>),
        sectors::comm_r.eq(None::<&str>),
        sectors::pc2_output.eq(None::<&str>),
    );
    diesel::update(sectors::table.find(sector.id))
        .set(renewed)
        .execute(conn)?;
    restart(conn, &sector, &reason, now)
}

/// Has a failed message built again under a new attempt number, until the sector has failed too
/// often. The sealed files are kept. A failed PreCommit is sent again while its ticket is young
/// enough; after a failed ProveCommit the proof is verified again.
fn message_failed(
    conn: &mut AnyConnection,
    mut sector: Sector,
    reason: &str,
    now: Micros,
) -> DbResult<()> {
    count_failure(conn, &mut sector, reason, now)?;
    let event = Event::MessageFailed {
        failures: sector.failures,
    };
    sector.apply(conn, event, now).map(drop)
}
