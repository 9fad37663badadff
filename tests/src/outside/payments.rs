//! Payments that leave the happy path.

use std::time::Duration;

use sealyard_core::{
    clock::{HOUR, MINUTE},
    jobs::{self, AlertKind},
    ledger::{self, AccountSpec},
    orders::{self, Caps, Order, OrderState, PlaceError, PlaceOrder},
    payments::{self, Fate, Happening, Incoming},
    store::{Database, DbFault},
};
use serde_json::json;

use super::{
    customer::{Customer, between, later, order, shop, worker},
    trials,
};
use crate::support::{self, NOW, SECTOR, on_both};

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_after_the_hold_is_a_sale_while_the_capacity_is_free() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    let placed = ada.order(&db, 1).await;
    let session = ada.session(&placed).await;
    // The time to pay is over, but nobody else has bought the capacity.
    later(&db, &placed, 2 * HOUR);
    assert_eq!(ada.outside(&format!("/pay/{session}")).await.status, 303);
    ada.until(&placed, "See your contract").await;
    assert!(order(&db, &placed.public_id).is(OrderState::Fulfilled));

    // A date that the site has not shown is refused, whoever sends it.
    let (path, key, shown) = ada.quote(&db, 1).await;
    let (date, code) = shown.split_once('.').unwrap();
    let earlier = format!("{}.{code}", date.parse::<i64>().unwrap() - HOUR);
    for bad in [earlier.as_str(), date, "1.2", "x"] {
        let refused = ada.post(&path, &[("units", "1"), ("request_key", &key), ("shown", bad)]).await;
        assert_eq!(refused.status, 422, "{bad}");
    }
    let bob = Customer::signed_up(&shop, "bob@example.org").await;
    let refused = bob.post(&path, &[("units", "1"), ("request_key", &key), ("shown", &shown)]).await;
    assert_eq!(refused.status, 422, "it was shown to somebody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_debit_holds_its_capacity_until_the_bank_has_decided() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let _work = worker(dir.path(), &shop);
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    for (outcome, words, state) in
        [("paid", "See your contract", OrderState::Fulfilled), ("failed", "expired unpaid", OrderState::Expired)]
    {
        let placed = ada.order(&db, 1).await;
        let session = ada.session(&placed).await;
        assert_eq!(ada.outside(&format!("/pay/{session}/debit")).await.status, 303);
        ada.until(&placed, "payment under way").await;
        later(&db, &placed, 3 * HOUR);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(order(&db, &placed.public_id).is(OrderState::Placed), "the hold lasts until the bank decides");
        let cancelled = ada.post(&format!("/orders/{}/cancel", placed.public_id), &[]).await;
        assert_eq!(cancelled.status, 422, "an order with a payment under way cannot be cancelled");
        assert_eq!(ada.outside(&format!("/pay/{session}/settle/{outcome}")).await.status, 200);
        ada.until(&placed, words).await;
        assert!(order(&db, &placed.public_id).is(state));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_the_provider_is_shown_and_the_payment_works_later() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    ada.outside("/control/fail/2").await;
    let placed = ada.order(&db, 1).await;
    let told = ada.get(&format!("/orders/{}", placed.public_id)).await;
    assert!(told.text.contains("is not responding at the moment"), "{}", told.text);
    let session = ada.session(&placed).await;
    // The provider was away for so long that the rest of the hold is too short for a payment page.
    // The hold and the page are renewed together.
    ada.outside("/control/fail/1").await;
    let second = ada.order(&db, 1).await;
    later(&db, &second, 40 * MINUTE);
    let renewed = ada.session(&second).await;
    assert!(order(&db, &second.public_id).expires_at > second.expires_at - 10 * MINUTE, "the whole time to pay is granted again");
    for session in [session, renewed] {
        assert_eq!(ada.outside(&format!("/pay/{session}")).await.status, 303);
    }
    ada.until(&placed, "See your contract").await;
    ada.until(&second, "See your contract").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_webhook_loses_no_payment() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    ada.outside("/control/silent/true").await;
    let (asked, listed) = (ada.order(&db, 1).await, ada.order(&db, 1).await);
    for placed in [&asked, &listed] {
        let session = ada.session(placed).await;
        assert_eq!(ada.outside(&format!("/pay/{session}")).await.status, 303);
    }
    let _work = worker(dir.path(), &shop);
    // Before an order expires, the provider is asked about its session.
    later(&db, &asked, 2 * HOUR);
    ada.until(&asked, "See your contract").await;
    assert!(order(&db, &listed.public_id).is(OrderState::Placed));
    // Once a day the provider is asked for all recent events.
    let now = i64::try_from(std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs()).unwrap();
    let payload = json!({"from": now - 600, "to": now + 600}).to_string();
    db.write(|conn| jobs::enqueue(conn, "payment_events", "test", &payload, 0)).unwrap();
    ada.until(&listed, "See your contract").await;
    // An unpaid order expires and can no longer be paid.
    let unpaid = ada.order(&db, 1).await;
    let session = ada.session(&unpaid).await;
    later(&db, &unpaid, 2 * HOUR);
    ada.until(&unpaid, "expired unpaid").await;
    assert_eq!(ada.outside(&format!("/pay/{session}")).await.status, 410);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_order_closes_its_payment_page() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    let placed = ada.order(&db, 1).await;
    let session = ada.session(&placed).await;
    let bob = Customer::signed_up(&shop, "bob@example.org").await;
    let cancel = format!("/orders/{}/cancel", placed.public_id);
    assert_eq!(bob.post(&cancel, &[]).await.status, 404, "the order belongs to somebody else");
    assert_eq!(ada.post(&cancel, &[]).await.status, 303);
    ada.until(&placed, "cancelled").await;
    assert_eq!(ada.outside(&format!("/pay/{session}")).await.status, 410);
    assert_eq!(ada.post(&cancel, &[]).await.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strangers_wrong_passwords_do_not_lock_the_owner_out() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, _) = shop(dir.path(), "trusted_proxies = [\"127.0.0.1\"]\n");
    Customer::signed_up(&shop, "ada@example.org").await;
    let visitor = Customer::visitor(&shop);
    let wrong = [("email", "ada@example.org"), ("password", "a guess that is wrong")];
    let right = [("email", "ada@example.org"), ("password", "long enough")];
    let mut statuses = Vec::new();
    for _ in 0..9 {
        statuses.push(visitor.post_from("203.0.113.9", "/login", &wrong).await.status);
    }
    assert_eq!(statuses, [422, 422, 422, 422, 422, 422, 422, 422, 429]);
    assert_eq!(visitor.post_from("203.0.113.9", "/login", &right).await.status, 429, "further guesses are refused");
    assert_eq!(visitor.post_from("198.51.100.7", "/login", &right).await.status, 303, "the owner comes from another address");
    // New accounts are limited as well.
    let mut opened = 0;
    for n in 0..14 {
        let email = format!("n{n}@example.org");
        let form = [("email", email.as_str()), ("name", "N"), ("password", "long enough")];
        opened += u32::from(visitor.post_from("203.0.113.50", "/signup", &form).await.status == 303);
    }
    assert_eq!(opened, 10);
}

fn place(db: &Database, key: &str) -> (Order, sealyard_core::ids::PoolId) {
    let (pool, plan, user) = support::shop(db, 10);
    let order = db.write(|conn| {
        let asked = PlaceOrder { user: user.id, plan: &plan, units: 1, request_key: key, shown: None };
        let order = orders::place(conn, &asked, NOW).unwrap();
        orders::open_payment(conn, order.id, "stripe", key, "http://pay", NOW)?;
        Ok(order)
    });
    (order.unwrap(), pool.id)
}

fn paid(page: &str, order: Option<&str>, minor: i64) -> Happening {
    let (page, order) = (page.to_owned(), order.map(str::to_owned));
    Happening::Paid { page, order, minor, currency: "usd".into(), intent: Some("pi_1".into()) }
}

#[test]
fn every_payment_event_has_a_fate_and_unmatched_money_is_booked() {
    on_both(|db| {
        let (order, _) = place(db, "cs_1");
        let mut n = 0;
        let mut receive = |happening: &Happening| {
            n += 1;
            let id = format!("evt_{n}");
            let incoming = Incoming { id: &id, rail: "stripe", kind: "test", raw: "{}" };
            let take = || db.transact(|conn| payments::receive(conn, &incoming, happening, NOW)).unwrap();
            let fate = take();
            assert_eq!(take(), fate, "a repeated event changes nothing");
            fate
        };
        let suspense = || {
            let account = AccountSpec::Suspense { currency: "USD".into() };
            db.read(|conn| ledger::balance(conn, &account).map_err(DbFault::from)).unwrap().posted
        };
        let own = order.public_id.as_str();
        assert_eq!(receive(&paid("cs_foreign", None, 700)), Fate::NotOurs);
        assert_eq!(receive(&paid("cs_foreign", Some("their-order-7"), 700)), Fate::NotOurs);
        assert_eq!(suspense(), 0);
        assert_eq!(receive(&paid("cs_lost", Some("ord_lostwithabackup"), 4200)), Fate::NeedsAPerson);
        assert_eq!(suspense(), 4200, "money that came in is booked");
        assert_eq!(receive(&paid("cs_1", Some(own), 1)), Fate::NeedsAPerson);
        assert_eq!(suspense(), 4201, "a wrong amount is in suspense");
        assert_eq!(receive(&paid("cs_1", Some(own), order.amount_minor)), Fate::Applied);
        assert_eq!(receive(&paid("cs_2", Some(own), order.amount_minor)), Fate::NeedsAPerson);
        assert_eq!(suspense(), 4201 + order.amount_minor, "a second payment is in suspense");
        let refund = |intent: &str| Happening::Refunded { intent: intent.into(), minor: 2500, currency: "usd".into() };
        assert_eq!(receive(&refund("pi_1")), Fate::NeedsAPerson);
        assert_eq!(receive(&refund("pi_foreign")), Fate::NotOurs);
        let dispute = |intent: &str| Happening::Disputed { intent: intent.into(), what: "created, fraudulent".into() };
        assert_eq!(receive(&dispute("pi_1")), Fate::NeedsAPerson);
        assert_eq!(receive(&dispute("pi_foreign")), Fate::NotOurs);
        assert_eq!(receive(&Happening::Other), Fate::Applied);
        let waiting = db.read(|conn| payments::waiting(conn).map_err(DbFault::from)).unwrap();
        let alerts = db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap();
        assert_eq!((waiting.len(), alerts.len()), (5, 5));
        assert!(alerts.iter().all(|alert| alert.kind == AlertKind::Payment));
        let settled = db.write(|conn| payments::settle(conn, &waiting[0].id, order.user_id, NOW));
        assert!(settled.unwrap());
        assert_eq!(db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap().len(), 4);
        assert_eq!(db.read(|conn| ledger::check(conn).map_err(DbFault::from)).unwrap(), []);
    });
}

/// A payment and the expiry arrive at the same moment, again and again. Neither fails, and the
/// order is fulfilled.
#[test]
fn a_payment_that_races_with_the_expiry_is_never_an_error() {
    on_both(|db| {
        let (pool, plan, user) = support::shop(db, i64::from(trials()) + 10);
        for trial in 0..trials() {
            let key = format!("race-{trial}");
            let order = db
                .write(|conn| {
                    let asked = PlaceOrder { user: user.id, plan: &plan, units: 1, request_key: &key, shown: None };
                    let order = orders::place(conn, &asked, NOW).unwrap();
                    orders::open_payment(conn, order.id, "stripe", &key, "http://pay", NOW)?;
                    Ok(order)
                })
                .unwrap();
            let at = order.expires_at;
            let event = paid(&key, None, order.amount_minor);
            std::thread::scope(|scope| {
                let expiry = scope.spawn(|| db.transact(|conn| orders::expire(conn, order.id, at)));
                let id = format!("evt_{key}");
                let incoming = Incoming { id: &id, rail: "stripe", kind: "test", raw: "{}" };
                let payment = db.transact(|conn| payments::receive(conn, &incoming, &event, at));
                assert_eq!(payment.unwrap(), Fate::Applied);
                expiry.join().unwrap().unwrap();
            });
            let state = db.read(|conn| orders::by_id(conn, order.id).map_err(DbFault::from)).unwrap();
            assert!(state.is(OrderState::Fulfilled), "the capacity is free: {}", state.state);
        }
        let sold = db.read(|conn| sealyard_core::capacity::capacity(conn, pool.id).map_err(DbFault::from)).unwrap();
        assert_eq!(sold.sold, i64::from(trials()) * SECTOR);
    });
}

#[test]
fn a_new_account_can_hold_only_a_share_of_the_capacity() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 40);
        let try_place = |units, key: &str| {
            db.transact(|conn| {
                orders::check_caps(conn, user.id, (&plan, units), key, Caps::default())?;
                orders::place(conn, &PlaceOrder { user: user.id, plan: &plan, units, request_key: key, shown: None }, NOW)
            })
        };
        assert!(matches!(try_place(9, "much"), Err(PlaceError::TooMuchHeld { left }) if left.0 == 8 * SECTOR), "a fifth of 40");
        let first = try_place(3, "first").unwrap();
        assert_eq!(try_place(3, "first").unwrap().id, first.id, "a repeated form gives the same order");
        try_place(3, "second").unwrap();
        assert!(matches!(try_place(1, "third"), Err(PlaceError::TooManyUnpaid { most: 2 })));
        assert!(db.transact(|conn| orders::cancel(conn, first.id, NOW)).unwrap());
        assert!(!db.transact(|conn| orders::cancel(conn, first.id, NOW)).unwrap(), "an order is cancelled once");
        try_place(1, "third").unwrap();
        // An account that has paid once may reserve more.
        db.write(|conn| {
            let order = orders::of_user(conn, user.id)?.into_iter().find(|o| o.request_key == "second").unwrap();
            orders::open_payment(conn, order.id, "stripe", "cs", "http://pay", NOW)?;
            let paid = orders::Paid { rail: "stripe", rail_ref: "cs", minor: order.amount_minor, currency: "usd" };
            orders::fulfil(conn, &paid, NOW).unwrap().unwrap();
            Ok(())
        })
        .unwrap();
        try_place(15, "large").unwrap();
    });
}

