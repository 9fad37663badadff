//! Opens databases by their URL's scheme, pools connections, and runs migrations.

use std::{
    collections::BTreeSet,
    ops::{Deref, DerefMut},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use diesel::{
    Connection, PgConnection, RunQueryDsl, SqliteConnection,
    connection::SimpleConnection,
    migration::{Migration, MigrationSource},
    r2d2::{self, ManageConnection, Pool, PooledConnection},
};
use diesel_migrations::{EmbeddedMigrations, MigrationHarness, embed_migrations};

use super::AnyConnection;

const POSTGRES: EmbeddedMigrations = embed_migrations!("../migrations/postgres");
const SQLITE: EmbeddedMigrations = embed_migrations!("../migrations/sqlite");
/// How long a caller waits for a connection in total, and how long before the pool tries again to
/// connect.
const CHECKOUT: Duration = Duration::from_secs(10);
const RECONNECT: Duration = Duration::from_secs(1);
/// A connection used more recently than this is assumed to be alive.
const FRESH: Duration = Duration::from_secs(1);

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "database URL {0:?} has an unknown scheme; write sqlite://path/to/file.db \
         or postgres://user@host/name"
    )]
    Scheme(String),
    #[error("the database at {url} cannot be opened: {reason}")]
    Open { url: String, reason: String },
    #[error("the database's tables cannot be brought up to date: {0}")]
    Migrate(String),
    #[error(
        "the database at {url} lacks {missing} of this release's migrations; \
         run `sealyard migrate` with the same configuration"
    )]
    Older { url: String, missing: usize },
    #[error(
        "the database at {url} was migrated by a newer release (it has {newest}, \
         which this program does not know); install that release, \
         or restore a backup from before the upgrade"
    )]
    Newer { url: String, newest: String },
    #[error("no database connection became available: {0}")]
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
            Some(("postgres" | "postgresql", _)) => Ok(Self::Postgres(with_limits(text))),
            Some(("sqlite", path)) if !path.is_empty() => Ok(Self::Sqlite(path.to_owned())),
            _ => Err(StoreError::Scheme(shown(text))),
        }
    }
}

/// How long libpq waits for a silent server: pulling a cable closes no connection. The operator's
/// own values take precedence.
const LIMITS: [(&str, u32); 5] = [
    ("connect_timeout", 5),
    ("keepalives_idle", 10),
    ("keepalives_interval", 5),
    ("keepalives_count", 3),
    // Milliseconds.
    ("tcp_user_timeout", 20_000),
];

fn with_limits(url: &str) -> String {
    let (mut limited, query) = (
        url.to_owned(),
        url.split_once('?')
            .map(|(_, query)| query)
            .unwrap_or_default(),
    );
    let named = |name: &str| {
        query
            .split('&')
            .any(|pair| pair.split('=').next() == Some(name))
    };
    for (name, value) in LIMITS.into_iter().filter(|(name, _)| !named(name)) {
        limited.push(if limited.contains('?') { '&' } else { '?' });
        limited.push_str(&format!("{name}={value}"));
    }
    limited
}

/// The URL without its user and password.
fn shown(url: &str) -> String {
    match (url.split_once("://"), url.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://…@{host}"),
        _ => url.to_owned(),
    }
}

/// A connection, with the facts that tell whether it may be dead.
pub(super) struct Kept {
    connection: AnyConnection,
    /// The database's life in which it was made.
    life: u64,
    used: Instant,
}

impl Deref for Kept {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        &self.connection
    }
}

impl DerefMut for Kept {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        &mut self.connection
    }
}

#[derive(Debug)]
pub(super) struct Manager {
    url: Url,
    /// Increased when a connection is found dead. All connections made before are then discarded.
    life: Arc<AtomicU64>,
}

impl ManageConnection for Manager {
    type Connection = Kept;
    type Error = r2d2::Error;

    fn connect(&self) -> Result<Kept, r2d2::Error> {
        let life = self.life.load(Ordering::SeqCst);
        let connection = match &self.url {
            Url::Postgres(url) => AnyConnection::Postgres(
                PgConnection::establish(url).map_err(r2d2::Error::ConnectionError)?,
            ),
            Url::Sqlite(path) => {
                let mut sqlite =
                    SqliteConnection::establish(path).map_err(r2d2::Error::ConnectionError)?;
                // busy_timeout first: switching to WAL may have to wait for another process.
                sqlite
                    .batch_execute(
                        "PRAGMA busy_timeout = 15000; PRAGMA journal_mode = WAL; \
                         PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON;",
                    )
                    .map_err(r2d2::Error::QueryError)?;
                AnyConnection::Sqlite(sqlite)
            }
        };
        Ok(Kept {
            connection,
            life,
            used: Instant::now(),
        })
    }

