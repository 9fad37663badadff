//! Lets the devnet's time pass, and the server's clock with it, no faster than proofs and messages
//! arrive.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use sealyard_core::{
    clock::{Clock, SECOND, minute_text},
    ids::ContractId,
    orders,
    sealing::{self, MessageState, Sector, SectorState},
    units::ChainTime,
    yields,
};
use serde::Deserialize;
use serde_json::json;

use super::chain_clock::ChainClock;
use crate::app::{Shared, read};

/// Sealing two sectors takes minutes of real computation on a small machine.
const SEALING_PATIENCE: Duration = Duration::from_secs(1200);
const MONTH_PATIENCE: Duration = Duration::from_secs(1200);
const PAUSE: Duration = Duration::from_millis(30);
/// Epochs of one step, an hour.
const STRIDE: i64 = 120;
/// Enough behind the month's end for its last epochs to be final and read.
const MARGIN: i64 = 200;
/// States in which a sector waits for a machine's computation. If chain time passed meanwhile, its
/// ticket would only get older.
const COMPUTING: [SectorState; 5] = [
    SectorState::PreCommit1,
    SectorState::PreCommit2,
    SectorState::Commit1,
    SectorState::Commit2,
    SectorState::Verifying,
];

pub struct Driver {
    pub app: Shared,
    /// `None`: the server runs by another clock.
    pub clock: Option<Arc<ChainClock>>,
    pub time: ChainTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stepped {
    height: i64,
    stopped: String,
}

impl Driver {
    pub async fn new(app: Shared, clock: Option<Arc<ChainClock>>) -> anyhow::Result<Self> {
        let time = chain_time(&app).await?;
        Ok(Self { app, clock, time })
    }

    async fn sectors(&self, contract: ContractId) -> anyhow::Result<Vec<Sector>> {
        Ok(read(&self.app, move |conn| sealing::of_contract(conn, contract)).await?)
    }

    /// True while a message waits to be included.
    async fn message_waits(&self) -> anyhow::Result<bool> {
        Ok(read(&self.app, |conn| {
            Ok(!sealing::messages_in_state(conn, MessageState::Pushed)?.is_empty())
        })
        .await?)
    }

    pub async fn head(&self) -> anyhow::Result<i64> {
        Ok(self.app.node.chain_head().await?.height)
    }

    async fn step(&self, epochs: i64) -> anyhow::Result<Stepped> {
        let stepped: Stepped = self
            .app
            .node
            .call("Devnet.Step", json!([{"Epochs": epochs}]))
            .await?;
        if let Some(clock) = &self.clock {
            clock.reach(self.time.micros(stepped.height));
        }
        Ok(stepped)
    }

    /// Lets the chain catch up with the server's clock, which runs on while machines compute.
    async fn catch_up(&self) -> anyhow::Result<()> {
        let Some(clock) = &self.clock else {
            return Ok(());
        };
        let behind = (clock.now() - self.time.micros(self.head().await?))
            / (self.time.epoch_seconds * SECOND);
        if behind > 0 {
            self.step(behind).await?;
        }
        Ok(())
    }

    /// Lets the time pass that the messages and seeds of these sectors need. False if none of them
    /// waits for the chain.
    async fn pass_for(&self, sectors: &[Sector]) -> anyhow::Result<bool> {
        let head = self.head().await?;
        let seed = sectors
            .iter()
            .filter(|s| s.state == SectorState::WaitSeed)
            .filter_map(|s| s.seed_epoch)
            .max();
        if self.message_waits().await? || head == 0 {
            self.step(1).await?;
        } else if let Some(seed) = seed.filter(|seed| *seed >= head) {
            self.step(seed + 1 - head).await?;
        } else {
            self.catch_up().await?;
            return Ok(false);
        }
        Ok(true)
    }

    /// Waits until every sector is activated. Time passes only for messages and seeds.
    pub async fn until_on_chain(&self, contract: ContractId) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let sectors = self.sectors(contract).await?;
            if let Some(stuck) = sectors.iter().find(|s| s.state == SectorState::Quarantined) {
                anyhow::bail!(
                    "sector {} is quarantined: {}",
                    stuck.number,
                    stuck.reason.clone().unwrap_or_default()
                );
            }
            if sectors
                .iter()
                .all(|s| matches!(s.state, SectorState::Proving | SectorState::Active))
            {
                return Ok(());
            }
            self.pass_for(&sectors).await?;
            anyhow::ensure!(
                started.elapsed() < SEALING_PATIENCE,
                "sealing took longer than {} s",
                SEALING_PATIENCE.as_secs()
            );
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Lets time pass until the network counts every sector.
    pub async fn until_active(&self, contract: ContractId) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self
            .sectors(contract)
            .await?
            .iter()
            .all(|s| s.state == SectorState::Active)
        {
            if self.step(STRIDE).await?.stopped == "proof-due" {
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::ensure!(
                started.elapsed() < SEALING_PATIENCE,
                "no power within {} s",
                SEALING_PATIENCE.as_secs()
            );
        }
        Ok(())
    }