/// Uses the real webhook. Disputes of our payments wait for a person, and those of others are
/// acknowledged and ignored.
#[tokio::test(flavor = "multi_thread")]
async fn disputes_of_our_payments_wait_for_a_person_and_others_are_ignored() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    let placed = ada.order(&db, 1).await;
    let session = ada.session(&placed).await;
    assert_eq!(ada.outside(&format!("/pay/{session}")).await.status, 303);
    ada.until(&placed, "See your contract").await;
    let dispute = |intent: &str| json!({"id": "dp_1", "object": "dispute", "payment_intent": intent, "reason": "fraudulent"});
    for intent in ["pi_of_somebody_else", &format!("pi_{session}")] {
        ada.announce(&json!({"type": "charge.dispute.created", "object": dispute(intent)})).await;
    }
    let started = std::time::Instant::now();
    let alerts = loop {
        let alerts = db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap();
        if !alerts.is_empty() {
            break alerts;
        }
        assert!(started.elapsed() < Duration::from_secs(20), "{}", shop.serve.log());
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // The fake provider repeats each event until it is acknowledged, and sends it once more after
    // that.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let later = db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap();
    assert_eq!((alerts.len(), later.len()), (1, 1), "{later:?}");
    assert!(alerts[0].text.contains(&placed.public_id) && alerts[0].text.contains("fraudulent"), "{alerts:?}");
    assert!(!shop.serve.log().contains("webhook failed"), "{}", shop.serve.log());
    // A person settles it.
    let operator = Customer::operator(&shop).await;
    let page = operator.get("/admin/pipeline").await.text;
    assert!(page.contains("Payments that need a person") && page.contains("fraudulent"), "{page}");
    let event = between(&page, "name=\"event\" value=\"", "\"").unwrap();
    assert_eq!(ada.post("/admin/payments/settle", &[("event", &event)]).await.status, 403);
    assert_eq!(operator.post("/admin/payments/settle", &[("event", &event)]).await.status, 303);
    assert_eq!(operator.post("/admin/payments/settle", &[("event", &event)]).await.status, 422, "it is settled once");
    assert!(!operator.get("/admin/pipeline").await.text.contains("fraudulent"));
    assert!(db.read(|conn| jobs::alerts(conn).map_err(DbFault::from)).unwrap().is_empty());
}
