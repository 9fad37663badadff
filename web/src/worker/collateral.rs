//! How many sectors the miners' funds can pledge: what cannot be pledged is not sold.

use fvm_shared::bigint::BigInt;
use sealyard_core::{capacity, ledger, money::ATTO_PER_NANO};

use super::{TurnResult, pipeline::miner_address, pools};
use crate::app::{Shared, read, write};

/// Hundredths of today's pledge that are set aside for a sector: pledges move with the network while it is sealed.
const CARE: u32 = 110;

pub async fn turn(app: Shared) -> TurnResult {
    let head = app.node.chain_head().await?;
    let network = app.node.network_estimate(&head).await?;
    // Investors' withdrawable balances are not the operator's to pledge.
    let owed = BigInt::from(read(&app, ledger::owed_to_investors).await?) * ATTO_PER_NANO;
    for pool in pools(&app).await? {
        let power = BigInt::from(pool.sector_bytes);
        // The deposit is returned before the pledge is taken.
        let most = network.initial_pledge(&power).max(network.pre_commit_deposit(&power));
        let funds = app.node.available_balance(&miner_address(&pool)?, &head.cids).await?;
        let each: BigInt = (most.atto() * CARE / 100u32).max(1.into());
        let sectors = i64::try_from((funds.atto() - &owed) / &each).unwrap_or(i64::MAX).max(0);
        let pledge = i64::try_from((each + (ATTO_PER_NANO - 1)) / ATTO_PER_NANO).unwrap_or(i64::MAX);
        if (pool.collateral_sectors, pool.pledge_nano) != (Some(sectors), Some(pledge)) {
            write(&app, move |conn| capacity::set_collateral(conn, pool.id, sectors, pledge)).await?;
        }
    }
    Ok(())
}
