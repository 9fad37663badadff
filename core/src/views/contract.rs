//! A contract with its sectors, its promise and its days.

use std::collections::HashMap;

use crate::{
    accounts::User,
    capacity::{self, Pool},
    catalog::{self, Terms},
    clock::{Micros, SECOND},
    contracts::{self, Contract},
    fleet,
    ledger::{self, Lot},
    scheduler::{self, Promise},
    sealing::{self, Sector, SectorState, TaskState},
    store::{AnyConnection, DbResult},
    units::ChainTime,
    yields,
};

/// Days of a contract that one view holds.
const DAYS_SHOWN: usize = 60;

pub struct SectorView {
    pub sector: Sector,
    /// Empty: it was not given to a machine.
    pub machine: String,
    /// The newest open step. `None`: nothing is to be done.
    pub step: Option<TaskState>,
}

pub struct DayOfContract {
    pub lot: Lot,
    /// Thousandths of the day's promised power that did not count. 0 with a lot whose
    /// `missing_epochs` is not 0: less than one.
    pub missing_permille: u128,
}

impl DayOfContract {
    fn new(lot: Lot, bytes: i64, time: ChainTime) -> Self {
        let missing: u128 = lot.missing_epochs.parse().unwrap_or_default();
        let epochs = time.first_epoch(lot.day + 1) - time.first_epoch(lot.day);
        let promised = u128::from(bytes.unsigned_abs()) * u128::from(epochs.unsigned_abs());
        let missing_permille = missing
            .saturating_mul(1000)
            .checked_div(promised)
            .unwrap_or_default();
        Self {
            lot,
            missing_permille,
        }
    }

    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.lot.missing_epochs == "0"
    }
}

pub struct ContractView {
    pub contract: Contract,
    pub pool: Pool,
    pub terms: Terms,
    pub promise: Option<Promise>,
    pub sectors: Vec<SectorView>,
    /// Quality-adjusted bytes that the chain counts now: up to ten times the raw ones (FIP-0118).
    pub counting_power: i128,
    /// How far missing power has postponed the end.
    pub postponed_by: Micros,
    /// Newest first.
    pub days: Vec<DayOfContract>,
    /// Whether there are days before these.
    pub has_older: bool,
}

impl ContractView {
    /// Sectors that do not earn now.
    #[must_use]
    pub fn not_earning(&self) -> usize {
        self.sectors
            .iter()
            .filter(|s| s.sector.state != SectorState::Active)
            .count()
    }
}

/// A contract with its days before `before`. `None`: there is none that this person may see.
pub fn contract(
    conn: &mut AnyConnection,
    id: &str,
    viewer: &User,
    before: Option<i64>,
) -> DbResult<Option<ContractView>> {
    let may_see = |c: &Contract| c.user_id == viewer.id || viewer.is_admin();
    let Some(contract) = contracts::by_public_id(conn, id)?.filter(may_see) else {
        return Ok(None);
    };
    let most = i64::try_from(DAYS_SHOWN + 1).unwrap_or(i64::MAX);
    let range = 0..before.unwrap_or(i64::MAX);
    let mut lots = ledger::lots_of_contract(conn, contract.id, range, most)?;
    let has_older = lots.len() > DAYS_SHOWN;
    lots.truncate(DAYS_SHOWN);
    // Days are only closed where the chain's time is known.
    let time = yields::cursor(conn, contract.pool_id)?.map(|cursor| cursor.time());
    let days = time.map(|time| {
        let days = lots
            .into_iter()
            .map(|lot| DayOfContract::new(lot, contract.bytes, time));
        days.collect()
    });
    let sectors = sectors(conn, &contract)?;
    let numbers: Vec<i64> = sectors.iter().map(|view| view.sector.number).collect();
    let epoch = time.map_or(0, |time| time.epoch_seconds.saturating_mul(SECOND));
    Ok(Some(ContractView {
        pool: capacity::pool_by_id(conn, contract.pool_id)?,
        terms: catalog::terms_by_id(conn, contract.terms_id)?,
        promise: scheduler::promise_of_order(conn, contract.order_id)?,
        counting_power: yields::power_counting(conn, contract.pool_id, &numbers)?,
        sectors,
        postponed_by: contract.added_epochs.saturating_mul(epoch),
        days: days.unwrap_or_default(),
        has_older,
        contract,
    }))
}

fn sectors(conn: &mut AnyConnection, contract: &Contract) -> DbResult<Vec<SectorView>> {
    let machines = fleet::machines(conn)?.into_iter();
    let names: HashMap<_, _> = machines.map(|machine| (machine.id, machine.name)).collect();
    // The newest step of a sector comes last, and stays.
    let open = sealing::open_tasks_of_contract(conn, contract.id)?.into_iter();
    let steps: HashMap<_, _> = open.map(|task| (task.sector_id, task.state)).collect();
    let rows = sealing::of_contract(conn, contract.id)?
        .into_iter()
        .map(|sector| SectorView {
            machine: sector
                .machine_id
                .and_then(|id| names.get(&id).cloned())
                .unwrap_or_default(),
            step: steps.get(&Some(sector.id)).copied(),
            sector,
        });
    Ok(rows.collect())
}
