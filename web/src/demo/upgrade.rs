//! The story across network version 29: beside a contract from before it, one that is bought on the
//! day before and sealed after the change, and one that is bought after it.

use anyhow::{Context, ensure};
use sealyard_core::{contracts::Contract, sealing, store::AnyConnection, store::DbResult, yields};
use sealyard_filecoin::economics::{EPOCHS_PER_DAY, SOLSTICE};

use super::{
    clock_driver::Driver,
    purchase::Buyer,
    story::{Check, Story},
};

/// Contracts by their side of the change.
pub struct Across {
    old: Contract,
    bought_before: Contract,
    new: Contract,
}

pub async fn live_through(
    story: &Story,
    driver: &Driver,
    buyer: &Buyer,
    old: &Contract,
) -> anyhow::Result<Across> {
    let last_old = driver.head().await? + EPOCHS_PER_DAY;
    driver.upgrade_after(last_old).await?;
    story.say(&format!(
        "network version {SOLSTICE} begins a day from now, after epoch {last_old}"
    ));
    let purchase = buyer.buy_another(&driver.app, 1);
    let bought_before = story.step("Purchase on the day before", purchase).await?;
    story
        .step(
            "The network changes its rules",
            driver.until_epoch(last_old + 1),
        )
        .await?;
    let head = driver.app.node.chain_head().await?;
    let version = driver.app.node.network_version(&head.cids).await?;
    ensure!(version == SOLSTICE, "the network is on version {version}");
    seal(story, driver, &bought_before).await?;
    let purchase = buyer.buy_another(&driver.app, 1);
    let new = story.step("Purchase after the change", purchase).await?;
    seal(story, driver, &new).await?;
    Ok(Across {
        old: old.clone(),
        bought_before,
        new,
    })
}

async fn seal(story: &Story, driver: &Driver, contract: &Contract) -> anyhow::Result<()> {
    let sealing = async {
        driver.until_on_chain(contract.id).await?;
        driver.until_active(contract.id).await
    };
    story
        .step("Sealing, activation, first WindowPoSt", sealing)
        .await
}

impl Across {
    pub fn checks(&self, conn: &mut AnyConnection) -> DbResult<Vec<Check>> {
        let [old, before, new] = [&self.old, &self.bought_before, &self.new];
        let times = |conn: &mut AnyConnection, contract: &Contract| {
            let sectors = sealing::of_contract(conn, contract.id)?;
            let numbers: Vec<i64> = sectors.iter().map(|sector| sector.number).collect();
            let power = yields::power_counting(conn, contract.pool_id, &numbers)?;
            Ok::<_, diesel::result::Error>((power, i128::from(contract.bytes)))
        };
        let earned = |conn: &mut AnyConnection, contract: &Contract| {
            let days = sealyard_core::ledger::lots_of_contract(conn, contract.id, 0..i64::MAX, 1)?;
            Ok::<_, diesel::result::Error>(days.first().map_or(0, |lot| lot.gross_nano))
        };
        let (old_power, old_bytes) = times(conn, old)?;
        let (before_power, before_bytes) = times(conn, before)?;
        let (new_power, new_bytes) = times(conn, new)?;
        let per_byte =
            |nano: i64, contract: &Contract| i128::from(nano) * i128::from(contract.bytes);
        let (old_nano, new_nano) = (earned(conn, old)?, earned(conn, new)?);
        // Both amounts are rounded to a nanoFIL, so ten times one may miss the other by ten.
        let difference = 10 * per_byte(old_nano, new) - per_byte(new_nano, old);
        let cursor = yields::cursor(conn, old.pool_id)?;
        Ok(vec![
            Check(
                "a contract sealed before version 29 counts its bytes once",
                old_power == old_bytes,
            ),
            Check(
                "contracts sealed after it count their bytes ten times, whenever they were bought",
                before_power == 10 * before_bytes && new_power == 10 * new_bytes && new_bytes > 0,
            ),
            Check(
                "on the last closed day, new contracts earn ten times as much per byte as old ones",
                new_nano > 0 && difference.abs() <= 10 * i128::from(old.bytes + new.bytes),
            ),
            Check(
                "the books know since when new sectors count ten times",
                cursor.is_some_and(|cursor| cursor.full_quality_after.is_some()),
            ),
        ])
    }
}

impl Driver {
    async fn upgrade_after(&self, epoch: i64) -> anyhow::Result<()> {
        let planned: Option<i64> = self
            .app
            .node
            .call("Devnet.Upgrade", serde_json::json!([epoch]))
            .await?;
        planned
            .context("the network did not plan its upgrade")
            .map(drop)
    }
}
