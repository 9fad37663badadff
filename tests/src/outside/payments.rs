//! Payments that leave the happy path.

use std::time::Duration;

use sealyard_core::{
    clock::{Clock, HOUR, MINUTE, SECOND, SystemClock},
    ids::UserId,
    jobs,
    orders::{self, Caps, OrderState, PlaceError, PlaceOrder},
    store::Database,
};
use serde_json::json;

use super::customer::{Customer, later, order, shop, worker};
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
        let refused = ada
            .post(
                &path,
                &[("units", "1"), ("request_key", &key), ("shown", bad)],
            )
            .await;
        assert_eq!(refused.status, 422, "{bad}");
    }
    let bob = Customer::signed_up(&shop, "bob@example.org").await;
    let refused = bob
        .post(
            &path,
            &[("units", "1"), ("request_key", &key), ("shown", &shown)],
        )
        .await;
    assert_eq!(refused.status, 422, "it was shown to somebody else");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bank_debit_holds_its_capacity_until_the_bank_has_decided() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = shop(dir.path(), "");
    let _work = worker(dir.path(), &shop);
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    for (outcome, words, state) in [
        ("paid", "See your contract", OrderState::Fulfilled),
        ("failed", "expired unpaid", OrderState::Expired),
    ] {
        let placed = ada.order(&db, 1).await;
        let session = ada.session(&placed).await;
        assert_eq!(
            ada.outside(&format!("/pay/{session}/debit")).await.status,
            303
        );
        ada.until(&placed, "payment under way").await;
        later(&db, &placed, 3 * HOUR);
        tokio::time::sleep(Duration::from_millis(500)).await;
        assert!(
            order(&db, &placed.public_id).is(OrderState::Placed),
            "the hold lasts until the bank decides"
        );
        let cancelled = ada
            .post(&format!("/orders/{}/cancel", placed.public_id), &[])
            .await;
        assert_eq!(
            cancelled.status, 422,
            "an order with a payment under way cannot be cancelled"
        );
        assert_eq!(
            ada.outside(&format!("/pay/{session}/settle/{outcome}"))
                .await
                .status,
            200
        );
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
    assert!(
        told.text.contains("is not responding at the moment"),
        "{}",
        told.text
    );
    let session = ada.session(&placed).await;
    // The provider was away for so long that the rest of the hold is too short for a payment page.
    // The hold and the page are renewed together.
    ada.outside("/control/fail/1").await;
    let second = ada.order(&db, 1).await;
    later(&db, &second, 40 * MINUTE);
    let renewed = ada.session(&second).await;
    assert!(
        order(&db, &second.public_id).expires_at > second.expires_at - 10 * MINUTE,
        "the whole time to pay is granted again"
    );
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
    let now = SystemClock.now() / SECOND;
    let payload = json!({"from": now - 600, "to": now + 600}).to_string();
    db.write(|conn| jobs::enqueue(conn, "payment_events", "test", &payload, 0))
        .unwrap();
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
    assert_eq!(
        bob.post(&cancel, &[]).await.status,
        404,
        "the order belongs to somebody else"
    );
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
    let sign_in = async |address: &str, password: &str| {
        let form = [("email", "ada@example.org"), ("password", password)];
        visitor.post_from(address, "/login", &form).await.status
    };
    let mut statuses = Vec::new();
    for _ in 0..9 {
        statuses.push(sign_in("203.0.113.9", "a guess that is wrong").await);
    }
    assert_eq!(statuses, [422, 422, 422, 422, 422, 422, 422, 422, 429]);
    assert_eq!(
        sign_in("203.0.113.9", "long enough").await,
        429,
        "further guesses are refused"
    );
    assert_eq!(
        sign_in("198.51.100.7", "long enough").await,
        303,
        "the owner comes from another address"
    );
    // New accounts are limited as well.
    let mut opened = 0;
    for n in 0..14 {
        let email = format!("n{n}@example.org");
        let form = [
            ("email", email.as_str()),
            ("name", "N"),
            ("password", "long enough"),
        ];
        let answer = visitor.post_from("203.0.113.50", "/signup", &form).await;
        opened += u32::from(answer.status == 303);
    }
    assert_eq!(opened, 10);
}

/// Pays an order that waits for its payment.
fn pay(db: &Database, user: UserId, request_key: &str) {
    db.write(|conn| {
        let order = orders::of_user(conn, user)?
            .into_iter()
            .find(|order| order.request_key == request_key)
            .unwrap();
        orders::open_payment(conn, order.id, "stripe", "cs", "http://pay", NOW)?;
        let paid = orders::Paid {
            rail: "stripe",
            rail_ref: "cs",
            minor: order.amount_minor,
            currency: "usd",
        };
        orders::fulfil(conn, &paid, NOW).unwrap().unwrap();
        Ok(())
    })
    .unwrap();
}

#[test]
fn a_new_account_can_hold_only_a_share_of_the_capacity() {
    on_both(|db| {
        let (_, plan, user) = support::shop(db, 40);
        let try_place = |units, key: &str| {
            db.transact(|conn| {
                orders::check_caps(conn, user.id, (&plan, units), key, Caps::default())?;
                let asked = PlaceOrder {
                    user: user.id,
                    plan: &plan,
                    units,
                    request_key: key,
                    shown: None,
                };
                orders::place(conn, &asked, NOW)
            })
        };
        let cancel = |id| db.transact(|conn| orders::cancel(conn, id, NOW)).unwrap();
        let much = try_place(9, "much");
        assert!(
            matches!(much, Err(PlaceError::TooMuchHeld { left }) if left.0 == 8 * SECTOR),
            "a fifth of 40"
        );
        let first = try_place(3, "first").unwrap();
        assert_eq!(
            try_place(3, "first").unwrap().id,
            first.id,
            "a repeated form gives the same order"
        );
        try_place(3, "second").unwrap();
        assert!(matches!(
            try_place(1, "third"),
            Err(PlaceError::TooManyUnpaid { most: 2 })
        ));
        assert!(cancel(first.id));
        assert!(!cancel(first.id), "an order is cancelled once");
        try_place(1, "third").unwrap();
        // An account that has paid once may reserve more.
        pay(db, user.id, "second");
        try_place(15, "large").unwrap();
    });
}
