//! Alerts are raised by the code that notices that a person is needed, and cleared when it is over.

use diesel::{deserialize::FromSqlRow, expression::AsExpression, prelude::*, sql_types::Text};

use crate::{
    clock::Micros,
    on_conn,
    store::{AnyConnection, DbResult, schema::alerts},
    stored_as_text,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, AsExpression, FromSqlRow)]
#[diesel(sql_type = Text)]
pub enum AlertKind {
    /// A message to the chain that does not land in time.
    Message,
    /// A window that closed without its proof.
    MissedWindow,
    /// A sector that the chain has but our books lack.
    UnknownSector,
    /// A node that is not used, because it is away or behind the chain.
    Node,
    /// A machine that reports impossible values, or another host for its files.
    Machine,
    /// Money that matches no order.
    Payment,
}

stored_as_text!(AlertKind {
    Message => "message",
    MissedWindow => "missed_window",
    UnknownSector => "unknown_sector",
    Node => "node",
    Machine => "machine",
    Payment => "payment",
});

#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct Alert {
    pub kind: AlertKind,
    pub subject: String,
    pub text: String,
    pub since: Micros,
}

/// Raises an alert. An alert that is already open keeps its start and takes the new text. True: it
/// is new.
pub fn raise(
    conn: &mut AnyConnection,
    kind: AlertKind,
    subject: &str,
    text: &str,
    now: Micros,
) -> DbResult<bool> {
    let values = (
        alerts::kind.eq(kind),
        alerts::subject.eq(subject),
        alerts::text.eq(text),
        alerts::since.eq(now),
    );
    let inserted = on_conn!(&mut *conn, |c| diesel::insert_into(alerts::table)
        .values(values)
        .on_conflict_do_nothing()
        .execute(c))?;
    if inserted == 0 {
        diesel::update(alerts::table.find((kind, subject)))
            .set(alerts::text.eq(text))
            .execute(conn)?;
    }
    Ok(inserted == 1)
}

/// Clears an alert. False: it was not open.
pub fn clear(conn: &mut AnyConnection, kind: AlertKind, subject: &str) -> DbResult<bool> {
    diesel::delete(alerts::table.find((kind, subject)))
        .execute(conn)
        .map(|rows| rows > 0)
}

/// Open alerts, oldest first.
pub fn alerts(conn: &mut AnyConnection) -> DbResult<Vec<Alert>> {
    alerts::table
        .order((
            alerts::since.asc(),
            alerts::kind.asc(),
            alerts::subject.asc(),
        ))
        .limit(500)
        .load(conn)
}

/// Number of open alerts of each kind.
pub fn count_alerts(conn: &mut AnyConnection) -> DbResult<Vec<(AlertKind, i64)>> {
    let counted: Vec<(AlertKind, i64)> = alerts::table
        .group_by(alerts::kind)
        .select((alerts::kind, diesel::dsl::count_star()))
        .load(conn)?;
    let of = |kind: AlertKind| {
        counted
            .iter()
            .find(|(counted, _)| *counted == kind)
            .map_or(0, |(_, count)| *count)
    };
    Ok(AlertKind::ALL
        .into_iter()
        .map(|kind| (kind, of(kind)))
        .collect())
}
