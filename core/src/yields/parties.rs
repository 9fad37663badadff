//! The parties of a pool's day, read from the store: contracts with power, with missing power, or
//! with something to release.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use diesel::prelude::*;

use super::{
    CloseError,
    attribute::{MadeUp, Member, Rates, power_epochs, raw_epochs},
    record::{Counted, Cursor, counted_in, last_powers},
    vest::Vesting,
};
use crate::{
    catalog::{Pledge, Shortfall, Starts, Terms, terms_text},
    clock::{DAY, Micros, SECOND, SECONDS_A_DAY},
    contracts::ContractState,
    ids::{ContractId, PoolId, UserId},
    ledger::Lot,
    money::BasisPoints,
    store::{
        AnyConnection, DbResult,
        schema::{contracts, yield_lots},
    },
    units::ChainTime,
};

/// A contract on a day.
pub(super) struct Party {
    pub contract: ContractId,
    pub owner: UserId,
    pub member: Member,
    pub vesting: Vesting,
    /// The amount that it locked `vesting_days` ago, whose last part is due today.
    pub ending: i64,
    pub vesting_days: i64,
    /// The first epoch after its term; `i64::MAX` while the term has no end.
    pub ends: i64,
    starts: Starts,
    /// Raw byte-epochs that counted.
    raw: u128,
}

/// A pool's day before it is split.
pub(super) struct Parties {
    /// Ordered by contract.
    pub all: Vec<Party>,
    pub own_power: u128,
}

impl Parties {
    /// Quality-adjusted byte-epochs of everybody.
    pub fn power(&self) -> u128 {
        let sold: u128 = self.all.iter().map(|party| party.member.power).sum();
        sold.saturating_add(self.own_power)
    }
}

/// The part of the terms that a day needs.
struct Deal {
    rates: Rates,
    vesting_days: i64,
    starts: Starts,
    /// Most days by which missing power may extend the term.
    most_added_days: i64,
}

/// Terms by row id. Most contracts share a few texts.
#[derive(Default)]
struct Deals(HashMap<i64, Rc<Deal>>);

impl Deals {
    fn get(
        &mut self,
        conn: &mut AnyConnection,
        contract: ContractId,
        id: i64,
    ) -> Result<Rc<Deal>, CloseError> {
        if let Some(deal) = self.0.get(&id) {
            return Ok(Rc::clone(deal));
        }
        let text = terms_text(conn, id)?;
        let terms: Terms = serde_json::from_str(&text).map_err(|error| CloseError::Terms {
            contract,
            reason: error.to_string(),
        })?;
        let pledge_charge = match terms.pledge {
            Pledge::Operator | Pledge::Investor { .. } => 0,
            Pledge::OperatorFor { charge_bp } => charge_bp,
        };
        let (made_up, most_added_days) = match terms.shortfall {
            Shortfall::None => (MadeUp::Not, 0),
            Shortfall::PaidInFil => (MadeUp::InFil, 0),
            Shortfall::AddedDays { most } => (MadeUp::InTime, most),
        };
        let rates = Rates {
            fee: BasisPoints(terms.service_fee_bp),
            pledge_charge: BasisPoints(pledge_charge),
            daily_fee: BasisPoints(terms.daily_fee_bp),
            fault_fee: BasisPoints(terms.faults_bp),
            gas: BasisPoints(terms.gas_bp),
            available: BasisPoints(terms.available_bp),
            made_up,
        };
        let deal = Rc::new(Deal {
            rates,
            vesting_days: terms.vesting_days,
            starts: terms.starts,
            most_added_days,
        });
        self.0.insert(id, Rc::clone(&deal));
        Ok(deal)
    }
}

/// The terms of contracts, for recomputing the split of a day.
pub(super) struct Agreed(HashMap<ContractId, Bought>);

/// The purchase, and its terms.
struct Bought {
    bytes: i64,
    ends_at: Option<Micros>,
    deal: Rc<Deal>,
}

impl Agreed {
    pub fn load(conn: &mut AnyConnection, contracts: &[ContractId]) -> Result<Self, CloseError> {
        let (mut deals, mut agreed) = (Deals::default(), HashMap::new());
        for some in contracts.chunks(AT_ONCE) {
            let rows: Vec<(ContractId, i64, Option<Micros>, i64)> = contracts::table
                .filter(contracts::id.eq_any(some))
                .select((
                    contracts::id,
                    contracts::bytes,
                    contracts::ends_at,
                    contracts::terms_id,
                ))
                .load(conn)?;
            for (contract, bytes, ends_at, terms) in rows {
                agreed.insert(
                    contract,
                    Bought {
                        bytes,
                        ends_at,
                        deal: deals.get(conn, contract, terms)?,
                    },
                );
            }
        }
        Ok(Self(agreed))
    }

