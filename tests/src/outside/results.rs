//! Results that do not fit their tasks.

use diesel::{ExpressionMethods, RunQueryDsl};
use sealyard_core::{
    capacity::Pool,
    clock::{DAY, MINUTE},
    fleet::{
        self, Machine,
        protocol::{Outcome, ReportRequest, Usage},
    },
    jobs,
    proving::{self, NewPost, PostState},
    sealing::{self, SectorState},
    store::{Database, schema::sectors as s},
};
use serde_json::json;

use super::read;
use crate::{
    books::buy,
    support::{self, NOW, done, on_both},
};

/// Reports the outcome of the first open task of this kind.
fn report(db: &Database, machine: &Machine, kind: &str, outcome: Outcome) -> bool {
    let open = read(db, sealing::open_tasks);
    let task = open.iter().find(|task| task.kind.name() == kind).unwrap();
    db.transact(|conn| {
        sealing::assign(conn, task.id, machine.id, NOW, NOW + DAY)?;
        let request = ReportRequest {
            task: task.id.0,
            fence: sealing::task_by_id(conn, task.id)?.fence,
            outcome: outcome.clone(),
            usage: Usage::default(),
        };
        sealing::report(conn, machine.id, &request, NOW)
    })
    .unwrap()
}

#[test]
fn a_result_that_does_not_fit_its_task_is_a_failure_of_the_machine() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 10);
        let contract = buy(db, &plan, user.id, 1, "key");
        let yard = read(db, fleet::machines).remove(0);
        let sector = || read(db, |conn| sealing::of_contract(conn, contract.id)).remove(0);
        db.write(|conn| {
            let sector = sealing::of_contract(conn, contract.id)?.remove(0);
            sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, NOW)
        })
        .unwrap();
        assert!(report(db, &yard, "pc1", done(json!({}))));
        let long = json!({"comm_r": "33".repeat(50_000), "comm_d": "44".repeat(32), "pc2": {}});
        assert!(report(db, &yard, "pc2", done(long)));
        assert_eq!(
            sector().comm_r,
            None,
            "a CommR of 100,000 characters is not stored"
        );
        let reason = sector().reason.unwrap();
        assert!(reason.contains("CommR is not 32 bytes of hex"));
        let alerts = read(db, jobs::alerts);
        let words = "machine yard reported an invalid result of pc2";
        assert!(
            alerts.iter().any(|alert| alert.text.contains(words)),
            "{alerts:?}"
        );
        assert_eq!(
            sector().state,
            SectorState::Planned,
            "it starts again, on another machine if there is one"
        );
    });
}

/// Begins to prove sectors 1 and 2, which lie on `yard`.
fn begin_window(db: &Database, pool: &Pool, yard: &Machine) -> bool {
    let new = NewPost {
        pool: pool.id,
        deadline: 1,
        partition: 0,
        open_epoch: 1000,
        close_epoch: 1060,
        challenge_epoch: 980,
        randomness: "00".repeat(32),
        sectors: vec![1, 2],
        due_at: NOW + 40 * MINUTE,
    };
    db.write(|conn| {
        diesel::update(s::table)
            .set(s::machine_id.eq(yard.id))
            .execute(conn)?;
        proving::begin(conn, &new, NOW)
    })
    .unwrap()
}

/// How many windows have their vanilla proofs, and how many are proven.
fn posts(db: &Database) -> [usize; 2] {
    [PostState::Proving, PostState::Proven]
        .map(|state| read(db, |conn| proving::in_state(conn, state)).len())
}

#[test]
fn results_about_other_sectors_and_malformed_snarks_are_rejected() {
    on_both(|db| {
        let (pool, plan, user) = support::shop(db, 10);
        let yard = read(db, fleet::machines).remove(0);
        let contract = buy(db, &plan, user.id, 3, "key");
        assert_eq!(contract.bytes, 3 * support::SECTOR);
        assert!(begin_window(db, &pool, &yard));
        let proof = |n: u64| json!({"sector": n, "proof": "AA=="});
        for bad in [
            json!({"proofs": [proof(1)], "faulty": [[3, "of somebody else"]]}),
            json!({"proofs": [proof(1), proof(2)], "faulty": [[2, "told twice"]]}),
            json!({"proofs": [proof(1)], "faulty": []}),
            json!({"proofs": "none", "faulty": []}),
            json!({}),
        ] {
            assert!(report(db, &yard, "vanilla", done(bad.clone())));
            assert_eq!(posts(db), [0, 0], "{bad}");
        }
        let honest = json!({"proofs": [proof(1)], "faulty": [[2, "unreadable"]]});
        assert!(report(db, &yard, "vanilla", done(honest)));
        assert_eq!(posts(db), [1, 0]);
        for bad in [
            json!({}),
            json!({"proof": ""}),
            json!({"proof": "55"}),
            json!({"proof": "zz".repeat(192)}),
            json!({"proof": 7}),
        ] {
            assert!(report(db, &yard, "window_post", done(bad.clone())));
            assert_eq!(posts(db), [1, 0], "{bad}: the window is not proven");
        }
        assert!(report(db, &yard, "window_post", support::snark()));
        assert_eq!(posts(db), [0, 1]);
    });
}
