//! The auditor of yields: recomputes every closed day from the chain's records up to the booked
//! entries.

use std::collections::{BTreeSet, HashMap};

use diesel::prelude::*;

use super::{
    CloseError,
    attribute::{Day, Interval, Member, Share, attribute, power_epochs},
    close::won,
    flows::{FlowKind, flow_sums},
    parties::Agreed,
    pledges::pledges_due,
    record::{Counted, PoolDay, chain_day, chain_days, counted_in, cursor, wins},
    vest::Vesting,
};
use crate::{
    capacity::{Pool, pools},
    clock::day_text,
    ids::ContractId,
    ledger::{self, Lot},
    money::{ATTO_PER_NANO, NanoFil},
    store::{AnyConnection, DbResult, schema::pool_days},
};

/// A wrong figure, and the path to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    pub path: String,
    pub booked: String,
    pub should_be: String,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{}: booked {}, should be {}",
            self.path, self.booked, self.should_be
        )
    }
}

/// Compares figures along a path. The first difference stops the audit.
struct Path(String);

impl Path {
    fn same<T: PartialEq + ToString>(
        &self,
        what: &str,
        booked: &T,
        should_be: &T,
    ) -> Result<(), Stop> {
        if booked == should_be {
            return Ok(());
        }
        let (booked, should_be) = (booked.to_string(), should_be.to_string());
        Err(Stop::Different(Difference {
            path: format!("{} > {what}", self.0),
            booked,
            should_be,
        }))
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

/// Audits everything, from the chain's records up. `None`: no difference was found.
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
        let days: Vec<PoolDay> = pool_days::table
            .filter(pool_days::pool_id.eq(pool.id))
            .order(pool_days::day.asc())
            .load(conn)?;
        let mut carry = 0;
        for day in &days {
            audit_day(conn, &pool, day, carry)?;
            carry = day.carry_atto;
        }
        if let Some(latest) = chain_days(conn, pool.id)?.pop() {
            unlocked += latest.available_atto.parse::<i128>().unwrap_or_default() / ATTO_PER_NANO;
        }
    }
    let owed = i128::from(ledger::owed_to_investors(conn)?);
    if owed > unlocked {
        let path = "coverage > what investors can withdraw, against what the miners can (nanoFIL)"
            .to_owned();
        return Err(Stop::Different(Difference {
            path,
            booked: owed.to_string(),
            should_be: format!("at most {unlocked}"),
        }));
    }
    Ok(())
}

fn audit_day(conn: &mut AnyConnection, pool: &Pool, day: &PoolDay, carry: i64) -> Result<(), Stop> {
    let path = Path(format!("pool {} > {}", pool.name, day_text(day.day)));
    let total = audit_reward(conn, &path, day, carry)?;
    audit_chain_day(conn, &path, day)?;
    let basis = Basis::load(conn, pool, day)?;
    audit_power(&path, &basis)?;
    let split = Day {
        total: total.0,
        costs: day.costs(),
        own_power: basis.power.own,
    };
    let (shares, own) = attribute(&split, &basis.members).ok_or_else(|| overflow(day))?;
    for (lot, share) in basis.lots.iter().zip(&shares) {
        let n = basis.terms.vesting_days(lot.contract_id);
        audit_lot(conn, &path, lot, share, n)?;
    }
    audit_transfers(conn, &path, day, own)
}

fn overflow(day: &PoolDay) -> CloseError {
    CloseError::Overflow {
        pool: day.pool_id,
        day: day.day,
    }
}

/// Audits the amount to split, and returns it.
fn audit_reward(
    conn: &mut AnyConnection,
    path: &Path,
    day: &PoolDay,
    carry: i64,
) -> Result<NanoFil, Stop> {
    let wins = wins(conn, day.pool_id, day.first_epoch, day.end_epoch)?;
    let won = won(&wins)?.ok_or_else(|| overflow(day))?;
    path.same("attoFIL won", &day.reward_atto, &won.to_string())?;
    let (total, rest) = NanoFil::from_atto(won + i128::from(carry)).ok_or_else(|| overflow(day))?;
    path.same("posted", &day.posted_nano, &total.0)?;
    path.same("carried", &day.carry_atto, &rest)?;
    Ok(total)
}

