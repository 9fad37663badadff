//! The auditor of yields: every closed day again, from what the chain said up to what was booked, and the way to one figure.

use std::collections::{BTreeMap, HashMap};

use diesel::prelude::*;

use super::{
    CloseError,
    attribute::{Day, Member, Share, attribute, power_epochs, raw_epochs},
    close::{daily_fee, won},
    parties::Agreed,
    record::{PoolDay, chain_day, chain_days, counted_in, wins},
    vest::Vesting,
};
use crate::{
    capacity::{Pool, pools},
    clock::day_text,
    ids::{ContractId, PoolId, UserId},
    ledger::{self, AccountSpec, Lot},
    money::{ATTO_PER_NANO, NanoFil},
    store::{
        AnyConnection, DbResult,
        schema::{contracts, pool_days},
    },
};

/// A figure that is not what it should be, and the way to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub booked: String,
    pub should_be: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: booked {}, should be {}", self.path, self.booked, self.should_be)
    }
}

/// Compares step by step; the first difference ends it.
struct Path(String);

impl Path {
    fn same<T: PartialEq + ToString>(&self, what: &str, booked: &T, should_be: &T) -> Result<(), Stop> {
        if booked == should_be {
            return Ok(());
        }
        let (booked, should_be) = (booked.to_string(), should_be.to_string());
        Err(Stop::Different(Difference { path: format!("{} > {what}", self.0), booked, should_be }))
    }
}

enum Stop {
    Different(Difference),
    Failed(CloseError),
}

