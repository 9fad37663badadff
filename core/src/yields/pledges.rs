//! Returns investors' own pledges, as the chain's records say.

use std::collections::HashMap;

use diesel::prelude::*;

use super::{
    CloseError,
    flows::{FlowKind, NO_SECTOR},
};
use crate::{
    catalog::{Pledge, terms_by_id},
    clock::{DAY, Micros},
    contracts::Contract,
    ids::{PoolId, UserId},
    ledger::{self, AccountSpec, LedgerError, Transfer},
    money::{ATTO_PER_NANO, BasisPoints},
    store::{
        AnyConnection, DbResult,
        schema::{chain_flows, contracts, sectors},
    },
};

/// A sector that an investor put up a pledge for.
struct Backed {
    number: i64,
    contract: String,
    user: UserId,
    /// nanoFIL that were put up for it.
    each: i64,
    terms: i64,
}

type BackedRow = (i64, String, UserId, i64, i64);

fn backed(conn: &mut AnyConnection, pool: PoolId, numbers: &[i64]) -> DbResult<HashMap<i64, Backed>> {
    let mut found = HashMap::new();
    for some in numbers.chunks(1000) {
        let rows: Vec<BackedRow> = sectors::table
            .inner_join(contracts::table.on(contracts::id.eq(sectors::contract_id)))
            .filter(sectors::pool_id.eq(pool).and(sectors::number.eq_any(some)).and(contracts::pledge_each_nano.gt(0)))
            .select((sectors::number, contracts::public_id, contracts::user_id, contracts::pledge_each_nano, contracts::terms_id))
            .load(conn)?;
        found.extend(
            rows.into_iter()
                .map(|(number, contract, user, each, terms)| (number, Backed { number, contract, user, each, terms })),
        );
    }
    Ok(found)
}

/// Transfers of investors' pledges that epochs `[first, end)`, which are UTC day `day`, make due.
/// When the chain takes a sector's pledge, the part that it did not need goes back. When the chain
/// returns the pledge, the rest goes back, less the part of a termination fee that the terms put on
/// it.
pub(super) fn pledges_due(
    conn: &mut AnyConnection,
    pool: PoolId,
    (day, first, end): (i64, i64, i64),
    now: Micros,
) -> Result<Vec<Transfer>, CloseError> {
    let kinds = [FlowKind::PledgeIn, FlowKind::PledgeBack];
    let flows: Vec<(FlowKind, i64)> = chain_flows::table
        .filter(chain_flows::pool_id.eq(pool).and(chain_flows::epoch.ge(first)).and(chain_flows::epoch.lt(end)))
        .filter(chain_flows::kind.eq_any(kinds).and(chain_flows::subject.ne(NO_SECTOR)))
        .order((chain_flows::subject.asc(), chain_flows::epoch.asc()))
        .select((chain_flows::kind, chain_flows::subject))
        .load(conn)?;
    let numbers: Vec<i64> = flows.iter().map(|(_, number)| *number).collect();
    let backed = backed(conn, pool, &numbers)?;
    let mut due: Vec<Transfer> = Vec::new();
    for (kind, number) in flows {
        let Some(sector) = backed.get(&number) else { continue };
        let rest_id = format!("pledge-rest:{}:{number}", sector.contract);
        let listed = due.iter().find(|transfer| transfer.id == rest_id).map(|transfer| transfer.amount);
        let returned = listed.or(ledger::posted_amount(conn, &rest_id)?);
        let transfer = |what: &str, to: AccountSpec, amount: i64, kind: &'static str| Transfer {
            id: format!("{what}:{}:{}", sector.contract, sector.number),
            from: AccountSpec::Pledged(sector.user),
            to,
            amount,
            kind,
            subject: sector.contract.clone(),
            effective_day: day,
            booked_at: now,
        };
        if kind == FlowKind::PledgeIn {
            let taken = of_sector(conn, pool, FlowKind::PledgeIn, number)?.min(sector.each);
            // The chain may take it so late that all of it has already gone back.
            if returned.is_none_or(|there| there != sector.each) {
                due.push(transfer("pledge-rest", AccountSpec::Available(sector.user), sector.each - taken, "pledge_not_needed"));
            }
            continue;
        }
        // The part that has not gone back yet.
        let here = sector.each - returned.unwrap_or_default();
        let fee = of_sector(conn, pool, FlowKind::TerminationFee, number)?;
        let kept = borne(conn, sector.terms)?.of(fee).ok_or(CloseError::Overflow { pool, day })?.min(here);
        due.push(transfer("pledge-kept", AccountSpec::OperatorYield(pool), kept, "pledge_kept"));
        due.push(transfer("pledge-back", AccountSpec::Available(sector.user), here - kept, "pledge_returned"));
    }
    due.retain(|transfer| transfer.amount > 0);
    Ok(due)
}

/// A sector's amount of one kind, in whole nanoFIL, rounded up.
fn of_sector(conn: &mut AnyConnection, pool: PoolId, kind: FlowKind, number: i64) -> Result<i64, CloseError> {
    let found: Option<String> = chain_flows::table
        .filter(chain_flows::pool_id.eq(pool).and(chain_flows::kind.eq(kind)).and(chain_flows::subject.eq(number)))
        .order(chain_flows::epoch.asc())
        .select(chain_flows::atto)
        .first(conn)
        .optional()?;
    let Some(text) = found else { return Ok(0) };
    let atto: i128 = text.parse().map_err(|_| CloseError::Amount(text.clone()))?;
    i64::try_from((atto + ATTO_PER_NANO - 1) / ATTO_PER_NANO).map_err(|_| CloseError::Amount(text))
}

/// The part of a termination fee that these terms put on the investor's pledge.
fn borne(conn: &mut AnyConnection, id: i64) -> DbResult<BasisPoints> {
    Ok(match terms_by_id(conn, id)?.pledge {
        Pledge::Investor { terminations_bp } => BasisPoints(terminations_bp),
        Pledge::Operator | Pledge::OperatorFor { .. } => BasisPoints(0),
    })
}

/// Returns the pledges of sectors that never came to be, once the term is over.
pub(super) fn return_unused(conn: &mut AnyConnection, contract: &Contract, now: Micros) -> Result<(), LedgerError> {
    if contract.pledge_each_nano == 0 {
        return Ok(());
    }
    let numbers: Vec<i64> = sectors::table.filter(sectors::contract_id.eq(contract.id)).select(sectors::number).load(conn)?;
    for number in numbers {
        let taken: i64 = chain_flows::table
            .filter(chain_flows::pool_id.eq(contract.pool_id).and(chain_flows::subject.eq(number)))
            .filter(chain_flows::kind.eq(FlowKind::PledgeIn))
            .count()
            .get_result(conn)?;
        if taken > 0 {
            continue;
        }
        let transfer = Transfer {
            // The same id as for the part that the chain did not need: a sector has only one of the
            // two.
            id: format!("pledge-rest:{}:{number}", contract.public_id),
            from: AccountSpec::Pledged(contract.user_id),
            to: AccountSpec::Available(contract.user_id),
            amount: contract.pledge_each_nano,
            kind: "pledge_not_needed",
            subject: contract.public_id.clone(),
            effective_day: now.div_euclid(DAY),
            booked_at: now,
        };
        ledger::post(conn, &transfer)?;
    }
    Ok(())
}
