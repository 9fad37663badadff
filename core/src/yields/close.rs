//! Closes a pool's days in order, each exactly once and in one transaction.

use std::collections::HashSet;

use diesel::prelude::*;

use super::{
    attribute::{Costs, Day, Member, Share, attribute},
    flows::{FlowKind, flow_sums},
    parties::{Parties, Party, Reader},
    pledges::{pledges_due, return_unused},
    record::{Cursor, DayEpochs, PoolDay, Win, cursor, wins},
};
use crate::{
    clock::{Micros, Month, SECONDS_A_DAY},
    contracts,
    ids::{ContractId, PoolId, UserId},
    jobs,
    ledger::{self, AccountSpec, LedgerError, Lot, Transfer},
    money::NanoFil,
    sealing,
    store::{
        AnyConnection, DbFault, DbResult,
        dialect::{self, Turn},
        schema::{self, chain_days, pool_days, pools, sector_intervals as si},
    },
    units::ChainTime,
};

/// The chain unlocks vesting funds twice a day. A day closes once this many seconds have passed
/// after its end: by then the miner has received everything that the day releases to contracts.
pub const CHAIN_UNLOCKS_WITHIN: i64 = SECONDS_A_DAY / 2;

#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("the chain has not been read yet for pool {0}")]
    NotFollowed(PoolId),
    #[error("contract {contract} has unreadable terms: {reason}")]
    Terms {
        contract: ContractId,
        reason: String,
    },
    #[error("{0:?} is not an amount of attoFIL")]
    Amount(String),
    #[error("day {day} of pool {pool} does not fit into the books' integers")]
    Overflow { pool: PoolId, day: i64 },
    #[error(transparent)]
    Ledger(LedgerError),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_ledger_errors!(CloseError);

/// The result of a close.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub day: i64,
    pub posted: NanoFil,
    /// Contracts that got a lot.
    pub lots: usize,
}

