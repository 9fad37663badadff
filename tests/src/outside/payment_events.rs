//! Events of the payment provider: each has a fate, however late or foreign it is.

use std::time::{Duration, Instant};

use sealyard_core::{
    accounts::User,
    capacity,
    catalog::Plan,
    jobs::{self, Alert, AlertKind},
    ledger::{self, AccountSpec},
    orders::{self, Order, OrderState, PlaceOrder},
    payments::{self, Fate, Happening, Incoming},
    store::Database,
};
use serde_json::json;

use super::{
    customer::{Customer, between, shop},
    read, trials,
};
use crate::{
    fixture::Shop,
    support::{self, NOW, SECTOR, on_both},
};

/// Places an order, and opens its payment under the same key.
fn place(db: &Database, user: &User, plan: &Plan, key: &str) -> Order {
    db.write(|conn| {
        let asked = PlaceOrder {
            user: user.id,
            plan,
            units: 1,
            request_key: key,
            shown: None,
        };
        let order = orders::place(conn, &asked, NOW).unwrap();
        orders::open_payment(conn, order.id, "stripe", key, "http://pay", NOW)?;
        Ok(order)
    })
    .unwrap()
}

fn incoming(id: &str) -> Incoming<'_> {
    Incoming {
        id,
        rail: "stripe",
        kind: "test",
        raw: "{}",
    }
}

fn paid(page: &str, order: Option<&str>, minor: i64) -> Happening {
    let (page, order) = (page.to_owned(), order.map(str::to_owned));
    Happening::Paid {
        page,
        order,
        minor,
        currency: "usd".into(),
        intent: Some("pi_1".into()),
    }
}

fn refunded(intent: &str) -> Happening {
    Happening::Refunded {
        intent: intent.into(),
        minor: 2500,
        currency: "usd".into(),
    }
}

fn disputed(intent: &str) -> Happening {
    Happening::Disputed {
        intent: intent.into(),
        what: "created, fraudulent".into(),
    }
}

/// Receives each event twice.
struct Inbox<'d> {
    db: &'d Database,
    received: u32,
}

impl Inbox<'_> {
    fn receive(&mut self, happening: &Happening) -> Fate {
        self.received += 1;
        let id = format!("evt_{}", self.received);
        let take = || {
            self.db
                .transact(|conn| payments::receive(conn, &incoming(&id), happening, NOW))
                .unwrap()
        };
        let fate = take();
        assert_eq!(take(), fate, "a repeated event changes nothing");
        fate
    }

    /// Money that belongs to no order.
    fn suspense(&self) -> i64 {
        let account = AccountSpec::Suspense {
            currency: "USD".into(),
        };
        read(self.db, |conn| ledger::balance(conn, &account)).posted
    }
}