    /// Lets time pass until the chain has reached an epoch.
    pub async fn until_epoch(&self, epoch: i64) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let left = epoch - self.head().await?;
            if left <= 0 {
                return Ok(());
            }
            if self.step(left.min(STRIDE)).await?.stopped == "proof-due" {
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::ensure!(
                started.elapsed() < SEALING_PATIENCE,
                "epoch {epoch} was not reached within {} s",
                SEALING_PATIENCE.as_secs()
            );
        }
    }

    /// The day on which the last sector was activated.
    pub async fn first_power_day(&self, contract: ContractId) -> anyhow::Result<i64> {
        let sectors = self.sectors(contract).await?;
        let last = sectors
            .iter()
            .filter_map(|s| s.activation)
            .max()
            .context("no sector is on chain")?;
        Ok(self.time.day(last))
    }

    /// Lets time pass until the day before `end_day` is closed.
    pub async fn until_month_closed(
        &self,
        contract: ContractId,
        end_day: i64,
    ) -> anyhow::Result<()> {
        let waits = self
            .app
            .config
            .finality
            .max(yields::CHAIN_UNLOCKS_WITHIN / self.time.epoch_seconds);
        let target = self.time.first_epoch(end_day) + waits + MARGIN;
        let started = Instant::now();
        loop {
            let pool = self
                .sectors(contract)
                .await?
                .first()
                .context("no sector")?
                .pool_id;
            let closed = read(&self.app, move |conn| yields::days(conn, pool, 1)).await?;
            if closed.first().is_some_and(|day| day.day >= end_day - 1) {
                return Ok(());
            }
            let left = target - self.head().await?;
            if left <= 0 || self.step(left.min(STRIDE)).await?.stopped == "proof-due" {
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::ensure!(
                started.elapsed() < MONTH_PATIENCE,
                "the month took longer than {} s",
                MONTH_PATIENCE.as_secs()
            );
        }
    }

    /// Lets time pass for ever, an hour of chain time in every `pause`. It stands still while
    /// machines compute and while an order waits for its payment.
    pub async fn go_on(&self, pause: Duration) {
        let mut last = None;
        loop {
            match self.go_on_once().await {
                Ok(fast) => {
                    last = None;
                    tokio::time::sleep(if fast { PAUSE } else { pause }).await;
                }
                Err(error) => {
                    let text = format!("{error:#}");
                    if last.as_ref() != Some(&text) {
                        tracing::warn!(error = text, "the demo's time stands still");
                    }
                    last = Some(text);
                    tokio::time::sleep(pause).await;
                }
            }
        }
    }

    /// Takes one step. True if the next should follow at once.
    async fn go_on_once(&self) -> anyhow::Result<bool> {
        let now = self.app.now();
        let (sectors, unpaid) = read(&self.app, move |conn| {
            let states: Vec<SectorState> = SectorState::ALL
                .into_iter()
                .filter(|s| s.is_sealing())
                .collect();
            Ok((
                sealing::in_states(conn, &states)?,
                orders::placed(conn, now)?.len(),
            ))
        })
        .await?;
        if self.pass_for(&sectors).await? {
            return Ok(true);
        }
        if unpaid > 0 || sectors.iter().any(|s| COMPUTING.contains(&s.state)) {
            return Ok(false);
        }
        let stepped = self.step(STRIDE).await?;
        tracing::debug!(
            head = minute_text(self.time.micros(stepped.height)),
            stopped = stepped.stopped,
            "time passes"
        );
        Ok(stepped.stopped == "proof-due")
    }
}

async fn chain_time(app: &Shared) -> anyhow::Result<ChainTime> {
    let genesis = app.node.genesis().await?;
    let genesis_at = genesis
        .blocks
        .first()
        .context("genesis has no block")?
        .timestamp;
    Ok(ChainTime {
        genesis_at,
        epoch_seconds: app.node.network_params().await?.block_delay_secs,
    })
}
