//! Machines that send nonsense or fall silent.

use std::{collections::HashSet, time::Duration};

use diesel::{ExpressionMethods, RunQueryDsl};
use proptest::{prelude::*, test_runner::TestRunner};
use sealyard_core::{
    clock::{Clock, DAY, SECOND, SystemClock},
    fleet,
    ids::TaskId,
    jobs::{self, AlertKind},
    scheduler, sealing,
    store::{Database, schema::machines as m},
};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Handle};

use super::{
    customer::{Customer, shop},
    read, trials,
};
use crate::{
    books::buy,
    fixture::Shop,
    support::{self, NOW, hardware, machine, on_both},
};

/// Enrols a machine and returns its key.
fn key_of(db: &Database, name: &str) -> String {
    db.write(|conn| {
        let now = SystemClock.now();
        let token = fleet::new_token(conn, name, now, now + DAY)?;
        Ok(fleet::enrol(conn, &token, &hardware(), now).unwrap().key)
    })
    .unwrap()
}

/// Sends the requests of a machine, from outside any async runtime.
struct Agent {
    runtime: Handle,
    http: reqwest::Client,
    url: String,
    key: String,
}

impl Agent {
    fn send(&self, path: &str, body: Vec<u8>) -> u16 {
        let request = self
            .http
            .post(format!("{}/agent/v1/{path}", self.url))
            .bearer_auth(&self.key);
        let request = request
            .header("content-type", "application/json")
            .body(body);
        self.runtime
            .block_on(async { request.send().await.unwrap().status().as_u16() })
    }

    fn beat(&self, hardware: &Value) -> u16 {
        self.send(
            "heartbeat",
            json!({"hardware": hardware, "running": []})
                .to_string()
                .into_bytes(),
        )
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
        prop_oneof![
            Just(i64::MAX),
            Just(i64::MIN),
            Just(-1),
            Just(0),
            any::<i64>()
        ]
        .prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,40}".prop_map(Value::from),
        Just(Value::from("x".repeat(5000))),
        Just(Value::from("a\0b")),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(
                "(cores|memory_bytes|disk_bytes|gpus|running|hardware|task|fence|outcome|x)",
                inner,
                0..4
            )
            .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// A sound request with one value replaced by any JSON.
fn spoilt() -> impl Strategy<Value = (&'static str, Value)> {
    let heartbeat = json!({
        "hardware": sound(),
        "running": [{"task": 1, "fence": 1, "progress": "x"}],
        "stored": [{"miner": 1000, "number": 1}],
        "files_url": "http://10.0.0.7:1",
        "keeps": false,
    });
    let report = json!({
        "task": 1,
        "fence": 1,
        "outcome": {"done": {"output": {}}},
        "usage": {"wall_ms": 1, "cpu_ms": 1, "peak_bytes": 1},
    });
    let enrol = json!({"token": "enrol_x", "hardware": sound()});
    let base = prop_oneof![
        Just(("heartbeat", heartbeat)),
        Just(("report", report)),
        Just(("enrol", enrol))
    ];
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
        Value::Object(map) => map
            .iter()
            .map(|(key, value)| (format!("{at}/{key}"), value))
            .collect(),
        Value::Array(list) => list
            .iter()
            .enumerate()
            .map(|(n, value)| (format!("{at}/{n}"), value))
            .collect(),
        _ => Vec::new(),
    };
    let mut all: Vec<String> = inner
        .into_iter()
        .flat_map(|(at, value)| pointers(value, at))
        .collect();
    all.push(at);
    all
}

fn agent(runtime: &Handle, shop: &Shop, key: String) -> Agent {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    Agent {
        runtime: runtime.clone(),
        http,
        url: shop.url.clone(),
        key,
    }
}

/// Sends sound requests with one value spoilt, and then any bytes.
fn send_nonsense(bad: &Agent) {
    let mut runner = TestRunner::new(ProptestConfig {
        cases: trials() * 8,
        failure_persistence: None,
        ..ProptestConfig::default()
    });
    runner
        .run(&spoilt(), |(path, body)| {
            let status = bad.send(path, body.to_string().into_bytes());
            prop_assert!(status < 500, "{path} {body}: {status}");
            Ok(())
        })
        .unwrap();
    let paths = prop::sample::select(vec!["heartbeat", "report", "enrol"]);
    let bytes = prop::collection::vec(any::<u8>(), 0..300);
    runner
        .run(&(paths, bytes), |(path, body)| {
            prop_assert!(bad.send(path, body) < 500);
            Ok(())
        })
        .unwrap();
}

/// Whatever a machine sends, the server neither panics nor answers with an error of its own, and
/// quotes and other machines are not affected.
#[test]
fn no_request_of_a_machine_breaks_the_server() {
    let dir = tempfile::tempdir().unwrap();
    let runtime = Builder::new_multi_thread().enable_all().build().unwrap();
    let (shop, db) = runtime.block_on(async { shop(dir.path(), "") });
    sealyard_filecoin::http::client(Duration::from_secs(1)).unwrap();
    let [bad, good] = ["mad", "sane"].map(|name| agent(runtime.handle(), &shop, key_of(&db, name)));
    send_nonsense(&bad);
    for spoil in ["cores", "memory_bytes", "disk_bytes", "disk_free_bytes"] {
        let mut worst = sound();
        worst[spoil] = json!(i64::MAX);
        assert_eq!(bad.beat(&worst), 400, "{spoil}");
    }
    let alerts = read(&db, jobs::alerts);
    assert!(
        alerts
            .iter()
            .any(|a| a.kind == AlertKind::Machine && a.text.contains("reports impossible values")),
        "{alerts:?}"
    );
    assert_eq!(good.beat(&sound()), 200);
    runtime.block_on(async {
        let ada = Customer::signed_up(&shop, "ada@example.org").await;
        let (_, _, shown) = ada.quote(&db, 1).await;
        assert!(!shown.is_empty(), "quotes still work");
    });
    let log = shop.serve.log();
    assert!(!log.contains("panicked"), "{log}");
    assert_eq!(
        bad.beat(&sound()),
        200,
        "a machine that reports sound values is believed again"
    );
    let alerts = read(&db, jobs::alerts);
    assert!(
        !alerts.iter().any(|a| a.text.contains("in its heartbeat")),
        "{alerts:?}"
    );
}

/// Such rows may have been written before values were checked.
#[test]
fn the_planner_survives_impossible_machines() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 10);
        db.write(|conn| {
            let most = (
                m::cores.eq(i64::MAX),
                m::memory_bytes.eq(i64::MAX),
                m::disk_bytes.eq(i64::MAX),
            );
            diesel::update(m::table)
                .set((most, m::disk_free_bytes.eq(i64::MAX), m::gpus.eq(i64::MAX)))
                .execute(conn)?;
            Ok(())
        })
        .unwrap();
        buy(db, &plan, user.id, 2, "key");
        db.write(|conn| scheduler::dispatch(conn, NOW, DAY))
            .unwrap();
    });
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
        assert!(
            granted(db).is_empty(),
            "no machine has been heard for a minute"
        );
        db.write(|conn| fleet::heartbeat(conn, &idle, &hardware(), now))
            .unwrap();
        let given: HashSet<(TaskId, _)> = granted(db)
            .into_iter()
            .map(|given| (given.task, given.machine))
            .collect();
        assert!(
            given.len() == 1 && given.iter().all(|(_, machine)| *machine == idle.id),
            "{given:?}"
        );
    });
}
