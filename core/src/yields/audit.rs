//! The auditor of yields: recomputes every closed day from the chain's records up to the booked
//! entries, and explains how a figure came about.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use diesel::prelude::*;

use super::{
    CloseError,
    attribute::{Day, Interval, Member, Share, attribute, power_epochs, raw_epochs},
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
    ids::{ContractId, PoolId, UserId},
    ledger::{self, Lot},
    money::{ATTO_PER_NANO, NanoFil},
    store::{
        AnyConnection, DbResult,
        schema::{contracts, pool_days},
    },
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
        write!(f, "{}: booked {}, should be {}", self.path, self.booked, self.should_be)
    }
}

/// Compares figures along a path. The first difference stops the audit.
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
    let owed = i128::from(ledger::owed_to_investors(conn)?);
    if owed > unlocked {
        let path = "coverage > what investors can withdraw, against what the miners can (nanoFIL)".to_owned();
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
        let flows = flow_sums(conn, pool.id, day.first_epoch, day.end_epoch)?;
        let nano = |kind| NanoFil::from_atto(flows.of(kind)).map_or(-1, |(nano, _)| nano.0);
        path.same("daily fee", &day.daily_fee_nano, &nano(FlowKind::DailyFee))?;
        path.same("fault fees", &day.fault_fee_nano, &nano(FlowKind::FaultFee))?;
        for (kind, recorded) in [
            (FlowKind::DailyFee, &said.daily_fee_atto),
            (FlowKind::FaultFee, &said.fault_fee_atto),
            (FlowKind::TerminationFee, &said.termination_fee_atto),
            (FlowKind::DepositLost, &said.deposits_lost_atto),
        ] {
            path.same(&format!("{} of the chain's day", kind.name()), recorded, &flows.of(kind).to_string())?;
        }
    }

    let time = cursor(conn, pool.id)?.ok_or(CloseError::NotFollowed(pool.id))?.time();
    let lots = ledger::lots_on(conn, pool.id, day.day)?;
    let counted = counted_in(conn, pool.id, day.first_epoch, day.end_epoch)?;
    // A contract whose term is over may have sectors that count, but no lot.
    let ids: BTreeSet<ContractId> =
        lots.iter().map(|lot| lot.contract_id).chain(counted.iter().filter_map(|sector| sector.contract)).collect();
    let ids: Vec<ContractId> = ids.into_iter().collect();
    let terms = Agreed::load(conn, &ids)?;
    let grown = Grown::load(conn, &terms, &ids, day.day)?;
    let power = powers(&counted, pool, day, |contract| terms.ends(contract, grown.since(contract), time));
    let members: Vec<Member> =
        lots.iter().map(|lot| terms.member(lot, grown.before(lot.contract_id), time)).collect::<Result<_, _>>()?;
    for (lot, member) in lots.iter().zip(&members) {
        let counted = power.of.get(&lot.contract_id).copied().unwrap_or_default();
        path.same(&format!("contract {} > power-epochs", lot.contract_id), &member.power, &counted)?;
    }
    path.same("contracts with power", &members.iter().filter(|m| m.power > 0).count(), &power.of.len())?;
    let split = Day { total: total.0, costs: day.costs(), own_power: power.own, raw_power: power.raw };
    let (shares, own) = attribute(&split, &members).ok_or_else(overflow)?;
    for (lot, share) in lots.iter().zip(&shares) {
        audit_lot(conn, &path, lot, share, terms.vesting_days(lot.contract_id))?;
    }
    let operator = ledger::posted_amount(conn, &format!("operator:{}:{}", pool.id, day.day))?.unwrap_or_default();
    path.same("the operator's part", &operator, &own)?;
    for due in pledges_due(conn, pool.id, (day.day, day.first_epoch, day.end_epoch), day.closed_at)? {
        let posted = ledger::posted_amount(conn, &due.id)?.unwrap_or_default();
        path.same(&format!("transfer {}", due.id), &posted, &due.amount)?;
    }
    Ok(())
}

/// Epochs by which missing power extended terms, before a day and since.
struct Grown(HashMap<ContractId, (i64, i64)>);

