//! From the chain's records to the books: a day closes once, completely, and its figures add up.

mod audit;
mod days;
mod quality;
mod statements;
mod transfers;
mod unlocking;

use sealyard_core::{
    catalog::Plan,
    contracts::Contract,
    ids::{ContractId, PoolId, SectorId, UserId},
    ledger::{self, AccountSpec},
    orders::{self, Paid, PlaceOrder},
    sealing,
    store::{Database, DbFault},
    units::ChainTime,
    yields::{self, PowerOn, Win},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use crate::support::{NOW, SECTOR, shop};

/// Epoch 0 is 2026-10-30T00:00Z.
pub const TIME: ChainTime = ChainTime {
    genesis_at: 1_793_318_400,
    epoch_seconds: 30,
};

/// Half a day and a little more after its end, the chain has unlocked a day's part.
const UNLOCK_DELAY: i64 = EPOCHS_PER_DAY / 2 + 1;

pub fn buy(db: &Database, plan: &Plan, user: UserId, units: i64, key: &str) -> Contract {
    db.write(|conn| {
        let order = orders::place(
            conn,
            &PlaceOrder {
                user,
                plan,
                units,
                request_key: key,
                shown: None,
            },
            NOW,
        )
        .unwrap();
        orders::open_payment(conn, order.id, "stripe", key, "http://pay", NOW)?;
        let paid = Paid {
            rail: "stripe",
            rail_ref: key,
            minor: order.amount_minor,
            currency: "usd",
        };
        Ok(orders::fulfil(conn, &paid, NOW).unwrap().unwrap())
    })
    .unwrap()
}

/// The given sectors count from their epochs on, the wins are recorded, and the chain is read up to
/// `next`.
pub fn chain(
    db: &Database,
    pool: PoolId,
    starts: &[(SectorId, i64)],
    wins: &[(i64, &str)],
    next: i64,
) {
    db.write(|conn| {
        yields::init_cursor(conn, pool, TIME, 0)?;
        for (sector, epoch) in starts {
            let row = sealing::sector_by_id(conn, *sector)?;
            yields::power_on(
                conn,
                &[counts(pool, row.number, Some(row.contract_id), *epoch)],
            )?;
        }
        for (epoch, reward) in wins {
            yields::record_win(conn, &win(pool, *epoch, reward, 0))?;
        }
        let cursor = yields::cursor(conn, pool)?.unwrap();
        assert!(yields::advance_cursor(
            conn,
            &cursor,
            next,
            next + UNLOCK_DELAY,
            "cid"
        )?);
        Ok(())
    })
    .unwrap();
}

/// A shop that has sold one sector to Ada, counting from the first epoch on.
fn sold_sector(db: &Database, wins: &[(i64, &str)], next: i64) -> (PoolId, UserId) {
    let (pool, plan, ada) = shop(db, 10);
    let contract = buy(db, &plan, ada.id, 1, "ada");
    let start = (sectors(db, &contract)[0], 0);
    chain(db, pool.id, &[start], wins, next);
    (pool.id, ada.id)
}

pub fn close_all(db: &Database, pool: PoolId) -> usize {
    let mut closed = 0;
    while db
        .transact(|conn| yields::close_day(conn, pool, NOW))
        .unwrap()
        .is_some()
    {
        closed += 1;
    }
    closed
}

pub fn posted(db: &Database, spec: &AccountSpec) -> i64 {
    db.read(|conn| ledger::balance(conn, spec).map_err(DbFault::from))
        .unwrap()
        .posted
}

pub fn sectors(db: &Database, contract: &Contract) -> Vec<SectorId> {
    db.read(|conn| {
        Ok::<_, DbFault>(
            sealing::of_contract(conn, contract.id)?
                .into_iter()
                .map(|s| s.id)
                .collect(),
        )
    })
    .unwrap()
}

fn ledger_findings(db: &Database) -> Vec<ledger::Finding> {
    db.read(|conn| ledger::check(conn).map_err(DbFault::from))
        .unwrap()
}

/// An error that rolls a spoilt transaction back and carries what the audit found.
#[derive(Debug)]
pub struct Spoilt(pub Option<String>);

impl From<diesel::result::Error> for Spoilt {
    fn from(error: diesel::result::Error) -> Self {
        panic!("{error}")
    }
}

impl From<sealyard_core::store::StoreError> for Spoilt {
    fn from(error: sealyard_core::store::StoreError) -> Self {
        panic!("{error}")
    }
}

impl sealyard_core::store::Retry for Spoilt {
    fn database_error(&self) -> Option<&diesel::result::Error> {
        None
    }
}

pub fn win(pool: PoolId, epoch: i64, reward: &str, tips: i64) -> Win {
    let (reward_atto, tips_atto) = (reward.to_owned(), tips.to_string());
    Win {
        pool_id: pool,
        epoch,
        cid: "c".into(),
        win_count: 1,
        reward_atto,
        tips_atto,
    }
}

/// A sector whose power counts from an epoch on.
pub fn counts(
    pool: PoolId,
    number: i64,
    contract: Option<ContractId>,
    start_epoch: i64,
) -> PowerOn {
    let (pledge_atto, daily_fee_atto) = ("0".to_owned(), "0".to_owned());
    PowerOn {
        pool_id: pool,
        number,
        contract_id: contract,
        start_epoch,
        qa_power: SECTOR,
        pledge_atto,
        daily_fee_atto,
    }
}
