//! Lots: a contract's share of a day, as one compound entry. A day of a million contracts takes a
//! million lots and one balance update per account, not several million transfers. Only this module
//! says which accounts a lot moves.

use std::ops::Range;

use diesel::{
    prelude::*,
    sql_types::{BigInt, Text},
};

use super::{AccountSpec, Entry, LedgerError, Movement, bulk};
use crate::{
    clock::Micros,
    ids::{ContractId, PoolId, UserId},
    store::{AnyConnection, DbResult, schema::yield_lots},
};

/// A contract's part of a day, nanoFIL. `gross = fee + cost + available + locked`.
#[derive(Clone, Debug, PartialEq, Eq, Queryable, QueryableByName, Insertable)]
#[diesel(table_name = yield_lots, treat_none_as_default_value = false)]
pub struct Lot {
    pub pool_id: PoolId,
    pub day: i64,
    pub contract_id: ContractId,
    /// Quality-adjusted bytes times epochs that the chain counted.
    pub power_epochs: String,
    /// Raw bytes times epochs that were promised and did not count.
    pub missing_epochs: String,
    pub gross_nano: i64,
    /// The service fee.
    pub fee_nano: i64,
    /// The chain's costs that the contract bears, and the charge for the operator's pledge.
    pub cost_nano: i64,
    pub available_nano: i64,
    pub locked_nano: i64,
    /// Released today from earlier lots.
    pub released_nano: i64,
    /// The whole parts of this and earlier lots that the next day releases.
    pub rate_nano: i64,
    /// The amount still to be released.
    pub vesting_nano: i64,
    /// The lost earnings of missing power, paid by the operator.
    pub compensation_nano: i64,
    /// Epochs by which missing power extended the term.
    pub added_epochs: i64,
    /// Quality-adjusted bytes times epochs that the missing bytes would have counted.
    pub missing_power: String,
}

/// Sums over lots.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct LotSums {
    gross: i64,
    fee: i64,
    cost: i64,
    available: i64,
    locked: i64,
    released: i64,
    compensation: i64,
}

impl LotSums {
    fn plus(self, lot: &Lot) -> Option<Self> {
        Some(Self {
            gross: self.gross.checked_add(lot.gross_nano)?,
            fee: self.fee.checked_add(lot.fee_nano)?,
            cost: self.cost.checked_add(lot.cost_nano)?,
            available: self.available.checked_add(lot.available_nano)?,
            locked: self.locked.checked_add(lot.locked_nano)?,
            released: self.released.checked_add(lot.released_nano)?,
            compensation: self.compensation.checked_add(lot.compensation_nano)?,
        })
    }

    /// Movements of the pool's own accounts.
    fn of_pool(&self, pool: PoolId) -> [Movement; 4] {
        [
            Movement {
                account: AccountSpec::ChainRewards(pool),
                paid_in: 0,
                paid_out: self.gross,
            },
            Movement {
                account: AccountSpec::Fees(pool),
                paid_in: self.fee,
                paid_out: 0,
            },
            Movement {
                account: AccountSpec::OperatorYield(pool),
                paid_in: self.cost,
                paid_out: 0,
            },
            Movement {
                account: AccountSpec::Compensation(pool),
                paid_in: 0,
                paid_out: self.compensation,
            },
        ]
    }

    /// Movements of an investor's accounts, from lots of that investor's contracts.
    fn of_user(&self, user: UserId) -> [Movement; 2] {
        let at_once = self.available + self.released + self.compensation;
        [
            Movement {
                account: AccountSpec::Available(user),
                paid_in: at_once,
                paid_out: 0,
            },
            Movement {
                account: AccountSpec::Vesting(user),
                paid_in: self.locked,
                paid_out: self.released,
            },
        ]
    }
}

