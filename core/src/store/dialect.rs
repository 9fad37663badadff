//! The only SQL that differs between the databases.

use diesel::{
    RunQueryDsl,
    connection::{AnsiTransactionManager, TransactionManager},
    result::{DatabaseErrorKind, Error},
};

use super::{AnyConnection, DbResult};
use crate::ids::{OrderId, PoolId, PostId, UserId};

/// Starts a writing transaction. SQLite takes its write lock at once: a lock taken later can fail without waiting.
pub(super) fn begin(connection: &mut AnyConnection) -> DbResult<()> {
    match connection {
        AnyConnection::Postgres(c) => AnsiTransactionManager::begin_transaction(c),
        AnyConnection::Sqlite(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE"),
    }
}

/// Starts a transaction that sees the database as it is at one moment. In SQLite every transaction does, from its first read on.
pub(super) fn begin_snapshot(connection: &mut AnyConnection) -> DbResult<()> {
    match connection {
        AnyConnection::Postgres(c) => {
            AnsiTransactionManager::begin_transaction_sql(c, "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY")
        }
        AnyConnection::Sqlite(c) => AnsiTransactionManager::begin_transaction_sql(c, "BEGIN DEFERRED"),
    }
}

/// True when the server has gone away, or the line to it.
#[must_use]
pub fn is_connection_lost(error: &Error) -> bool {
    const WORDS: [&str; 8] = [
        "server closed the connection",
        "terminating connection",
        "no connection to the server",
        "could not receive data",
        "could not send data",
        "connection to server",
        "the database system is",
        "SSL connection has been closed",
    ];
    match error {
        Error::DatabaseError(DatabaseErrorKind::ClosedConnection, _) | Error::BrokenTransactionManager => true,
        Error::DatabaseError(DatabaseErrorKind::UnableToSendCommand, _) => true,
        Error::DatabaseError(_, info) => WORDS.iter().any(|words| info.message().contains(words)),
        _ => false,
    }
}

/// True when running the same transaction again may succeed.
#[must_use]
pub fn is_retryable(error: &Error) -> bool {
    match error {
        Error::DatabaseError(DatabaseErrorKind::SerializationFailure, _) => true,
        Error::DatabaseError(_, info) => {
            let message = info.message();
            message.contains("deadlock detected")
                || message.contains("database is locked")
                || message.contains("could not serialize")
        }
        _ => false,
    }
}

#[must_use]
pub fn is_unique_violation(error: &Error) -> bool {
    matches!(error, Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _))
}

/// What transactions take turns on.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    ClosingPool(PoolId),
    WindowPost(PostId),
    /// Each date is given with all earlier ones in view.
    Promise,
    /// A payment and its order's end must see each other.
    Order(OrderId),
    /// The limit on one account counts all that it has reserved.
    Account(UserId),
    /// Two planners would both fill what is left of a machine.
    Plan,
}

impl Turn {
    /// Keys of different kinds never meet.
    fn key(self) -> i64 {
        match self {
            Self::ClosingPool(PoolId(id)) => id.wrapping_mul(8),
            Self::WindowPost(PostId(id)) => id.wrapping_mul(8).wrapping_add(1),
            Self::Order(OrderId(id)) => id.wrapping_mul(8).wrapping_add(4),
            Self::Account(UserId(id)) => id.wrapping_mul(8).wrapping_add(5),
            Self::Promise => 2,
            Self::Plan => 3,
        }
    }
}

/// Serialises transactions that decide by what they read: two that each see only their own half of the work would both leave the
/// rest to the other. SQLite's writers are alone anyway.
pub fn lock(connection: &mut AnyConnection, turn: Turn) -> DbResult<()> {
    let key = turn.key();
    match connection {
        AnyConnection::Postgres(c) => {
            diesel::sql_query("SELECT pg_advisory_xact_lock($1)").bind::<diesel::sql_types::BigInt, _>(key).execute(c).map(drop)
        }
        AnyConnection::Sqlite(_) => Ok(()),
    }
}
