//! Closing a pool's day: everything in one transaction, exactly once, in order.

use std::collections::BTreeMap;

use diesel::{prelude::*, sql_types::BigInt};

use super::{
    Party, Share, attribute,
    attribute::power_epochs,
    record::{Cursor, Lot, PoolDay, cursor, intervals_in, wins},
};
use crate::{
    catalog::Terms,
    clock::{Micros, Month},
    ids::{ContractId, PoolId, UserId},
    jobs,
    ledger::{self, AccountSpec, LedgerError, Transfer},
    money::{BasisPoints, NanoFil},
    store::{
        AnyConnection, DbFault, DbResult,
        dialect::{self, Turn},
        schema::{contracts, pool_days, sectors, yield_lots},
    },
};

#[derive(Debug, thiserror::Error)]
pub enum CloseError {
    #[error("the chain was not read yet for pool {0}")]
    NotFollowed(PoolId),
    #[error("contract {contract} has unreadable terms: {reason}")]
    Terms { contract: String, reason: String },
    #[error("reward {0:?} is no amount of attoFIL")]
    Reward(String),
    #[error("day {day} of pool {pool} does not fit into the books' integers")]
    Overflow { pool: PoolId, day: i64 },
    #[error(transparent)]
    Ledger(LedgerError),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(CloseError);

impl From<LedgerError> for CloseError {
    fn from(error: LedgerError) -> Self {
        match error {
            LedgerError::Db(fault) => Self::Db(fault),
            other => Self::Ledger(other),
        }
    }
}

/// What a close did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    pub day: i64,
    pub posted: NanoFil,
    pub shares: usize,
}

