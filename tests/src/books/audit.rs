//! The audit derives every booked figure again from the chain's records.

use diesel::RunQueryDsl;
use sealyard_core::{
    ids::PoolId,
    on_conn,
    store::Database,
    yields::{self, ChainDay},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{Spoilt, TIME, buy, chain, close_all, sectors};
use crate::support::{on_both, shop};

const REWARD: &str = "777777777777777777";
const BALANCE: &str = "9000000000000000000";

/// Statements that change a figure, and how the path of the difference that they cause ends.
const SPOILS: [(&str, &str); 8] = [
    (
        "UPDATE block_wins SET reward_atto = '777777777777777778' WHERE epoch = 7",
        "attoFIL won",
    ),
    (
        "UPDATE pool_days SET carry_atto = carry_atto + 1",
        "carried",
    ),
    (
        "UPDATE yield_lots SET fee_nano = fee_nano + 1, \
         available_nano = available_nano - 1",
        "fee",
    ),
    ("UPDATE yield_lots SET power_epochs = '1'", "power-epochs"),
    (
        "UPDATE yield_lots SET released_nano = released_nano + 1 WHERE released_nano > 0",
        "released",
    ),
    (
        "UPDATE yield_lots SET vesting_nano = vesting_nano - 1",
        "left to release",
    ),
    (
        "UPDATE chain_days SET fault_fee_atto = '1'",
        "fault_fee of the chain's day",
    ),
    (
        "UPDATE sector_intervals SET start_epoch = start_epoch + 1 WHERE start_epoch = 700",
        "power-epochs",
    ),
];

/// The fifth day of a miner that has won every day and paid nothing.
pub(super) fn fifth_day(pool: PoolId) -> ChainDay {
    let zero = || "0".to_owned();
    ChainDay {
        pool_id: pool,
        day: TIME.day(0) + 4,
        at_epoch: 5 * EPOCHS_PER_DAY,
        network_version: 28,
        reward_atto: REWARD.into(),
        daily_fee_atto: zero(),
        other_atto: zero(),
        balance_atto: BALANCE.into(),
        locked_atto: zero(),
        deposits_atto: zero(),
        pledge_atto: zero(),
        fee_debt_atto: zero(),
        available_atto: BALANCE.into(),
        raw_power: "4096".into(),
        qa_power: "4096".into(),
        fault_fee_atto: zero(),
        termination_fee_atto: zero(),
        deposits_in_atto: zero(),
        deposits_back_atto: zero(),
        deposits_lost_atto: zero(),
        pledge_in_atto: zero(),
        pledge_back_atto: zero(),
        locked_in_atto: zero(),
        unlocked_atto: zero(),
    }
}

pub(super) fn audit(db: &Database) -> Option<String> {
    db.read(yields::audit)
        .unwrap()
        .map(|difference| difference.to_string())
}

/// The path of the difference that the audit finds after a statement. The statement is rolled back.
pub(super) fn found_after(db: &Database, spoil: &str) -> String {
    let found = db.transact(|conn| {
        on_conn!(conn, |c| diesel::sql_query(spoil).execute(c))?;
        let found = yields::audit(conn).unwrap();
        Err::<(), _>(Spoilt(found.map(|difference| difference.path)))
    });
    let Err(Spoilt(Some(found))) = found else {
        panic!("{spoil} was not found")
    };
    found
}

#[test]
fn the_audit_finds_every_figure_that_does_not_follow_from_the_chain() {
    on_both(|db| {
        let (pool, plan, ada) = shop(db, 10);
        let contract = buy(db, &plan, ada.id, 2, "ada");
        let starts: Vec<_> = sectors(db, &contract).into_iter().zip([0, 700]).collect();
        let wins: Vec<(i64, &str)> = (0..5)
            .map(|day| (day * EPOCHS_PER_DAY + 7, REWARD))
            .collect();
        chain(db, pool.id, &starts, &wins, 5 * EPOCHS_PER_DAY);
        assert_eq!(close_all(db, pool.id), 5);
        // Withdrawable balances must be covered by what the miner can withdraw on chain.
        assert!(
            audit(db)
                .unwrap()
                .starts_with("coverage > what investors can withdraw"),
            "no chain day exists yet"
        );
        db.write(|conn| yields::record_chain_day(conn, &fifth_day(pool.id)))
            .unwrap();
        assert_eq!(audit(db), None);
        for (spoil, path) in SPOILS {
            let found = found_after(db, spoil);
            assert!(found.ends_with(path), "{spoil} was found as {found}");
        }
        assert_eq!(audit(db), None, "some spoilt value was kept");
    });
}