    /// Called whenever a connection is taken. One made before the last failure is refused; an idle
    /// PostgreSQL connection has to answer first.
    fn is_valid(&self, kept: &mut Kept) -> Result<(), r2d2::Error> {
        if kept.life != self.life.load(Ordering::SeqCst) {
            return Err(r2d2::Error::ConnectionError(
                diesel::ConnectionError::BadConnection("it is from before an outage".into()),
            ));
        }
        let idle = kept.used.elapsed() > FRESH;
        kept.used = Instant::now();
        match &mut kept.connection {
            AnyConnection::Postgres(c) if idle => diesel::sql_query("SELECT 1")
                .execute(c)
                .map(drop)
                .map_err(r2d2::Error::QueryError),
            _ => Ok(()),
        }
    }

    fn has_broken(&self, kept: &mut Kept) -> bool {
        std::thread::panicking()
            || kept.life != self.life.load(Ordering::SeqCst)
            || crate::on_conn!(&mut kept.connection, |c| {
                use diesel::connection::TransactionManager;
                diesel::connection::AnsiTransactionManager::is_broken_transaction_manager(c)
            })
    }
}

#[derive(Clone)]
enum Source {
    Many(Pool<Manager>),
    /// A single connection without the pool's threads: a command that ends must not leave a thread
    /// that is connecting.
    One(Arc<Mutex<Kept>>),
}

/// A database with one or more connections.
#[derive(Clone)]
pub struct Database {
    source: Source,
    is_postgres: bool,
    url: String,
    life: Arc<AtomicU64>,
}

/// A connection for as long as it is held.
pub(super) enum Held<'d> {
    Pooled(Box<PooledConnection<Manager>>),
    Only(MutexGuard<'d, Kept>),
}

impl Deref for Held<'_> {
    type Target = AnyConnection;

    fn deref(&self) -> &AnyConnection {
        match self {
            Self::Pooled(kept) => kept,
            Self::Only(kept) => kept,
        }
    }
}

impl DerefMut for Held<'_> {
    fn deref_mut(&mut self) -> &mut AnyConnection {
        match self {
            Self::Pooled(kept) => kept,
            Self::Only(kept) => kept,
        }
    }
}

/// Whether this program knows a database's tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Schema {
    Current,
    /// This many migrations have not run.
    Older(usize),
    /// A newer release has migrated it; this is its newest migration.
    Newer(String),
}

impl Database {
    /// The scheme of `url` picks the backend. Does not migrate.
    pub fn open(url: &str, connections: u32) -> Result<Self, StoreError> {
        let (manager, first) = first(url)?;
        // The first connection is made by hand: the pool would only report a timeout.
        drop(first);
        let (is_postgres, life) = (
            matches!(manager.url, Url::Postgres(_)),
            manager.life.clone(),
        );
        let pool = Pool::builder()
            .max_size(connections)
            .min_idle(Some(1))
            .connection_timeout(RECONNECT)
            .test_on_check_out(true)
            .build(manager)
            .map_err(|error| StoreError::Open {
                url: shown(url),
                reason: error.to_string(),
            })?;
        Ok(Self {
            source: Source::Many(pool),
            is_postgres,
            url: shown(url),
            life,
        })
    }

    /// For short-lived commands: one connection and no threads.
    pub fn open_one(url: &str) -> Result<Self, StoreError> {
        let (manager, first) = first(url)?;
        let is_postgres = matches!(manager.url, Url::Postgres(_));
        Ok(Self {
            source: Source::One(Arc::new(Mutex::new(first))),
            is_postgres,
            url: shown(url),
            life: manager.life,
        })
    }

    /// Its URL, without user and password.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Brings the tables up to date, and returns how many migrations ran. Refuses a database of a
    /// newer release.
    pub fn migrate(&self) -> Result<usize, StoreError> {
        if let Schema::Newer(newest) = self.schema()? {
            return Err(StoreError::Newer {
                url: self.url.clone(),
                newest,
            });
        }
        let mut connection = self.get()?;
        let done = match &mut *connection {
            AnyConnection::Postgres(c) => c.run_pending_migrations(POSTGRES).map(|ran| ran.len()),
            AnyConnection::Sqlite(c) => c.run_pending_migrations(SQLITE).map(|ran| ran.len()),
        };
        done.map_err(|error| StoreError::Migrate(error.to_string()))
    }

    /// Compares the tables with those that this program knows.
    pub fn schema(&self) -> Result<Schema, StoreError> {
        let failed = |error: &dyn std::fmt::Display| StoreError::Migrate(error.to_string());
        let mut connection = self.get()?;
        let (applied, known) = match &mut *connection {
            AnyConnection::Postgres(c) => (
                c.applied_migrations(),
                versions::<diesel::pg::Pg>(&POSTGRES),
            ),
            AnyConnection::Sqlite(c) => (
                c.applied_migrations(),
                versions::<diesel::sqlite::Sqlite>(&SQLITE),
            ),
        };
        let applied: BTreeSet<String> = applied
            .map_err(|error| failed(&error))?
            .iter()
            .map(ToString::to_string)
            .collect();
        let known = known.map_err(|error| failed(&error))?;
        if let Some(newest) = applied.difference(&known).last() {
            return Ok(Schema::Newer(newest.clone()));
        }
        let missing = known.difference(&applied).count();
        Ok(if missing == 0 {
            Schema::Current
        } else {
            Schema::Older(missing)
        })
    }

