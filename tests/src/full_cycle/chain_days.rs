//! The chain's days of a miner whose sector is terminated.

use std::{path::Path, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use fvm_shared::econ::TokenAmount;
use sealyard_core::{
    store::DbFault,
    yields::{self, ChainDay},
};
use sealyard_filecoin::{
    actor::{self, Method, SectorsAt},
    rpc::{Message, Node},
};

use super::{MINER, audit, database, node_of, only_pool, runtime, stride};
use crate::{fixture::Fixture, openrpc};

const SECTOR: u64 = 1;

async fn terminate_sector(node: &Node) {
    let at = node
        .sector_location(&MINER, SECTOR, &Vec::new())
        .await
        .unwrap()
        .unwrap();
    let at = SectorsAt {
        deadline: at.deadline,
        partition: at.partition,
        sectors: &[SECTOR],
    };
    let message = Message {
        version: 0,
        to: MINER,
        from: node.miner_info(&MINER).await.unwrap().worker,
        nonce: 0,
        value: TokenAmount::default(),
        gas_limit: 0,
        gas_fee_cap: TokenAmount::default(),
        gas_premium: TokenAmount::default(),
        method: Method::TerminateSectors.number(),
        params: BASE64_STANDARD.encode(actor::terminate_sectors(&at).unwrap()),
        cid: None,
    };
    let spec = openrpc::spec("c0ffee00-0000-4000-8000-000000000002");
    node.push(&message, &spec).await.unwrap();
}

fn sum(days: &[ChainDay], of: fn(&ChainDay) -> &String) -> i128 {
    days.iter()
        .map(|day| of(day).parse::<i128>().unwrap())
        .sum()
}

fn assert_all_is_explained(days: &[ChainDay]) {
    for day in days {
        assert_eq!(day.other_atto, "0", "{day:?}");
    }
    assert!(
        sum(days, |day| &day.fault_fee_atto) > 0 && sum(days, |day| &day.termination_fee_atto) > 0,
        "{days:?}"
    );
    let (deposits, pledge) = (
        sum(days, |day| &day.deposits_in_atto),
        sum(days, |day| &day.pledge_in_atto),
    );
    assert!(deposits > 0 && pledge > 0, "{days:?}");
    assert_eq!(deposits, sum(days, |day| &day.deposits_back_atto));
    assert_eq!(pledge, sum(days, |day| &day.pledge_back_atto));
}

/// Terminates the sector early. The termination fee, fault fee, deposits and pledge explain the
/// miner's balance on every day to the attoFIL.
pub(super) fn chain_days_explain_the_miners_balance(dir: &Path, fixture: &Fixture) {
    let db = database(dir);
    let pool = only_pool(&db);
    let days = || {
        db.read(|conn| yields::chain_days(conn, pool).map_err(DbFault::from))
            .unwrap()
    };
    let node = node_of(fixture);
    runtime().block_on(async {
        terminate_sector(&node).await;
        for _ in 0..600 {
            stride(&node, true, Duration::from_millis(50)).await;
            if days().last().is_some_and(|day| day.pledge_atto == "0") {
                return;
            }
        }
        panic!("the pledge never came back\n{}", fixture.work.log());
    });
    assert_all_is_explained(&days());
    assert_eq!(audit(&db), None);
}
