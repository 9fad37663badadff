//! Days around FIP-0118: old sectors count once, new ones ten times.

use sealyard_core::{
    ids::{PoolId, UserId},
    ledger::AccountSpec,
    sealing,
    store::{Database, DbFault},
    yields::{self, ChainDay, PowerOn},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use super::{TIME, audit, buy, chain, close_all, counts, ledger_findings, posted, sectors};
use crate::support::{SECTOR, investor, on_both, shop};

/// The last epoch in which a new sector counts once: in the second day.
const LAST_OLD: i64 = EPOCHS_PER_DAY + 1000;

/// Ada's sector is old. Bob's becomes active in the middle of the second day, after the change, and
/// is faulty on the third day. Carol's is never sealed. Each has bought one.
struct Change {
    pool: PoolId,
    ada: UserId,
    bob: UserId,
    carol: UserId,
}

impl Change {
    fn new(db: &Database) -> Self {
        let (pool, plan, ada) = shop(db, 10);
        let [bob, carol] = ["bob", "carol"].map(|name| {
            let email = format!("{name}@example.org");
            db.write(|conn| Ok(investor(conn, &email))).unwrap().id
        });
        let old = buy(db, &plan, ada.id, 1, "ada");
        let new = buy(db, &plan, bob, 1, "bob");
        buy(db, &plan, carol, 1, "carol");
        let wins = [
            (EPOCHS_PER_DAY + 5, "6000000000000000001"),
            (2 * EPOCHS_PER_DAY + 5, "3000000000000000000"),
        ];
        chain(
            db,
            pool.id,
            &[(sectors(db, &old)[0], 0)],
            &wins,
            3 * EPOCHS_PER_DAY,
        );
        db.write(|conn| {
            let number = sealing::sector_by_id(conn, sectors(db, &new)[0])?.number;
            let start = EPOCHS_PER_DAY + EPOCHS_PER_DAY / 2;
            let power = PowerOn {
                qa_power: 10 * SECTOR,
                ..counts(pool.id, number, Some(new.id), start)
            };
            yields::power_on(conn, &[power])?;
            yields::power_off(conn, pool.id, number, 2 * EPOCHS_PER_DAY)?;
            yields::full_quality_after(conn, pool.id, LAST_OLD)
        })
        .unwrap();
        Self {
            pool: pool.id,
            ada: ada.id,
            bob,
            carol,
        }
    }
}

#[test]
fn days_around_the_change_of_quality_are_split_by_power_to_the_last_attofil() {
    on_both(|db| {
        let Change {
            pool,
            ada,
            bob,
            carol,
        } = Change::new(db);
        assert_eq!(close_all(db, pool), 3);
        let day = |before: usize| {
            let days = db.read(|conn| yields::days(conn, pool, 3).map_err(DbFault::from));
            days.unwrap().remove(before)
        };
        // The second day: one sector all day, and ten times one for half of it.
        assert_eq!((day(1).posted_nano, day(1).carry_atto), (6_000_000_000, 1));
        assert_eq!(
            day(1).power_epochs,
            (SECTOR * 6 * EPOCHS_PER_DAY).to_string()
        );
        // Ada has a sixth of that day, and the whole of the next; a fifth is the fee, and of the
        // rest a quarter comes at once.
        let (ada_1, bob_1, ada_2) = (1_000_000_000, 5_000_000_000, 3_000_000_000);
        let net = |gross: i64| gross * 4 / 5;
        let vesting = |user| posted(db, &AccountSpec::Vesting(user));
        let first_release = |gross: i64| net(gross) * 3 / 4 / 180;
        assert_eq!(vesting(bob), net(bob_1) * 3 / 4 - first_release(bob_1));
        assert_eq!(
            vesting(ada),
            net(ada_1 + ada_2) * 3 / 4 - first_release(ada_1)
        );
        // Missing power is paid at its day's rate. Half a day of Bob's lay before his sector, and
        // would have counted once, as Carol's whole day would. On the third day, his sector would
        // have counted ten times, and so would Carol's.
        let rate = |total: i64, powers: i64| total / powers;
        let (second, third) = (rate(6_000_000_000, 12), rate(3_000_000_000, 1));
        let bobs = net(second) + net(10 * third);
        let carols = net(2 * second) + net(10 * third);
        let at_once = |gross: i64| net(gross) / 4 + first_release(gross);
        assert_eq!(
            posted(db, &AccountSpec::Available(bob)),
            at_once(bob_1) + bobs
        );
        let carols_first_day = posted(db, &AccountSpec::Available(carol)) - carols;
        assert_eq!(carols_first_day, 0, "nothing was won on the first day");
        assert_eq!(ledger_findings(db), []);
    });
}

#[test]
fn the_audit_of_days_around_the_change_finds_nothing_until_a_power_is_spoilt() {
    on_both(|db| {
        let Change { pool, .. } = Change::new(db);
        close_all(db, pool);
        let third = ChainDay {
            day: TIME.day(0) + 2,
            at_epoch: 3 * EPOCHS_PER_DAY,
            network_version: 29,
            reward_atto: "3000000000000000000".into(),
            balance_atto: "90000000000000000000".into(),
            available_atto: "90000000000000000000".into(),
            ..audit::fifth_day(pool)
        };
        db.write(|conn| yields::record_chain_day(conn, &third))
            .unwrap();
        assert_eq!(audit::audit(db), None);
        for (spoil, path) in [
            (
                "UPDATE yield_lots SET missing_power = '1' WHERE missing_power <> '0'",
                "compensation",
            ),
            (
                "UPDATE sector_intervals SET qa_power = 2048 WHERE qa_power = 20480",
                "power-epochs",
            ),
        ] {
            let found = audit::found_after(db, spoil);
            assert!(found.ends_with(path), "{spoil} was found as {found}");
        }
    });
}
