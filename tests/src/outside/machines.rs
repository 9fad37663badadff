//! Machines that report nonsense, lose their keys, or fall silent.

use std::collections::HashSet;

use proptest::{prelude::*, test_runner::TestRunner};
use sealyard_core::{
    clock::{DAY, MINUTE, SECOND},
    fleet::{
        self, EnrolError, Machine,
        protocol::{Outcome, ReportRequest, Usage},
    },
    ids::TaskId,
    jobs::{self, AlertKind},
    scheduler,
    sealing::{self, SectorState, TaskHead},
    store::{Database, DbFault},
};
use serde_json::{Value, json};

use super::{
    customer::{self, Customer, shop},
    trials,
};
use crate::{
    books::buy,
    fixture::Shop,
    support::{self, NOW, done, hardware, machine, on_both},
};

fn key_of(db: &Database, name: &str) -> String {
    db.write(|conn| {
        let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_micros()).unwrap();
        let token = fleet::new_token(conn, name, now, now + DAY)?;
        Ok(fleet::enrol(conn, &token, &hardware(), now).unwrap().key)
    })
    .unwrap()
}

/// Sends the requests of a machine, from outside any async runtime.
struct Agent {
    runtime: tokio::runtime::Handle,
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Agent {
    fn send(&self, path: &str, body: Vec<u8>) -> u16 {
        let request = self.http.post(format!("{}/agent/v1/{path}", self.url)).bearer_auth(&self.key);
        let request = request.header("content-type", "application/json").body(body);
        self.runtime.block_on(async { request.send().await.unwrap().status().as_u16() })
    }

    fn beat(&self, hardware: &Value) -> u16 {
        self.send("heartbeat", json!({"hardware": hardware, "running": []}).to_string().into_bytes())
    }
}

fn sound() -> Value {
    serde_json::to_value(hardware()).unwrap()
}

/// Any JSON, including the numbers and texts that tend to break parsers.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        prop_oneof![Just(i64::MAX), Just(i64::MIN), Just(-1), Just(0), any::<i64>()].prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(Value::from("x".repeat(5000))),
        Just(Value::from("a\0b")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map("(cores|memory_bytes|disk_bytes|gpus|running|hardware|task|fence|outcome|x)", inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A sound request with one value replaced by any JSON.
fn spoilt() -> impl Strategy<Value = (&'static str, Value)> {
    let heartbeat = json!({
        "hardware": sound(), "running": [{"task": 1, "fence": 1, "progress": "x"}], "stored": [{"miner": 1000, "number": 1}],
        "files_url": "http://10.0.0.7:1", "keeps": false,
    });
    let report = json!({
        "task": 1, "fence": 1, "outcome": {"done": {"output": {}}}, "usage": {"wall_ms": 1, "cpu_ms": 1, "peak_bytes": 1},
    });
    let enrol = json!({"token": "enrol_x", "hardware": sound()});
    let base = prop_oneof![Just(("heartbeat", heartbeat)), Just(("report", report)), Just(("enrol", enrol))];
    (base, any_json(), any::<prop::sample::Index>()).prop_map(|((path, mut body), value, at)| {
        let pointers = pointers(&body, String::new());
        let pointer = at.get(&pointers);
        if let Some(place) = body.pointer_mut(pointer) {
            *place = value;
        }
        (path, body)
    })
}

fn pointers(value: &Value, at: String) -> Vec<String> {
    let inner: Vec<(String, &Value)> = match value {
        Value::Object(map) => map.iter().map(|(key, value)| (format!("{at}/{key}"), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(n, value)| (format!("{at}/{n}"), value)).collect(),
        _ => Vec::new(),
    };
    let mut all: Vec<String> = inner.into_iter().flat_map(|(at, value)| pointers(value, at)).collect();
    all.push(at);
    all
}

fn agent(runtime: &tokio::runtime::Runtime, shop: &Shop, key: String) -> Agent {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    Agent { runtime: runtime.handle().clone(), http, url: shop.url.clone(), key }
}

/// Whatever a machine sends, the server neither panics nor answers with an error of its own, and
/// quotes and other machines are not affected.
#[test]
fn no_request_of_a_machine_breaks_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (shop, db) = runtime.block_on(async { shop(dir.path(), "") });
    sealyard_filecoin::http::client(std::time::Duration::from_secs(1)).unwrap();
    let (bad, good) = (agent(&runtime, &shop, key_of(&db, "mad")), agent(&runtime, &shop, key_of(&db, "sane")));
    let mut runner =
        TestRunner::new(ProptestConfig { cases: trials() * 8, failure_persistence: None, ..ProptestConfig::default() });
    runner
        .run(&spoilt(), |(path, body)| {
            let status = bad.send(path, body.to_string().into_bytes());
            prop_assert!(status < 500, "{path} {body}: {status}");
            Ok(())
        })
        .unwrap();
    runner
        .run(
            &(prop::sample::select(vec!["heartbeat", "report", "enrol"]), prop::collection::vec(any::<u8>(), 0..300)),
            |(path, body)| {
                prop_assert!(bad.send(path, body) < 500);
                Ok(())
            },
        )
        .unwrap();
    for spoil in ["cores", "memory_bytes", "disk_bytes", "disk_free_bytes"] {
        let mut worst = sound();
        worst[spoil] = json!(i64::MAX);
        assert_eq!(bad.beat(&worst), 400, "{spoil}");
    }
    let alerts = db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap();
    assert!(alerts.iter().any(|a| a.kind == AlertKind::Machine && a.text.contains("reports impossible values")), "{alerts:?}");
    assert_eq!(good.beat(&sound()), 200);
    runtime.block_on(async {
        let ada = Customer::signed_up(&shop, "ada@example.org").await;
        let (_, _, shown) = ada.quote(&db, 1).await;
        assert!(!shown.is_empty(), "quotes still work");
    });
    assert!(!shop.serve.log().contains("panicked"), "{}", shop.serve.log());
    assert_eq!(bad.beat(&sound()), 200, "a machine that reports sound values is believed again");
    let alerts = db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap();
    assert!(!alerts.iter().any(|a| a.text.contains("in its heartbeat")), "{alerts:?}");
}

/// Such rows may have been written before values were checked.
#[test]
fn the_planner_survives_impossible_machines() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 10);
        use diesel::{ExpressionMethods, RunQueryDsl};
        use sealyard_core::store::schema::machines as m;
        db.write(|conn| {
            let most = (m::cores.eq(i64::MAX), m::memory_bytes.eq(i64::MAX), m::disk_bytes.eq(i64::MAX));
            diesel::update(m::table).set((most, m::disk_free_bytes.eq(i64::MAX), m::gpus.eq(i64::MAX))).execute(conn)?;
            Ok(())
        })
        .unwrap();
        buy(db, &plan, user.id, 2, "key");
        db.write(|conn| scheduler::dispatch(conn, NOW, DAY)).unwrap();
    });
}