impl Grown {
    fn load(conn: &mut AnyConnection, terms: &Agreed, contracts: &[ContractId], day: i64) -> DbResult<Self> {
        let mut grown = HashMap::new();
        for contract in contracts.iter().copied().filter(|contract| terms.can_grow(*contract)) {
            let (mut before, mut since) = (0, 0);
            for lot in ledger::lots_of_contract(conn, contract, 0..i64::MAX, i64::MAX)? {
                if lot.day < day { before += lot.added_epochs } else { since += lot.added_epochs }
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
    fn since(&self, contract: ContractId) -> i64 {
        self.0.get(&contract).map_or(0, |grown| grown.1)
    }
}

fn audit_lot(conn: &mut AnyConnection, path: &Path, lot: &Lot, share: &Share, n: i64) -> Result<(), Stop> {
    let path = Path(format!("{} > contract {}", path.0, lot.contract_id));
    path.same("gross", &lot.gross_nano, &share.gross)?;
    path.same("fee", &lot.fee_nano, &share.fee)?;
    path.same("cost", &lot.cost_nano, &share.cost)?;
    path.same("available", &lot.available_nano, &share.available)?;
    path.same("locked", &lot.locked_nano, &share.locked)?;
    path.same("compensation", &lot.compensation_nano, &share.compensation)?;
    path.same("epochs added to the term", &lot.added_epochs, &share.added_epochs)?;
    let mut of = |day: i64| ledger::lot(conn, lot.pool_id, day, lot.contract_id);
    let yesterday = of(lot.day - 1)?.map_or(Vesting::default(), |l| Vesting { rate: l.rate_nano, left: l.vesting_nano });
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
    raw: u128,
}

fn powers(counted: &[Counted], pool: &Pool, day: &PoolDay, ends: impl Fn(ContractId) -> i64) -> Powers {
    let mut powers = Powers { of: HashMap::new(), own: 0, raw: 0 };
    let sector_bytes = u128::try_from(pool.sector_bytes).unwrap_or(0);
    for sector in counted {
        let interval = sector.interval();
        let of = |interval: &Interval| power_epochs(interval, day.first_epoch, day.end_epoch);
        powers.raw += raw_epochs(&interval, sector_bytes, day.first_epoch, day.end_epoch);
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

/// Explains line by line how a user's figures of a day came about, down to the blocks won.
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
        explain_lot(conn, pool, &closed, (&lot, &public_id), &mut lines)?;
    }
    if lines.is_empty() {
        lines.push(format!(
            "nothing was booked for {}: the day is not closed, or there were no earnings, no vesting and no missing power",
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
    lines.push(format!(
        "  the day cost {} FIL of daily fees, {} of fees for faults and {} of gas",
        NanoFil(day.daily_fee_nano),
        NanoFil(day.fault_fee_nano),
        NanoFil(day.gas_nano)
    ));
    Ok(())
}

fn explain_lot(
    conn: &mut AnyConnection,
    pool: &Pool,
    day: &PoolDay,
    (lot, contract): (&Lot, &str),
    lines: &mut Vec<String>,
) -> Result<(), CloseError> {
    let fil = |nano: i64| NanoFil(nano).to_string();
    let mut mine = counted_in(conn, pool.id, day.first_epoch, day.end_epoch)?;
    mine.retain(|sector| sector.contract == Some(lot.contract_id));
    let time = cursor(conn, pool.id)?.ok_or(CloseError::NotFollowed(pool.id))?.time();
    let terms = Agreed::load(conn, &[lot.contract_id])?;
    let ends = terms.ends(lot.contract_id, Grown::load(conn, &terms, &[lot.contract_id], lot.day)?.since(lot.contract_id), time);
    mine.sort_unstable_by_key(|sector| (sector.number, sector.interval().start));
    for sector in mine {
        let interval = sector.interval();
        lines.push(format!(
            "  sector {}: counted from epoch {} {} with {} bytes: {} byte-epochs that day",
            sector.number,
            interval.start,
            interval.end.map_or("on".into(), |end| format!("to {end}")),
            interval.qa_power,
            power_epochs(&interval.cut(ends).0, day.first_epoch, day.end_epoch)
        ));
    }
    if ends <= day.end_epoch {
        lines.push(format!("  the term ends before epoch {ends}; later earnings of its sectors belong to the operator"));
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
    let entry = |kind: &str| format!("{kind}:{}:{}:{}", lot.pool_id, lot.day, contract);
    let entries = [
        ("reward", lot.available_nano),
        ("locked", lot.locked_nano),
        ("vested", lot.released_nano),
        ("compensation", lot.compensation_nano),
    ];
    let entries: Vec<String> = entries.into_iter().filter(|(_, nano)| *nano > 0).map(|(kind, _)| entry(kind)).collect();
    lines.push(format!("  entries: {}", entries.join(", ")));
    if lot.missing_epochs != "0" {
        let mut how = Vec::new();
        if lot.added_epochs > 0 {
            how.push(format!("the term is extended by {} epochs for them", lot.added_epochs));
        }
        if lot.compensation_nano > 0 || lot.added_epochs == 0 {
            how.push(format!("{} FIL paid for them", fil(lot.compensation_nano)));
        }
        lines.push(format!("  missing: {} promised byte-epochs did not count; {}", lot.missing_epochs, how.join(", ")));
    }
    Ok(())
}
