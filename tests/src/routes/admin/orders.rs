use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_staff_sees_every_customers_orders() {
    let site = Site::open().await;
    site.assert_is_for_staff("/admin/orders").await;
    let (ada, bob) = (
        site.ada.order(&site.db, 1).await,
        site.bob.order(&site.db, 1).await,
    );
    let page = site.operator.get("/admin/orders").await.text;
    assert!(
        page.contains(&ada.public_id) && page.contains(&bob.public_id),
        "{page}"
    );
}
