//! Lets the devnet's time pass, no faster than proofs and messages come in.

use std::time::{Duration, Instant};

use anyhow::Context;
use sealyard_core::{
    ids::ContractId,
    sealing::{self, MessageState, Sector, SectorState},
    units::ChainTime,
    yields,
};
use serde::Deserialize;
use serde_json::json;

use crate::app::{Shared, read};

/// Sealing two sectors takes minutes of real computation on a small machine.
const SEALING_PATIENCE: Duration = Duration::from_secs(1200);
const MONTH_PATIENCE: Duration = Duration::from_secs(1200);
const PAUSE: Duration = Duration::from_millis(30);
/// Epochs of one step: an hour.
const STRIDE: i64 = 120;
/// Enough behind the month's end for its last epochs to be final and read.
const MARGIN: i64 = 200;

pub struct Driver {
    pub app: Shared,
    pub contract: ContractId,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Stepped {
    stopped: String,
}

impl Driver {
    async fn sectors(&self) -> anyhow::Result<Vec<Sector>> {
        let contract = self.contract;
        Ok(read(&self.app, move |conn| sealing::of_contract(conn, contract)).await?)
    }

    /// True while a message waits to be included.
    async fn message_waits(&self) -> anyhow::Result<bool> {
        Ok(read(&self.app, |conn| Ok(!sealing::messages_in_state(conn, MessageState::Pushed)?.is_empty())).await?)
    }

    async fn head(&self) -> anyhow::Result<i64> {
        Ok(self.app.node.chain_head().await?.height)
    }

    async fn step(&self, epochs: i64) -> anyhow::Result<Stepped> {
        Ok(self.app.node.call("Devnet.Step", json!([{"Epochs": epochs}])).await?)
    }

    /// Until every sector is activated: time passes only for messages and seeds.
    pub async fn until_on_chain(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        loop {
            let sectors = self.sectors().await?;
            if let Some(stuck) = sectors.iter().find(|s| s.state() == SectorState::Quarantined) {
                anyhow::bail!("sector {} is quarantined: {}", stuck.number, stuck.reason.clone().unwrap_or_default());
            }
            if sectors.iter().all(|s| matches!(s.state(), SectorState::Proving | SectorState::Active)) {
                return Ok(());
            }
            let head = self.head().await?;
            let seed = sectors.iter().filter(|s| s.state() == SectorState::WaitSeed).filter_map(|s| s.seed_epoch).max();
            if self.message_waits().await? || head == 0 {
                self.step(1).await?;
            } else if let Some(seed) = seed.filter(|seed| *seed >= head) {
                self.step(seed + 1 - head).await?;
            }
            anyhow::ensure!(started.elapsed() < SEALING_PATIENCE, "sealing took longer than {} s", SEALING_PATIENCE.as_secs());
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Until the network counts every sector.
    pub async fn until_active(&self) -> anyhow::Result<()> {
        let started = Instant::now();
        while !self.sectors().await?.iter().all(|s| s.state() == SectorState::Active) {
            if self.step(STRIDE).await?.stopped == "proof-due" {
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::ensure!(started.elapsed() < SEALING_PATIENCE, "no power within {} s", SEALING_PATIENCE.as_secs());
        }
        Ok(())
    }

    pub async fn chain_time(&self) -> anyhow::Result<ChainTime> {
        let genesis = self.app.node.genesis().await?;
        let genesis_at = genesis.blocks.first().context("genesis has no block")?.timestamp;
        Ok(ChainTime { genesis_at, epoch_seconds: self.app.node.network_params().await?.block_delay_secs })
    }

    /// The day in which the last sector was activated.
    pub async fn first_power_day(&self, time: ChainTime) -> anyhow::Result<i64> {
        let last = self.sectors().await?.iter().filter_map(|s| s.activation).max().context("no sector is on chain")?;
        Ok(time.day(last))
    }

    /// Until the day before `end_day` is closed.
    pub async fn until_month_closed(&self, end_day: i64) -> anyhow::Result<()> {
        let time = self.chain_time().await?;
        let waits = self.app.config.finality.max(yields::CHAIN_UNLOCKS_WITHIN / time.epoch_seconds);
        let target = time.first_epoch(end_day) + waits + MARGIN;
        let started = Instant::now();
        loop {
            let pool = self.sectors().await?.first().context("no sector")?.pool_id;
            let closed = read(&self.app, move |conn| yields::days(conn, pool, 1)).await?;
            if closed.first().is_some_and(|day| day.day >= end_day - 1) {
                return Ok(());
            }
            let left = target - self.head().await?;
            if left <= 0 || self.step(left.min(STRIDE)).await?.stopped == "proof-due" {
                tokio::time::sleep(PAUSE).await;
            }
            anyhow::ensure!(started.elapsed() < MONTH_PATIENCE, "the month took longer than {} s", MONTH_PATIENCE.as_secs());
        }
    }
}
