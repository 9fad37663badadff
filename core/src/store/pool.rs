//! Opening a database by its URL's scheme, pooling connections, running migrations.

use std::time::Duration;

use diesel::{
    Connection, PgConnection, SqliteConnection,
    connection::SimpleConnection,
    r2d2::{self, ManageConnection, Pool},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::AnyConnection;

const POSTGRES: EmbeddedMigrations = embed_migrations!("../migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");
const CHECKOUT: Duration = Duration::from_secs(10);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("database URL {0:?} has an unknown scheme; write sqlite://path/to/file.db or postgres://user@host/name")]
    Scheme(String),
    #[error("the database at {url} cannot be opened: {reason}")]
    Open { url: String, reason: String },
    #[error("the database's tables cannot be brought up to date: {0}")]
    Migrate(String),
    #[error("no database connection became free: {0}")]
    Busy(String),
}

#[derive(Clone, Debug)]
enum Url {
    Postgres(String),
    Sqlite(String),
}

impl Url {
    fn parse(text: &str) -> Result<Self, StoreError> {
        match text.split_once("://") {
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(text.to_owned())),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.to_owned())),
            _ => Err(StoreError::Scheme(shown(text))),
        }
    }
}

/// Without the password.
fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}

#[derive(Debug)]
pub(super) struct Manager(Url);

impl ManageConnection for Manager {
    type Connection = AnyConnection;
    type Error = r2d2::Error;

    fn connect(&self) -> Result<AnyConnection, r2d2::Error> {
        let connection = match &self.0 {
            Url::Postgres(url) => AnyConnection::Postgres(PgConnection::establish(url).map_err(r2d2::Error::ConnectionError)?),
            Url::Sqlite(path) => {
                let mut sqlite = SqliteConnection::establish(path).map_err(r2d2::Error::ConnectionError)?;
                // busy_timeout first: switching to WAL may have to wait for another process.
                sqlite
                    .batch_execute(
                        "PRAGMA busy_timeout = 15000; PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
                    )
                    .map_err(r2d2::Error::QueryError)?;
                AnyConnection::Sqlite(sqlite)
            }
        };
        Ok(connection)
    }

    fn is_valid(&self, _: &mut AnyConnection) -> Result<(), r2d2::Error> {
        Ok(())
    }

    fn has_broken(&self, connection: &mut AnyConnection) -> bool {
        std::thread::panicking()
            || crate::on_conn!(connection, |c| {
                use diesel::connection::TransactionManager;
                diesel::connection::AnsiTransactionManager::is_broken_transaction_manager(c)
            })
    }
}

/// A pool of connections to one database.
#[derive(Clone)]
pub struct Database {
    pool: Pool<Manager>,
    is_postgres: bool,
}

impl Database {
    /// `url` picks the backend by its scheme. Does not migrate.
    pub fn open(url: &str, connections: u32) -> Result<Self, StoreError> {
        let parsed = Url::parse(url)?;
        let open = |reason: String| StoreError::Open { url: shown(url), reason };
        if let Url::Sqlite(path) = &parsed
            && let Some(folder) = std::path::Path::new(path).parent()
        {
            std::fs::create_dir_all(folder).map_err(|error| open(error.to_string()))?;
        }
        let is_postgres = matches!(parsed, Url::Postgres(_));
        let manager = Manager(parsed);
        // Once by hand: the pool would only say that it timed out.
        drop(manager.connect().map_err(|error| open(error.to_string()))?);
        let pool = Pool::builder()
            .max_size(connections)
            .min_idle(Some(1))
            .connection_timeout(CHECKOUT)
            .test_on_check_out(false)
            .build(manager)
            .map_err(|error| open(error.to_string()))?;
        Ok(Self { pool, is_postgres })
    }

    /// Brings the tables up to date; a second run changes nothing.
    pub fn migrate(&self) -> Result<(), StoreError> {
        let mut connection = self.get()?;
        let done = match &mut *connection {
            AnyConnection::Postgres(c) => c.run_pending_migrations(POSTGRES).map(drop),
            AnyConnection::Sqlite(c) => c.run_pending_migrations(SQLITE).map(drop),
        };
        done.map_err(|error| StoreError::Migrate(error.to_string()))
    }

    /// True when every migration has run.
    pub fn is_current(&self) -> Result<bool, StoreError> {
        let mut connection = self.get()?;
        let pending = match &mut *connection {
            AnyConnection::Postgres(c) => c.has_pending_migration(POSTGRES),
            AnyConnection::Sqlite(c) => c.has_pending_migration(SQLITE),
        };
        pending.map(|pending| !pending).map_err(|error| StoreError::Migrate(error.to_string()))
    }

    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.is_postgres
    }

    pub(super) fn get(&self) -> Result<diesel::r2d2::PooledConnection<Manager>, StoreError> {
        self.pool.get().map_err(|error| StoreError::Busy(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_scheme_stops_the_start_and_shows_no_password() {
        for url in ["mysql://root:secret@host/db", "plain.db", "", "postgre://x", "sqlite://"] {
            let error = Database::open(url, 1).map(drop).unwrap_err().to_string();
            assert!(error.contains("unknown scheme"), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_unreachable_server_says_so() {
        let error = Database::open("postgres://nobody:secret@127.0.0.1:1/none", 1).map(drop).unwrap_err().to_string();
        assert!(error.contains("cannot be opened") && !error.contains("secret"), "{error}");
    }

    #[test]
    fn migrations_run_once() {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open(&format!("sqlite://{}/a.db", dir.path().display()), 2).unwrap();
        assert!(!database.is_current().unwrap());
        database.migrate().unwrap();
        database.migrate().unwrap();
        assert!(database.is_current().unwrap());
    }
}
