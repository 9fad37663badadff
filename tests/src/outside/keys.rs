//! Keys and tokens of machines: withdrawn, renewed, and bound to a host; and an agent's end.

use std::time::{Duration, Instant};

use sealyard_core::{
    clock::{Clock, DAY, SystemClock},
    fleet::{self, EnrolError, Machine},
};

use super::{
    customer::{self, Customer, shop},
    read,
};
use crate::{
    fixture::Part,
    support::{NOW, hardware, machine, on_both},
};

#[test]
fn machine_keys_and_tokens_can_be_withdrawn_and_renewed() {
    on_both(|db| {
        let yard = machine(db, "yard");
        let known = |key: &str| read(db, |conn| fleet::by_key(conn, key)).is_some();
        let token = || {
            db.write(|conn| fleet::new_key_token(conn, &yard, NOW, NOW + DAY))
                .unwrap()
        };
        let enrol = |token: &str| db.transact(|conn| fleet::enrol(conn, token, &hardware(), NOW));
        let revoke = || db.write(|conn| fleet::revoke(conn, yard.id, NOW)).unwrap();
        let renewed = enrol(&token()).unwrap();
        assert_eq!(
            renewed.machine, yard.public_id,
            "it is still the same machine"
        );
        assert!(known(&renewed.key));
        let again = enrol(&token()).unwrap();
        let early = token();
        assert!(
            known(&again.key) && !known(&renewed.key),
            "the old key no longer works"
        );
        assert!(revoke());
        assert!(!revoke(), "a key is revoked once");
        assert!(!known(&again.key));
        assert!(
            matches!(enrol(&early), Err(EnrolError::TokenWithdrawn)),
            "an earlier token may be in the wrong hands, too"
        );
        assert!(read(db, fleet::lost_machines).contains(&yard.id));
        let unused = token();
        let tokens = || read(db, |conn| fleet::open_tokens(conn, NOW));
        let open = tokens();
        assert_eq!((open.len(), open[0].for_machine), (1, Some(yard.id)));
        assert!(
            db.write(|conn| fleet::withdraw_token(conn, &open[0].digest, NOW))
                .unwrap()
        );
        assert!(matches!(enrol(&unused), Err(EnrolError::TokenWithdrawn)));
        assert!(tokens().is_empty());
        assert!(db.write(|conn| fleet::remove(conn, yard.id, NOW)).unwrap());
        assert!(read(db, fleet::machines).is_empty());
    });
}

#[test]
fn files_are_fetched_only_from_the_host_that_a_machine_named_first() {
    on_both(|db| {
        let offer = |machine: &Machine, url: &str| {
            let offer = fleet::Offer {
                files_url: Some(url),
                keeps: false,
            };
            db.write(|conn| fleet::offer(conn, machine, offer)).unwrap()
        };
        let yard = || read(db, fleet::machines).remove(0);
        machine(db, "yard");
        assert!(offer(&yard(), "http://10.0.0.7:7350"));
        assert!(
            offer(&yard(), "http://10.0.0.7:7351"),
            "a restarted agent may use another port"
        );
        assert_eq!(yard().files_url.as_deref(), Some("http://10.0.0.7:7351"));
        assert!(!offer(&yard(), "http://169.254.169.254/latest"));
        assert_eq!(
            yard().files_url,
            None,
            "files are not fetched from a foreign host"
        );
        assert!(offer(&yard(), "http://10.0.0.7:7351"));
        // A machine that has moved gets a new key and may then name its new host.
        let token = db
            .write(|conn| fleet::new_key_token(conn, &yard(), NOW, NOW + DAY))
            .unwrap();
        db.transact(|conn| fleet::enrol(conn, &token, &hardware(), NOW))
            .unwrap();
        assert!(offer(&yard(), "http://10.0.0.8:7350"));
    });
}

/// A token that a page shows.
fn token_on(page: &str) -> String {
    let token = customer::between(page, "<code>enrol_", "</code>").unwrap();
    format!("enrol_{token}")
}

/// The whole life cycle of keys and tokens on the fleet page.
#[tokio::test(flavor = "multi_thread")]
async fn the_console_withdraws_and_renews_keys_and_removes_machines() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let operator = Customer::operator(&shop).await;
    let stranger = Customer::signed_up(&shop, "ada@example.org").await;
    let yard = read(&db, fleet::machines).remove(0);
    let at = |what: &str| format!("/admin/fleet/{}/{what}", yard.public_id);
    let enrol = |token: &str| db.transact(|conn| fleet::enrol(conn, token, &hardware(), NOW));
    let page = async || operator.get("/admin/fleet").await.text;
    let status = async |what: &str| operator.post(&at(what), &[]).await.status;
    assert_eq!(stranger.post(&at("revoke"), &[]).await.status, 403);
    let made = operator.post("/admin/fleet", &[("name", "granite")]).await;
    let token = token_on(&made.text);
    let text = page().await;
    assert!(
        !text.contains(token.trim_start_matches("enrol_")),
        "a token is shown once"
    );
    let digest = customer::between(&text, "name=\"token\" value=\"", "\"").unwrap();
    for expected in [303, 422] {
        let form = [("token", digest.as_str())];
        let answer = operator.post("/admin/fleet/tokens/withdraw", &form).await;
        assert_eq!(answer.status, expected, "a token is withdrawn once");
    }
    assert!(matches!(enrol(&token), Err(EnrolError::TokenWithdrawn)));
    assert_eq!(
        status("remove").await,
        422,
        "a machine with a valid key cannot be removed"
    );
    assert_eq!(status("revoke").await, 303);
    assert!(page().await.contains("key withdrawn"));
    let renewed = operator.post(&at("key"), &[]).await.text;
    enrol(&token_on(&renewed)).unwrap();
    assert!(!page().await.contains("key withdrawn"));
    assert_eq!(status("revoke").await, 303);
    assert_eq!(status("remove").await, 303);
    assert!(page().await.contains("No machine is enrolled yet"));
}

/// Signals reach an agent at any moment, also while it waits for its next heartbeat.
#[test]
fn an_agent_that_is_told_to_end_does_so_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let now = SystemClock.now();
    let token = db
        .write(|conn| fleet::new_token(conn, "quarry", now, now + DAY))
        .unwrap();
    let folder = dir.path().join("quarry").display().to_string();
    let run = [
        "sealyard-agent",
        "run",
        "--storage",
        "--files-listen",
        "127.0.0.1:0",
    ];
    let of_this_shop = ["--url", &shop.url, "--dir", &folder, "--token", &token];
    let mut agent = Part::new(
        dir.path(),
        "quarry",
        &[&run[..], &of_this_shop[..]].concat(),
    );
    for (round, signal) in ["-TERM", "-INT"].into_iter().enumerate() {
        agent.start();
        let said = |agent: &Part, words: &str| agent.log().matches(words).count() > round;
        until("it works", || said(&agent, "working"));
        // Its heartbeats are five seconds apart, so that it waits now.
        std::thread::sleep(Duration::from_millis(500));
        let pid = agent.pid().to_string();
        let killed = std::process::Command::new("kill")
            .args([signal, &pid])
            .status();
        assert!(killed.unwrap().success());
        let mut ended = None;
        until("it ends", || {
            ended = agent.ended();
            ended.is_some()
        });
        assert_eq!(ended, Some(true), "{signal}: {}", agent.log());
        assert!(
            said(&agent, "another signal ends at once"),
            "{}",
            agent.log()
        );
    }
}

fn until(what: &str, mut done: impl FnMut() -> bool) {
    let started = Instant::now();
    while !done() {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "not seen: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
