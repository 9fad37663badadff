//! Contract rows.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    capacity::{keep_sold, return_kept, return_sold},
    clock::{DAY, Micros},
    ids::{ContractId, OrderId, PoolId, UserId},
    ledger::LedgerError,
    sealing::SectorState,
    store::{
        AnyConnection, DbResult,
        schema::{contracts, sectors},
    },
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum ContractState {
    /// Some of its sectors are not proven yet.
    Sealing,
    Active,
    /// Its term is over, or its sectors are gone.
    Ended,
}

stored_as_text!(ContractState { Sealing => "sealing", Active => "active", Ended => "ended" });

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
    pub state: ContractState,
    pub promised_at: Micros,
    pub created_at: Micros,
    pub active_at: Option<Micros>,
    pub terms_id: i64,
    /// nanoFIL that the investor put up for each sector.
    pub pledge_each_nano: i64,
    /// The end of the term. `None`: the term begins with its power, which is not on yet.
    pub ends_at: Option<Micros>,
    /// Epochs by which missing power has postponed the end.
    pub added_epochs: i64,
}

impl Contract {
    /// Whether its bytes are sold: its sectors are not gone yet, and its term is not over.
    #[must_use]
    pub fn is_running(&self) -> bool {
        matches!(self.state, ContractState::Sealing | ContractState::Active)
    }
}

pub fn by_public_id(conn: &mut AnyConnection, id: &str) -> DbResult<Option<Contract>> {
    contracts::table
        .filter(contracts::public_id.eq(id))
        .first(conn)
        .optional()
}

pub fn of_order(conn: &mut AnyConnection, order: OrderId) -> DbResult<Option<Contract>> {
    contracts::table
        .filter(contracts::order_id.eq(order))
        .first(conn)
        .optional()
}

pub fn of_user(conn: &mut AnyConnection, user: UserId) -> DbResult<Vec<Contract>> {
    contracts::table
        .filter(contracts::user_id.eq(user))
        .order(contracts::id.desc())
        .load(conn)
}

pub fn recent(conn: &mut AnyConnection, limit: i64) -> DbResult<Vec<Contract>> {
    contracts::table
        .order(contracts::id.desc())
        .limit(limit)
        .load(conn)
}

/// The latest end of the sectors that a user put up a pledge for. A contract's own end stands in
/// until its sectors are on chain. `None`: there is no such sector, or no end is known yet.
pub fn pledge_back_by(conn: &mut AnyConnection, user: UserId) -> DbResult<Option<Micros>> {
    let mine = contracts::user_id
        .eq(user)
        .and(contracts::pledge_each_nano.gt(0));
    let rows: Vec<(ContractId, PoolId, Option<Micros>)> = contracts::table
        .filter(mine)
        .select((contracts::id, contracts::pool_id, contracts::ends_at))
        .load(conn)?;
    let mut last = None;
    for (contract, pool, ends_at) in rows {
        let live = sectors::contract_id
            .eq(contract)
            .and(sectors::state.ne(SectorState::Expired))
            .and(sectors::activation.is_not_null());
        let end: Option<i64> = sectors::table
            .filter(live)
            .select(diesel::dsl::max(sectors::expiration))
            .first(conn)?;
        let time = crate::yields::cursor(conn, pool)?.map(|cursor| cursor.time());
        last = last.max(
            end.zip(time)
                .map(|(epoch, time)| time.micros(epoch))
                .or(ends_at),
        );
    }
    Ok(last)
}

/// Ends the term. From now on, its sectors earn for the operator until they run out.
pub fn over(
    conn: &mut AnyConnection,
    id: ContractId,
    now: Micros,
) -> Result<Contract, LedgerError> {
    let contract: Contract = contracts::table.find(id).first(conn)?;
    if set_ended(conn, id)? {
        keep_sold(
            conn,
            (contract.pool_id, &contract.public_id, contract.bytes),
            now,
        )?;
    }
    Ok(contract)
}

/// All sectors have run out, so the bytes can be sold again.
pub fn end(conn: &mut AnyConnection, id: ContractId, now: Micros) -> Result<(), LedgerError> {
    let contract: Contract = contracts::table.find(id).first(conn)?;
    let part = (
        contract.pool_id,
        contract.public_id.as_str(),
        contract.bytes,
    );
    if set_ended(conn, id)? {
        return_sold(conn, part, now)
    } else {
        return_kept(conn, part, now)
    }
}

/// False when it had ended before. Of two concurrent calls, only one gets true.
fn set_ended(conn: &mut AnyConnection, id: ContractId) -> DbResult<bool> {
    let open = contracts::table.filter(
        contracts::id
            .eq(id)
            .and(contracts::state.ne(ContractState::Ended)),
    );
    diesel::update(open)
        .set(contracts::state.eq(ContractState::Ended))
        .execute(conn)
        .map(|rows| rows == 1)
}

/// Marks a contract fully live: all its sectors have counted since `at`. Its days run from `at`, or
/// from the promised date if the terms say so and that was earlier.
pub fn mark_active(conn: &mut AnyConnection, id: ContractId, at: Micros) -> DbResult<()> {
    let contract: Contract = contracts::table.find(id).first(conn)?;
    if contract.state != ContractState::Sealing {
        return Ok(());
    }
    // Without an end, the term runs from activation, whenever that is. An existing end already
    // includes every postponement.
    let from_then = at.saturating_add(contract.days.saturating_mul(DAY));
    let early = contract.promised_at.saturating_sub(at).max(0);
    let ends_at = contract
        .ends_at
        .map_or(from_then, |end| end.saturating_sub(early));
    diesel::update(contracts::table.find(id))
        .set((
            contracts::state.eq(ContractState::Active),
            contracts::active_at.eq(at),
            contracts::ends_at.eq(ends_at),
        ))
        .execute(conn)
        .map(drop)
}

/// Postpones the end because of missing power, by `epochs`, which last `by` microseconds.
pub fn put_off_end(
    conn: &mut AnyConnection,
    id: ContractId,
    epochs: i64,
    by: Micros,
) -> DbResult<()> {
    diesel::update(contracts::table.find(id))
        .set((
            contracts::added_epochs.eq(contracts::added_epochs + epochs),
            contracts::ends_at.eq(contracts::ends_at + by),
        ))
        .execute(conn)
        .map(drop)
}