/// The earliest day that is fully read and not closed, once the chain has unlocked everything that
/// the day releases.
pub fn next_day_to_close(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Option<i64>> {
    let Some(cursor) = cursor(conn, pool)? else {
        return Ok(None);
    };
    let day = day_to_close(conn, &cursor)?;
    let time = cursor.time();
    let end = time.first_epoch(day + 1);
    let unlocked = time.seconds(cursor.head_epoch) > time.seconds(end) + CHAIN_UNLOCKS_WITHIN;
    Ok((end <= cursor.next_epoch && unlocked).then_some(day))
}

/// The next day to close, whether or not it can be closed yet.
fn day_to_close(conn: &mut AnyConnection, cursor: &Cursor) -> DbResult<i64> {
    let closed = pool_days::table.filter(pool_days::pool_id.eq(cursor.pool_id));
    match closed
        .select(diesel::dsl::max(pool_days::day))
        .first::<Option<i64>>(conn)?
    {
        Some(day) => Ok(day + 1),
        // No day is closed yet: begin with the first recorded one.
        None => first_day(conn, cursor),
    }
}

/// The first day with anything recorded, or else the day of the cursor. Days without power close
/// too: promises are kept or broken on them, and pledges are taken.
fn first_day(conn: &mut AnyConnection, cursor: &Cursor) -> DbResult<i64> {
    let recorded = chain_days::table.filter(chain_days::pool_id.eq(cursor.pool_id));
    if let Some(day) = recorded
        .select(diesel::dsl::min(chain_days::day))
        .first::<Option<i64>>(conn)?
    {
        return Ok(day);
    }
    let first: Option<i64> = si::table
        .filter(si::pool_id.eq(cursor.pool_id))
        .select(diesel::dsl::min(si::start_epoch))
        .first(conn)?;
    Ok(cursor.time().day(first.unwrap_or(cursor.next_epoch)))
}

/// Closes the next day that can be closed. `None`: no day can be, or another worker was faster.
pub fn close_day(
    conn: &mut AnyConnection,
    pool: PoolId,
    now: Micros,
) -> Result<Option<Closed>, CloseError> {
    dialect::lock(conn, Turn::ClosingPool(pool))?;
    let Some(day) = next_day_to_close(conn, pool)? else {
        return Ok(None);
    };
    let cursor = cursor(conn, pool)?.ok_or(CloseError::NotFollowed(pool))?;
    let epochs = DayEpochs::of(cursor.time(), day);
    let earned = Earned::read(conn, pool, epochs)?;
    let sector_bytes: i64 = pools::table
        .find(pool)
        .select(pools::sector_bytes)
        .first(conn)?;
    let parties = Reader::new(conn, &cursor, sector_bytes, day).read()?;
    let members: Vec<Member> = parties.all.iter().map(|party| party.member).collect();
    let (shares, own) = attribute(&earned.to_split(&parties), &members)
        .ok_or(CloseError::Overflow { pool, day })?;

    diesel::insert_into(pool_days::table)
        .values(earned.row(pool, epochs, parties.power(), now))
        .execute(conn)?;
    let (lots, owners): (Vec<Lot>, Vec<UserId>) = parties
        .all
        .iter()
        .zip(&shares)
        .filter_map(|(party, share)| lot(pool, day, party, share))
        .unzip();
    ledger::book_lots(conn, pool, &lots, &owners, now)?;
    post_operators_part(conn, pool, day, own, now)?;
    for transfer in pledges_due(conn, pool, epochs, now)? {
        ledger::post(conn, &transfer)?;
    }
    let split = parties.all.iter().zip(&shares);
    end_terms(conn, cursor.time(), epochs, split, now)?;
    close_month(conn, pool, day, now)?;
    Ok(Some(Closed {
        day,
        posted: earned.total,
        lots: lots.len(),
    }))
}

/// The amounts that a pool's day brought and cost.
struct Earned {
    wins: i64,
    reward_atto: i128,
    /// The amount to split: the reward and the carry of the day before, in whole nanoFIL.
    total: NanoFil,
    /// attoFIL left over for the next day.
    carry_atto: i64,
    costs: Costs,
}

impl Earned {
    fn read(conn: &mut AnyConnection, pool: PoolId, epochs: DayEpochs) -> Result<Self, CloseError> {
        let day = epochs.day;
        let overflow = || CloseError::Overflow { pool, day };
        let day_wins = wins(conn, pool, epochs.first, epochs.end)?;
        let reward_atto = won(&day_wins)?.ok_or_else(overflow)?;
        let carried: Option<i64> = pool_days::table
            .find((pool, day - 1))
            .select(pool_days::carry_atto)
            .first(conn)
            .optional()?;
        let to_post = reward_atto + i128::from(carried.unwrap_or_default());
        let (total, carry_atto) = NanoFil::from_atto(to_post).ok_or_else(overflow)?;
        Ok(Self {
            wins: i64::try_from(day_wins.len()).unwrap_or(i64::MAX),
            reward_atto,
            total,
            carry_atto,
            costs: costs(conn, pool, epochs)?,
        })
    }

    fn to_split(&self, parties: &Parties) -> Day {
        Day {
            total: self.total.0,
            costs: self.costs,
            own_power: parties.own_power,
        }
    }

    /// The day's row. `power` is everybody's, in byte-epochs.
    fn row(&self, pool: PoolId, epochs: DayEpochs, power: u128, now: Micros) -> PoolDay {
        PoolDay {
            pool_id: pool,
            day: epochs.day,
            first_epoch: epochs.first,
            end_epoch: epochs.end,
            wins: self.wins,
            reward_atto: self.reward_atto.to_string(),
            posted_nano: self.total.0,
            carry_atto: self.carry_atto,
            power_epochs: power.to_string(),
            closed_at: now,
            daily_fee_nano: self.costs.daily_fee,
            fault_fee_nano: self.costs.fault_fee,
            gas_nano: self.costs.gas,
        }
    }
}

/// Posts the earnings of the operator's own and unsold power.
fn post_operators_part(
    conn: &mut AnyConnection,
    pool: PoolId,
    day: i64,
    amount: i64,
    now: Micros,
) -> Result<(), LedgerError> {
    if amount <= 0 {
        return Ok(());
    }
    let transfer = Transfer {
        id: format!("operator:{pool}:{day}"),
        from: AccountSpec::ChainRewards(pool),
        to: AccountSpec::OperatorYield(pool),
        amount,
        kind: "operator",
        subject: "operator".into(),
        effective_day: day,
        booked_at: now,
    };
    ledger::post(conn, &transfer)
}

/// Postpones the ends of terms that missing power extends, and ends the terms that are over.
fn end_terms<'a>(
    conn: &mut AnyConnection,
    time: ChainTime,
    epochs: DayEpochs,
    split: impl Iterator<Item = (&'a Party, &'a Share)>,
    now: Micros,
) -> Result<(), CloseError> {
    let epoch = time.micros(1) - time.micros(0);
    for (party, share) in split {
        if share.added_epochs > 0 {
            contracts::put_off_end(
                conn,
                party.contract,
                share.added_epochs,
                share.added_epochs.saturating_mul(epoch),
            )?;
        }
        let ends = party.ends.saturating_add(share.added_epochs);
        if epochs.first < ends && ends <= epochs.end {
            let contract = contracts::over(conn, party.contract, now)?;
            return_unused(conn, &contract, now)?;
            sealing::term_over(conn, party.contract, now)?;
        }
    }
    Ok(())
}

