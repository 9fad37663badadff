//! Contract rows.

use diesel::prelude::*;

use crate::{
    capacity::return_sold,
    clock::Micros,
    ids::{ContractId, OrderId, PoolId, UserId},
    ledger::LedgerError,
    store::{AnyConnection, DbResult, schema::contracts},
};

#[derive(Clone, Debug, Queryable)]
pub struct Contract {
    pub id: ContractId,
    pub public_id: String,
    pub user_id: UserId,
    pub order_id: OrderId,
    pub pool_id: PoolId,
    pub bytes: i64,
    pub days: i64,
    pub fee_bp: i64,
    pub state: String,
    pub promised_at: Micros,
    pub created_at: Micros,
    pub active_at: Option<Micros>,
    pub terms_id: i64,
}

pub fn by_public_id(conn: &mut AnyConnection, id: &str) -> DbResult<Option<Contract>> {
    contracts::table.filter(contracts::public_id.eq(id)).first(conn).optional()
}

pub fn of_order(conn: &mut AnyConnection, order: OrderId) -> DbResult<Option<Contract>> {
    contracts::table.filter(contracts::order_id.eq(order)).first(conn).optional()
}

pub fn of_user(conn: &mut AnyConnection, user: UserId) -> DbResult<Vec<Contract>> {
    contracts::table.filter(contracts::user_id.eq(user)).order(contracts::id.desc()).load(conn)
}

pub fn recent(conn: &mut AnyConnection, limit: i64) -> DbResult<Vec<Contract>> {
    contracts::table.order(contracts::id.desc()).limit(limit).load(conn)
}

/// All sectors have run out: the contract is over and its bytes can be sold again.
pub fn end(conn: &mut AnyConnection, id: ContractId, now: Micros) -> Result<(), LedgerError> {
    let contract: Contract = contracts::table.find(id).first(conn)?;
    if contract.state != "ended" {
        diesel::update(contracts::table.find(id)).set(contracts::state.eq("ended")).execute(conn)?;
        return_sold(conn, contract.pool_id, &contract.public_id, contract.bytes, now)?;
    }
    Ok(())
}

/// All sectors count: the contract is fully live.
pub fn mark_active(conn: &mut AnyConnection, id: ContractId, now: Micros) -> DbResult<()> {
    diesel::update(contracts::table.filter(contracts::id.eq(id).and(contracts::state.eq("sealing"))))
        .set((contracts::state.eq("active"), contracts::active_at.eq(now)))
        .execute(conn)
        .map(drop)
}