fn task_of_kind(db: &Database, kind: &str) -> TaskHead {
    db.read(|conn| sealing::open_tasks(conn).map_err(DbFault::from)).unwrap().into_iter().find(|t| t.kind.name() == kind).unwrap()
}

fn report(db: &Database, machine: &Machine, task: &TaskHead, outcome: Outcome) -> bool {
    db.transact(|conn| {
        sealing::assign(conn, task.id, machine.id, NOW, NOW + DAY)?;
        let fence = sealing::task_by_id(conn, task.id)?.fence;
        sealing::report(
            conn,
            machine.id,
            &ReportRequest { task: task.id.0, fence, outcome: outcome.clone(), usage: Usage::default() },
            NOW,
        )
    })
    .unwrap()
}

#[test]
fn a_result_that_does_not_fit_its_task_is_a_failure_of_the_machine() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 10);
        let contract = buy(db, &plan, user.id, 1, "key");
        let yard = db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap().remove(0);
        db.write(|conn| {
            let sector = sealing::of_contract(conn, contract.id)?.remove(0);
            sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, NOW)
        })
        .unwrap();
        let sector = || db.read(|conn| sealing::of_contract(conn, contract.id).map_err(DbFault::from)).unwrap().remove(0);
        assert!(report(db, &yard, &task_of_kind(db, "pc1"), done(json!({}))));
        let long = json!({"comm_r": "33".repeat(50_000), "comm_d": "44".repeat(32), "pc2": {}});
        assert!(report(db, &yard, &task_of_kind(db, "pc2"), done(long)));
        assert_eq!(sector().comm_r, None, "a CommR of 100,000 characters is not stored");
        assert!(sector().reason.unwrap().contains("CommR is not 32 bytes of hex"));
        let alerts = db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap();
        assert!(alerts.iter().any(|a| a.text.contains("machine yard reported an invalid result of pc2")), "{alerts:?}");
        assert_eq!(sector().state, SectorState::Planned, "it starts again, on another machine if there is one");
    });
}