    /// Rebuilds the basis of a contract's split from its lot. `added` is the number of epochs that
    /// earlier lots added to the term.
    pub fn member(&self, lot: &Lot, added: i64, time: ChainTime) -> Result<Member, CloseError> {
        let amount = |text: &String| {
            text.parse::<u128>()
                .map_err(|_| CloseError::Amount(text.clone()))
        };
        let unknown = || CloseError::Terms {
            contract: lot.contract_id,
            reason: "there is no such contract".into(),
        };
        let bought = self.0.get(&lot.contract_id).ok_or_else(unknown)?;
        Ok(Member {
            power: amount(&lot.power_epochs)?,
            missing: amount(&lot.missing_epochs)?,
            missing_power: amount(&lot.missing_power)?,
            bytes: u128::try_from(bought.bytes).unwrap_or(0),
            epochs_left: epochs_of(time, bought.deal.most_added_days) - added,
            rates: bought.deal.rates,
        })
    }

    /// The first epoch after a contract's term, as it was before `added` epochs were added.
    pub fn ends(&self, contract: ContractId, added: i64, time: ChainTime) -> i64 {
        self.0.get(&contract).map_or(i64::MAX, |bought| {
            end_epoch(time, bought.ends_at).saturating_sub(added)
        })
    }

    /// Whether missing power can extend the term.
    pub fn can_grow(&self, contract: ContractId) -> bool {
        self.0
            .get(&contract)
            .is_some_and(|bought| bought.deal.most_added_days > 0)
    }

    pub fn vesting_days(&self, contract: ContractId) -> i64 {
        self.0
            .get(&contract)
            .map_or(0, |bought| bought.deal.vesting_days)
    }
}

/// The columns of a contract that every day needs.
type Row = (ContractId, UserId, i64, i64, Option<Micros>);
const ROW: (
    contracts::id,
    contracts::user_id,
    contracts::bytes,
    contracts::terms_id,
    contracts::ends_at,
) = (
    contracts::id,
    contracts::user_id,
    contracts::bytes,
    contracts::terms_id,
    contracts::ends_at,
);

/// The first epoch after a term: the one in which it ends.
fn end_epoch(time: ChainTime, ends_at: Option<Micros>) -> i64 {
    ends_at.map_or(i64::MAX, |at| epoch_at(time, at))
}

/// The epoch in which a moment falls.
fn epoch_at(time: ChainTime, at: Micros) -> i64 {
    (at.div_euclid(SECOND) - time.genesis_at).div_euclid(time.epoch_seconds)
}

fn epochs_of(time: ChainTime, days: i64) -> i64 {
    days.saturating_mul(SECONDS_A_DAY) / time.epoch_seconds
}

/// Contracts read by one query.
const AT_ONCE: usize = 1000;

pub(super) struct Reader<'c> {
    conn: &'c mut AnyConnection,
    pool: PoolId,
    /// Bytes of one of the pool's sectors.
    sector_bytes: u128,
    time: ChainTime,
    /// How many times its bytes a sector counts that becomes active on this day.
    new_quality: u128,
    day: i64,
    first: i64,
    end: i64,
    deals: Deals,
}

impl<'c> Reader<'c> {
    pub fn new(conn: &'c mut AnyConnection, cursor: &Cursor, sector_bytes: i64, day: i64) -> Self {
        let time = cursor.time();
        let sector_bytes = u128::try_from(sector_bytes).unwrap_or(0);
        let (first, end) = (time.first_epoch(day), time.first_epoch(day + 1));
        Self {
            conn,
            pool: cursor.pool_id,
            sector_bytes,
            time,
            new_quality: cursor.new_quality(first),
            day,
            first,
            end,
            deals: Deals::default(),
        }
    }

