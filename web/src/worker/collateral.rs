//! How many sectors the miners' funds can pledge. Capacity that cannot be pledged is not sold.

use fvm_shared::bigint::BigInt;
use sealyard_core::{capacity, ledger, money::ATTO_PER_NANO};
use sealyard_filecoin::economics::{EPOCHS_PER_DAY, NetworkEstimate, SOLSTICE, new_sector_power};

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
        let (pledge, each) = each_sector(&network, u64::try_from(pool.sector_bytes)?, version);
        let funds = app
            .node
            .available_balance(&miner_address(&pool)?, &head.cids)
            .await?;
        let sectors = i64::try_from((funds.atto() - &owed) / &each)
            .unwrap_or(i64::MAX)
            .max(0);
        let pledge =
            i64::try_from((pledge + (ATTO_PER_NANO - 1)) / ATTO_PER_NANO).unwrap_or(i64::MAX);
        if (pool.collateral_sectors, pool.pledge_nano) != (Some(sectors), Some(pledge)) {
            write(&app, move |conn| {
                capacity::set_collateral(conn, pool.id, sectors, pledge)
            })
            .await?;
        }
    }
    Ok(())
}

/// Of a sector of `bytes` that becomes active under a network version: its pledge, and what must be
/// free before it is sealed. attoFIL, with the reserve.
fn each_sector(network: &NetworkEstimate, bytes: u64, version: u32) -> (BigInt, BigInt) {
    let pledge = network.initial_pledge(&new_sector_power(bytes, version));
    // The deposit is that of the greatest power a sector can have (FIP-0034). It is the operator's,
    // and is returned before the pledge is taken.
    let deposit = network.pre_commit_deposit(&new_sector_power(bytes, SOLSTICE));
    let reserved = |amount: &BigInt| (amount * RESERVE_PERCENT / 100u32).max(1.into());
    let pledge = reserved(pledge.atto());
    let deposit = reserved(deposit.atto());
    (pledge.clone(), pledge.max(deposit))
}

#[cfg(test)]
mod tests {
    use fvm_shared::econ::TokenAmount;
    use sealyard_filecoin::{economics::FilterEstimate, rpc::NetworkParams};

    use super::*;

    /// The network of `filecoin.md` 4.9 in the shared facts.
    fn network() -> NetworkEstimate {
        let constant = |value: BigInt| FilterEstimate {
            position: value << 128,
            velocity: BigInt::from(0),
        };
        NetworkEstimate {
            reward: constant(BigInt::from(19) * BigInt::from(10u64.pow(18))),
            power: constant(BigInt::from(14_760u64) << 50),
            baseline: BigInt::from(131u64) << 60,
            circulating: TokenAmount::from_whole(680_000_000),
            ramp_start: 0,
            ramp_epochs: 1_051_200,
            epoch: 1_600_000,
        }
    }

    #[test]
    fn a_sector_after_version_29_needs_ten_times_the_funds() {
        let expected: [(u32, i64); 2] = [
            (28, 177_414_459_970_005_837),
            (29, 1_774_144_599_700_058_400),
        ];
        for (version, attofil) in expected {
            let (pledge, free) = each_sector(&network(), 32 << 30, version);
            assert_eq!(
                pledge,
                BigInt::from(attofil),
                "0.1613 or 1.6129 FIL, and a tenth"
            );
            assert_eq!(free, pledge, "the deposit is smaller");
        }
    }

    #[test]
    fn an_investor_pledges_no_deposit() {
        // On a small network the deposit, of 20 days' reward, is the larger.
        let small = NetworkEstimate {
            power: FilterEstimate {
                position: BigInt::from(10u64 << 20) << 128,
                velocity: BigInt::from(0),
            },
            ..network()
        };
        let (pledge, free) = each_sector(&small, 2048, 28);
        assert!(free > pledge, "{free} {pledge}");
    }

    #[test]
    fn an_announced_change_counts_from_thirty_days_before_it() {
        let params = |height: Option<i64>| -> NetworkParams {
            let upgrades = match height {
                Some(height) => serde_json::json!({ "UpgradeSolsticeHeight": height }),
                None => serde_json::json!({}),
            };
            let params = serde_json::json!({
                "NetworkName": "mainnet", "BlockDelaySecs": 30, "PreCommitChallengeDelay": 150,
                "ForkUpgradeParams": upgrades,
            });
            serde_json::from_value(params).unwrap()
        };
        let head = 6_000_000;
        let by = |height| params(height).version_by(28, head + LONGEST_SEALING);
        assert_eq!(by(None), 28, "a node that does not know the version");
        assert_eq!(by(Some(999_999_999)), 28, "no date yet");
        assert_eq!(by(Some(head + LONGEST_SEALING)), 28);
        assert_eq!(by(Some(head + LONGEST_SEALING - 1)), 29);
        assert_eq!(params(None).version_by(29, head), 29, "it has happened");
    }
}
