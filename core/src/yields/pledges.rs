//! Returns investors' own pledges, as the chain's records say.

use std::collections::HashMap;

use diesel::prelude::*;

use super::{
    CloseError,
    flows::{FlowKind, NO_SECTOR},
    record::DayEpochs,
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
    pool: PoolId,
    number: i64,
    contract: String,
    user: UserId,
    /// nanoFIL that were put up for it.
    each: i64,
    terms: i64,
}

/// A part of a sector's pledge, by where it goes.
#[derive(Clone, Copy)]
enum Part {
    /// To the investor: the chain did not need it.
    NotNeeded,
    /// To the operator, for a termination fee.
    Kept,
    /// To the investor: the chain gave it back.
    Returned,
}

impl Part {
    /// The beginning of its transfer's id.
    fn prefix(self) -> &'static str {
        match self {
            Self::NotNeeded => "pledge-rest",
            Self::Kept => "pledge-kept",
            Self::Returned => "pledge-back",
        }
    }

    /// The kind of its transfer, for statements.
    fn kind(self) -> &'static str {
        match self {
            Self::NotNeeded => "pledge_not_needed",
            Self::Kept => "pledge_kept",
            Self::Returned => "pledge_returned",
        }
    }
}

impl Backed {
    fn transfer_id(&self, part: Part) -> String {
        format!("{}:{}:{}", part.prefix(), self.contract, self.number)
    }

    fn transfer(&self, part: Part, amount: i64, day: i64, now: Micros) -> Transfer {
        let to = match part {
            Part::NotNeeded | Part::Returned => AccountSpec::Available(self.user),
            Part::Kept => AccountSpec::OperatorYield(self.pool),
        };
        Transfer {
            id: self.transfer_id(part),
            from: AccountSpec::Pledged(self.user),
            to,
            amount,
            kind: part.kind(),
            subject: self.contract.clone(),
            effective_day: day,
            booked_at: now,
        }
    }

    /// nanoFIL that the chain did not need.
    fn not_needed(&self, conn: &mut AnyConnection) -> Result<i64, CloseError> {
        let taken = of_sector(conn, self.pool, FlowKind::PledgeIn, self.number)?;
        Ok(self.each - taken.min(self.each))
    }

    /// nanoFIL of `here`, the part that has not gone back yet, that a termination fee takes.
    fn kept(&self, conn: &mut AnyConnection, here: i64, day: i64) -> Result<i64, CloseError> {
        let pool = self.pool;
        let fee = of_sector(conn, pool, FlowKind::TerminationFee, self.number)?;
        let kept = borne(conn, self.terms)?
            .of(fee)
            .ok_or(CloseError::Overflow { pool, day })?;
        Ok(kept.min(here))
    }
}

type BackedRow = (i64, String, UserId, i64, i64);

fn backed(
    conn: &mut AnyConnection,
    pool: PoolId,
    numbers: &[i64],
) -> DbResult<HashMap<i64, Backed>> {
    let mut found = HashMap::new();
    for some in numbers.chunks(1000) {
        let rows: Vec<BackedRow> = sectors::table
            .inner_join(contracts::table.on(contracts::id.eq(sectors::contract_id)))
            .filter(
                sectors::pool_id
                    .eq(pool)
                    .and(sectors::number.eq_any(some))
                    .and(contracts::pledge_each_nano.gt(0)),
            )
            .select((
                sectors::number,
                contracts::public_id,
                contracts::user_id,
                contracts::pledge_each_nano,
                contracts::terms_id,
            ))
            .load(conn)?;
        found.extend(
            rows.into_iter()
                .map(|(number, contract, user, each, terms)| {
                    (
                        number,
                        Backed {
                            pool,
                            number,
                            contract,
                            user,
                            each,
                            terms,
                        },
                    )
                }),
        );
    }
    Ok(found)
}

/// Transfers of investors' pledges that a day makes due. When the chain takes a sector's pledge,
/// the part that it did not need goes back. When the chain returns the pledge, the rest goes back,
/// less the part of a termination fee that the terms put on it.
pub(super) fn pledges_due(
    conn: &mut AnyConnection,
    pool: PoolId,
    epochs: DayEpochs,
    now: Micros,
) -> Result<Vec<Transfer>, CloseError> {
    let day = epochs.day;
    let flows = pledge_flows(conn, pool, epochs)?;
    let numbers: Vec<i64> = flows.iter().map(|(_, number)| *number).collect();
    let backed = backed(conn, pool, &numbers)?;
    let mut due: Vec<Transfer> = Vec::new();
    for (kind, number) in flows {
        let Some(sector) = backed.get(&number) else {
            continue;
        };
        let rest_id = sector.transfer_id(Part::NotNeeded);
        let listed = due
            .iter()
            .find(|transfer| transfer.id == rest_id)
            .map(|transfer| transfer.amount);
        let returned = listed.or(ledger::posted_amount(conn, &rest_id)?);
        if kind == FlowKind::PledgeIn {
            let rest = sector.not_needed(conn)?;
            // The chain may take it so late that all of it has already gone back.
            if returned.is_none_or(|there| there != sector.each) {
                due.push(sector.transfer(Part::NotNeeded, rest, day, now));
            }
            continue;
        }
        let here = sector.each - returned.unwrap_or_default();
        let kept = sector.kept(conn, here, day)?;
        due.push(sector.transfer(Part::Kept, kept, day, now));
        due.push(sector.transfer(Part::Returned, here - kept, day, now));
    }
    due.retain(|transfer| transfer.amount > 0);
    Ok(due)
}

/// Pledges that the chain took or returned on a day: the kind of flow and the sector's number, by
/// sector and then by epoch.
fn pledge_flows(
    conn: &mut AnyConnection,
    pool: PoolId,
    epochs: DayEpochs,
) -> DbResult<Vec<(FlowKind, i64)>> {
    chain_flows::table
        .filter(
            chain_flows::pool_id
                .eq(pool)
                .and(chain_flows::epoch.ge(epochs.first))
                .and(chain_flows::epoch.lt(epochs.end)),
        )
        .filter(
            chain_flows::kind
                .eq_any([FlowKind::PledgeIn, FlowKind::PledgeBack])
                .and(chain_flows::subject.ne(NO_SECTOR)),
        )
        .order((chain_flows::subject.asc(), chain_flows::epoch.asc()))
        .select((chain_flows::kind, chain_flows::subject))
        .load(conn)
}

/// A sector's amount of one kind, in whole nanoFIL, rounded up.
fn of_sector(
    conn: &mut AnyConnection,
    pool: PoolId,
    kind: FlowKind,
    number: i64,
) -> Result<i64, CloseError> {
    let found: Option<String> = chain_flows::table
        .filter(
            chain_flows::pool_id
                .eq(pool)
                .and(chain_flows::kind.eq(kind))
                .and(chain_flows::subject.eq(number)),
        )
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
pub(super) fn return_unused(
    conn: &mut AnyConnection,
    contract: &Contract,
    now: Micros,
) -> Result<(), LedgerError> {
    if contract.pledge_each_nano == 0 {
        return Ok(());
    }
    let numbers: Vec<i64> = sectors::table
        .filter(sectors::contract_id.eq(contract.id))
        .select(sectors::number)
        .load(conn)?;
    for number in numbers {
        let taken: i64 = chain_flows::table
            .filter(
                chain_flows::pool_id
                    .eq(contract.pool_id)
                    .and(chain_flows::subject.eq(number)),
            )
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
