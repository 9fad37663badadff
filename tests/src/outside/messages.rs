//! Messages have UUIDs of their own, and the worker asks the chain about their outcome.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use diesel::{ExpressionMethods, RunQueryDsl};
use sealyard_core::{
    capacity::{NewPool, create_pool},
    clock::SECOND,
    ids::{PoolId, SectorId},
    jobs::{self, AlertKind},
    proving::{self, NewPost, PostState, WindowPost},
    sealing::{self, Message, MessageRequest, MessageState, OnChain, Purpose, SectorState},
    store::{AnyConnection, Database, DbResult, schema::window_posts as w},
};
use sealyard_devnet::Config;
use sealyard_filecoin::{
    actor::{self, Method, PreCommit},
    hash::Hash32,
    sector::SealProof,
};
use serde_json::{Value, json};

use super::{read, yard::Yard};
use crate::{
    devnet, openrpc,
    proxy::Reply,
    support::{NOW, on_both},
};

/// The ticket epoch of sealed sectors. The devnet refuses only PreCommits whose ticket is in the
/// future or older than its look-back.
const TICKET: i64 = 5;

fn new_pool(conn: &mut AnyConnection) -> DbResult<PoolId> {
    Ok(create_pool(conn, &NewPool::new("Test", 1000, 2048, NOW))?.id)
}

/// Builds a message, or finds it, and returns its UUID.
fn uuid_of(db: &Database, request: &MessageRequest<'_>) -> String {
    db.write(|conn| {
        let id = sealing::build_message(conn, request, NOW)?;
        Ok(sealing::message_by_id(conn, id)?.uuid)
    })
    .unwrap()
}

#[test]
fn two_messages_never_share_a_uuid_even_under_the_same_row() {
    let seen = Mutex::new(Vec::new());
    on_both(|db| {
        let pool = db.write(new_pool).unwrap();
        let uuid = |attempt, params| {
            let request = MessageRequest {
                pool,
                purpose: Purpose::WindowPost,
                subject: 7,
                attempt,
                method: 5,
                params,
            };
            uuid_of(db, &request)
        };
        // A restored backup writes the same rows again, for another proof.
        let forget = || {
            db.write(|conn| diesel::sql_query("DELETE FROM messages").execute(conn))
                .unwrap();
        };
        let first = uuid(0, b"a");
        assert_eq!(first, uuid(0, b"a"), "the same attempt is the same message");
        assert_ne!(first, uuid(1, b"a"));
        forget();
        assert_ne!(
            first,
            uuid(0, b"b"),
            "another message under the old row has another UUID"
        );
        forget();
        assert_eq!(
            first,
            uuid(0, b"a"),
            "the same message keeps its UUID, so the node knows it"
        );
        seen.lock().unwrap().push(first);
    });
    let seen = seen.into_inner().unwrap();
    assert_ne!(
        seen[0], seen[1],
        "two installations on one node have different UUIDs"
    );
}

/// An answer of the node that refuses a message.
fn refusal(asked: &Value) -> Reply {
    let error = json!({"code": 1, "message": "message execution failed: exit 16"});
    let answer = json!({"jsonrpc": "2.0", "id": asked["id"], "error": error});
    Reply::ok(answer.to_string().into_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_message_does_not_block_the_next_one() {
    let mut yard = Yard::open(Config::default(), "", 2).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    yard.sealed(2, 0x22, TICKET);
    let refused = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&refused);
    let first: Arc<Mutex<Option<Value>>> = Arc::default();
    yard.gate(move |asked| {
        if asked["method"] != "Filecoin.MpoolPushMessage" {
            return None;
        }
        // Refuse the first message every time.
        let params = asked["params"][0]["Params"].clone();
        let bad = first
            .lock()
            .unwrap()
            .get_or_insert_with(|| params.clone())
            .clone();
        (params == bad).then(|| {
            count.fetch_add(1, Ordering::SeqCst);
            refusal(asked)
        })
    });
    yard.work.start();
    yard.until("the second is pushed", 0, || {
        yard.messages(MessageState::Pushed).len() == 1
    })
    .await;
    yard.until("the first is refused", 0, || {
        let waiting = yard.messages(MessageState::Built);
        waiting.len() == 1
            && waiting[0]
                .last_error
                .as_ref()
                .is_some_and(|why| why.contains("exit 16"))
    })
    .await;
    assert!(refused.load(Ordering::SeqCst) > 0);
}

/// Has the answers to the first `times` pushes lost, although they reach the node.
fn lose_answers(yard: &Yard, times: usize) {
    let mut pushes = 0;
    yard.spoil(move |method, _| {
        if method != "Filecoin.MpoolPushMessage" {
            return None;
        }
        pushes += 1;
        (pushes <= times).then(|| Reply {
            status: 502,
            body: b"<html>bad gateway</html>".to_vec(),
            after: Duration::ZERO,
        })
    });
}

/// The node has forgotten, or never supported, UUIDs, and its first answer is lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_push_whose_answer_was_lost_is_found_in_the_mempool_or_on_chain() {
    for landed_before_the_retry in [false, true] {
        let mut yard = Yard::open(Config::default(), "", 1).await;
        yard.step(50).await;
        yard.sealed(1, 0x11, TICKET);
        // Retries within the call may fail as well: the node does not answer until the message is
        // on chain.
        lose_answers(&yard, if landed_before_the_retry { 3 } else { 1 });
        yard.work.start();
        if !landed_before_the_retry {
            yard.until("the push is found", 0, || {
                yard.sector(1).state == SectorState::WaitSeed
                    || !yard.messages(MessageState::Pushed).is_empty()
            })
            .await;
        }
        yard.until_it_waits_for_its_seed().await;
        assert_eq!((yard.sector(1).failures, yard.sector(1).reason), (0, None));
        assert!(yard.messages(MessageState::Failed).is_empty());
    }
}

