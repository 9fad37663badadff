//! The terms of a contract, as the investor saw them when buying. Stored once for all contracts that share them, and never changed.

use diesel::{
    backend::Backend,
    deserialize::{self, FromSql, FromSqlRow},
    expression::AsExpression,
    prelude::*,
    serialize::{self, Output, ToSql},
    sql_types::Text,
};
use serde::{Deserialize, Serialize};

use crate::{
    on_conn,
    store::{AnyConnection, DbResult, schema::terms},
};

/// Stored as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, FromSqlRow, AsExpression)]
#[diesel(sql_type = Text)]
pub struct Terms {
    /// Version of this text; a reader of old contracts needs it.
    pub version: u32,
    pub service_fee_bp: i64,
    /// Of each day's net: available at once, basis points; the rest vests.
    pub available_bp: i64,
    /// Daily parts in which the rest is released.
    pub vesting_days: i64,
    /// How much of its part, by power, of the protocol's daily fee (FIP-0100), of the fees for faults and of the gas of the pool's messages
    /// the contract bears, basis points. The rest, and fees for early ends, are the operator's.
    #[serde(default)]
    pub daily_fee_bp: i64,
    #[serde(default)]
    pub faults_bp: i64,
    #[serde(default)]
    pub gas_bp: i64,
    /// Whose FIL secures the sectors.
    pub pledge: Pledge,
    /// From when power is promised.
    pub starts: Starts,
    /// The remedy when promised power is missing.
    #[serde(default)]
    pub shortfall: Shortfall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pledge {
    /// The operator's, free of charge.
    Operator,
    /// The operator's, for this part of each day's gross.
    OperatorFor { charge_bp: i64 },
    /// The investor's own, put up with the order from what is available. It comes back as the chain returns each sector's, less this
    /// part of the fee for one that ended early.
    Investor { terminations_bp: i64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    /// With the first successful WindowPoSt of all sectors, whenever that is.
    PowerOn,
    /// Then, or on the promised date if that is earlier: from it on, power that is missing is made up for.
    PromisedDate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortfall {
    #[default]
    None,
    /// The operator pays what the missing power would have earned that day, by the pool's own rate, less the service fee.
    PaidInFil,
    /// The term becomes as much longer, by at most so many days; what goes beyond is paid as above.
    AddedDays { most: i64 },
}

impl Terms {
    #[must_use]
    pub fn standard(service_fee_bp: i64) -> Self {
        Self {
            version: 3,
            service_fee_bp,
            available_bp: 2500,
            vesting_days: 180,
            daily_fee_bp: 0,
            faults_bp: 0,
            gas_bp: 0,
            pledge: Pledge::Operator,
            starts: Starts::PromisedDate,
            shortfall: Shortfall::PaidInFil,
        }
    }
}

impl<DB: Backend> FromSql<Text, DB> for Terms
where
    String: FromSql<Text, DB>,
{
    fn from_sql(bytes: DB::RawValue<'_>) -> deserialize::Result<Self> {
        Ok(serde_json::from_str(&String::from_sql(bytes)?)?)
    }
}

impl ToSql<Text, diesel::sqlite::Sqlite> for Terms {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, diesel::sqlite::Sqlite>) -> serialize::Result {
        out.set_value(serde_json::to_string(self)?);
        Ok(serialize::IsNull::No)
    }
}

impl ToSql<Text, diesel::pg::Pg> for Terms {
    fn to_sql<'b>(&'b self, out: &mut Output<'b, '_, diesel::pg::Pg>) -> serialize::Result {
        std::io::Write::write_all(out, serde_json::to_string(self)?.as_bytes())?;
        Ok(serialize::IsNull::No)
    }
}

/// The row of a text of terms, made on first use.
pub fn terms_row(conn: &mut AnyConnection, text: &str) -> DbResult<i64> {
    let there = terms::table.filter(terms::text.eq(text)).select(terms::id);
    if let Some(id) = there.first(conn).optional()? {
        return Ok(id);
    }
    on_conn!(&mut *conn, |c| diesel::insert_into(terms::table).values(terms::text.eq(text)).on_conflict_do_nothing().execute(c))?;
    there.first(conn)
}

pub fn terms_by_id(conn: &mut AnyConnection, id: i64) -> DbResult<Terms> {
    terms::table.find(id).select(terms::text).first(conn)
}

pub fn terms_text(conn: &mut AnyConnection, id: i64) -> DbResult<String> {
    terms::table.find(id).select(terms::text).first(conn)
}
