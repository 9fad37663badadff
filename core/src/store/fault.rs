//! Database errors, which every module can meet.

use super::StoreError;

/// The database failed. Nothing was changed, unless the connection was lost during the commit.
#[derive(Debug, thiserror::Error)]
pub enum DbFault {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("database: {0}")]
    Query(#[from] diesel::result::Error),
}

impl super::Retry for DbFault {
    fn database_error(&self) -> Option<&diesel::result::Error> {
        match self {
            Self::Query(error) => Some(error),
            Self::Store(_) => None,
        }
    }
}

/// Lets a module's error carry database faults in its variant `Db(DbFault)`.
#[macro_export]
macro_rules! carries_db_faults {
    ($error:ident) => {
        impl From<diesel::result::Error> for $error {
            fn from(error: diesel::result::Error) -> Self {
                Self::Db(error.into())
            }
        }

        impl From<$crate::store::StoreError> for $error {
            fn from(error: $crate::store::StoreError) -> Self {
                Self::Db(error.into())
            }
        }

        impl $crate::store::Retry for $error {
            fn database_error(&self) -> Option<&diesel::result::Error> {
                match self {
                    Self::Db(fault) => $crate::store::Retry::database_error(fault),
                    _ => None,
                }
            }
        }
    };
}

/// Like [`carries_db_faults`], and also carries the ledger's errors in the variant
/// `Ledger(LedgerError)`.
#[macro_export]
macro_rules! carries_ledger_errors {
    ($error:ident) => {
        $crate::carries_db_faults!($error);

        impl From<$crate::ledger::LedgerError> for $error {
            fn from(error: $crate::ledger::LedgerError) -> Self {
                match error {
                    $crate::ledger::LedgerError::Db(fault) => Self::Db(fault),
                    other => Self::Ledger(other),
                }
            }
        }
    };
}
