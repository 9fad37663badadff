//! Pools: a miner actor, and the bytes that its machines can hold.

use diesel::prelude::*;

use super::hold::moved;
use crate::{
    clock::Micros,
    ids::{PoolId, public_id},
    ledger::{self, AccountSpec, LedgerError},
    store::{AnyConnection, DbResult, schema::pools},
};

#[derive(Clone, Debug, Queryable)]
pub struct Pool {
    pub id: PoolId,
    pub public_id: String,
    pub name: String,
    /// The miner's address, as the chain writes it.
    pub miner: String,
    /// Its actor id.
    pub miner_id: i64,
    pub sector_bytes: i64,
    pub next_sector: i64,
    pub created_at: Micros,
    /// Sectors that the miner's available funds could pledge at the last check.
    pub collateral_sectors: Option<i64>,
    /// nanoFIL of a new sector's initial pledge at that check, with a margin for changes while the
    /// sector is sealed.
    pub pledge_nano: Option<i64>,
}

#[derive(Clone, Debug, Insertable)]
#[diesel(table_name = pools)]
pub struct NewPool {
    pub public_id: String,
    pub name: String,
    pub miner: String,
    pub miner_id: i64,
    pub sector_bytes: i64,
    pub next_sector: i64,
    pub created_at: Micros,
}

impl NewPool {
    #[must_use]
    pub fn new(name: &str, miner_id: i64, sector_bytes: i64, now: Micros) -> Self {
        Self::from_sector(1, name, miner_id, sector_bytes, now)
    }

    /// Numbers its sectors from `next_sector` on. A miner that has had sectors must not reuse a
    /// number.
    #[must_use]
    pub fn from_sector(
        next_sector: i64,
        name: &str,
        miner_id: i64,
        sector_bytes: i64,
        now: Micros,
    ) -> Self {
        Self {
            public_id: public_id("pol"),
            name: name.to_owned(),
            miner: format!("f0{miner_id}"),
            miner_id,
            sector_bytes,
            next_sector,
            created_at: now,
        }
    }
}

pub fn create_pool(conn: &mut AnyConnection, new: &NewPool) -> DbResult<Pool> {
    diesel::insert_into(pools::table)
        .values(new.clone())
        .returning(pools::all_columns)
        .get_result(conn)
}

pub fn pools(conn: &mut AnyConnection) -> DbResult<Vec<Pool>> {
    pools::table.order(pools::id.asc()).load(conn)
}

pub fn pool_by_id(conn: &mut AnyConnection, id: PoolId) -> DbResult<Pool> {
    pools::table.find(id).first(conn)
}

/// Takes the pool's next `count` sector numbers; returns the first.
pub fn take_numbers(conn: &mut AnyConnection, pool: PoolId, count: i64) -> DbResult<i64> {
    let after: i64 = diesel::update(pools::table.find(pool))
        .set(pools::next_sector.eq(pools::next_sector + count))
        .returning(pools::next_sector)
        .get_result(conn)?;
    Ok(after - count)
}

/// Takes the pool's next sector number.
pub fn take_number(conn: &mut AnyConnection, pool: PoolId) -> DbResult<i64> {
    take_numbers(conn, pool, 1)
}

/// Records that the chain has used the numbers below `next`. True when the books did not know.
pub fn numbers_used(conn: &mut AnyConnection, pool: PoolId, next: i64) -> DbResult<bool> {
    let behind = pools::table.filter(pools::id.eq(pool).and(pools::next_sector.lt(next)));
    diesel::update(behind)
        .set(pools::next_sector.eq(next))
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Records how many sectors the miner's funds can pledge, and one sector's pledge in nanoFIL.
pub fn set_collateral(
    conn: &mut AnyConnection,
    pool: PoolId,
    sectors: i64,
    pledge_nano: i64,
) -> DbResult<()> {
    diesel::update(pools::table.find(pool))
        .set((
            pools::collateral_sectors.eq(sectors),
            pools::pledge_nano.eq(pledge_nano),
        ))
        .execute(conn)
        .map(drop)
}

/// Adds `bytes` of new machines to the books. Repeating a call with the same `id` changes nothing.
pub fn grow(
    conn: &mut AnyConnection,
    pool: PoolId,
    id: &str,
    bytes: i64,
    now: Micros,
) -> Result<(), LedgerError> {
    let (owned, free) = (AccountSpec::Owned(pool), AccountSpec::Free(pool));
    ledger::post(
        conn,
        &moved(format!("grow:{pool}:{id}"), owned, free, (id, bytes), now),
    )
}

/// Sets a pool's owned capacity to `bytes`, after machines were bought or given back. A reduction
/// takes down bytes first, then free bytes, and no others. Returns the previous capacity.
pub fn resize(
    conn: &mut AnyConnection,
    pool: &Pool,
    bytes: i64,
    now: Micros,
) -> Result<i64, LedgerError> {
    let Capacity {
        owned: before,
        down,
        ..
    } = capacity(conn, pool.id)?;
    let (owned, free) = (AccountSpec::Owned(pool.id), AccountSpec::Free(pool.id));
    let less = before.saturating_sub(bytes).max(0);
    let of_down = less.min(down);
    let parts = [
        (
            "more",
            owned.clone(),
            free.clone(),
            bytes.saturating_sub(before),
        ),
        ("down", AccountSpec::Down(pool.id), owned.clone(), of_down),
        ("free", free, owned, less - of_down),
    ];
    for (what, from, to, amount) in parts.into_iter().filter(|(.., amount)| *amount > 0) {
        let id = format!("resize:{}:{now}:{what}", pool.id);
        ledger::post(conn, &moved(id, from, to, (&pool.public_id, amount), now))?;
    }
    Ok(before)
}

/// The capacity identity of a pool, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capacity {
    pub owned: i64,
    pub free: i64,
    pub held: i64,
    pub sold: i64,
    pub own_use: i64,
    pub down: i64,
}

impl Capacity {
    #[must_use]
    pub fn holds(&self) -> bool {
        self.owned == self.free + self.held + self.sold + self.own_use + self.down
    }
}

pub fn capacity(conn: &mut AnyConnection, pool: PoolId) -> DbResult<Capacity> {
    let mut of = |spec: &AccountSpec| ledger::balance(conn, spec);
    let free = of(&AccountSpec::Free(pool))?;
    Ok(Capacity {
        // Owned is the source that everything came from, so its balance is negative.
        owned: -of(&AccountSpec::Owned(pool))?.posted,
        free: free.free(),
        held: free.held,
        sold: of(&AccountSpec::Sold(pool))?.posted,
        own_use: of(&AccountSpec::OwnUse(pool))?.posted,
        down: of(&AccountSpec::Down(pool))?.posted,
    })
}
