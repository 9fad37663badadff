//! Messages have UUIDs of their own, and the worker asks the chain about their outcome.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use sealyard_core::{
    capacity::{NewPool, create_pool},
    clock::SECOND,
    jobs::AlertKind,
    proving::{self, NewPost, PostState},
    sealing::{self, MessageRequest, MessageState, OnChain, Purpose, SectorState},
    store::{AnyConnection, Database, DbFault},
};
use sealyard_devnet::Config;
use serde_json::{Value, json};

use super::yard::Yard;
use crate::{
    proxy::Reply,
    support::{NOW, on_both},
};

/// The ticket epoch of sealed sectors. The devnet refuses only PreCommits whose ticket is in the
/// future or older than its look-back.
const TICKET: i64 = 5;

fn uuid_of(db: &Database, request: impl Fn(&mut AnyConnection) -> MessageRequest<'static>) -> String {
    db.write(|conn| {
        let request = request(conn);
        let id = sealing::build_message(conn, &request, NOW)?;
        Ok(sealing::message_by_id(conn, id)?.uuid)
    })
    .unwrap()
}

#[test]
fn two_messages_never_share_a_uuid_even_under_the_same_row() {
    let seen = std::sync::Mutex::new(Vec::new());
    on_both(|db| {
        let pool = db.write(|conn| create_pool(conn, &NewPool::new("Test", 1000, 2048, NOW))).unwrap().id;
        let request =
            |attempt, params| MessageRequest { pool, purpose: Purpose::WindowPost, subject: 7, attempt, method: 5, params };
        let first = uuid_of(db, |_| request(0, b"a"));
        assert_eq!(first, uuid_of(db, |_| request(0, b"a")), "the same attempt is the same message");
        assert_ne!(first, uuid_of(db, |_| request(1, b"a")));
        // A restored backup writes the same rows again, for another proof.
        let forget = |db: &Database| {
            use diesel::RunQueryDsl;
            db.write(|conn| diesel::sql_query("DELETE FROM messages").execute(conn)).unwrap();
        };
        forget(db);
        assert_ne!(first, uuid_of(db, |_| request(0, b"b")), "another message under the old row has another UUID");
        forget(db);
        assert_eq!(first, uuid_of(db, |_| request(0, b"a")), "the same message keeps its UUID, so the node knows it");
        seen.lock().unwrap().push(first);
    });
    let seen = seen.into_inner().unwrap();
    assert_ne!(seen[0], seen[1], "two installations on one node have different UUIDs");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_does_not_block_the_next_one() {
    let mut yard = Yard::open(Config::default(), "", 2).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    yard.sealed(2, 0x22, TICKET);
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let first: Arc<std::sync::Mutex<Option<Value>>> = Arc::default();
    yard.gate(move |asked| {
        if asked["method"] != "Filecoin.MpoolPushMessage" {
            return None;
        }
        // Refuse the first message every time.
        let params = asked["params"][0]["Params"].clone();
        let bad = first.lock().unwrap().get_or_insert_with(|| params.clone()).clone();
        (params == bad).then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            let error = json!({"code": 1, "message": "message execution failed: exit 16"});
            Reply::ok(json!({"jsonrpc": "2.0", "id": asked["id"], "error": error}).to_string().into_bytes())
        })
    });
    yard.work.start();
    yard.until("the second is pushed", 0, || yard.messages(MessageState::Pushed).len() == 1).await;
    yard.until("the first is refused", 0, || {
        let waiting = yard.messages(MessageState::Built);
        waiting.len() == 1 && waiting[0].last_error.as_ref().is_some_and(|why| why.contains("exit 16"))
    })
    .await;
    assert!(refused.load(Ordering::SeqCst) > 0);
}

