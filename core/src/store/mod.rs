//! Two databases behind one type. SQLite is the embedded default; PostgreSQL serves many processes.

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

/// Rows or values in one statement, few enough for the databases' limits on variables.
pub const ROWS_AT_ONCE: usize = 5000;

/// Inserts a slice of rows; rows that exist already stay unchanged. PostgreSQL takes many rows in a
/// statement, which saves round trips. SQLite runs in this process and has none to save.
#[macro_export]
macro_rules! insert_new {
    ($conn:expr, $table:expr, $rows:expr) => {{
        match $conn {
            $crate::store::AnyConnection::Postgres(c) => {
                for some in $rows.chunks($crate::store::ROWS_AT_ONCE) {
                    diesel::insert_into($table)
                        .values(some)
                        .on_conflict_do_nothing()
                        .execute(c)?;
                }
            }
            $crate::store::AnyConnection::Sqlite(c) => {
                for row in $rows {
                    diesel::insert_into($table)
                        .values(row)
                        .on_conflict_do_nothing()
                        .execute(c)?;
                }
            }
        }
        Ok(())
    }};
}

/// Stores an enum's values as text, by these names. Needs `AsExpression`, `FromSqlRow` and
/// `sql_type = Text` on the enum.
#[macro_export]
macro_rules! stored_as_text {
    ($type:ident { $($value:ident => $name:literal),+ $(,)? }) => {
        impl $type {
            pub const ALL: [Self; [$(Self::$value),+].len()] = [$(Self::$value),+];

            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$value => $name),+
                }
            }

            /// The name as words: `refund due`.
            #[must_use]
            pub fn words(self) -> String {
                self.name().replace('_', " ")
            }

            #[must_use]
            pub fn from_name(name: &str) -> Option<Self> {
                Self::ALL.into_iter().find(|value| value.name() == name)
            }
        }

        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl<DB> diesel::serialize::ToSql<diesel::sql_types::Text, DB> for $type
        where
            DB: diesel::backend::Backend,
            str: diesel::serialize::ToSql<diesel::sql_types::Text, DB>,
        {
            fn to_sql<'b>(
                &'b self,
                out: &mut diesel::serialize::Output<'b, '_, DB>,
            ) -> diesel::serialize::Result {
                self.name().to_sql(out)
            }
        }

        impl<DB> diesel::deserialize::FromSql<diesel::sql_types::Text, DB> for $type
        where
            DB: diesel::backend::Backend,
            String: diesel::deserialize::FromSql<diesel::sql_types::Text, DB>,
        {
            fn from_sql(bytes: DB::RawValue<'_>) -> diesel::deserialize::Result<Self> {
                let name = <String as diesel::deserialize::FromSql<
                    diesel::sql_types::Text,
                    DB,
                >>::from_sql(bytes)?;
                Self::from_name(&name).ok_or_else(|| {
                    format!("{name:?} is not a valid {}", stringify!($type)).into()
                })
            }
        }
    };
}

/// Compiles the same code for either concrete connection, where `MultiConnection` falls short (on
/// conflict, batches).
#[macro_export]
macro_rules! on_conn {
    ($conn:expr, |$c:ident| $body:expr) => {
        match $conn {
            $crate::store::AnyConnection::Postgres($c) => $body,
            $crate::store::AnyConnection::Sqlite($c) => $body,
        }
    };
}
