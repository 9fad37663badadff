//! Random days: power that begins and fails, random wins, costs, and terms of every kind. Not one
//! attoFIL is lost.

use sealyard_core::{
    capacity::Pool,
    catalog::{Plan, Pledge, Shortfall, Starts, Terms},
    contracts,
    ids::{PoolId, SectorId},
    ledger::AccountSpec,
    sealing::{self, Sector},
    store::{AnyConnection, Database, DbFault, DbResult},
    yields::{self, Flow, FlowKind},
};
use sealyard_filecoin::economics::EPOCHS_PER_DAY;

use crate::{
    books::{TIME, buy, chain, close_all, counts, posted, sectors, win},
    support::{investor, on_both, plan_with, shop, sound},
};

const RANDOM_DAYS: i64 = 9;
/// The chain is read up to this epoch.
const END: i64 = RANDOM_DAYS * EPOCHS_PER_DAY;

/// Random days with activations, faults, recoveries, unsold sectors and random wins.
#[test]
fn random_days_conserve_every_attofil_and_pass_the_audit() {
    use proptest::{prelude::*, test_runner::TestRunner};

    let epochs = 0..END;
    let intervals = prop::collection::vec((epochs.clone(), 1..4000i64, 0..3000i64), 6);
    let wins = prop::collection::vec((epochs.clone(), 1u64..u64::MAX), 0..30);
    let mut runner = TestRunner::new(ProptestConfig {
        cases: 6,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&(intervals, wins, epochs), |(intervals, wins, own_from)| {
            let history = History {
                intervals,
                wins,
                own_from,
            };
            on_both(|db| live_and_audit(db, &history));
            Ok(())
        })
        .unwrap();
}

/// Random history of a pool, in epochs since its first.
struct History {
    /// For each sector: when its power begins, after how many epochs it fails, and for how many it
    /// is faulty.
    intervals: Vec<(i64, i64, i64)>,
    /// The epoch and the reward of each win.
    wins: Vec<(i64, u64)>,
    /// The operator's own sector counts from here on.
    own_from: i64,
}

impl History {
    fn record(&self, conn: &mut AnyConnection, pool: PoolId, sold: &[SectorId]) -> DbResult<()> {
        for (sector, interval) in sold.iter().zip(&self.intervals) {
            let sector = sealing::sector_by_id(conn, *sector)?;
            record_power(conn, &sector, *interval)?;
        }
        yields::power_on(conn, &[counts(pool, 99, None, self.own_from)])?;
        for (epoch, reward) in &self.wins {
            record_win_with_fees(conn, pool, *epoch, *reward)?;
        }
        Ok(())
    }

    /// The epoch from which all sectors but the first three count.
    fn last_contract_begins(&self) -> i64 {
        self.intervals
            .iter()
            .skip(3)
            .map(|(start, ..)| *start)
            .max()
            .unwrap_or_default()
    }
}

fn record_power(
    conn: &mut AnyConnection,
    sector: &Sector,
    (start, faulty_after, for_epochs): (i64, i64, i64),
) -> DbResult<()> {
    let counts_from = |epoch| {
        let contract = Some(sector.contract_id);
        [counts(sector.pool_id, sector.number, contract, epoch)]
    };
    yields::power_on(conn, &counts_from(start))?;
    yields::power_off(conn, sector.pool_id, sector.number, start + faulty_after)?;
    // Some sectors recover.
    if for_epochs % 2 == 0 {
        yields::power_on(conn, &counts_from(start + faulty_after + for_epochs + 1))?;
    }
    Ok(())
}

fn record_win_with_fees(
    conn: &mut AnyConnection,
    pool: PoolId,
    epoch: i64,
    reward: u64,
) -> DbResult<()> {
    let fee = |kind: FlowKind, part: u64| Flow {
        pool_id: pool,
        kind,
        subject: 5,
        epoch,
        atto: (reward / part).to_string(),
    };
    yields::record_flows(conn, &[fee(FlowKind::DailyFee, 7)])?;
    yields::record_flows(conn, &[fee(FlowKind::FaultFee, 11)])?;
    yields::record_win(
        conn,
        &win(pool, epoch, &reward.to_string(), epoch * 1_000_003),
    )?;
    Ok(())
}

fn live_and_audit(db: &Database, history: &History) {
    let (pool, plan, ada) = shop(db, 10);
    let bob = db
        .write(|conn| Ok(investor(conn, "bob@example.org")))
        .unwrap();
    let [bearing, short] = other_plans(db, &pool);
    let contracts = [
        buy(db, &plan, ada.id, 2, "a"),
        buy(db, &bearing, bob.id, 1, "b"),
        buy(db, &short, ada.id, 3, "c"),
    ];
    let sold: Vec<_> = contracts
        .iter()
        .flat_map(|contract| sectors(db, contract))
        .collect();
    chain(db, pool.id, &[], &[], END);
    db.write(|conn| {
        history.record(conn, pool.id, &sold)?;
        // The last contract ends within these days.
        let since = TIME.micros(history.last_contract_begins());
        contracts::mark_active(conn, contracts[2].id, since)
    })
    .unwrap();
    assert!(close_all(db, pool.id) > 0);
    assert_every_attofil_is_accounted_for(db, pool.id);
    sound(db);
}

/// Compares what the days have posted and carried with what the blocks have won.
fn assert_every_attofil_is_accounted_for(db: &Database, pool: PoolId) {
    let days = db
        .read(|conn| yields::days(conn, pool, i64::MAX).map_err(DbFault::from))
        .unwrap();
    let first = days.last().unwrap().first_epoch;
    let won: i128 = db
        .read(|conn| yields::wins(conn, pool, first, END).map_err(DbFault::from))
        .unwrap()
        .iter()
        .flat_map(|win| [&win.reward_atto, &win.tips_atto])
        .map(|atto| atto.parse::<i128>().unwrap())
        .sum();
    let posted_nano: i128 = days.iter().map(|day| i128::from(day.posted_nano)).sum();
    assert_eq!(
        posted_nano * 1_000_000_000 + i128::from(days[0].carry_atto),
        won,
        "every attoFIL is posted or carried"
    );
    assert_eq!(
        posted(db, &AccountSpec::ChainRewards(pool)),
        -i64::try_from(posted_nano).unwrap()
    );
}

/// One plan whose contracts bear costs and are extended for missing power, and one that runs for
/// two days from its activation.
fn other_plans(db: &Database, pool: &Pool) -> [Plan; 2] {
    let bearing = Terms {
        daily_fee_bp: 10_000,
        faults_bp: 5000,
        gas_bp: 2500,
        pledge: Pledge::OperatorFor { charge_bp: 500 },
        shortfall: Shortfall::AddedDays { most: 2 },
        ..Terms::standard(1234)
    };
    let short = Terms {
        starts: Starts::PowerOn,
        shortfall: Shortfall::AddedDays { most: 1 },
        ..Terms::standard(0)
    };
    [(bearing, 210), (short, 2)].map(|(terms, days)| plan_with(db, pool, days, terms))
}