/// Compares the day with the chain's own record of it, if there is one.
fn audit_chain_day(conn: &mut AnyConnection, path: &Path, day: &PoolDay) -> Result<(), Stop> {
    let Some(said) = chain_day(conn, day.pool_id, day.day)? else {
        return Ok(());
    };
    path.same(
        "rewards of the chain's day",
        &said.reward_atto,
        &day.reward_atto,
    )?;
    let flows = flow_sums(conn, day.pool_id, day.first_epoch, day.end_epoch)?;
    let nano = |kind| NanoFil::from_atto(flows.of(kind)).map_or(-1, |(nano, _)| nano.0);
    path.same("daily fee", &day.daily_fee_nano, &nano(FlowKind::DailyFee))?;
    path.same("fault fees", &day.fault_fee_nano, &nano(FlowKind::FaultFee))?;
    for (kind, recorded) in [
        (FlowKind::DailyFee, &said.daily_fee_atto),
        (FlowKind::FaultFee, &said.fault_fee_atto),
        (FlowKind::TerminationFee, &said.termination_fee_atto),
        (FlowKind::DepositLost, &said.deposits_lost_atto),
    ] {
        path.same(
            &format!("{} of the chain's day", kind.name()),
            recorded,
            &flows.of(kind).to_string(),
        )?;
    }
    Ok(())
}

/// Compares the power that the lots were booked with to the power counted anew.
fn audit_power(path: &Path, basis: &Basis) -> Result<(), Stop> {
    let counted = &basis.power.of;
    for (lot, member) in basis.lots.iter().zip(&basis.members) {
        path.same(
            &format!("contract {} > power-epochs", lot.contract_id),
            &member.power,
            &counted.get(&lot.contract_id).copied().unwrap_or_default(),
        )?;
    }
    path.same(
        "contracts with power",
        &basis.members.iter().filter(|m| m.power > 0).count(),
        &counted.len(),
    )
}

/// Audits the transfers that the day made besides its lots.
fn audit_transfers(
    conn: &mut AnyConnection,
    path: &Path,
    day: &PoolDay,
    own: i64,
) -> Result<(), Stop> {
    let id = format!("operator:{}:{}", day.pool_id, day.day);
    let operator = ledger::posted_amount(conn, &id)?.unwrap_or_default();
    path.same("the operator's part", &operator, &own)?;
    for due in pledges_due(conn, day.pool_id, day.epochs(), day.closed_at)? {
        let posted = ledger::posted_amount(conn, &due.id)?.unwrap_or_default();
        path.same(&format!("transfer {}", due.id), &posted, &due.amount)?;
    }
    Ok(())
}

/// The inputs of a day's split, recomputed.
struct Basis {
    lots: Vec<Lot>,
    terms: Agreed,
    /// The basis of each lot's share, in the same order.
    members: Vec<Member>,
    power: Powers,
}

impl Basis {
    fn load(conn: &mut AnyConnection, pool: &Pool, day: &PoolDay) -> Result<Self, CloseError> {
        let time = cursor(conn, pool.id)?
            .ok_or(CloseError::NotFollowed(pool.id))?
            .time();
        let lots = ledger::lots_on(conn, pool.id, day.day)?;
        let counted = counted_in(conn, pool.id, day.first_epoch, day.end_epoch)?;
        // A contract whose term is over may have sectors that count, but no lot.
        let ids: BTreeSet<ContractId> = lots
            .iter()
            .map(|lot| lot.contract_id)
            .chain(counted.iter().filter_map(|sector| sector.contract))
            .collect();
        let ids: Vec<ContractId> = ids.into_iter().collect();
        let terms = Agreed::load(conn, &ids)?;
        let grown = Grown::load(conn, &terms, &ids, day.day)?;
        let power = powers(&counted, day, |contract| {
            terms.ends(contract, grown.since(contract), time)
        });
        let members: Vec<Member> = lots
            .iter()
            .map(|lot| terms.member(lot, grown.before(lot.contract_id), time))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            lots,
            terms,
            members,
            power,
        })
    }
}

