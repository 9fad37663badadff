//! Alerts: raised by whoever notices that a person is needed, cleared when it is over.

use diesel::prelude::*;

use crate::{
    clock::Micros,
    on_conn,
    store::{AnyConnection, DbResult, schema::alerts},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AlertKind {
    /// A message to the chain that does not land, or that the node sends in another's place.
    Message,
    /// A window that closed without its proof.
    MissedWindow,
    /// A sector that the chain has and these books lack.
    UnknownSector,
    /// A node that answers, but not with the chain as it is.
    Node,
    /// A machine that reports what cannot be.
    Machine,
    /// Money that fits no order.
    Payment,
}

impl AlertKind {
    pub const ALL: [Self; 6] = [Self::Message, Self::MissedWindow, Self::UnknownSector, Self::Node, Self::Machine, Self::Payment];

    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Message => "message",
            Self::MissedWindow => "missed_window",
            Self::UnknownSector => "unknown_sector",
            Self::Node => "node",
            Self::Machine => "machine",
            Self::Payment => "payment",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Queryable)]
pub struct Alert {
    pub kind: String,
    pub subject: String,
    pub text: String,
    pub since: Micros,
}

/// Raises an alert; one that stands keeps its beginning and takes the new text. True when it is new.
pub fn raise(conn: &mut AnyConnection, kind: AlertKind, subject: &str, text: &str, now: Micros) -> DbResult<bool> {
    let values = (alerts::kind.eq(kind.name()), alerts::subject.eq(subject), alerts::text.eq(text), alerts::since.eq(now));
    let inserted =
        on_conn!(&mut *conn, |c| diesel::insert_into(alerts::table).values(values).on_conflict_do_nothing().execute(c))?;
    if inserted == 0 {
        diesel::update(alerts::table.find((kind.name(), subject))).set(alerts::text.eq(text)).execute(conn)?;
    }
    Ok(inserted == 1)
}

/// It is over; false when it did not stand.
pub fn clear(conn: &mut AnyConnection, kind: AlertKind, subject: &str) -> DbResult<bool> {
    diesel::delete(alerts::table.find((kind.name(), subject))).execute(conn).map(|rows| rows > 0)
}

/// Everything that stands, the oldest first.
pub fn alerts(conn: &mut AnyConnection) -> DbResult<Vec<Alert>> {
    alerts::table.order((alerts::since.asc(), alerts::kind.asc(), alerts::subject.asc())).limit(500).load(conn)
}

/// How many stand of each kind.
pub fn count_alerts(conn: &mut AnyConnection) -> DbResult<Vec<(AlertKind, i64)>> {
    let counted: Vec<(String, i64)> =
        alerts::table.group_by(alerts::kind).select((alerts::kind, diesel::dsl::count_star())).load(conn)?;
    let of = |kind: AlertKind| counted.iter().find(|(name, _)| name == kind.name()).map_or(0, |(_, count)| *count);
    Ok(AlertKind::ALL.into_iter().map(|kind| (kind, of(kind))).collect())
}
