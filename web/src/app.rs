//! State that every request and every worker loop shares.

use std::sync::{Arc, Mutex, OnceLock};

use sealyard_core::{
    clock::{Clock, Micros, SystemClock},
    store::{AnyConnection, Database, DbFault, Retry, StoreError},
};
use sealyard_filecoin::{
    economics::EPOCH_SECONDS,
    rpc::{Endpoint, Node, NodeConfig, RpcError, TipSetKey},
};

use tokio::sync::Semaphore;

use crate::{
    agent_api,
    config::Config,
    lane::{self, Lane},
    rails::stripe::Stripe,
    worker::{DeadlineCache, Followed, WinnersShares},
};

pub struct App {
    pub config: Config,
    pub db: Database,
    pub clock: Arc<dyn Clock>,
    pub node: Node,
    /// `None`: no payment rail is configured.
    pub stripe: Option<Stripe>,
    /// For machines and payment rails.
    pub lane: Lane,
    /// Turns to read a large body.
    pub large_bodies: Semaphore,
    /// The head of the chain that provisional facts were read from last.
    pub seen_head: Mutex<Option<(i64, TipSetKey)>>,
    /// Deadlines of miners as they were read last.
    pub deadlines: DeadlineCache,
    pub followed: Followed,
    pub winners_shares: WinnersShares,
    epoch_seconds: OnceLock<i64>,
}

pub type Shared = Arc<App>;

#[derive(Debug, thiserror::Error)]
pub enum AppError {
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Node(#[from] RpcError),
    #[error("HTTP client: {0}")]
    Http(String),
}

impl App {
    pub fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Shared, AppError> {
        config.check()?;
        let db = Database::open(&config.database_url, config.database_connections)?;
        let node = Node::new(NodeConfig {
            first: Endpoint {
                url: config.node_url.clone(),
                token: config.node_token.clone(),
            },
            fallbacks: config
                .fallback_nodes
                .iter()
                .map(|text| Endpoint::parse(text))
                .collect(),
            timeout: std::time::Duration::from_secs(config.node_timeout_s),
            backoff: NodeConfig::BACKOFF,
        })?;
        let stripe = (!config.stripe_secret_key.is_empty())
            .then(|| Stripe::new(&config.stripe_api, &config.stripe_secret_key))
            .transpose()
            .map_err(|error| AppError::Http(error.to_string()))?;
        let lane = Lane::open(&config.database_url)?;
        Ok(Arc::new(Self {
            lane,
            large_bodies: Semaphore::new(agent_api::AT_ONCE),
            config,
            db,
            clock,
            node,
            stripe,
            seen_head: Mutex::default(),
            deadlines: DeadlineCache::default(),
            followed: Followed::default(),
            winners_shares: WinnersShares::default(),
            epoch_seconds: OnceLock::new(),
        }))
    }

    /// Seconds of an epoch, as the node says; until it has, as on the main network.
    pub async fn epoch_seconds(&self) -> i64 {
        if let Some(known) = self.epoch_seconds.get() {
            return *known;
        }
        match self.node.network_params().await {
            Ok(params) => *self
                .epoch_seconds
                .get_or_init(|| params.block_delay_secs.max(1)),
            Err(_) => EPOCH_SECONDS,
        }
    }

    #[must_use]
    pub fn now(&self) -> Micros {
        self.clock.now()
    }

    /// The time of those outside, who know nothing of this installation's clock.
    #[must_use]
    pub fn outside_now(&self) -> Micros {
        SystemClock.now()
    }
}

/// Runs a transaction off the async threads.
pub async fn transact<T, E>(
    app: &Shared,
    work: impl FnMut(&mut AnyConnection) -> Result<T, E> + Send + 'static,
) -> Result<T, E>
where
    T: Send + 'static,
    E: Retry + From<diesel::result::Error> + From<StoreError> + Send + 'static,
{
    let db = app.db.clone();
    blocking(move || db.transact(work)).await
}

/// [`transact`] for work that can only fail as the database does.
pub async fn write<T: Send + 'static>(
    app: &Shared,
    mut work: impl FnMut(&mut AnyConnection) -> Result<T, diesel::result::Error> + Send + 'static,
) -> Result<T, DbFault> {
    transact(app, move |conn| work(conn).map_err(DbFault::from)).await
}

/// Reads off the async threads.
pub async fn read<T>(
    app: &Shared,
    mut work: impl FnMut(&mut AnyConnection) -> Result<T, diesel::result::Error> + Send + 'static,
) -> Result<T, DbFault>
where
    T: Send + 'static,
{
    let db = app.db.clone();
    blocking(move || db.read(|conn| work(conn).map_err(DbFault::from))).await
}

/// Runs what takes long off the async threads.
pub async fn blocking<T: Send + 'static, E: From<StoreError> + Send + 'static>(
    work: impl FnOnce() -> Result<T, E> + Send + 'static,
) -> Result<T, E> {
    let is_visitors = lane::answers_visitors();
    let work = move || {
        if is_visitors {
            lane::step_back();
        }
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Busy(format!("the database thread ended: {error}")).into()),
    }
}