    /// Fails unless the tables are exactly those that this program knows.
    pub fn check_schema(&self) -> Result<(), StoreError> {
        match self.schema()? {
            Schema::Current => Ok(()),
            Schema::Older(missing) => Err(StoreError::Older {
                url: self.url.clone(),
                missing,
            }),
            Schema::Newer(newest) => Err(StoreError::Newer {
                url: self.url.clone(),
                newest,
            }),
        }
    }

    #[must_use]
    pub fn is_postgres(&self) -> bool {
        self.is_postgres
    }

    /// A connection was found dead: discards all connections that were made before.
    pub(super) fn begin_new_life(&self) {
        self.life.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn get(&self) -> Result<Held<'_>, StoreError> {
        let pool = match &self.source {
            Source::One(only) => {
                return Ok(Held::Only(
                    only.lock().unwrap_or_else(PoisonError::into_inner),
                ));
            }
            Source::Many(pool) => pool,
        };
        let started = Instant::now();
        loop {
            match pool.get() {
                Ok(kept) => return Ok(Held::Pooled(Box::new(kept))),
                Err(error) if started.elapsed() > CHECKOUT => {
                    return Err(StoreError::Busy(error.to_string()));
                }
                Err(_) => {}
            }
        }
    }
}

/// The connection manager, and a first connection to show that it works.
fn first(url: &str) -> Result<(Manager, Kept), StoreError> {
    let parsed = Url::parse(url)?;
    let open = |reason: String| StoreError::Open {
        url: shown(url),
        reason,
    };
    if let Url::Sqlite(path) = &parsed {
        create_private(std::path::Path::new(path)).map_err(|error| open(error.to_string()))?;
    }
    let manager = Manager {
        url: parsed,
        life: Arc::default(),
    };
    let first = manager.connect().map_err(|error| open(error.to_string()))?;
    Ok((manager, first))
}

/// Creates a database file that only its owner can read. SQLite gives its companion files the same
/// mode.
fn create_private(path: &std::path::Path) -> std::io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt;
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    match std::fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
    {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

fn versions<DB: diesel::backend::Backend>(
    source: &EmbeddedMigrations,
) -> Result<BTreeSet<String>, String> {
    let migrations =
        MigrationSource::<DB>::migrations(source).map_err(|error| error.to_string())?;
    Ok(migrations
        .iter()
        .map(|migration| migration.name().version().to_string())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn postgres_urls_get_timeouts_unless_they_set_their_own() {
        let limited = with_limits("postgres://u@h/db");
        assert!(
            limited.starts_with("postgres://u@h/db?connect_timeout=5&"),
            "{limited}"
        );
        assert!(limited.ends_with("&tcp_user_timeout=20000"), "{limited}");
        let own = with_limits("postgres://u@h/db?sslmode=require&tcp_user_timeout=1");
        assert!(
            own.starts_with(
                "postgres://u@h/db?sslmode=require&tcp_user_timeout=1&connect_timeout=5&"
            ),
            "{own}"
        );
        assert_eq!(own.matches("tcp_user_timeout").count(), 1);
    }

    #[test]
    fn an_unknown_url_scheme_is_refused_without_showing_the_password() {
        for url in [
            "mysql://root:secret@host/db",
            "plain.db",
            "",
            "postgre://x",
            "sqlite://",
        ] {
            let error = Database::open(url, 1).map(drop).unwrap_err().to_string();
            assert!(error.contains("unknown scheme"), "{url}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn an_unreachable_server_is_reported_without_its_password() {
        let error = Database::open("postgres://nobody:secret@127.0.0.1:1/none", 1)
            .map(drop)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("cannot be opened") && !error.contains("secret"),
            "{error}"
        );
    }

    #[test]
    fn migrations_run_once_and_a_schema_of_another_release_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.db");
        for open in [|url: &str| Database::open(url, 2), Database::open_one] {
            let database = open(&format!("sqlite://{}", path.display())).unwrap();
            let ran = database.migrate().unwrap();
            assert_eq!(
                (database.migrate().unwrap(), database.schema().unwrap()),
                (0, Schema::Current)
            );
            database.check_schema().unwrap();
            assert!(ran > 20 || ran == 0);
        }
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let database = Database::open_one(&format!("sqlite://{}", path.display())).unwrap();
        let run = |sql: &str| {
            use super::super::DbFault;
            database
                .read(|conn| Ok::<_, DbFault>(diesel::sql_query(sql).execute(conn)?))
                .unwrap();
        };
        run("DELETE FROM __diesel_schema_migrations \
             WHERE version = (SELECT MAX(version) FROM __diesel_schema_migrations)");
        let older = database.check_schema().unwrap_err().to_string();
        assert!(
            older.contains("run `sealyard migrate`") && older.contains("a.db"),
            "{older}"
        );
        run("INSERT INTO __diesel_schema_migrations (version) VALUES ('29991231000000')");
        let newer = database.check_schema().unwrap_err().to_string();
        assert!(
            newer.contains("29991231000000") && newer.contains("newer release"),
            "{newer}"
        );
        assert!(
            database
                .migrate()
                .unwrap_err()
                .to_string()
                .contains("newer release")
        );
    }
}