/// Total attoFIL of wins. `None`: the sum overflows.
pub fn won(wins: &[Win]) -> Result<Option<i128>, CloseError> {
    let mut sum = Some(0i128);
    for win in wins {
        for text in [&win.reward_atto, &win.tips_atto] {
            let atto: i128 = text.parse().map_err(|_| CloseError::Amount(text.clone()))?;
            sum = sum.and_then(|sum| sum.checked_add(atto));
        }
    }
    Ok(sum)
}

/// The costs of a day, in whole nanoFIL.
fn costs(
    conn: &mut AnyConnection,
    pool: PoolId,
    DayEpochs { day, first, end }: DayEpochs,
) -> Result<Costs, CloseError> {
    let nano = |atto: i128| {
        NanoFil::from_atto(atto)
            .map(|(nano, _)| nano.0)
            .ok_or(CloseError::Overflow { pool, day })
    };
    let flows = flow_sums(conn, pool, first, end)?;
    Ok(Costs {
        daily_fee: nano(flows.of(FlowKind::DailyFee))?,
        fault_fee: nano(flows.of(FlowKind::FaultFee))?,
        gas: nano(sealing::gas_cost(conn, pool, first, end)?)?,
    })
}

/// `None`: the contract had no power, was missing none, and had nothing vesting.
fn lot(pool: PoolId, day: i64, party: &Party, share: &Share) -> Option<(Lot, UserId)> {
    let (released, vesting) = party
        .vesting
        .day(share.locked, party.ending, party.vesting_days);
    if party.member.power == 0 && party.member.missing == 0 && party.vesting.left == 0 {
        return None;
    }
    let lot = Lot {
        pool_id: pool,
        day,
        contract_id: party.contract,
        power_epochs: party.member.power.to_string(),
        missing_epochs: party.member.missing.to_string(),
        missing_power: party.member.missing_power.to_string(),
        gross_nano: share.gross,
        fee_nano: share.fee,
        cost_nano: share.cost,
        available_nano: share.available,
        locked_nano: share.locked,
        released_nano: released,
        rate_nano: vesting.rate,
        vesting_nano: vesting.left,
        compensation_nano: share.compensation,
        added_epochs: share.added_epochs,
    };
    Some((lot, party.owner))
}

/// Users with contracts in another pool that has yet to close `day`.
fn in_pools_to_close(
    conn: &mut AnyConnection,
    pool: PoolId,
    day: i64,
) -> DbResult<HashSet<UserId>> {
    let mut waiting = Vec::new();
    for other in pools::table
        .filter(pools::id.ne(pool))
        .select(pools::id)
        .load::<PoolId>(conn)?
    {
        // A pool that began later will never close it.
        if let Some(cursor) = cursor(conn, other)?
            && day_to_close(conn, &cursor)? <= day
        {
            waiting.push(other);
        }
    }
    let users = schema::contracts::table
        .filter(schema::contracts::pool_id.eq_any(waiting))
        .select(schema::contracts::user_id);
    Ok(users.load(conn)?.into_iter().collect())
}

/// On the last day of a month, queues the statements of everybody with a contract in the pool. A
/// user with contracts in several pools gets one when the last of them closes the day.
fn close_month(conn: &mut AnyConnection, pool: PoolId, day: i64, now: Micros) -> DbResult<()> {
    let Some(month) = Month::of_day(day) else {
        return Ok(());
    };
    if month.days().is_none_or(|(_, end)| end != day + 1) {
        return Ok(());
    }
    let mut users: Vec<UserId> = schema::contracts::table
        .filter(schema::contracts::pool_id.eq(pool))
        .select(schema::contracts::user_id)
        .order(schema::contracts::user_id.asc())
        .load(conn)?;
    users.dedup();
    let waiting = in_pools_to_close(conn, pool, day)?;
    for user in users.into_iter().filter(|user| !waiting.contains(user)) {
        let payload = serde_json::json!({"user": user.0, "month": month.to_string()}).to_string();
        jobs::enqueue(conn, "statement", &format!("{user}:{month}"), &payload, now)?;
    }
    Ok(())
}
