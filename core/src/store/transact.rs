//! The one way to write: a closure in a transaction, run again after a conflict or a lost
//! connection.

use std::time::Duration;

use diesel::{
    connection::{AnsiTransactionManager, TransactionManager},
    result::Error,
};

use super::{AnyConnection, Database, DbFault, DbResult, StoreError, dialect};
use crate::on_conn;

/// An error that a transaction's closure may return. It tells whether running the closure again
/// makes sense.
pub trait Retry {
    fn database_error(&self) -> Option<&diesel::result::Error>;
}

impl Retry for diesel::result::Error {
    fn database_error(&self) -> Option<&diesel::result::Error> {
        Some(self)
    }
}

const TRIES: u32 = 12;
const FIRST_WAIT: Duration = Duration::from_millis(2);

/// How a transaction ended.
enum Ended<T, E> {
    Committed(T),
    /// Nothing of it is in the database.
    Undone(E),
    /// Nobody knows whether the commit took effect.
    Unknown(E),
}

impl Database {
    /// Runs `work` in one writing transaction, and commits it when `work` returns `Ok`. `work` must
    /// be re-runnable: no mail, no network, no state kept outside.
    pub fn transact<T, E>(
        &self,
        mut work: impl FnMut(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: Retry + From<diesel::result::Error> + From<StoreError>,
    {
        let mut wait = FIRST_WAIT;
        let mut is_dead = false;
        let mut tries = 1;
        loop {
            let mut connection = self.get()?;
            let error = match once(&mut connection, &mut work) {
                Ended::Committed(value) => return Ok(value),
                Ended::Unknown(error) => {
                    self.note(&error);
                    return Err(error);
                }
                Ended::Undone(error) => error,
            };
            let lost = self.note(&error);
            let again = lost && !is_dead
                || error.database_error().is_some_and(dialect::is_retryable) && tries < TRIES;
            if !again {
                return Err(error);
            }
            is_dead |= lost;
            tries += 1;
            // Return a dead connection, to be dropped, before taking another.
            drop(connection);
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_millis(250));
        }
    }

    /// [`Self::transact`] for work that can only fail as the database does.
    pub fn write<T>(
        &self,
        mut work: impl FnMut(&mut AnyConnection) -> DbResult<T>,
    ) -> Result<T, DbFault> {
        self.transact(|conn| work(conn).map_err(DbFault::from))
    }

    /// Reads without a transaction. Reads again, once, if the connection was dead.
    pub fn read<T, E>(
        &self,
        mut work: impl FnMut(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: Retry + From<StoreError>,
    {
        // Each attempt takes its own connection, so a dead one is returned before the next is
        // taken.
        let mut attempt = || -> Result<T, E> {
            let mut connection = self.get()?;
            work(&mut connection)
        };
        match attempt() {
            Err(error) if self.note(&error) => attempt(),
            other => other,
        }
    }

    /// Reads in one snapshot: everything is as of one moment, whatever is written meanwhile.
    pub fn read_at_once<T, E>(
        &self,
        work: impl FnOnce(&mut AnyConnection) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<diesel::result::Error> + From<StoreError>,
    {
        let mut connection = self.get()?;
        dialect::begin_snapshot(&mut connection)?;
        let result = work(&mut connection);
        on_conn!(&mut *connection, |c| {
            AnsiTransactionManager::rollback_transaction(c)
        })?;
        result
    }

    /// True when the connection is lost. Connections made before are then not used again.
    fn note<E: Retry>(&self, error: &E) -> bool {
        let lost = error
            .database_error()
            .is_some_and(dialect::is_connection_lost);
        if lost {
            self.begin_new_life();
        }
        lost
    }
}

fn once<T, E>(
    connection: &mut AnyConnection,
    work: &mut impl FnMut(&mut AnyConnection) -> Result<T, E>,
) -> Ended<T, E>
where
    E: Retry + From<Error>,
{
    if let Err(error) = dialect::begin(connection) {
        return Ended::Undone(error.into());
    }
    match work(connection) {
        Ok(value) => match on_conn!(&mut *connection, |c| {
            AnsiTransactionManager::commit_transaction(c)
        }) {
            Ok(()) => Ended::Committed(value),
            Err(error) if dialect::is_connection_lost(&error) => Ended::Unknown(error.into()),
            Err(error) => Ended::Undone(error.into()),
        },
        Err(error) => {
            // The first error is the one to report; a broken connection is dropped by the pool.
            let _ = on_conn!(&mut *connection, |c| {
                AnsiTransactionManager::rollback_transaction(c)
            });
            Ended::Undone(error)
        }
    }
}
