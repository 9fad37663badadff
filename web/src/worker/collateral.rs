//! How many sectors the miners' funds can pledge. Capacity that cannot be pledged is not sold.

use fvm_shared::bigint::BigInt;
use sealyard_core::{capacity, ledger, money::ATTO_PER_NANO};
use sealyard_filecoin::economics::{EPOCHS_PER_DAY, SOLSTICE, new_sector_power};

use super::{TurnResult, pipeline::miner_address, pools};
use crate::app::{Shared, read, write};

/// Percent of today's pledge that are set aside for a sector, because pledges change with the
/// network while it is sealed.
const RESERVE_PERCENT: u32 = 110;

/// Epochs within which a sector that is sold now becomes active: a PreCommit lives no longer. If
/// the rules change in that time, the pledge of the new ones is set aside (FIP-0118).
const LONGEST_SEALING: i64 = 30 * EPOCHS_PER_DAY + 150;

pub async fn turn(app: Shared) -> TurnResult {
    let head = app.node.chain_head().await?;
    let network = app.node.network_estimate(&head).await?;
    let now = app.node.network_version(&head.cids).await?;
    let params = app.node.network_params().await?;
    let version = params.version_by(now, head.height + LONGEST_SEALING);
    // Investors' withdrawable balances are not the operator's to pledge.
    let owed = BigInt::from(read(&app, ledger::owed_to_investors).await?) * ATTO_PER_NANO;
    for pool in pools(&app).await? {
        let bytes = u64::try_from(pool.sector_bytes)?;
        let power = new_sector_power(bytes, version);
        // The deposit is that of the greatest power a sector can have (FIP-0034). It is returned
        // before the pledge is taken.
        let greatest = new_sector_power(bytes, SOLSTICE);
        let most = network
            .initial_pledge(&power)
            .max(network.pre_commit_deposit(&greatest));
        let funds = app
            .node
            .available_balance(&miner_address(&pool)?, &head.cids)
            .await?;
        let each: BigInt = (most.atto() * RESERVE_PERCENT / 100u32).max(1.into());
        let sectors = i64::try_from((funds.atto() - &owed) / &each)
            .unwrap_or(i64::MAX)
            .max(0);
        let pledge =
            i64::try_from((each + (ATTO_PER_NANO - 1)) / ATTO_PER_NANO).unwrap_or(i64::MAX);
        if (pool.collateral_sectors, pool.pledge_nano) != (Some(sectors), Some(pledge)) {
            write(&app, move |conn| {
                capacity::set_collateral(conn, pool.id, sectors, pledge)
            })
            .await?;
        }
    }
    Ok(())
}