#[test]
fn every_payment_event_has_a_fate_and_unmatched_money_is_booked() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 10);
        let order = place(db, &user, &plan, "cs_1");
        let (own, price) = (Some(order.public_id.as_str()), order.amount_minor);
        let mut inbox = Inbox { db, received: 0 };
        for (event, fate, suspense) in [
            (paid("cs_foreign", None, 700), Fate::NotOurs, 0),
            (
                paid("cs_foreign", Some("their-order-7"), 700),
                Fate::NotOurs,
                0,
            ),
            // Money that came in is booked.
            (
                paid("cs_lost", Some("ord_lostwithabackup"), 4200),
                Fate::NeedsAPerson,
                4200,
            ),
            // A wrong amount, and a second payment, are in suspense.
            (paid("cs_1", own, 1), Fate::NeedsAPerson, 4201),
            (paid("cs_1", own, price), Fate::Applied, 4201),
            (paid("cs_2", own, price), Fate::NeedsAPerson, 4201 + price),
            (refunded("pi_1"), Fate::NeedsAPerson, 4201 + price),
            (refunded("pi_foreign"), Fate::NotOurs, 4201 + price),
            (disputed("pi_1"), Fate::NeedsAPerson, 4201 + price),
            (disputed("pi_foreign"), Fate::NotOurs, 4201 + price),
            (Happening::Other, Fate::Applied, 4201 + price),
        ] {
            assert_eq!(inbox.receive(&event), fate, "{event:?}");
            assert_eq!(inbox.suspense(), suspense, "after {event:?}");
        }
        let waiting = read(db, payments::waiting);
        let alerts = read(db, jobs::alerts);
        assert_eq!((waiting.len(), alerts.len()), (5, 5));
        assert!(alerts.iter().all(|alert| alert.kind == AlertKind::Payment));
        let settled = db.write(|conn| payments::settle(conn, &waiting[0].id, order.user_id, NOW));
        assert!(settled.unwrap());
        assert_eq!(read(db, jobs::alerts).len(), 4);
        assert_eq!(read(db, ledger::check), []);
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
            let order = place(db, &user, &plan, &key);
            let at = order.expires_at;
            let event = paid(&key, None, order.amount_minor);
            std::thread::scope(|scope| {
                let expiry = scope.spawn(|| db.transact(|conn| orders::expire(conn, order.id, at)));
                let id = format!("evt_{key}");
                let payment =
                    db.transact(|conn| payments::receive(conn, &incoming(&id), &event, at));
                assert_eq!(payment.unwrap(), Fate::Applied);
                expiry.join().unwrap().unwrap();
            });
            let now = read(db, |conn| orders::by_id(conn, order.id));
            assert!(
                now.is(OrderState::Fulfilled),
                "the capacity is free: {}",
                now.state
            );
        }
        let sold = read(db, |conn| capacity::capacity(conn, pool.id)).sold;
        assert_eq!(sold, i64::from(trials()) * SECTOR);
    });
}

/// Waits for an alert, and for all repetitions of the event that raised it.
async fn alerts(shop: &Shop, db: &Database) -> [Vec<Alert>; 2] {
    let started = Instant::now();
    let first = loop {
        let alerts = read(db, jobs::alerts);
        if !alerts.is_empty() {
            break alerts;
        }
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "{}",
            shop.serve.log()
        );
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    // The fake provider repeats each event until it is acknowledged, and sends it once more after
    // that.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    [first, read(db, jobs::alerts)]
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
    for intent in ["pi_of_somebody_else", &format!("pi_{session}")] {
        let dispute = json!({
            "id": "dp_1",
            "object": "dispute",
            "payment_intent": intent,
            "reason": "fraudulent",
        });
        ada.announce(&json!({"type": "charge.dispute.created", "object": dispute}))
            .await;
    }
    let [alerts, later] = alerts(&shop, &db).await;
    assert_eq!((alerts.len(), later.len()), (1, 1), "{later:?}");
    assert!(
        alerts[0].text.contains(&placed.public_id) && alerts[0].text.contains("fraudulent"),
        "{alerts:?}"
    );
    let log = shop.serve.log();
    assert!(!log.contains("webhook failed"), "{log}");
    settle(&Customer::operator(&shop).await, &ada).await;
    assert!(read(&db, jobs::alerts).is_empty());
}

/// The operator, and nobody else, settles the only payment that waits for a person, once.
async fn settle(operator: &Customer, stranger: &Customer) {
    let page = operator.get("/admin/pipeline").await.text;
    assert!(
        page.contains("Payments that need a person") && page.contains("fraudulent"),
        "{page}"
    );
    let event = between(&page, "name=\"event\" value=\"", "\"").unwrap();
    for (who, expected) in [(stranger, 403), (operator, 303), (operator, 422)] {
        let form = [("event", event.as_str())];
        let answer = who.post("/admin/payments/settle", &form).await;
        assert_eq!(answer.status, expected);
    }
    let page = operator.get("/admin/pipeline").await.text;
    assert!(!page.contains("fraudulent"));
}
