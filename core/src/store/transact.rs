//! One way to write: a closure in one transaction, run again when the database asks for it, or was away.

use std::time::Duration;

use diesel::{
    connection::{AnsiTransactionManager, TransactionManager},
    result::Error,
};

use super::{AnyConnection, Database, StoreError, dialect};
use crate::on_conn;

/// Errors that a transaction's closure may return: they tell whether running it again makes sense.
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

/// How far a transaction came.
enum Ended<T, E> {
    Committed(T),
    /// Nothing of it is in the database.
    Undone(E),
    /// Nobody knows whether the commit took effect.
    Unknown(E),
}

impl Database {
    /// Runs `work` in one writing transaction and commits when it returns `Ok`. It must be re-runnable: no mail, no network, no
    /// state kept outside.
    pub fn transact<T, E>(&self, mut work: impl FnMut(&mut AnyConnection) -> Result<T, E>) -> Result<T, E>
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
            let again = lost && !is_dead || error.database_error().is_some_and(dialect::is_retryable) && tries < TRIES;
            if !again {
                return Err(error);
            }
            is_dead |= lost;
            tries += 1;
            // A connection that is dead goes back to be dropped before another one is taken.
            drop(connection);
            std::thread::sleep(wait);
            wait = (wait * 2).min(Duration::from_millis(250));
        }
    }

    /// Reads without a transaction of its own. A read whose connection was dead is done again.
    pub fn read<T, E>(&self, mut work: impl FnMut(&mut AnyConnection) -> Result<T, E>) -> Result<T, E>
    where
        E: Retry + From<StoreError>,
    {
        // Each attempt has its own connection: the dead one goes back before another is taken.
        let mut attempt = || -> Result<T, E> {
            let mut connection = self.get()?;
            work(&mut connection)
        };
        match attempt() {
            Err(error) if self.note(&error) => attempt(),
            other => other,
        }
    }

    /// Reads in one snapshot: all that is read was there at one moment, whatever is written meanwhile.
    pub fn read_at_once<T, E>(&self, work: impl FnOnce(&mut AnyConnection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<diesel::result::Error> + From<StoreError>,
    {
        let mut connection = self.get()?;
        dialect::begin_snapshot(&mut connection)?;
        let result = work(&mut connection);
        on_conn!(&mut *connection, |c| AnsiTransactionManager::rollback_transaction(c))?;
        result
    }

    /// True when the connection is lost: none that was made before is used again.
    fn note<E: Retry>(&self, error: &E) -> bool {
        let lost = error.database_error().is_some_and(dialect::is_connection_lost);
        if lost {
            self.begin_new_life();
        }
        lost
    }
}

fn once<T, E>(connection: &mut AnyConnection, work: &mut impl FnMut(&mut AnyConnection) -> Result<T, E>) -> Ended<T, E>
where
    E: Retry + From<Error>,
{
    if let Err(error) = dialect::begin(connection) {
        return Ended::Undone(error.into());
    }
    match work(connection) {
        Ok(value) => match on_conn!(&mut *connection, |c| AnsiTransactionManager::commit_transaction(c)) {
            Ok(()) => Ended::Committed(value),
            Err(error) if dialect::is_connection_lost(&error) => Ended::Unknown(error.into()),
            Err(error) => Ended::Undone(error.into()),
        },
        Err(error) => {
            // The first error is the one to report; a broken connection is dropped by the pool.
            let _ = on_conn!(&mut *connection, |c| AnsiTransactionManager::rollback_transaction(c));
            Ended::Undone(error)
        }
    }
}