/// The node has forgotten, or never supported, UUIDs, and its first answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_answer_was_lost_is_found_in_the_mempool_or_on_chain() {
    for landed_before_the_retry in [false, true] {
        let mut yard = Yard::open(Config::default(), "", 1).await;
        yard.step(50).await;
        yard.sealed(1, 0x11, TICKET);
        let pushes = Arc::new(AtomicUsize::new(0));
        let seen = Arc::clone(&pushes);
        yard.spoil(move |method, _| {
            // The push reaches the node, but its answer is lost.
            let lost = method == "Filecoin.MpoolPushMessage" && seen.fetch_add(1, Ordering::SeqCst) == 0;
            lost.then(|| Reply { status: 502, body: b"<html>bad gateway</html>".to_vec(), after: std::time::Duration::ZERO })
        });
        if landed_before_the_retry {
            // Retries within the call fail as well: the node does not answer until the message is
            // on chain.
            let away = Arc::new(AtomicUsize::new(0));
            let seen = Arc::clone(&away);
            yard.spoil(move |method, _| {
                let lost = method == "Filecoin.MpoolPushMessage" && seen.fetch_add(1, Ordering::SeqCst) < 3;
                lost.then(|| Reply { status: 502, body: Vec::new(), after: std::time::Duration::ZERO })
            });
        }
        yard.work.start();
        yard.until("the sector waits for its seed", i64::from(landed_before_the_retry), || {
            yard.sector(1).state == SectorState::WaitSeed
                || (!landed_before_the_retry && !yard.messages(MessageState::Pushed).is_empty())
        })
        .await;
        yard.until("the sector waits for its seed", 1, || yard.sector(1).state == SectorState::WaitSeed).await;
        assert_eq!((yard.sector(1).failures, yard.sector(1).reason), (0, None));
        assert!(yard.messages(MessageState::Failed).is_empty());
    }
}

/// On Forest each push is a new message. The second PreCommit fails on chain, and the first one
/// counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_landed_under_another_cid_is_adopted() {
    let mut yard = Yard::open(Config::default(), "", 1).await;
    yard.step(50).await;
    let sector = yard.sealed(1, 0x11, TICKET);
    // Somebody has sent the same PreCommit, perhaps this installation before a backup was restored.
    let params = sealyard_filecoin::actor::pre_commit(&[sealyard_filecoin::actor::PreCommit {
        proof: sealyard_filecoin::sector::SealProof::Drg2KiB,
        number: 1,
        comm_r: sealyard_filecoin::hash::Hash32([0x11; 32]),
        ticket_epoch: TICKET,
        expiration: 300 * 2880,
    }])
    .unwrap();
    let request = crate::devnet::message(sealyard_filecoin::actor::Method::PreCommitSectorBatch2, &params);
    yard.node.push(&request, &crate::openrpc::spec("another")).await.unwrap();
    yard.work.start();
    yard.until("ours is pushed behind it", 0, || yard.messages(MessageState::Pushed).len() == 1).await;
    yard.until("the sector waits for its seed", 1, || yard.sector(1).state == SectorState::WaitSeed).await;
    let (sector, message) =
        (yard.sector(1), yard.db.read(|conn| sealing::latest_message(conn, Purpose::PreCommit, sector.0).map_err(DbFault::from)));
    let message = message.unwrap().unwrap();
    assert_eq!((sector.failures, message.state.name()), (0, "landed"));
    let sector_pool = sector.pool_id;
    assert!(message.adopted_at.is_some(), "the chain had it through another message");
    let gas = yard.db.read(|conn| sealing::gas_cost(conn, sector_pool, 0, 10_000).map_err(DbFault::from)).unwrap();
    assert!(gas > 0, "the copy that failed was paid for");
}

