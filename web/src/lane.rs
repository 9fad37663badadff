//! Threads and database connections of their own for those who must not wait behind visitors: machines and payment rails.

use std::{cell::Cell, sync::OnceLock};

use sealyard_core::store::{AnyConnection, Database, DbFault, Retry, StoreError};
use tokio::runtime::{Builder, Runtime};

/// Threads, and as many connections.
const THREADS: usize = 4;
/// Of the threads that work for visitors: they get a processor when nobody else in the lane wants it.
const NICENESS: i32 = 10;

thread_local! {
    static ANSWERS_VISITORS: Cell<bool> = const { Cell::new(false) };
    static HAS_STEPPED_BACK: Cell<bool> = const { Cell::new(false) };
}

/// From now on this thread takes visitors' requests.
pub fn answer_visitors() {
    ANSWERS_VISITORS.set(true);
}

/// Whether this thread takes visitors' requests.
#[must_use]
pub fn answers_visitors() -> bool {
    ANSWERS_VISITORS.get()
}

/// This thread does long work for visitors: whatever else wants a processor goes first. A thread can always lower its own priority.
pub fn step_back() {
    if !HAS_STEPPED_BACK.replace(true)
        && let Err(error) = rustix::process::setpriority_process(Some(rustix::thread::gettid()), NICENESS)
    {
        tracing::debug!(%error, "visitors' threads keep their priority");
    }
}

pub struct Lane {
    db: Database,
}

/// One for the process: a runtime must not end inside another one.
fn runtime() -> Result<&'static Runtime, StoreError> {
    static LANE: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let start = || Builder::new_multi_thread().worker_threads(1).max_blocking_threads(THREADS).thread_name("lane").build();
    LANE.get_or_init(start).as_ref().map_err(|error| StoreError::Busy(format!("no threads can be started: {error}")))
}

impl Lane {
    pub fn open(url: &str) -> Result<Self, StoreError> {
        Ok(Self { db: Database::open(url, u32::try_from(THREADS).unwrap_or(1))? })
    }

    /// Runs what takes a moment off the threads that answer visitors.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
        let done = runtime()?.spawn_blocking(work).await;
        done.map_err(|error| StoreError::Busy(format!("the thread ended: {error}")))
    }

    pub async fn transact<T, E>(&self, work: impl FnMut(&mut AnyConnection) -> Result<T, E> + Send + 'static) -> Result<T, E>
    where
        T: Send + 'static,
        E: Retry + From<diesel::result::Error> + From<StoreError> + Send + 'static,
    {
        let db = self.db.clone();
        self.run(move || db.transact(work)).await?
    }

    /// [`Self::transact`] for work that can only fail as the database does.
    pub async fn write<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut AnyConnection) -> Result<T, diesel::result::Error> + Send + 'static,
    ) -> Result<T, DbFault> {
        self.transact(move |conn| work(conn).map_err(DbFault::from)).await
    }

    pub async fn read<T: Send + 'static>(
        &self,
        mut work: impl FnMut(&mut AnyConnection) -> Result<T, diesel::result::Error> + Send + 'static,
    ) -> Result<T, DbFault> {
        let db = self.db.clone();
        self.run(move || db.read(|conn| work(conn).map_err(DbFault::from))).await?
    }
}
