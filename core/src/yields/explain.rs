//! Explains how a figure of an investor's day came about.

use std::collections::BTreeMap;

use diesel::prelude::*;

use super::{
    CloseError,
    attribute::power_epochs,
    audit::Grown,
    parties::Agreed,
    record::{Counted, PoolDay, counted_in, cursor, wins},
};
use crate::{
    capacity::{Pool, pools},
    clock::day_text,
    ids::{ContractId, PoolId, UserId},
    ledger::{self, Lot},
    money::NanoFil,
    store::{
        AnyConnection, DbResult,
        schema::{contracts, pool_days},
    },
};

/// Explains line by line how a user's figures of a day came about, down to the blocks won.
pub fn explain(
    conn: &mut AnyConnection,
    user: UserId,
    day: i64,
) -> Result<Vec<String>, CloseError> {
    let mine: Vec<(ContractId, String, PoolId)> = contracts::table
        .filter(contracts::user_id.eq(user))
        .order(contracts::id.asc())
        .select((contracts::id, contracts::public_id, contracts::pool_id))
        .load(conn)?;
    let names: BTreeMap<PoolId, Pool> = pools(conn)?
        .into_iter()
        .map(|pool| (pool.id, pool))
        .collect();
    let mut lines = Vec::new();
    for (contract, public_id, pool) in mine {
        let closed: Option<PoolDay> = pool_days::table.find((pool, day)).first(conn).optional()?;
        let (Some(closed), Some(lot)) = (closed, ledger::lot(conn, pool, day, contract)?) else {
            continue;
        };
        let Some(pool) = names.get(&pool) else {
            continue;
        };
        lines.push(format!("contract {public_id}, {}", day_text(day)));
        explain_pool(conn, pool, &closed, &mut lines)?;
        let part = Part {
            pool,
            day: &closed,
            lot: &lot,
            contract: &public_id,
        };
        part.explain(conn, &mut lines)?;
    }
    if lines.is_empty() {
        lines.push(format!(
            "nothing was booked for {}: the day is not closed, or there were no earnings, \
             no vesting and no missing power",
            day_text(day)
        ));
    }
    Ok(lines)
}

fn explain_pool(
    conn: &mut AnyConnection,
    pool: &Pool,
    day: &PoolDay,
    lines: &mut Vec<String>,
) -> Result<(), CloseError> {
    for win in wins(conn, pool.id, day.first_epoch, day.end_epoch)? {
        lines.push(format!(
            "  epoch {}: block {} with {} wins, {} attoFIL and {} of tips for {}",
            win.epoch, win.cid, win.win_count, win.reward_atto, win.tips_atto, pool.miner
        ));
    }
    let carried: Option<i64> = pool_days::table
        .find((pool.id, day.day - 1))
        .select(pool_days::carry_atto)
        .first(conn)
        .optional()?;
    lines.push(format!(
        "  pool {}: {} attoFIL won in epochs {} to {}, {} carried from the day before: \
         {} FIL to split, {} attoFIL carried on",
        pool.name,
        day.reward_atto,
        day.first_epoch,
        day.end_epoch - 1,
        carried.unwrap_or_default(),
        NanoFil(day.posted_nano),
        day.carry_atto
    ));
    lines.push(format!(
        "  the day cost {} FIL of daily fees, {} of fees for faults and {} of gas",
        NanoFil(day.daily_fee_nano),
        NanoFil(day.fault_fee_nano),
        NanoFil(day.gas_nano)
    ));
    Ok(())
}

/// A contract's part of a pool's day.
struct Part<'a> {
    pool: &'a Pool,
    day: &'a PoolDay,
    lot: &'a Lot,
    /// The contract's public id.
    contract: &'a str,
}