    pub fn read(mut self) -> Result<Parties, CloseError> {
        let still_vesting = yield_lots::table
            .filter(yield_lots::pool_id.eq(self.pool))
            .filter(yield_lots::day.eq(self.day - 1))
            .filter(yield_lots::contract_id.eq(contracts::id))
            .filter(yield_lots::vesting_nano.gt(0));
        let begins = Some(self.time.micros(self.first));
        let rows: Vec<Row> = contracts::table
            .filter(contracts::pool_id.eq(self.pool))
            // A contract whose sectors ended before its term is still owed the rest of it.
            .filter(
                contracts::state
                    .ne(ContractState::Ended)
                    .or(contracts::ends_at.gt(begins))
                    .or(diesel::dsl::exists(still_vesting)),
            )
            .order(contracts::id.asc())
            .select(ROW)
            .load(self.conn)?;
        let mut all = rows
            .into_iter()
            .map(|row| self.party(row))
            .collect::<Result<Vec<_>, _>>()?;
        let counted = counted_in(self.conn, self.pool, self.first, self.end)?;
        let own_power = self.count(&mut all, &counted)?;
        self.vesting(&mut all)?;
        self.missing(&mut all, &counted)?;
        Ok(Parties { all, own_power })
    }

    fn party(
        &mut self,
        (contract, owner, bytes, terms, ends_at): Row,
    ) -> Result<Party, CloseError> {
        let deal = self.deals.get(self.conn, contract, terms)?;
        Ok(Party {
            contract,
            owner,
            member: Member {
                power: 0,
                missing: 0,
                missing_power: 0,
                bytes: u128::try_from(bytes).unwrap_or(0),
                epochs_left: 0,
                rates: deal.rates,
            },
            vesting: Vesting::default(),
            ending: 0,
            vesting_days: deal.vesting_days,
            ends: end_epoch(self.time, ends_at),
            starts: deal.starts,
            raw: 0,
        })
    }

    /// Adds up the power that the chain counted. Returns the operator's own power.
    fn count(&mut self, all: &mut Vec<Party>, counted: &[Counted]) -> Result<u128, CloseError> {
        let mut own_power = 0u128;
        for sector in counted {
            let interval = sector.interval();
            let Some(contract) = sector.contract else {
                own_power += power_epochs(&interval, self.first, self.end);
                continue;
            };
            let at = match find(all, contract) {
                Ok(at) => at,
                Err(at) => {
                    // Not among the rows read: it has ended and nothing is vesting, but its sectors
                    // counted.
                    let row = contracts::table
                        .find(contract)
                        .select(ROW)
                        .first(self.conn)?;
                    all.insert(at, self.party(row)?);
                    at
                }
            };
            if let Some(party) = all.get_mut(at) {
                let (mine, after) = interval.cut(party.ends);
                party.member.power += power_epochs(&mine, self.first, self.end);
                party.raw += raw_epochs(&mine, self.sector_bytes, self.first, self.end);
                own_power += power_epochs(&after, self.first, self.end);
            }
        }
        Ok(own_power)
    }

    /// Reads the inputs of today's release: yesterday's lots, and the lots whose last part is due.
    fn vesting(&mut self, all: &mut [Party]) -> DbResult<()> {
        let here = |day: i64| {
            yield_lots::table.filter(
                yield_lots::pool_id
                    .eq(self.pool)
                    .and(yield_lots::day.eq(day)),
            )
        };
        let yesterday: Vec<(ContractId, i64, i64)> = here(self.day - 1)
            .select((
                yield_lots::contract_id,
                yield_lots::rate_nano,
                yield_lots::vesting_nano,
            ))
            .load(self.conn)?;
        for (contract, rate, left) in yesterday {
            if let Some(party) = find(all, contract).ok().and_then(|at| all.get_mut(at)) {
                party.vesting = Vesting { rate, left };
            }
        }
        let spans: BTreeSet<i64> = all.iter().map(|party| party.vesting_days).collect();
        for n in spans {
            let locked: Vec<(ContractId, i64)> = here(self.day - n)
                .select((yield_lots::contract_id, yield_lots::locked_nano))
                .load(self.conn)?;
            for (contract, locked) in locked {
                if let Some(party) = find(all, contract)
                    .ok()
                    .and_then(|at| all.get_mut(at))
                    .filter(|p| p.vesting_days == n)
                {
                    party.ending = locked;
                }
            }
        }
        Ok(())
    }

