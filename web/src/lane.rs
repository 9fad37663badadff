//! Threads and database connections reserved for machines and payment rails, which must not wait
//! behind visitors.

use std::{cell::Cell, sync::OnceLock};

use sealyard_core::store::{AnyConnection, Database, DbFault, DbResult, Retry, StoreError};
use tokio::runtime::{Builder, Runtime};

/// Number of threads, and of database connections.
const THREADS: usize = 4;
/// Niceness of the threads that work for visitors: they run when nothing in the lane needs the
/// processor.
const NICENESS: i32 = 10;

thread_local! {
    static ANSWERS_VISITORS: Cell<bool> = const { Cell::new(false) };
    static HAS_STEPPED_BACK: Cell<bool> = const { Cell::new(false) };
}

/// Marks this thread as one that answers visitors' requests.
pub fn answer_visitors() {
    ANSWERS_VISITORS.set(true);
}

/// True if this thread answers visitors' requests.
#[must_use]
pub fn answers_visitors() -> bool {
    ANSWERS_VISITORS.get()
}

/// Lowers this thread's priority, because it does long work for visitors: everything else goes
/// first. A thread may always lower its own priority.
pub fn step_back() {
    if !HAS_STEPPED_BACK.replace(true)
        && let Err(error) =
            rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS)
    {
        tracing::debug!(%error, "visitors' threads keep their priority");
    }
}

pub struct Lane {
    db: Database,
}

/// The process has one such runtime, because a runtime must not be dropped inside another one.
fn runtime() -> Result<&'static Runtime, StoreError> {
    static LANE: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let start = || {
        Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(THREADS)
            .thread_name("lane")
            .build()
    };
    LANE.get_or_init(start)
        .as_ref()
        .map_err(|error| StoreError::Busy(format!("no threads can be started: {error}")))
}

impl Lane {
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self {
            db: Database::open(url, u32::try_from(THREADS).unwrap_or(1))?,
        })
    }

    /// Runs short blocking work on the lane's threads instead of those that answer visitors.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = runtime()?.spawn_blocking(work).await;
        done.map_err(|error| StoreError::Busy(format!("the thread ended: {error}")))
    }

    pub async fn transact<T, E>(
        &self,
        work: impl FnMut(&mut AnyConnection) -> Result<T, E> + Send + 'static,
    ) -> Result<T, E>
    where
        T: Send + 'static,
        E: Retry + From<diesel::result::Error> + From<StoreError> + Send + 'static,
    {
        let db = self.db.clone();
        self.run(move || db.transact(work)).await?
    }

    /// [`Self::transact`] for work whose only errors are the database's.
    pub async fn write<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut AnyConnection) -> DbResult<T> + Send + 'static,
    ) -> Result<T, DbFault> {
        self.transact(move |conn| work(conn).map_err(DbFault::from))
            .await
    }

    pub async fn read<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut AnyConnection) -> DbResult<T> + Send + 'static,
    ) -> Result<T, DbFault> {
        let db = self.db.clone();
        self.run(move || db.read(|conn| work(conn).map_err(DbFault::from)))
            .await?
    }
}