/// Books a day's lots: the rows, and every balance that they move. `owners` are the owners of the
/// lots' contracts, in the same order.
pub fn book_lots(
    conn: &mut AnyConnection,
    pool: PoolId,
    lots: &[Lot],
    owners: &[UserId],
    now: Micros,
) -> Result<(), LedgerError> {
    bulk::insert_lots(conn, lots)?;
    bulk::apply(conn, &lot_movements(pool, lots, owners)?, now)
}

/// Movements that a day's lots of one pool cause, each account once.
pub fn lot_movements(
    pool: PoolId,
    lots: &[Lot],
    owners: &[UserId],
) -> Result<Vec<Movement>, LedgerError> {
    let mut total = LotSums::default();
    let mut by_owner: Vec<(UserId, &Lot)> = owners.iter().copied().zip(lots).collect();
    by_owner.sort_unstable_by_key(|(owner, lot)| (*owner, lot.contract_id));
    let mut movements = Vec::new();
    for of_one in by_owner.chunk_by(|a, b| a.0 == b.0) {
        let mut sums = LotSums::default();
        for (_, lot) in of_one {
            sums = sums.plus(lot).ok_or(LedgerError::Overflow)?;
            total = total.plus(lot).ok_or(LedgerError::Overflow)?;
        }
        movements.extend(
            of_one
                .first()
                .into_iter()
                .flat_map(|(owner, _)| sums.of_user(*owner)),
        );
    }
    movements.extend(total.of_pool(pool));
    Ok(movements)
}

/// Lots of a pool's day, ordered by contract.
pub fn lots_on(conn: &mut AnyConnection, pool: PoolId, day: i64) -> DbResult<Vec<Lot>> {
    let here = yield_lots::table.filter(yield_lots::pool_id.eq(pool).and(yield_lots::day.eq(day)));
    here.order(yield_lots::contract_id.asc()).load(conn)
}

/// A contract's part of one day.
pub fn lot(
    conn: &mut AnyConnection,
    pool: PoolId,
    day: i64,
    contract: ContractId,
) -> DbResult<Option<Lot>> {
    yield_lots::table
        .find((pool, day, contract))
        .first(conn)
        .optional()
}

/// A contract's lots of `days`, newest first. Each day is looked up by the whole key.
pub fn lots_of_contract(
    conn: &mut AnyConnection,
    contract: ContractId,
    days: Range<i64>,
    limit: i64,
) -> DbResult<Vec<Lot>> {
    use crate::store::schema::contracts;
    let pool: PoolId = contracts::table
        .find(contract)
        .select(contracts::pool_id)
        .first(conn)?;
    diesel::sql_query(LOTS_OF_CONTRACT)
        .bind::<BigInt, _>(pool.0)
        .bind::<BigInt, _>(days.start)
        .bind::<BigInt, _>(days.end)
        .bind::<BigInt, _>(contract.0)
        .bind::<BigInt, _>(limit)
        .load(conn)
}

/// Parameters: pool, first day, day after the last, contract, row limit.
pub const LOTS_OF_CONTRACT: &str = "WITH days AS MATERIALIZED \
     (SELECT pool_id, day FROM pool_days WHERE pool_id = $1 AND day >= $2 AND day < $3) \
     SELECT l.* FROM days CROSS JOIN yield_lots l \
     WHERE l.pool_id = days.pool_id AND l.day = days.day AND l.contract_id = $4 \
     ORDER BY l.day DESC LIMIT $5";

#[derive(QueryableByName)]
struct OfUser {
    #[diesel(sql_type = Text)]
    contract: String,
    #[diesel(sql_type = BigInt)]
    closed_at: Micros,
    #[diesel(embed)]
    lot: Lot,
}

/// Parameters: owner, first day, day after the last. The query builds the whole keys of the lots
/// before it looks them up, because PostgreSQL would otherwise scan a pool's lots.
pub const LOTS_OF_USER: &str = "WITH keys AS MATERIALIZED \
     (SELECT c.id AS contract_id, c.public_id AS contract, \
      d.pool_id AS pool_id, d.day AS day, d.closed_at AS closed_at \
      FROM contracts c CROSS JOIN pool_days d \
      WHERE c.user_id = $1 AND d.pool_id = c.pool_id AND d.day >= $2 AND d.day < $3) \
     SELECT keys.contract AS contract, keys.closed_at AS closed_at, l.* \
     FROM keys CROSS JOIN yield_lots l \
     WHERE l.pool_id = keys.pool_id AND l.day = keys.day AND l.contract_id = keys.contract_id \
     ORDER BY l.day, l.contract_id";