    /// Computes the promised power that did not count that day. Only contracts without their full
    /// power are read again.
    fn missing(&mut self, all: &mut [Party], counted: &[Counted]) -> Result<(), CloseError> {
        let epochs = u128::try_from(self.end - self.first).unwrap_or(0);
        let full = |party: &Party| party.raw >= party.member.bytes * epochs;
        let short: Vec<ContractId> = all
            .iter()
            .filter(|p| p.member.rates.made_up != MadeUp::Not && p.ends > self.first && !full(p))
            .map(|party| party.contract)
            .collect();
        let mut promised = self.promises(all, &short)?;
        for sector in counted {
            let window = sector
                .contract
                .and_then(|contract| promised.get_mut(&contract));
            if let Some(window) = window {
                window.keep(sector);
            }
        }
        let mut powers = last_powers(self.conn, self.pool, self.first, &short)?;
        for (contract, window) in promised {
            if let Some(party) = find(all, contract).ok().and_then(|at| all.get_mut(at)) {
                let powers = powers.remove(&contract).unwrap_or_default();
                self.set_missing(&mut party.member, &window, &powers);
            }
        }
        Ok(())
    }

    /// Sets a contract's missing bytes and the power that they would have had: that of their sector
    /// when it last counted before this day, or else that of one that is new when the day begins.
    fn set_missing(&self, member: &mut Member, window: &Promised, powers: &BTreeMap<i64, i64>) {
        let epochs = u128::try_from(window.to - window.from).unwrap_or(0);
        let kept: u128 = window.kept.values().sum();
        member.missing = (member.bytes * epochs).saturating_sub(kept * self.sector_bytes);
        let (mut rest, mut power) = (member.missing, 0u128);
        for (number, qa_power) in powers {
            let of_sector = epochs.saturating_sub(window.kept.get(number).copied().unwrap_or(0));
            let bytes = (of_sector * self.sector_bytes).min(rest);
            rest -= bytes;
            power += bytes * u128::try_from(*qa_power).unwrap_or(0) / self.sector_bytes.max(1);
        }
        member.missing_power = power + rest * self.new_quality;
    }

    /// Reads the promises to the `short` contracts, and sets by how much their terms may still be
    /// extended.
    fn promises(
        &mut self,
        all: &mut [Party],
        short: &[ContractId],
    ) -> Result<HashMap<ContractId, Promised>, CloseError> {
        let mut promised = HashMap::new();
        for some in short.chunks(AT_ONCE) {
            let rows: Vec<(ContractId, i64, Micros, Option<Micros>, i64)> = contracts::table
                .filter(contracts::id.eq_any(some))
                .select((
                    contracts::id,
                    contracts::terms_id,
                    contracts::promised_at,
                    contracts::active_at,
                    contracts::added_epochs,
                ))
                .load(self.conn)?;
            for (contract, terms, promised_at, active_at, added) in rows {
                let deal = self.deals.get(self.conn, contract, terms)?;
                let most = epochs_of(self.time, deal.most_added_days);
                if let Some(party) = find(all, contract).ok().and_then(|at| all.get_mut(at)) {
                    party.member.epochs_left = most - added;
                    promised.insert(contract, self.promised(party, promised_at, active_at));
                }
            }
        }
        Ok(promised)
    }

    fn promised(&self, party: &Party, promised_at: Micros, active_at: Option<Micros>) -> Promised {
        let starts = match (party.starts, active_at) {
            (Starts::PromisedDate, _) => epoch_at(self.time, promised_at),
            // From the first whole day after activation.
            (Starts::PowerOn, Some(at)) => self.time.first_epoch(at.div_euclid(DAY) + 1),
            (Starts::PowerOn, None) => self.end,
        };
        let from = starts.clamp(self.first, self.end);
        let to = party.ends.clamp(from, self.end);
        Promised {
            from,
            to,
            kept: HashMap::new(),
        }
    }
}

/// Epochs `[from, to)` of the day for which a contract's bytes are owed, and how many of them each
/// of its sectors counted.
struct Promised {
    from: i64,
    to: i64,
    kept: HashMap<i64, u128>,
}

impl Promised {
    fn keep(&mut self, sector: &Counted) {
        let epochs = raw_epochs(&sector.interval(), 1, self.from, self.to);
        *self.kept.entry(sector.number).or_default() += epochs;
    }
}

/// The index of a contract, or the one where it would be inserted.
fn find(all: &[Party], contract: ContractId) -> Result<usize, usize> {
    all.binary_search_by_key(&contract, |party| party.contract)
}
