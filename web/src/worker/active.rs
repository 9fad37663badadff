//! The sectors of a miner that count.

use std::collections::BTreeSet;

use fvm_shared::{address::Address, bigint::BigInt};
use sealyard_filecoin::rpc::{Claim, TipSetKey};

use super::chain_fees::MOST_SECTORS;
use crate::app::App;

/// Numbers of the sectors that count at a tipset, and the power that the miner claims there. One call lists those of a small miner; of
/// a large one that list would be gigabytes, and the partitions' bitfields are read instead.
pub async fn active_numbers(
    app: &App,
    (miner, sector_bytes): (&Address, i64),
    tsk: &TipSetKey,
) -> anyhow::Result<(BTreeSet<u64>, Claim)> {
    let claim = app.node.miner_power(miner, tsk).await?.miner_power;
    let is_large = claim.raw_byte_power > BigInt::from(sector_bytes) * app.config.large_miner_sectors;
    let numbers = if is_large {
        app.node.active_numbers(miner, tsk, MOST_SECTORS).await?
    } else {
        app.node.active_sectors(miner, tsk).await?.into_iter().map(|sector| sector.sector_number).collect()
    };
    Ok((numbers, claim))
}
