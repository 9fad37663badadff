use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_their_own_contracts_and_open_orders() {
    let site = Site::open().await;
    site.assert_needs_sign_in("/dashboard").await;
    let contract = site.contract(2).await;
    let open = site.ada.order(&site.db, 1).await;
    let (mine, other) = (
        site.ada.get("/dashboard").await,
        site.bob.get("/dashboard").await,
    );
    for id in [&contract.public_id, &open.public_id] {
        assert!(mine.text.contains(id.as_str()), "{id}: {}", mine.text);
        assert!(!other.text.contains(id.as_str()), "{id}: {}", other.text);
    }
    assert!(
        mine.text.contains("0 of 2"),
        "no sector earns yet: {}",
        mine.text
    );
}