#[tokio::test(flavor = "multi_thread")]
async fn another_message_under_our_uuid_is_not_taken_for_ours() {
    let mut yard = Yard::open(Config::default(), "", 1).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    let lies = Arc::new(AtomicUsize::new(0));
    let told = Arc::clone(&lies);
    yard.spoil(move |method, body| {
        let mut answer: Value = serde_json::from_slice(body).unwrap();
        // The UUID was used before, so the answer holds another message.
        let lie = method == "Filecoin.MpoolPushMessage" && told.fetch_add(1, Ordering::SeqCst) == 0;
        lie.then(|| {
            answer["result"]["Message"]["Params"] = json!("gIA=");
            Reply::ok(answer.to_string().into_bytes())
        })
    });
    yard.work.start();
    yard.until("the sector waits for its seed", 1, || yard.sector(1).state == SectorState::WaitSeed).await;
    assert_eq!(yard.sector(1).failures, 0);
    assert!(lies.load(Ordering::SeqCst) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sector_gets_a_new_number_when_the_chain_has_used_its_old_one() {
    let mut yard = Yard::open(Config::default(), "", 1).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    let foreign = sealyard_filecoin::actor::pre_commit(&[sealyard_filecoin::actor::PreCommit {
        proof: sealyard_filecoin::sector::SealProof::Drg2KiB,
        number: 1,
        comm_r: sealyard_filecoin::hash::Hash32([0x77; 32]),
        ticket_epoch: TICKET,
        expiration: 300 * 2880,
    }])
    .unwrap();
    let request = crate::devnet::message(sealyard_filecoin::actor::Method::PreCommitSectorBatch2, &foreign);
    yard.node.push(&request, &crate::openrpc::spec("another")).await.unwrap();
    yard.step(1).await;
    yard.work.start();
    yard.until("it has another number", 0, || {
        let all = yard.db.read(|conn| sealing::all_sectors(conn, 9).map_err(DbFault::from)).unwrap();
        all.len() == 1 && all[0].number == 2 && all[0].reason.as_ref().is_some_and(|why| why.contains("old number 1"))
    })
    .await;
    assert_eq!(yard.messages(MessageState::Pushed).len(), 0, "a message was sent for a number that is taken");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_sector_sends_a_new_message() {
    on_both(|db| {
        let pool = db.write(|conn| create_pool(conn, &NewPool::new("Test", 1000, 2048, NOW))).unwrap().id;
        let next = || db.read(|conn| sealing::next_attempt(conn, Purpose::PreCommit, 1).map_err(DbFault::from)).unwrap();
        for expected in 0..6 {
            assert_eq!(next(), expected, "attempts are counted by messages, even after a release");
            let request =
                MessageRequest { pool, purpose: Purpose::PreCommit, subject: 1, attempt: next(), method: 28, params: b"x" };
            db.write(|conn| sealing::build_message(conn, &request, NOW)).unwrap();
        }
    });
    let mut yard = Yard::open(Config::default(), "", 1).await;
    yard.step(50).await;
    let id = yard.sealed(1, 0x11, TICKET);
    // The sector failed until it was quarantined, and a person has released it.
    yard.db
        .write(|conn| {
            let pool = yard.sector(1).pool_id;
            for attempt in 0..5 {
                let request =
                    MessageRequest { pool, purpose: Purpose::PreCommit, subject: id.0, attempt, method: 28, params: b"bad" };
                let message = sealing::build_message(conn, &request, NOW)?;
                sealing::give_up(conn, message, "it failed", NOW)?;
                let sector = sealing::sector_by_id(conn, id)?;
                let fact = OnChain::MessageFailed { reason: "it failed".into() };
                sealing::mark_on_chain(conn, sector, fact, NOW).unwrap();
            }
            assert_eq!(sealing::sector_by_id(conn, id)?.state, SectorState::Quarantined);
            assert!(sealing::release(conn, id, NOW)?);
            Ok(())
        })
        .unwrap();
    yard.sealed(1, 0x11, TICKET);
    yard.work.start();
    yard.until("the sector waits for its seed", 1, || yard.sector(1).state == SectorState::WaitSeed).await;
    let message = yard.db.read(|conn| sealing::latest_message(conn, Purpose::PreCommit, id.0).map_err(DbFault::from)).unwrap();
    assert_eq!(message.unwrap().attempt, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_moves_a_pre_commit_together_with_its_seed() {
    let settings = Config { reorg_depth: 20, ..Config::default() };
    let mut yard = Yard::open(settings, "", 1).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    yard.work.start();
    yard.until("the sector waits for its seed", 1, || yard.sector(1).state == SectorState::WaitSeed).await;
    let before = yard.sector(1).seed_epoch.unwrap();
    yard.reorg(6, 5).await;
    yard.until("the seed's epoch moved", 0, || yard.sector(1).seed_epoch.is_some_and(|epoch| epoch > before)).await;
    let moved = yard.sector(1);
    let info = yard.node.pre_commit_info(&fvm_shared::address::Address::new_id(1000), 1, &Vec::new()).await.unwrap().unwrap();
    assert_eq!(moved.seed_epoch, Some(info.pre_commit_epoch + 150));
    assert_eq!((moved.state, moved.failures), (SectorState::WaitSeed, 0));
    // A reorganisation removes it from the chain for a while, and it comes back.
    yard.reorg(12, 12).await;
    yard.until("the PreCommit is waited for again", 0, || yard.sector(1).state == SectorState::PreCommitting).await;
    yard.until("the sector waits for its seed", 1, || yard.sector(1).state == SectorState::WaitSeed).await;
    assert!(yard.sector(1).seed_epoch > moved.seed_epoch && yard.sector(1).failures == 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_underpriced_message_is_replaced_until_it_needs_a_person_at_its_fee_limit() {
    let mut yard = Yard::open(Config::default(), "stuck_after_s = 1\nmax_fee_pre_commit = \"0.1\"\n", 1).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    yard.work.start();
    yard.until("it is pushed", 0, || yard.messages(MessageState::Pushed).len() == 1).await;
    let first = yard.messages(MessageState::Pushed).remove(0);
    // Raise the base fee far above the offer.
    let _: Value = yard.node.call("Devnet.SetBaseFee", json!([20_000_000])).await.unwrap();
    yard.until("it is sent again under its nonce", 1, || {
        let now = yard.messages(MessageState::Pushed);
        now.first().is_none_or(|m| m.cid != first.cid)
    })
    .await;
    yard.until("the sector waits for its seed", 1, || yard.sector(1).state == SectorState::WaitSeed).await;
    let landed = yard.messages(MessageState::Landed).remove(0);
    assert_eq!((landed.nonce, yard.sector(1).failures), (first.nonce, 0));
    assert!(yard.alerts().is_empty(), "{:?}", yard.alerts());

    // The base fee is far above the limit of a PreCommit, so the message needs a person.
    let mut poor = Yard::open(Config::default(), "stuck_after_s = 1\nmax_fee_pre_commit = \"0.000001\"\n", 1).await;
    poor.step(50).await;
    let _: Value = poor.node.call("Devnet.SetBaseFee", json!([20_000_000])).await.unwrap();
    poor.sealed(1, 0x11, TICKET);
    poor.work.start();
    poor.until("a person is told", 1, || {
        poor.alerts().iter().any(|a| a.kind == AlertKind::Message && a.text.contains("raise max_fee_pre_commit"))
    })
    .await;
}

/// The proof of the window was sent but did not land.
#[test]
fn a_window_without_a_proof_is_missed_until_a_late_receipt_arrives() {
    on_both(|db| {
        let (post, closed) = db
            .write(|conn| {
                let pool = create_pool(conn, &NewPool::new("Test", 1000, 2048, NOW))?.id;
                let new = NewPost {
                    pool,
                    deadline: 3,
                    partition: 0,
                    open_epoch: 100,
                    close_epoch: 160,
                    challenge_epoch: 80,
                    randomness: String::new(),
                    sectors: Vec::new(),
                    due_at: NOW + 60 * 30 * SECOND,
                };
                proving::begin(conn, &new, NOW)?;
                let post = proving::in_state(conn, PostState::Vanilla)?.remove(0);
                use diesel::{ExpressionMethods, RunQueryDsl};
                use sealyard_core::store::schema::window_posts as w;
                diesel::update(w::table).set(w::state.eq(PostState::Submitted.name())).execute(conn)?;
                let closed = |conn: &mut AnyConnection, head| proving::closed(conn, pool, head).map(|posts| posts.len());
                Ok((post, [closed(conn, 159)?, closed(conn, 160)?]))
            })
            .unwrap();
        assert_eq!(closed, [0, 1]);
        let alerts = || db.read(|conn| sealyard_core::jobs::alerts(conn).map_err(DbFault::from)).unwrap();
        assert!(db.write(|conn| proving::miss(conn, &post, NOW)).unwrap());
        assert!(!db.write(|conn| proving::miss(conn, &post, NOW)).unwrap(), "a window is missed once");
        assert!(alerts().len() == 1 && alerts()[0].text.contains("deadline 3 partition 0"), "{:?}", alerts());
        db.write(|conn| proving::landed(conn, post.id, 0)).unwrap();
        assert!(alerts().is_empty());
        let landed = db.read(|conn| proving::in_state(conn, PostState::Landed).map_err(DbFault::from)).unwrap();
        assert_eq!(landed.len(), 1);
    });
}
