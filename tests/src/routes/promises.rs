use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_record_of_promises_is_public_and_counts_paid_orders_only() {
    let site = Site::open().await;
    let record = async || site.stranger.get("/promises").await;
    let before = record().await;
    assert_eq!(before.status, 200);
    let order = site.ada.order(&site.db, 1).await;
    assert_eq!(
        record().await.text,
        before.text,
        "an unpaid order is no promise"
    );
    site.pay(&order);
    let after = record().await.text;
    assert!(
        after != before.text && after.contains("none due yet"),
        "{after}"
    );
}