#[test]
fn results_about_other_sectors_and_malformed_snarks_are_rejected() {
    on_both(|db| {
        let (pool, plan, user) = support::shop(db, 10);
        let yard = db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap().remove(0);
        let contract = buy(db, &plan, user.id, 3, "key");
        let begin = |open: i64| {
            use diesel::{ExpressionMethods, RunQueryDsl};
            use sealyard_core::{
                proving::{self, NewPost},
                store::schema::sectors as s,
            };
            db.write(|conn| {
                diesel::update(s::table).set(s::machine_id.eq(yard.id)).execute(conn)?;
                let new = NewPost {
                    pool: pool.id,
                    deadline: 1,
                    partition: 0,
                    open_epoch: open,
                    close_epoch: open + 60,
                    challenge_epoch: open - 20,
                    randomness: "00".repeat(32),
                    sectors: vec![1, 2],
                    due_at: NOW + 40 * MINUTE,
                };
                proving::begin(conn, &new, NOW)
            })
            .unwrap()
        };
        assert_eq!(contract.bytes, 3 * support::SECTOR);
        assert!(begin(1000));
        let posts = || {
            let states = [sealyard_core::proving::PostState::Proving, sealyard_core::proving::PostState::Proven];
            db.read(|conn| {
                let [proving, proven] =
                    states.map(|state| sealyard_core::proving::in_state(conn, state).map(|posts| posts.len()));
                Ok::<_, DbFault>((proving?, proven?))
            })
            .unwrap()
        };
        let proof = |n: u64| json!({"sector": n, "proof": "AA=="});
        for bad in [
            json!({"proofs": [proof(1)], "faulty": [[3, "of somebody else"]]}),
            json!({"proofs": [proof(1), proof(2)], "faulty": [[2, "told twice"]]}),
            json!({"proofs": [proof(1)], "faulty": []}),
            json!({"proofs": "none", "faulty": []}),
            json!({}),
        ] {
            assert!(report(db, &yard, &task_of_kind(db, "vanilla"), done(bad.clone())));
            assert_eq!(posts(), (0, 0), "{bad}");
        }
        let honest = json!({"proofs": [proof(1)], "faulty": [[2, "unreadable"]]});
        assert!(report(db, &yard, &task_of_kind(db, "vanilla"), done(honest)));
        assert_eq!(posts(), (1, 0));
        for bad in
            [json!({}), json!({"proof": ""}), json!({"proof": "55"}), json!({"proof": "zz".repeat(192)}), json!({"proof": 7})]
        {
            assert!(report(db, &yard, &task_of_kind(db, "window_post"), done(bad.clone())));
            assert_eq!(posts(), (1, 0), "{bad}: the window is not proven");
        }
        assert!(report(db, &yard, &task_of_kind(db, "window_post"), support::snark()));
        assert_eq!(posts(), (0, 1));
    });
}

#[test]
fn machine_keys_and_tokens_can_be_withdrawn_and_renewed() {
    on_both(|db| {
        let yard = machine(db, "yard");
        let known = |key: &str| db.read(|conn| fleet::by_key(conn, key).map_err(DbFault::from)).unwrap().is_some();
        let token = |db: &Database| db.write(|conn| fleet::new_key_token(conn, &yard, NOW, NOW + DAY)).unwrap();
        let enrol = |token: &str| db.transact(|conn| fleet::enrol(conn, token, &hardware(), NOW));
        let renewed = enrol(&token(db)).unwrap();
        assert_eq!(renewed.machine, yard.public_id, "it is still the same machine");
        assert!(known(&renewed.key));
        let again = enrol(&token(db)).unwrap();
        let early = token(db);
        assert!(known(&again.key) && !known(&renewed.key), "the old key no longer works");
        assert!(db.write(|conn| fleet::revoke(conn, yard.id, NOW)).unwrap());
        assert!(!db.write(|conn| fleet::revoke(conn, yard.id, NOW)).unwrap(), "a key is revoked once");
        assert!(!known(&again.key));
        assert!(matches!(enrol(&early), Err(EnrolError::TokenWithdrawn)), "an earlier token may be in the wrong hands, too");
        assert!(db.read(|conn| fleet::lost_machines(conn).map_err(DbFault::from)).unwrap().contains(&yard.id));
        let unused = token(db);
        let open = db.read(|conn| fleet::open_tokens(conn, NOW).map_err(DbFault::from)).unwrap();
        assert_eq!((open.len(), open[0].for_machine), (1, Some(yard.id)));
        assert!(db.write(|conn| fleet::withdraw_token(conn, &open[0].digest, NOW)).unwrap());
        assert!(matches!(enrol(&unused), Err(EnrolError::TokenWithdrawn)));
        assert!(db.read(|conn| fleet::open_tokens(conn, NOW).map_err(DbFault::from)).unwrap().is_empty());
        assert!(db.write(|conn| fleet::remove(conn, yard.id, NOW)).unwrap());
        assert!(db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap().is_empty());
    });
}