impl Part<'_> {
    fn explain(&self, conn: &mut AnyConnection, lines: &mut Vec<String>) -> Result<(), CloseError> {
        let ends = self.end_of_term(conn)?;
        lines.extend(self.sectors(conn, ends)?);
        if ends <= self.day.end_epoch {
            lines.push(format!(
                "  the term ends before epoch {ends}; \
                 later earnings of its sectors belong to the operator"
            ));
        }
        lines.push(self.share());
        lines.push(self.releases(conn)?);
        lines.push(self.entries());
        lines.extend(self.missing());
        Ok(())
    }

    /// The first epoch after the contract's term, as it was on that day.
    fn end_of_term(&self, conn: &mut AnyConnection) -> Result<i64, CloseError> {
        let contract = self.lot.contract_id;
        let time = cursor(conn, self.pool.id)?
            .ok_or(CloseError::NotFollowed(self.pool.id))?
            .time();
        let terms = Agreed::load(conn, &[contract])?;
        let grown = Grown::load(conn, &terms, &[contract], self.lot.day)?;
        Ok(terms.ends(contract, grown.since(contract), time))
    }

    /// A line for each interval in which one of the contract's sectors counted.
    fn sectors(&self, conn: &mut AnyConnection, ends: i64) -> DbResult<Vec<String>> {
        let (first, end) = (self.day.first_epoch, self.day.end_epoch);
        let mut mine = counted_in(conn, self.pool.id, first, end)?;
        mine.retain(|sector| sector.contract == Some(self.lot.contract_id));
        mine.sort_unstable_by_key(|sector| (sector.number, sector.interval().start));
        let line = |sector: Counted| {
            let interval = sector.interval();
            format!(
                "  sector {}: counted from epoch {} {} with {} bytes: {} byte-epochs that day",
                sector.number,
                interval.start,
                interval.end.map_or("on".into(), |end| format!("to {end}")),
                interval.qa_power,
                power_epochs(&interval.cut(ends).0, first, end)
            )
        };
        Ok(mine.into_iter().map(line).collect())
    }

    fn share(&self) -> String {
        let lot = self.lot;
        format!(
            "  part: {} of {} byte-epochs, {} FIL gross; fee {}, cost {}, net {}: \
             {} available at once, {} locked",
            lot.power_epochs,
            self.day.power_epochs,
            NanoFil(lot.gross_nano),
            NanoFil(lot.fee_nano),
            NanoFil(lot.cost_nano),
            NanoFil(lot.available_nano + lot.locked_nano),
            NanoFil(lot.available_nano),
            NanoFil(lot.locked_nano)
        )
    }

    fn releases(&self, conn: &mut AnyConnection) -> DbResult<String> {
        let lot = self.lot;
        let before = ledger::lot(conn, lot.pool_id, lot.day - 1, lot.contract_id)?;
        let rate = before.map_or(0, |lot| lot.rate_nano);
        Ok(format!(
            "  released: {} FIL, whole parts of earlier days {} and last parts {}; \
             {} FIL are still vesting",
            NanoFil(lot.released_nano),
            NanoFil(rate),
            NanoFil(lot.released_nano - rate),
            NanoFil(lot.vesting_nano)
        ))
    }

    /// The names of the lot's entries.
    fn entries(&self) -> String {
        let lot = self.lot;
        let entries: Vec<String> = [
            ("reward", lot.available_nano),
            ("locked", lot.locked_nano),
            ("vested", lot.released_nano),
            ("compensation", lot.compensation_nano),
        ]
        .into_iter()
        .filter(|(_, nano)| *nano > 0)
        .map(|(kind, _)| format!("{kind}:{}:{}:{}", lot.pool_id, lot.day, self.contract))
        .collect();
        format!("  entries: {}", entries.join(", "))
    }

    /// How missing power was made up for. `None`: none was missing.
    fn missing(&self) -> Option<String> {
        let lot = self.lot;
        if lot.missing_epochs == "0" {
            return None;
        }
        let mut how = Vec::new();
        if lot.added_epochs > 0 {
            how.push(format!(
                "the term is extended by {} epochs for them",
                lot.added_epochs
            ));
        }
        if lot.compensation_nano > 0 || lot.added_epochs == 0 {
            let paid = NanoFil(lot.compensation_nano);
            how.push(format!("{paid} FIL paid for them"));
        }
        Some(format!(
            "  missing: {} promised byte-epochs did not count, which would have weighed {}; {}",
            lot.missing_epochs,
            lot.missing_power,
            how.join(", ")
        ))
    }
}
