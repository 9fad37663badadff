use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn an_order_is_private_and_says_what_became_of_it() {
    let site = Site::open().await;
    let order = site.ada.order(&site.db, 1).await;
    let path = format!("/orders/{}", order.public_id);
    site.assert_is_private(&path).await;
    assert!(
        site.ada
            .get(&path)
            .await
            .text
            .contains("waiting for payment")
    );
    let contract = site.pay(&order);
    let page = site.ada.get(&path).await.text;
    assert!(
        page.contains(&format!("/contracts/{}", contract.public_id)),
        "{page}"
    );
}

/// `/orders/{order}/cancel`
#[tokio::test(flavor = "multi_thread")]
async fn only_an_unpaid_order_is_cancelled_and_only_by_its_buyer() {
    let site = Site::open().await;
    let (unpaid, paid) = (
        site.ada.order(&site.db, 1).await,
        site.ada.order(&site.db, 1).await,
    );
    site.pay(&paid);
    let cancel = |id: &str| format!("/orders/{id}/cancel");
    let path = cancel(&unpaid.public_id);
    for (who, customer, expected) in [
        ("a stranger", &site.stranger, 303),
        ("another customer", &site.bob, 404),
        ("the staff", &site.operator, 404),
        ("the buyer", &site.ada, 303),
        ("the buyer again", &site.ada, 422),
    ] {
        assert_eq!(customer.post(&path, &[]).await.status, expected, "{who}");
    }
    assert!(
        site.ada
            .get(&format!("/orders/{}", unpaid.public_id))
            .await
            .text
            .contains("cancelled")
    );
    assert_eq!(
        site.ada.post(&cancel(&paid.public_id), &[]).await.status,
        422
    );
}