/// The earliest day that is fully read and not closed.
pub fn next_day_to_close(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Option<i64>> {
    let Some(cursor) = cursor(conn, pool)? else { return Ok(None) };
    let last: Option<i64> =
        pool_days::table.filter(pool_days::pool_id.eq(pool)).select(diesel::dsl::max(pool_days::day)).first(conn)?;
    let time = cursor.time();
    let day = match last {
        Some(day) => day + 1,
        // The day in which reading began: the epoch before the first recorded one is where it stood.
        None => first_day(conn, &cursor)?,
    };
    Ok((time.first_epoch(day + 1) <= cursor.next_epoch).then_some(day))
}

/// The first day with anything recorded, or the day of the cursor.
fn first_day(conn: &mut AnyConnection, cursor: &Cursor) -> DbResult<i64> {
    use crate::store::schema::sector_intervals as si;
    let first: Option<i64> =
        si::table.filter(si::pool_id.eq(cursor.pool_id)).select(diesel::dsl::min(si::start_epoch)).first(conn)?;
    Ok(cursor.time().day(first.unwrap_or(cursor.next_epoch)))
}

/// Closes the next day that can be closed. `None`: there is none, or another worker was faster.
pub fn close_day(conn: &mut AnyConnection, pool: PoolId, now: Micros) -> Result<Option<Closed>, CloseError> {
    dialect::lock(conn, Turn::ClosingPool(pool))?;
    let Some(day) = next_day_to_close(conn, pool)? else { return Ok(None) };
    let cursor = cursor(conn, pool)?.ok_or(CloseError::NotFollowed(pool))?;
    let (first_epoch, end_epoch) = (cursor.time().first_epoch(day), cursor.time().first_epoch(day + 1));
    let overflow = || CloseError::Overflow { pool, day };

    let day_wins = wins(conn, pool, first_epoch, end_epoch)?;
    let mut atto: i128 = 0;
    for win in &day_wins {
        let reward: i128 = win.reward_atto.parse().map_err(|_| CloseError::Reward(win.reward_atto.clone()))?;
        atto = atto.checked_add(reward).ok_or_else(overflow)?;
    }
    let carried: Option<i64> = pool_days::table.find((pool, day - 1)).select(pool_days::carry_atto).first(conn).optional()?;
    let (total, carry_atto) = NanoFil::from_atto(atto + i128::from(carried.unwrap_or_default())).ok_or_else(overflow)?;

    let parties = parties(conn, pool, first_epoch, end_epoch)?;
    let weights: Vec<(Party, u128)> = parties.iter().map(|(p, _, weight)| (*p, *weight)).collect();
    let shares = attribute(total.0, &weights).ok_or_else(overflow)?;
    let posting = Posting { pool, day, now };
    for share in &shares {
        posting.post(conn, share, parties.iter().find(|(p, _, _)| *p == share.party).and_then(|(_, owner, _)| owner.as_ref()))?;
    }
    posting.release(conn)?;
    let row = PoolDay {
        pool_id: pool,
        day,
        first_epoch,
        end_epoch,
        wins: i64::try_from(day_wins.len()).unwrap_or(i64::MAX),
        reward_atto: atto.to_string(),
        posted_nano: total.0,
        carry_atto,
        power_epochs: weights.iter().map(|(_, w)| w).sum::<u128>().to_string(),
        closed_at: now,
    };
    diesel::insert_into(pool_days::table).values(row).execute(conn)?;
    close_month(conn, pool, day, now)?;
    Ok(Some(Closed { day, posted: total, shares: shares.len() }))
}

/// Whose contract it is.
struct Owner {
    contract: String,
    user: UserId,
}

/// Every contract with power in the day, and the operator.
fn parties(
    conn: &mut AnyConnection,
    pool: PoolId,
    first: i64,
    end: i64,
) -> Result<Vec<(Party, Option<Owner>, u128)>, CloseError> {
    let mut power: BTreeMap<ContractId, u128> = BTreeMap::new();
    for row in intervals_in(conn, pool, first, end)? {
        let contract: ContractId = sectors::table.find(row.sector_id).select(sectors::contract_id).first(conn)?;
        *power.entry(contract).or_default() += power_epochs(&row.interval(), first, end);
    }
    let mut parties = vec![(Party::Operator, None, 0)];
    for (id, weight) in power {
        let (contract, user, terms): (String, UserId, String) =
            contracts::table.find(id).select((contracts::public_id, contracts::user_id, contracts::terms)).first(conn)?;
        let terms: Terms = serde_json::from_str(&terms)
            .map_err(|error| CloseError::Terms { contract: contract.clone(), reason: error.to_string() })?;
        let party = Party::Contract { id, fee: BasisPoints(terms.service_fee_bp), available: BasisPoints(terms.available_bp) };
        parties.push((party, Some(Owner { contract, user }), weight));
    }
    Ok(parties)
}

/// What one contract's older lots release today.
#[derive(QueryableByName)]
struct Due {
    #[diesel(sql_type = diesel::sql_types::Text)]
    contract: String,
    #[diesel(sql_type = BigInt)]
    user_id: i64,
    #[diesel(sql_type = BigInt)]
    amount: i64,
}

struct Posting {
    pool: PoolId,
    day: i64,
    now: Micros,
}

impl Posting {
    fn transfer(&self, kind: &'static str, subject: &str, from: AccountSpec, to: AccountSpec, amount: i64) -> Transfer {
        Transfer {
            id: format!("{kind}:{}:{}:{subject}", self.pool, self.day),
            from,
            to,
            amount,
            kind,
            subject: subject.to_owned(),
            effective_day: self.day,
            booked_at: self.now,
        }
    }

    fn post(&self, conn: &mut AnyConnection, share: &Share, owner: Option<&Owner>) -> Result<(), CloseError> {
        let chain = || AccountSpec::ChainRewards(self.pool);
        let (Party::Contract { id, .. }, Some(owner)) = (share.party, owner) else {
            let own = self.transfer("operator", "operator", chain(), AccountSpec::OperatorYield(self.pool), share.gross);
            return self.unless_zero(conn, &own);
        };
        let lot = Lot {
            contract_id: id,
            day: self.day,
            pool_id: self.pool,
            power_epochs: share.power_epochs.to_string(),
            gross_nano: share.gross,
            fee_nano: share.fee,
            available_nano: share.available,
            locked_nano: share.locked,
        };
        diesel::insert_into(yield_lots::table).values(lot).execute(conn)?;
        let subject = owner.contract.as_str();
        self.unless_zero(conn, &self.transfer("fee", subject, chain(), AccountSpec::Fees(self.pool), share.fee))?;
        self.unless_zero(conn, &self.transfer("reward", subject, chain(), AccountSpec::Available(owner.user), share.available))?;
        self.unless_zero(conn, &self.transfer("locked", subject, chain(), AccountSpec::Vesting(owner.user), share.locked))
    }

    /// Releases the day's tranche of every lot of the past `vesting_days`, per contract in one sum.
    fn release(&self, conn: &mut AnyConnection) -> Result<(), CloseError> {
        const VESTING_DAYS: i64 = 180;
        // released(locked, k) - released(locked, k - 1), as in `vest.rs`; integer division rounds down for what is not negative.
        let due: Vec<Due> = diesel::sql_query(
            "SELECT c.public_id AS contract, c.user_id AS user_id, CAST(SUM( \
               (l.locked_nano / $1) * 1 + ((l.locked_nano % $1) * ($2 - l.day)) / $1 - ((l.locked_nano % $1) * ($2 - l.day - 1)) / $1 \
             ) AS BIGINT) AS amount \
             FROM yield_lots l JOIN contracts c ON c.id = l.contract_id \
             WHERE l.pool_id = $3 AND l.day >= $2 - $1 AND l.day < $2 \
             GROUP BY c.public_id, c.user_id ORDER BY c.public_id",
        )
        .bind::<BigInt, _>(VESTING_DAYS)
        .bind::<BigInt, _>(self.day)
        .bind::<BigInt, _>(self.pool.0)
        .load(conn)?;
        for row in due {
            let user = UserId(row.user_id);
            let vested =
                self.transfer("vested", &row.contract, AccountSpec::Vesting(user), AccountSpec::Available(user), row.amount);
            self.unless_zero(conn, &vested)?;
        }
        Ok(())
    }

    fn unless_zero(&self, conn: &mut AnyConnection, transfer: &Transfer) -> Result<(), CloseError> {
        if transfer.amount == 0 { Ok(()) } else { Ok(ledger::post(conn, transfer)?) }
    }
}

/// The last day of a month asks for the statements of everybody who has a contract in the pool.
fn close_month(conn: &mut AnyConnection, pool: PoolId, day: i64, now: Micros) -> DbResult<()> {
    let Some(month) = Month::of_day(day) else { return Ok(()) };
    if month.days().is_none_or(|(_, end)| end != day + 1) {
        return Ok(());
    }
    let mut users: Vec<UserId> = contracts::table
        .filter(contracts::pool_id.eq(pool))
        .select(contracts::user_id)
        .order(contracts::user_id.asc())
        .load(conn)?;
    users.dedup();
    for user in users {
        let payload = serde_json::json!({"user": user.0, "month": month.to_string()}).to_string();
        jobs::enqueue(conn, "statement", &format!("{user}:{month}"), &payload, now)?;
    }
    Ok(())
}