impl<E: Into<CloseError>> From<E> for Stop {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// Everything from the chain's records up. `None`: all of it holds.
pub fn audit(conn: &mut AnyConnection) -> Result<Option<Difference>, CloseError> {
    match all(conn) {
        Ok(()) => Ok(None),
        Err(Stop::Different(difference)) => Ok(Some(difference)),
        Err(Stop::Failed(error)) => Err(error),
    }
}

fn all(conn: &mut AnyConnection) -> Result<(), Stop> {
    let mut unlocked: i128 = 0;
    for pool in pools(conn)? {
        let days: Vec<PoolDay> =
            pool_days::table.filter(pool_days::pool_id.eq(pool.id)).order(pool_days::day.asc()).load(conn)?;
        let mut carry = 0;
        for day in &days {
            audit_day(conn, &pool, day, carry)?;
            carry = day.carry_atto;
        }
        if let Some(latest) = chain_days(conn, pool.id)?.pop() {
            unlocked += latest.available_atto.parse::<i128>().unwrap_or_default() / ATTO_PER_NANO;
        }
    }
    let mut owed: i128 = 0;
    for person in crate::accounts::investors(conn)? {
        owed += i128::from(ledger::balance(conn, &AccountSpec::Available(person.id))?.posted);
    }
    if owed > unlocked {
        let path = "house > what investors can withdraw, against what the miners can (nanoFIL)".to_owned();
        return Err(Stop::Different(Difference { path, booked: owed.to_string(), should_be: format!("at most {unlocked}") }));
    }
    Ok(())
}

fn audit_day(conn: &mut AnyConnection, pool: &Pool, day: &PoolDay, carry: i64) -> Result<(), Stop> {
    let path = Path(format!("pool {} > {}", pool.name, day_text(day.day)));
    let overflow = || CloseError::Overflow { pool: pool.id, day: day.day };
    let won = won(&wins(conn, pool.id, day.first_epoch, day.end_epoch)?)?.ok_or_else(overflow)?;
    path.same("attoFIL won", &day.reward_atto, &won.to_string())?;
    let (total, rest) = NanoFil::from_atto(won + i128::from(carry)).ok_or_else(overflow)?;
    path.same("posted", &day.posted_nano, &total.0)?;
    path.same("carried", &day.carry_atto, &rest)?;
    if let Some(said) = chain_day(conn, pool.id, day.day)? {
        path.same("rewards of the chain's day", &said.reward_atto, &won.to_string())?;
    }

    let lots = ledger::lots_on(conn, pool.id, day.day)?;
    let power = powers(conn, pool, day)?;
    let ids: Vec<ContractId> = lots.iter().map(|lot| lot.contract_id).collect();
    let terms = Agreed::load(conn, &ids)?;
    let members: Vec<Member> = lots.iter().map(|lot| terms.member(lot)).collect::<Result<_, _>>()?;
    for (lot, member) in lots.iter().zip(&members) {
        let counted = power.of.get(&lot.contract_id).copied().unwrap_or_default();
        path.same(&format!("contract {} > power-epochs", lot.contract_id), &member.power, &counted)?;
    }
    path.same("contracts with power", &members.iter().filter(|m| m.power > 0).count(), &power.of.len())?;
    let daily_fee = daily_fee(conn, pool.id, day.day)?;
    let split = Day { total: total.0, daily_fee, own_power: power.own, raw_power: power.raw };
    let (shares, own) = attribute(&split, &members).ok_or_else(overflow)?;
    for (lot, share) in lots.iter().zip(&shares) {
        audit_lot(conn, &path, lot, share, terms.vesting_days(lot.contract_id))?;
    }
    let operator = ledger::posted_amount(conn, &format!("operator:{}:{}", pool.id, day.day))?.unwrap_or_default();
    path.same("the operator's part", &operator, &own)
}

fn audit_lot(conn: &mut AnyConnection, path: &Path, lot: &Lot, share: &Share, n: i64) -> Result<(), Stop> {
    let path = Path(format!("{} > contract {}", path.0, lot.contract_id));
    path.same("gross", &lot.gross_nano, &share.gross)?;
    path.same("fee", &lot.fee_nano, &share.fee)?;
    path.same("cost", &lot.cost_nano, &share.cost)?;
    path.same("available", &lot.available_nano, &share.available)?;
    path.same("locked", &lot.locked_nano, &share.locked)?;
    path.same("compensation", &lot.compensation_nano, &share.compensation)?;
    let mut of = |day: i64| ledger::lot(conn, lot.pool_id, day, lot.contract_id);
    let yesterday = of(lot.day - 1)?.map_or(Vesting::default(), |l| Vesting { rate: l.rate_nano, left: l.vesting_nano });
    let ending = of(lot.day - n)?.map_or(0, |l| l.locked_nano);
    let (released, vesting) = yesterday.day(share.locked, ending, n);
    path.same("released", &lot.released_nano, &released)?;
    path.same("rate of release", &lot.rate_nano, &vesting.rate)?;
    path.same("left to release", &lot.vesting_nano, &vesting.left)
}

/// What the chain counted on a day, added up anew.
struct Powers {
    of: HashMap<ContractId, u128>,
    own: u128,
    raw: u128,
}

fn powers(conn: &mut AnyConnection, pool: &Pool, day: &PoolDay) -> DbResult<Powers> {
    let mut powers = Powers { of: HashMap::new(), own: 0, raw: 0 };
    let sector_bytes = u128::try_from(pool.sector_bytes).unwrap_or(0);
    for sector in counted_in(conn, pool.id, day.first_epoch, day.end_epoch)? {
        let interval = sector.interval();
        let power = power_epochs(&interval, day.first_epoch, day.end_epoch);
        powers.raw += raw_epochs(&interval, sector_bytes, day.first_epoch, day.end_epoch);
        match sector.contract {
            Some(contract) => *powers.of.entry(contract).or_default() += power,
            None => powers.own += power,
        }
    }
    powers.of.retain(|_, power| *power > 0);
    Ok(powers)
}

/// How a user's figures of a day came about, line by line, down to the tipsets.
pub fn explain(conn: &mut AnyConnection, user: UserId, day: i64) -> Result<Vec<String>, CloseError> {
    let mine: Vec<(ContractId, String, PoolId)> = contracts::table
        .filter(contracts::user_id.eq(user))
        .order(contracts::id.asc())
        .select((contracts::id, contracts::public_id, contracts::pool_id))
        .load(conn)?;
    let names: BTreeMap<PoolId, Pool> = pools(conn)?.into_iter().map(|pool| (pool.id, pool)).collect();
    let mut lines = Vec::new();
    for (contract, public_id, pool) in mine {
        let closed: Option<PoolDay> = pool_days::table.find((pool, day)).first(conn).optional()?;
        let (Some(closed), Some(lot)) = (closed, ledger::lot(conn, pool, day, contract)?) else { continue };
        let Some(pool) = names.get(&pool) else { continue };
        lines.push(format!("contract {public_id}, {}", day_text(day)));
        explain_pool(conn, pool, &closed, &mut lines)?;
        explain_lot(conn, pool, &closed, &lot, &mut lines)?;
    }
    if lines.is_empty() {
        lines.push(format!(
            "nothing was booked for {}: the day is not closed, or nothing earned, vested or was missing",
            day_text(day)
        ));
    }
    Ok(lines)
}

fn explain_pool(conn: &mut AnyConnection, pool: &Pool, day: &PoolDay, lines: &mut Vec<String>) -> Result<(), CloseError> {
    for win in wins(conn, pool.id, day.first_epoch, day.end_epoch)? {
        lines.push(format!(
            "  epoch {}: block {} with {} wins, {} attoFIL and {} of tips for {}",
            win.epoch, win.cid, win.win_count, win.reward_atto, win.tips_atto, pool.miner
        ));
    }
    let carried: Option<i64> =
        pool_days::table.find((pool.id, day.day - 1)).select(pool_days::carry_atto).first(conn).optional()?;
    lines.push(format!(
        "  pool {}: {} attoFIL won in epochs {} to {}, {} carried from the day before: {} FIL to split, {} attoFIL carried on",
        pool.name,
        day.reward_atto,
        day.first_epoch,
        day.end_epoch - 1,
        carried.unwrap_or_default(),
        NanoFil(day.posted_nano),
        day.carry_atto
    ));
    Ok(())
}

fn explain_lot(
    conn: &mut AnyConnection,
    pool: &Pool,
    day: &PoolDay,
    lot: &Lot,
    lines: &mut Vec<String>,
) -> Result<(), CloseError> {
    let fil = |nano: i64| NanoFil(nano).to_string();
    let mut mine = counted_in(conn, pool.id, day.first_epoch, day.end_epoch)?;
    mine.retain(|sector| sector.contract == Some(lot.contract_id));
    mine.sort_unstable_by_key(|sector| (sector.number, sector.interval().start));
    for sector in mine {
        let interval = sector.interval();
        lines.push(format!(
            "  sector {}: counted from epoch {} {} with {} bytes: {} byte-epochs that day",
            sector.number,
            interval.start,
            interval.end.map_or("on".into(), |end| format!("to {end}")),
            interval.qa_power,
            power_epochs(&interval, day.first_epoch, day.end_epoch)
        ));
    }
    lines.push(format!(
        "  part: {} of {} byte-epochs, {} FIL gross; fee {}, cost {}, net {}: {} available at once, {} locked",
        lot.power_epochs,
        day.power_epochs,
        fil(lot.gross_nano),
        fil(lot.fee_nano),
        fil(lot.cost_nano),
        fil(lot.available_nano + lot.locked_nano),
        fil(lot.available_nano),
        fil(lot.locked_nano)
    ));
    let before = ledger::lot(conn, lot.pool_id, lot.day - 1, lot.contract_id)?;
    let rate = before.map_or(0, |lot| lot.rate_nano);
    lines.push(format!(
        "  released: {} FIL, whole parts of earlier days {} and last parts {}; {} FIL are still vesting",
        fil(lot.released_nano),
        fil(rate),
        fil(lot.released_nano - rate),
        fil(lot.vesting_nano)
    ));
    if lot.missing_epochs != "0" {
        let compensation = fil(lot.compensation_nano);
        lines.push(format!(
            "  missing: {} promised byte-epochs did not count; {compensation} FIL paid for them",
            lot.missing_epochs
        ));
    }
    Ok(())
}
