//! The terms of a contract, as the investor saw them when buying. Contracts with equal terms share
//! one stored text, which never changes.

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
    /// Version of this text, for readers of old contracts.
    pub version: u32,
    pub service_fee_bp: i64,
    /// Part of each day's net that is available at once, in basis points. The rest vests.
    pub available_bp: i64,
    /// Days over which the rest is released in daily parts.
    pub vesting_days: i64,
    /// Parts of its share, by power, of the pool's costs that the contract bears, in basis points:
    /// of the protocol's daily fee (FIP-0100), of fault fees, and of the gas of the pool's
    /// messages. The operator bears the rest, and termination fees except as [`Pledge::Investor`]
    /// says.
    #[serde(default)]
    pub daily_fee_bp: i64,
    #[serde(default)]
    pub faults_bp: i64,
    #[serde(default)]
    pub gas_bp: i64,
    /// The source of the FIL that secures the sectors.
    pub pledge: Pledge,
    /// The moment from which power is promised.
    pub starts: Starts,
    /// The remedy when promised power is missing.
    #[serde(default)]
    pub shortfall: Shortfall,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Pledge {
    /// The operator pledges, free of charge.
    Operator,
    /// The operator pledges, for this part of each day's gross.
    OperatorFor { charge_bp: i64 },
    /// The investor pledges with the order, out of the available balance. Each sector's pledge
    /// comes back when the chain returns it, less this part of the termination fee if the sector
    /// ended early.
    Investor { terminations_bp: i64 },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Starts {
    /// When all sectors have passed their first WindowPoSt, whenever that is.
    PowerOn,
    /// As `PowerOn`, or on the promised date if that is earlier. Power that is missing from the
    /// promised date on is made up for.
    PromisedDate,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shortfall {
    #[default]
    None,
    /// The operator pays the amount that the missing power would have earned that day, at the
    /// pool's own rate, less the service fee.
    PaidInFil,
    /// The term is extended to make up for it, by at most `most` days. Anything beyond is paid as
    /// with `PaidInFil`.
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

/// The row id of a terms text. The row is created on first use.
pub fn terms_row(conn: &mut AnyConnection, text: &str) -> DbResult<i64> {
    let there = terms::table.filter(terms::text.eq(text)).select(terms::id);
    if let Some(id) = there.first(conn).optional()? {
        return Ok(id);
    }
    on_conn!(&mut *conn, |c| diesel::insert_into(terms::table)
        .values(terms::text.eq(text))
        .on_conflict_do_nothing()
        .execute(c))?;
    there.first(conn)
}

pub fn terms_by_id(conn: &mut AnyConnection, id: i64) -> DbResult<Terms> {
    terms::table.find(id).select(terms::text).first(conn)
}

pub fn terms_text(conn: &mut AnyConnection, id: i64) -> DbResult<String> {
    terms::table.find(id).select(terms::text).first(conn)
}
