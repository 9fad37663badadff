//! One way to write: a closure in one transaction, run again when the database asks for it.

use std::time::Duration;

use diesel::connection::{AnsiTransactionManager, TransactionManager};

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

impl Database {
    /// Runs `work` in one writing transaction and commits when it returns `Ok`. It must be re-runnable: no mail, no network, no
    /// state kept outside.
    pub fn transact<T, E>(&self, mut work: impl FnMut(&mut AnyConnection) -> Result<T, E>) -> Result<T, E>
    where
        E: Retry + From<diesel::result::Error> + From<StoreError>,
    {
        let mut connection = self.get()?;
        let mut wait = FIRST_WAIT;
        for _ in 1..TRIES {
            match once(&mut connection, &mut work) {
                Err(error) if error.database_error().is_some_and(dialect::is_retryable) => std::thread::sleep(wait),
                other => return other,
            }
            wait = (wait * 2).min(Duration::from_millis(250));
        }
        once(&mut connection, &mut work)
    }

    /// Reads without a transaction of its own.
    pub fn read<T, E>(&self, work: impl FnOnce(&mut AnyConnection) -> Result<T, E>) -> Result<T, E>
    where
        E: From<StoreError>,
    {
        work(&mut *self.get()?)
    }
}

fn once<T, E>(connection: &mut AnyConnection, work: &mut impl FnMut(&mut AnyConnection) -> Result<T, E>) -> Result<T, E>
where
    E: Retry + From<diesel::result::Error>,
{
    dialect::begin(connection)?;
    match work(connection) {
        Ok(value) => {
            on_conn!(&mut *connection, |c| AnsiTransactionManager::commit_transaction(c))?;
            Ok(value)
        }
        Err(error) => {
            // The first error is the one to report; a broken connection is dropped by the pool.
            let _ = on_conn!(&mut *connection, |c| AnsiTransactionManager::rollback_transaction(c));
            Err(error)
        }
    }
}
