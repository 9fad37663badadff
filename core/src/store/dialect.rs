//! Transactions, locks and errors, where the databases differ.

use diesel::{
    RunQueryDsl,
    connection::{AnsiTransactionManager, TransactionManager},
    result::{DatabaseErrorKind, Error},
};

use super::{AnyConnection, DbResult};
use crate::ids::{OrderId, PoolId, PostId, UserId};

/// Starts a writing transaction. SQLite takes its write lock at once, because taking it later can
/// fail without waiting.
pub(super) fn begin(connection: &mut AnyConnection) -> DbResult<()> {
    match connection {
        AnyConnection::Postgres(c) => AnsiTransactionManager::begin_transaction(c),
        AnyConnection::Sqlite(c) => {
            AnsiTransactionManager::begin_transaction_sql(c, "BEGIN IMMEDIATE")
        }
    }
}

/// Starts a transaction that sees the database as it is at one moment. Every SQLite transaction
/// does so from its first read on.
pub(super) fn begin_snapshot(connection: &mut AnyConnection) -> DbResult<()> {
    match connection {
        AnyConnection::Postgres(c) => AnsiTransactionManager::begin_transaction_sql(
            c,
            "BEGIN TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY",
        ),
        AnyConnection::Sqlite(c) => {
            AnsiTransactionManager::begin_transaction_sql(c, "BEGIN DEFERRED")
        }
    }
}

/// True when the server or the line to it has failed.
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
        Error::DatabaseError(DatabaseErrorKind::ClosedConnection, _)
        | Error::BrokenTransactionManager => true,
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
    matches!(
        error,
        Error::DatabaseError(DatabaseErrorKind::UniqueViolation, _)
    )
}

/// Things that only one transaction at a time may work on.
#[derive(Clone, Copy, Debug)]
pub enum Turn {
    ClosingPool(PoolId),
    WindowPost(PostId),
    /// Each new promise must see all earlier ones.
    Promise,
    /// A payment and its order's end must see each other.
    Order(OrderId),
    /// The limit on an account must count everything that it has reserved.
    Account(UserId),
    /// Two planners at once would both fill the same residual capacity.
    Plan,
}

impl Turn {
    /// Keys of different kinds never collide.
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

/// Serialises transactions that decide by what they read. Two at once could each see only their own
/// half of the work, and both leave the rest to the other. SQLite has only one writer at a time
/// anyway.
pub fn lock(connection: &mut AnyConnection, turn: Turn) -> DbResult<()> {
    let key = turn.key();
    match connection {
        AnyConnection::Postgres(c) => diesel::sql_query("SELECT pg_advisory_xact_lock($1)")
            .bind::<diesel::sql_types::BigInt, _>(key)
            .execute(c)
            .map(drop),
        AnyConnection::Sqlite(_) => Ok(()),
    }
}
