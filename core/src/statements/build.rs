//! Building, storing and finding statements.

use std::{collections::BTreeMap, ops::Range};

use diesel::prelude::*;

use super::model::{AccountLine, ContractLine, DayLine, StatementModel};
use crate::{
    accounts,
    clock::{Micros, Month},
    contracts,
    ids::{UserId, digest, public_id},
    jobs,
    ledger::{self, AccountSpec, Entry, Lot},
    store::{AnyConnection, DbFault, DbResult, schema::statements},
};

#[derive(Debug, thiserror::Error)]
pub enum StatementError {
    #[error("{0:?} is not a month")]
    Month(String),
    #[error("the statement cannot be stored: {0}")]
    Encode(String),
    #[error(transparent)]
    Db(#[from] DbFault),
}

crate::carries_db_faults!(StatementError);

#[derive(Clone, Debug, Queryable)]
pub struct Statement {
    pub id: i64,
    pub public_id: String,
    pub user_id: UserId,
    pub month: String,
    /// JSON of a [`StatementModel`].
    pub model: String,
    /// The mail's Message-ID. A second delivery of the same statement carries the same one.
    pub message_id: String,
    pub created_at: Micros,
    pub sent_at: Option<Micros>,
    /// When the mail server refused it for good, and the server's answer.
    pub refused_at: Option<Micros>,
    pub refusal: Option<String>,
}

impl Statement {
    pub fn parsed(&self) -> Result<StatementModel, StatementError> {
        serde_json::from_str(&self.model).map_err(|error| StatementError::Encode(error.to_string()))
    }
}

/// Builds and stores a user's statement of a closed month, and queues its mail. A second call
/// changes nothing. A month that ends before the account's first ledger entry has no statement.
pub fn produce(
    conn: &mut AnyConnection,
    user: UserId,
    month: Month,
    now: Micros,
) -> Result<(), StatementError> {
    let key = month.to_string();
    let there =
        statements::table.filter(statements::user_id.eq(user).and(statements::month.eq(&key)));
    if there.count().get_result::<i64>(conn)? > 0 || !has_entries_by(conn, user, month)? {
        return Ok(());
    }
    let model = build(conn, user, month)?;
    let id = public_id("stm");
    diesel::insert_into(statements::table)
        .values((
            statements::public_id.eq(&id),
            statements::user_id.eq(user),
            statements::month.eq(&key),
            statements::model.eq(serde_json::to_string(&model)
                .map_err(|error| StatementError::Encode(error.to_string()))?),
            statements::message_id.eq(format!(
                "{}@sealyard",
                digest(&format!("statement:{user}:{key}"))
            )),
            statements::created_at.eq(now),
        ))
        .execute(conn)?;
    jobs::enqueue(
        conn,
        "statement_mail",
        &id,
        &serde_json::json!({"statement": id}).to_string(),
        now,
    )?;
    Ok(())
}

/// Whether any of the user's accounts has an entry that takes effect before the month's end.
fn has_entries_by(
    conn: &mut AnyConnection,
    user: UserId,
    month: Month,
) -> Result<bool, StatementError> {
    let (_, end_day) = month
        .days()
        .ok_or_else(|| StatementError::Month(month.to_string()))?;
    for account in [
        AccountSpec::Available(user),
        AccountSpec::Vesting(user),
        AccountSpec::Pledged(user),
    ] {
        if !ledger::entries(conn, &account, i64::MIN..end_day, 1)?.is_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Builds the figures from ledger entries only, so that the same books always give the same
/// statement.
fn build(
    conn: &mut AnyConnection,
    user: UserId,
    month: Month,
) -> Result<StatementModel, StatementError> {
    let (first_day, end_day) = month
        .days()
        .ok_or_else(|| StatementError::Month(month.to_string()))?;
    let person = accounts::by_id(conn, user)?;
    let span = first_day..end_day;
    let available = Moved::load(conn, &AccountSpec::Available(user), &span)?;
    let pledged = Moved::load(conn, &AccountSpec::Pledged(user), &span)?;
    let vesting = Moved::load(conn, &AccountSpec::Vesting(user), &span)?;
    let mut days = Days::of(&span);
    days.add_available(&available.entries);
    days.add_vesting(&vesting.entries);
    let contracts = contract_lines(conn, user, &span, &mut days)?;
    Ok(StatementModel {
        month: month.to_string(),
        name: person.name,
        email: person.email,
        first_day,
        end_day,
        available: available.line,
        vesting: vesting.line,
        pledged: pledged.line,
        contracts,
        days: days.0.into_values().collect(),
    })
}

/// An account's entries in a month, and their sums.
struct Moved {
    entries: Vec<Entry>,
    line: AccountLine,
}

impl Moved {
    fn load(conn: &mut AnyConnection, spec: &AccountSpec, span: &Range<i64>) -> DbResult<Self> {
        let entries = ledger::entries(conn, spec, span.clone(), i64::MAX)?;
        let opening = ledger::movements(conn, spec, span.start)?;
        let moved_in: i64 = entries.iter().map(|e| e.amount.max(0)).sum();
        let moved_out: i64 = entries.iter().map(|e| (-e.amount).max(0)).sum();
        let line = AccountLine {
            opening,
            moved_in,
            moved_out,
            closing: opening + moved_in - moved_out,
        };
        Ok(Self { entries, line })
    }
}

/// The lines of a month's days.
struct Days(BTreeMap<i64, DayLine>);

impl Days {
    fn of(span: &Range<i64>) -> Self {
        let line = |day| DayLine {
            day,
            ..DayLine::default()
        };
        Self(span.clone().map(|day| (day, line(day))).collect())
    }

    fn add_available(&mut self, entries: &[Entry]) {
        for entry in entries {
            if let Some(line) = self.0.get_mut(&entry.effective_day) {
                match entry.kind.as_str() {
                    "vested" => line.vested += entry.amount,
                    // Pledges put up and returned are not earnings; the balances show them.
                    "pledge" | "pledge_not_needed" | "pledge_returned" => {}
                    _ => line.to_available += entry.amount,
                }
            }
        }
    }

    fn add_vesting(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|e| e.amount > 0) {
            if let Some(line) = self.0.get_mut(&entry.effective_day) {
                line.to_vesting += entry.amount;
            }
        }
    }

    fn add_costs(&mut self, lot: &Lot) {
        if let Some(line) = self.0.get_mut(&lot.day) {
            line.fee += lot.fee_nano + lot.cost_nano;
        }
    }
}

/// The lines of a user's contracts, oldest first. Adds their costs to `days`.
fn contract_lines(
    conn: &mut AnyConnection,
    user: UserId,
    span: &Range<i64>,
    days: &mut Days,
) -> DbResult<Vec<ContractLine>> {
    let mut lines = Vec::new();
    for contract in contracts::of_user(conn, user)? {
        let mut line = ContractLine {
            contract: contract.public_id.clone(),
            bytes: contract.bytes,
            ..ContractLine::default()
        };
        for lot in ledger::lots_of_contract(conn, contract.id, span.clone(), i64::MAX)? {
            line.gross += lot.gross_nano;
            line.fee += lot.fee_nano;
            line.cost += lot.cost_nano;
            line.net += lot.available_nano + lot.locked_nano;
            line.compensation += lot.compensation_nano;
            days.add_costs(&lot);
        }
        lines.push(line);
    }
    lines.reverse();
    Ok(lines)
}

pub fn by_public_id(conn: &mut AnyConnection, id: &str) -> DbResult<Option<Statement>> {
    statements::table
        .filter(statements::public_id.eq(id))
        .first(conn)
        .optional()
}

/// Newest month first.
pub fn of_user(conn: &mut AnyConnection, user: UserId) -> DbResult<Vec<Statement>> {
    statements::table
        .filter(statements::user_id.eq(user))
        .order(statements::month.desc())
        .load(conn)
}

pub fn mark_sent(conn: &mut AnyConnection, statement: &Statement, now: Micros) -> DbResult<()> {
    diesel::update(statements::table.find(statement.id))
        .set(statements::sent_at.eq(now))
        .execute(conn)
        .map(drop)
}

/// The mail server refuses it for good. It is not mailed again, and can be read on the site.
pub fn mark_refused(
    conn: &mut AnyConnection,
    statement: &Statement,
    refusal: &str,
    now: Micros,
) -> DbResult<()> {
    diesel::update(statements::table.find(statement.id))
        .set((
            statements::refused_at.eq(now),
            statements::refusal.eq(refusal),
        ))
        .execute(conn)
        .map(drop)
}