#[test]
fn files_are_fetched_only_from_the_host_that_a_machine_named_first() {
    on_both(|db| {
        let offer = |machine: &Machine, url: &str| {
            let offer = fleet::Offer { files_url: Some(url), keeps: false };
            db.write(|conn| fleet::offer(conn, machine, offer)).unwrap()
        };
        let yard = || db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap().remove(0);
        machine(db, "yard");
        assert!(offer(&yard(), "http://10.0.0.7:7350"));
        assert!(offer(&yard(), "http://10.0.0.7:7351"), "a restarted agent may use another port");
        assert_eq!(yard().files_url.as_deref(), Some("http://10.0.0.7:7351"));
        assert!(!offer(&yard(), "http://169.254.169.254/latest"));
        assert_eq!(yard().files_url, None, "files are not fetched from a foreign host");
        assert!(offer(&yard(), "http://10.0.0.7:7351"));
        // A machine that has moved gets a new key and may then name its new host.
        let token = db.write(|conn| fleet::new_key_token(conn, &yard(), NOW, NOW + DAY)).unwrap();
        db.transact(|conn| fleet::enrol(conn, &token, &hardware(), NOW)).unwrap();
        assert!(offer(&yard(), "http://10.0.0.8:7350"));
    });
}

/// The whole life cycle of keys and tokens on the fleet page.
#[tokio::test(flavor = "multi_thread")]
async fn the_console_withdraws_and_renews_keys_and_removes_machines() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let operator = Customer::operator(&shop).await;
    let stranger = Customer::signed_up(&shop, "ada@example.org").await;
    let yard = db.read(|conn| fleet::machines(conn).map_err(DbFault::from)).unwrap().remove(0);
    let at = |what: &str| format!("/admin/fleet/{}/{what}", yard.public_id);
    assert_eq!(stranger.post(&at("revoke"), &[]).await.status, 403);
    let made = operator.post("/admin/fleet", &[("name", "granite")]).await;
    let token = customer::between(&made.text, "<code>enrol_", "</code>").unwrap();
    let page = operator.get("/admin/fleet").await.text;
    assert!(!page.contains(&token), "a token is shown once");
    let digest = customer::between(&page, "name=\"token\" value=\"", "\"").unwrap();
    assert_eq!(operator.post("/admin/fleet/tokens/withdraw", &[("token", &digest)]).await.status, 303);
    assert_eq!(operator.post("/admin/fleet/tokens/withdraw", &[("token", &digest)]).await.status, 422);
    let refused = db.transact(|conn| fleet::enrol(conn, &format!("enrol_{token}"), &hardware(), NOW));
    assert!(matches!(refused, Err(EnrolError::TokenWithdrawn)));
    assert_eq!(operator.post(&at("remove"), &[]).await.status, 422, "a machine with a valid key cannot be removed");
    assert_eq!(operator.post(&at("revoke"), &[]).await.status, 303);
    assert!(operator.get("/admin/fleet").await.text.contains("key withdrawn"));
    let renewed = operator.post(&at("key"), &[]).await.text;
    let token = customer::between(&renewed, "<code>enrol_", "</code>").unwrap();
    db.transact(|conn| fleet::enrol(conn, &format!("enrol_{token}"), &hardware(), NOW)).unwrap();
    assert!(!operator.get("/admin/fleet").await.text.contains("key withdrawn"));
    assert_eq!(operator.post(&at("revoke"), &[]).await.status, 303);
    assert_eq!(operator.post(&at("remove"), &[]).await.status, 303);
    assert!(operator.get("/admin/fleet").await.text.contains("No machine is enrolled yet"));
}

#[test]
fn a_silent_machine_gets_no_work_while_another_one_is_idle() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 10);
        let idle = machine(db, "idle");
        let contract = buy(db, &plan, user.id, 1, "key");
        db.write(|conn| {
            let sector = sealing::of_contract(conn, contract.id)?.remove(0);
            sealing::begin_sealing(conn, sector, &"11".repeat(32), 7, NOW)
        })
        .unwrap();
        let now = NOW + 60 * SECOND;
        let granted = |db: &Database| {
            db.write(|conn| {
                let mut snapshot = scheduler::take_turn(conn, now)?;
                snapshot.leave_out_silent(&fleet::heard_lately(conn, 20 * SECOND, now)?);
                scheduler::grant(conn, &snapshot, DAY)
            })
            .unwrap()
        };
        assert!(granted(db).is_empty(), "no machine has been heard for a minute");
        db.write(|conn| fleet::heartbeat(conn, &idle, &hardware(), now)).unwrap();
        let given: HashSet<(TaskId, _)> = granted(db).into_iter().map(|given| (given.task, given.machine)).collect();
        assert!(given.len() == 1 && given.iter().all(|(_, machine)| *machine == idle.id), "{given:?}");
    });
}
