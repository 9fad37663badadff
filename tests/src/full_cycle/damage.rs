//! A proven sector whose files are damaged.

use std::{fs, path::Path, time::Duration};

use sealyard_core::{
    fleet, sealing,
    store::{Database, DbFault},
};
use sealyard_filecoin::{economics::EPOCHS_PER_DAY, rpc::Node};

use super::{MINER, STRIDE, database, node_of, runtime, stride};
use crate::{fixture::Fixture, openrpc};

fn machine_of_the_sector(db: &Database) -> String {
    db.read(|conn| {
        let sector = sealing::all_sectors(conn, 1)?.remove(0);
        Ok::<_, DbFault>(
            fleet::machines(conn)?
                .into_iter()
                .find(|m| Some(m.id) == sector.machine_id)
                .unwrap()
                .name,
        )
    })
    .unwrap()
}

/// Steps the chain until its faults are as wanted.
async fn go_on_until(faulty: bool, node: &Node, fixture: &Fixture) {
    for _ in 0..1000 {
        // Unforced, the chain waits for the proofs that let the sector recover.
        stride(node, faulty, Duration::from_millis(100)).await;
        let faults = node.faults(&MINER).await.unwrap().numbers(10).unwrap();
        if faults.is_empty() != faulty {
            return;
        }
    }
    panic!(
        "the chain never saw the sector {}\n{}",
        if faulty { "fail" } else { "recover" },
        fixture.work.log()
    );
}

/// Continues with an installation that has proven a sector. Its replica disappears until the sector
/// is faulty and for another day, and then comes back.
pub(super) fn a_damaged_sector_becomes_faulty_and_recovers(dir: &Path, fixture: &Fixture) {
    assert_eq!(
        machine_of_the_sector(&database(dir)),
        "quarry",
        "it was proven from the storage machine"
    );
    let replica = dir.join("agents/quarry/store/s-f01000-1");
    let hidden = replica.with_extension("hidden");
    let (node, runtime) = (node_of(fixture), runtime());
    runtime.block_on(openrpc::conforms(&fixture.node_url, &fixture.node_token, 1));
    fs::rename(&replica, &hidden).unwrap();
    runtime.block_on(go_on_until(true, &node, fixture));
    // Let another day pass, for which the chain charges a fault fee.
    for _ in 0..EPOCHS_PER_DAY / STRIDE {
        runtime.block_on(stride(&node, true, Duration::ZERO));
    }
    fs::rename(&hidden, &replica).unwrap();
    runtime.block_on(go_on_until(false, &node, fixture));
}
