//! Turns a paid order into a contract with planned sectors.

use diesel::prelude::*;

use super::{Contract, ContractState};
use crate::{
    capacity::{pool_by_id, take_numbers},
    catalog::{Starts, Terms, plan_for, terms_row},
    clock::{DAY, Micros},
    ids::{OrderId, PoolId, UserId, public_id},
    orders::Order,
    sealing,
    store::{AnyConnection, DbFault, schema::contracts},
};

#[derive(Debug, thiserror::Error)]
pub enum ContractError {
    #[error("{bytes} bytes are not a whole number of sectors of {sector_bytes}")]
    Fraction { bytes: i64, sector_bytes: i64 },
    #[error("the order's terms are unreadable: {0}")]
    Terms(String),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(ContractError);

#[derive(Insertable)]
#[diesel(table_name = contracts)]
struct Row {
    public_id: String,
    user_id: UserId,
    order_id: OrderId,
    pool_id: PoolId,
    bytes: i64,
    days: i64,
    fee_bp: i64,
    terms_id: i64,
    state: ContractState,
    promised_at: Micros,
    created_at: Micros,
    pledge_each_nano: i64,
    ends_at: Option<Micros>,
}

/// Creates the contract with the order's terms, and plans its sectors: one for each sector size of
/// bytes. Sector numbers are never reused.
pub fn create(
    conn: &mut AnyConnection,
    order: &Order,
    now: Micros,
) -> Result<Contract, ContractError> {
    let pool = pool_by_id(conn, order.pool_id)?;
    let plan = plan_for(conn, order.plan_id)?;
    let terms: Terms = serde_json::from_str(&order.terms)
        .map_err(|error| ContractError::Terms(error.to_string()))?;
    let count = order.bytes / pool.sector_bytes;
    if count * pool.sector_bytes != order.bytes || count == 0 {
        return Err(ContractError::Fraction {
            bytes: order.bytes,
            sector_bytes: pool.sector_bytes,
        });
    }
    let ends_at = match terms.starts {
        Starts::PromisedDate => Some(
            order
                .promised_at
                .saturating_add(plan.days.saturating_mul(DAY)),
        ),
        Starts::PowerOn => None,
    };
    let row = Row {
        public_id: public_id("ctr"),
        user_id: order.user_id,
        order_id: order.id,
        pool_id: order.pool_id,
        bytes: order.bytes,
        days: plan.days,
        fee_bp: terms.service_fee_bp,
        terms_id: terms_row(conn, &order.terms)?,
        state: ContractState::Sealing,
        promised_at: order.promised_at,
        created_at: now,
        pledge_each_nano: order.pledge_each_nano,
        ends_at,
    };
    let contract: Contract = diesel::insert_into(contracts::table)
        .values(row)
        .returning(contracts::all_columns)
        .get_result(conn)?;
    let first = take_numbers(conn, pool.id, count)?;
    for number in first..first + count {
        sealing::plan_sector(conn, &contract, &pool, number, now)?;
    }
    Ok(contract)
}