/// Entries that lots make in one of an investor's accounts.
pub(super) fn entries_of_user(
    conn: &mut AnyConnection,
    spec: &AccountSpec,
    days: &Range<i64>,
) -> DbResult<Vec<Entry>> {
    let Some(user) = spec.user() else {
        return Ok(Vec::new());
    };
    let rows: Vec<OfUser> = diesel::sql_query(LOTS_OF_USER)
        .bind::<BigInt, _>(user.0)
        .bind::<BigInt, _>(days.start)
        .bind::<BigInt, _>(days.end)
        .load(conn)?;
    let mut entries = Vec::new();
    for OfUser {
        contract,
        closed_at,
        lot,
    } in rows
    {
        let parts: &[(&str, i64)] = match spec {
            AccountSpec::Available(_) => &[
                ("reward", lot.available_nano),
                ("vested", lot.released_nano),
                ("compensation", lot.compensation_nano),
            ],
            AccountSpec::Vesting(_) => {
                &[("locked", lot.locked_nano), ("vested", -lot.released_nano)]
            }
            _ => &[],
        };
        entries.extend(
            parts
                .iter()
                .filter(|(_, amount)| *amount != 0)
                .map(|(kind, amount)| Entry {
                    transfer: format!("{kind}:{}:{}:{contract}", lot.pool_id, lot.day),
                    amount: *amount,
                    kind: (*kind).to_owned(),
                    subject: contract.clone(),
                    effective_day: lot.day,
                    booked_at: closed_at,
                }),
        );
    }
    Ok(entries)
}

#[derive(QueryableByName)]
struct Sums {
    #[diesel(sql_type = BigInt)]
    key: i64,
    #[diesel(sql_type = BigInt)]
    gross: i64,
    #[diesel(sql_type = BigInt)]
    fee: i64,
    #[diesel(sql_type = BigInt)]
    cost: i64,
    #[diesel(sql_type = BigInt)]
    available: i64,
    #[diesel(sql_type = BigInt)]
    locked: i64,
    #[diesel(sql_type = BigInt)]
    released: i64,
    #[diesel(sql_type = BigInt)]
    compensation: i64,
}

/// Total movements of all lots, one for each account.
pub(super) fn all_movements(conn: &mut AnyConnection) -> DbResult<Vec<Movement>> {
    let sums = |key: &str, from: &str| {
        let part = |name: &str| format!("CAST(SUM(l.{name}_nano) AS BIGINT) AS {name}");
        let parts = [
            "gross",
            "fee",
            "cost",
            "available",
            "locked",
            "released",
            "compensation",
        ]
        .map(part)
        .join(", ");
        format!("SELECT {key} AS key, {parts} FROM {from} GROUP BY {key}")
    };
    let of = |row: &Sums| LotSums {
        gross: row.gross,
        fee: row.fee,
        cost: row.cost,
        available: row.available,
        locked: row.locked,
        released: row.released,
        compensation: row.compensation,
    };
    let pools: Vec<Sums> = diesel::sql_query(sums("l.pool_id", "yield_lots l")).load(conn)?;
    let users = sums(
        "c.user_id",
        "yield_lots l JOIN contracts c ON c.id = l.contract_id",
    );
    let users: Vec<Sums> = diesel::sql_query(users).load(conn)?;
    let mut movements: Vec<Movement> = pools
        .iter()
        .flat_map(|row| of(row).of_pool(PoolId(row.key)))
        .collect();
    movements.extend(
        users
            .iter()
            .flat_map(|row| of(row).of_user(UserId(row.key))),
    );
    Ok(movements)
}