/// Has somebody else send the PreCommit of sector 1, with this CommR.
async fn push_pre_commit(yard: &Yard, comm_r: u8) {
    let params = actor::pre_commit(&[PreCommit {
        proof: SealProof::Drg2KiB,
        number: 1,
        comm_r: Hash32([comm_r; 32]),
        ticket_epoch: TICKET,
        expiration: 300 * 2880,
    }])
    .unwrap();
    let request = devnet::message(Method::PreCommitSectorBatch2, &params);
    yard.node
        .push(&request, &openrpc::spec("another"))
        .await
        .unwrap();
}

/// The latest PreCommit message of a sector.
fn pre_commit_of(yard: &Yard, sector: SectorId) -> Message {
    read(&yard.db, |conn| {
        sealing::latest_message(conn, Purpose::PreCommit, sector.0)
    })
    .unwrap()
}

/// On Forest each push is a new message. The second PreCommit fails on chain, and the first one
/// counts.
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_landed_under_another_cid_is_adopted() {
    let mut yard = Yard::open(Config::default(), "", 1).await;
    yard.step(50).await;
    let sector = yard.sealed(1, 0x11, TICKET);
    // Somebody has sent the same PreCommit, perhaps this installation before a backup was restored.
    push_pre_commit(&yard, 0x11).await;
    yard.work.start();
    yard.until("ours is pushed behind it", 0, || {
        yard.messages(MessageState::Pushed).len() == 1
    })
    .await;
    yard.until_it_waits_for_its_seed().await;
    let (sector, message) = (yard.sector(1), pre_commit_of(&yard, sector));
    assert_eq!((sector.failures, message.state.name()), (0, "landed"));
    assert!(
        message.adopted_at.is_some(),
        "the chain had it through another message"
    );
    let gas = read(&yard.db, |conn| {
        sealing::gas_cost(conn, sector.pool_id, 0, 10_000)
    });
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
    yard.until_it_waits_for_its_seed().await;
    assert_eq!(yard.sector(1).failures, 0);
    assert!(lies.load(Ordering::SeqCst) >= 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sector_gets_a_new_number_when_the_chain_has_used_its_old_one() {
    let mut yard = Yard::open(Config::default(), "", 1).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    push_pre_commit(&yard, 0x77).await;
    yard.step(1).await;
    yard.work.start();
    yard.until("it has another number", 0, || {
        let all = read(&yard.db, |conn| sealing::all_sectors(conn, 9));
        all.len() == 1
            && all[0].number == 2
            && all[0]
                .reason
                .as_ref()
                .is_some_and(|why| why.contains("old number 1"))
    })
    .await;
    assert_eq!(
        yard.messages(MessageState::Pushed).len(),
        0,
        "a message was sent for a number that is taken"
    );
}

/// The `attempt`th PreCommit message of a sector.
fn pre_commit(pool: PoolId, sector: i64, attempt: i64) -> MessageRequest<'static> {
    MessageRequest {
        pool,
        purpose: Purpose::PreCommit,
        subject: sector,
        attempt,
        method: 28,
        params: b"bad",
    }
}

fn assert_attempts_are_counted_by_messages(db: &Database) {
    let pool = db.write(new_pool).unwrap();
    for expected in 0..6 {
        let next = read(db, |conn| {
            sealing::next_attempt(conn, Purpose::PreCommit, 1)
        });
        assert_eq!(
            next, expected,
            "attempts are counted by messages, even after a release"
        );
        db.write(|conn| sealing::build_message(conn, &pre_commit(pool, 1, next), NOW))
            .unwrap();
    }
}

/// Has a sector fail until it is quarantined, and a person release it.
fn fail_and_release(conn: &mut AnyConnection, id: SectorId) -> DbResult<()> {
    let pool = sealing::sector_by_id(conn, id)?.pool_id;
    for attempt in 0..5 {
        let message = sealing::build_message(conn, &pre_commit(pool, id.0, attempt), NOW)?;
        sealing::give_up(conn, message, "it failed", NOW)?;
        let sector = sealing::sector_by_id(conn, id)?;
        let fact = OnChain::MessageFailed {
            reason: "it failed".into(),
        };
        sealing::mark_on_chain(conn, sector, fact, NOW).unwrap();
    }
    assert_eq!(
        sealing::sector_by_id(conn, id)?.state,
        SectorState::Quarantined
    );
    assert!(sealing::release(conn, id, NOW)?);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_released_sector_sends_a_new_message() {
    on_both(assert_attempts_are_counted_by_messages);
    let mut yard = Yard::open(Config::default(), "", 1).await;
    yard.step(50).await;
    let id = yard.sealed(1, 0x11, TICKET);
    yard.db.write(|conn| fail_and_release(conn, id)).unwrap();
    yard.sealed(1, 0x11, TICKET);
    yard.work.start();
    yard.until_it_waits_for_its_seed().await;
    assert_eq!(pre_commit_of(&yard, id).attempt, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reorganisation_moves_a_pre_commit_together_with_its_seed() {
    let settings = Config {
        reorg_depth: 20,
        ..Config::default()
    };
    let mut yard = Yard::open(settings, "", 1).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    yard.work.start();
    yard.until_it_waits_for_its_seed().await;
    let before = yard.sector(1).seed_epoch.unwrap();
    yard.reorg(6, 5).await;
    yard.until("the seed's epoch moved", 0, || {
        yard.sector(1)
            .seed_epoch
            .is_some_and(|epoch| epoch > before)
    })
    .await;
    let moved = yard.sector(1);
    let info = yard
        .node
        .pre_commit_info(&fvm_shared::address::Address::new_id(1000), 1, &Vec::new())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(moved.seed_epoch, Some(info.pre_commit_epoch + 150));
    assert_eq!((moved.state, moved.failures), (SectorState::WaitSeed, 0));
    // A reorganisation removes it from the chain for a while, and it comes back.
    yard.reorg(12, 12).await;
    yard.until("the PreCommit is waited for again", 0, || {
        yard.sector(1).state == SectorState::PreCommitting
    })
    .await;
    yard.until_it_waits_for_its_seed().await;
    assert!(yard.sector(1).seed_epoch > moved.seed_epoch && yard.sector(1).failures == 0);
}

/// A yard that replaces stuck messages after a second, with this limit for a PreCommit's fee. Its
/// sector's PreCommit is due.
async fn yard_with_a_fee_limit(most: &str) -> Yard {
    let more = format!("stuck_after_s = 1\nmax_fee_pre_commit = \"{most}\"\n");
    let yard = Yard::open(Config::default(), &more, 1).await;
    yard.step(50).await;
    yard.sealed(1, 0x11, TICKET);
    yard
}

#[tokio::test(flavor = "multi_thread")]
async fn an_underpriced_message_is_replaced_until_it_needs_a_person_at_its_fee_limit() {
    let mut yard = yard_with_a_fee_limit("0.1").await;
    yard.work.start();
    yard.until("it is pushed", 0, || {
        yard.messages(MessageState::Pushed).len() == 1
    })
    .await;
    let first = yard.messages(MessageState::Pushed).remove(0);
    // Raise the base fee far above the offer.
    yard.set_base_fee(20_000_000).await;
    yard.until("it is sent again under its nonce", 1, || {
        let now = yard.messages(MessageState::Pushed);
        now.first().is_none_or(|m| m.cid != first.cid)
    })
    .await;
    yard.until_it_waits_for_its_seed().await;
    let landed = yard.messages(MessageState::Landed).remove(0);
    assert_eq!((landed.nonce, yard.sector(1).failures), (first.nonce, 0));
    assert!(yard.alerts().is_empty(), "{:?}", yard.alerts());

    // The base fee is far above the limit of a PreCommit, so the message needs a person.
    let mut poor = yard_with_a_fee_limit("0.000001").await;
    poor.set_base_fee(20_000_000).await;
    poor.work.start();
    poor.until("a person is told", 1, || {
        poor.alerts()
            .iter()
            .any(|a| a.kind == AlertKind::Message && a.text.contains("raise max_fee_pre_commit"))
    })
    .await;
}

/// A window that opens at epoch 100 and closes at 160, whose proof was sent but did not land.
fn submitted_window(conn: &mut AnyConnection, pool: PoolId) -> DbResult<WindowPost> {
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
    diesel::update(w::table)
        .set(w::state.eq(PostState::Submitted.name()))
        .execute(conn)?;
    Ok(post)
}

#[test]
fn a_window_without_a_proof_is_missed_until_a_late_receipt_arrives() {
    on_both(|db| {
        let pool = db.write(new_pool).unwrap();
        let post = db.write(|conn| submitted_window(conn, pool)).unwrap();
        let closed = [159, 160].map(|head| read(db, |conn| proving::closed(conn, pool, head)));
        assert_eq!(closed.map(|posts| posts.len()), [0, 1]);
        let miss = || db.write(|conn| proving::miss(conn, &post, NOW)).unwrap();
        assert!(miss());
        assert!(!miss(), "a window is missed once");
        let alerts = read(db, jobs::alerts);
        assert!(
            alerts.len() == 1 && alerts[0].text.contains("deadline 3 partition 0"),
            "{alerts:?}"
        );
        db.write(|conn| proving::landed(conn, post.id, 0)).unwrap();
        assert!(read(db, jobs::alerts).is_empty());
        let landed = read(db, |conn| proving::in_state(conn, PostState::Landed));
        assert_eq!(landed.len(), 1);
    });
}