/// Epochs by which missing power extended terms, before a day and since.
pub(super) struct Grown(HashMap<ContractId, (i64, i64)>);

impl Grown {
    pub fn load(
        conn: &mut AnyConnection,
        terms: &Agreed,
        contracts: &[ContractId],
        day: i64,
    ) -> DbResult<Self> {
        let mut grown = HashMap::new();
        for contract in contracts
            .iter()
            .copied()
            .filter(|contract| terms.can_grow(*contract))
        {
            let (mut before, mut since) = (0, 0);
            for lot in ledger::lots_of_contract(conn, contract, 0..i64::MAX, i64::MAX)? {
                if lot.day < day {
                    before += lot.added_epochs
                } else {
                    since += lot.added_epochs
                }
            }
            grown.insert(contract, (before, since));
        }
        Ok(Self(grown))
    }

    /// Epochs added on earlier days.
    fn before(&self, contract: ContractId) -> i64 {
        self.0.get(&contract).map_or(0, |grown| grown.0)
    }

    /// Epochs added on that day and later.
    pub fn since(&self, contract: ContractId) -> i64 {
        self.0.get(&contract).map_or(0, |grown| grown.1)
    }
}

fn audit_lot(
    conn: &mut AnyConnection,
    path: &Path,
    lot: &Lot,
    share: &Share,
    n: i64,
) -> Result<(), Stop> {
    let path = Path(format!("{} > contract {}", path.0, lot.contract_id));
    path.same("gross", &lot.gross_nano, &share.gross)?;
    path.same("fee", &lot.fee_nano, &share.fee)?;
    path.same("cost", &lot.cost_nano, &share.cost)?;
    path.same("available", &lot.available_nano, &share.available)?;
    path.same("locked", &lot.locked_nano, &share.locked)?;
    path.same("compensation", &lot.compensation_nano, &share.compensation)?;
    path.same(
        "epochs added to the term",
        &lot.added_epochs,
        &share.added_epochs,
    )?;
    let mut of = |day: i64| ledger::lot(conn, lot.pool_id, day, lot.contract_id);
    let yesterday = of(lot.day - 1)?.map_or(Vesting::default(), |l| Vesting {
        rate: l.rate_nano,
        left: l.vesting_nano,
    });
    let ending = of(lot.day - n)?.map_or(0, |l| l.locked_nano);
    let (released, vesting) = yesterday.day(share.locked, ending, n);
    path.same("released", &lot.released_nano, &released)?;
    path.same("rate of release", &lot.rate_nano, &vesting.rate)?;
    path.same("left to release", &lot.vesting_nano, &vesting.left)
}

/// The power that the chain counted on a day, summed anew.
struct Powers {
    of: HashMap<ContractId, u128>,
    own: u128,
}

fn powers(counted: &[Counted], day: &PoolDay, ends: impl Fn(ContractId) -> i64) -> Powers {
    let mut powers = Powers {
        of: HashMap::new(),
        own: 0,
    };
    for sector in counted {
        let interval = sector.interval();
        let of = |interval: &Interval| power_epochs(interval, day.first_epoch, day.end_epoch);
        match sector.contract {
            Some(contract) => {
                let (mine, after) = interval.cut(ends(contract));
                *powers.of.entry(contract).or_default() += of(&mine);
                powers.own += of(&after);
            }
            None => powers.own += of(&interval),
        }
    }
    powers.of.retain(|_, power| *power > 0);
    powers
}
