//! Two databases behind one type. SQLite is the embedded default, PostgreSQL serves many processes.

pub mod dialect;
mod fault;
mod pool;
pub mod schema;
mod transact;

pub use fault::DbFault;
pub use pool::{Database, Schema, StoreError};
pub use transact::Retry;

/// A connection to either database.
#[derive(diesel::MultiConnection)]
pub enum AnyConnection {
    Postgres(diesel::PgConnection),
    Sqlite(diesel::SqliteConnection),
}

pub type DbResult<T> = diesel::QueryResult<T>;

/// Runs the same text against either concrete connection, for what `MultiConnection` cannot express (on conflict, batches).
#[macro_export]
macro_rules! on_conn {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $conn {
            $crate::store::AnyConnection::Postgres($c) => $body,
            $crate::store::AnyConnection::Sqlite($c) => $body,
        }
    };
}
