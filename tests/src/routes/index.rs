use sealyard_core::{capacity, store::DbFault};

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_storefront_shows_what_is_sold_and_free() {
    let site = Site::open().await;
    site.contract(2).await;
    let page = site.stranger.get("/").await;
    assert_eq!(page.status, 200);
    let pool = site.db.read(|conn| {
        let pool = capacity::pools(conn)?.remove(0);
        Ok::<_, DbFault>(capacity::capacity(conn, pool.id)?)
    });
    let pool = pool.unwrap();
    assert_eq!((pool.sold, pool.free), (2 * 2048, 8 * 2048));
    for text in ["25.00", "16 KiB", "4 KiB", "20 KiB"] {
        assert!(page.text.contains(text), "{text} is missing: {}", page.text);
    }
}
