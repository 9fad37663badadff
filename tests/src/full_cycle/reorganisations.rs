//! Epochs of the chain that are replaced while a sector is being sealed.

use std::time::{Duration, Instant};

use sealyard_core::{sealing::SectorState, store::Database};
use sealyard_filecoin::rpc::Node;
use serde_json::{Value, json};

use super::{MINER, ONE_AT_A_TIME, buyer, database, node_of, only_sector, runtime};
use crate::fixture::{Fixture, Part};

const STAGES: [SectorState; 8] = [
    SectorState::PreCommit1,
    SectorState::PreCommit2,
    SectorState::PreCommitting,
    SectorState::WaitSeed,
    SectorState::Commit2,
    SectorState::ProveCommitting,
    SectorState::Proving,
    SectorState::Active,
];

async fn active_sectors(node: &Node) -> u64 {
    let mut active = 0;
    for index in 0..48 {
        active += node
            .deadline_sectors(&MINER, index, &Vec::new())
            .await
            .unwrap()
            .active
            .len();
    }
    active
}

/// Replaces the latest epochs at each new stage, until the chain counts the sector. Returns the
/// stages.
fn reorganise_at_each_stage(
    db: &Database,
    fixture: &Fixture,
    buyer: &mut Part,
) -> Vec<SectorState> {
    let (node, runtime) = (node_of(fixture), runtime());
    // Epochs that can be replaced must exist before the first stage.
    let _: Value = runtime
        .block_on(node.call("Devnet.Step", json!([{"Epochs": 40}])))
        .unwrap();
    buyer.start();
    let (started, mut stages) = (Instant::now(), Vec::new());
    loop {
        if let Some(stage) = only_sector(db)
            .map(|sector| sector.state)
            .filter(|stage| !stages.contains(stage))
        {
            let reorg = json!([{"Depth": 4, "Shift": 2}]);
            let _: Value = runtime.block_on(node.call("Devnet.Reorg", reorg)).unwrap();
            stages.push(stage);
        } else if stages.contains(&SectorState::Active)
            && runtime.block_on(active_sectors(&node)) == 1
        {
            return stages;
        }
        if buyer.ended() == Some(false) {
            buyer.start();
        }
        assert!(
            started.elapsed() < Duration::from_secs(600),
            "{stages:?}\n{}\n{}",
            buyer.log(),
            fixture.work.log()
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Machines really seal a sector. At each new stage the latest epochs of the chain are replaced,
/// and what happened in them happens some epochs later.
#[test]
fn a_sector_survives_a_reorganisation_at_every_stage() {
    let _one = ONE_AT_A_TIME.lock();
    let dir = tempfile::tempdir().unwrap();
    let fixture = Fixture::over(dir.path(), "reorg_depth = 30\n");
    let mut buyer = buyer(dir.path(), &fixture, "1");
    let db = database(dir.path());
    let stages = reorganise_at_each_stage(&db, &fixture, &mut buyer);
    for stage in STAGES {
        assert!(
            stages.contains(&stage),
            "no reorganisation at {stage:?}: {stages:?}"
        );
    }
    assert!(!stages.contains(&SectorState::Quarantined), "{stages:?}");
    // A proof over a replaced seed is made again without counting as a failure.
    let sector = only_sector(&db).unwrap();
    assert_eq!(
        sector.failures,
        0,
        "{:?}\n{}",
        sector.reason,
        fixture.work.log()
    );
}
