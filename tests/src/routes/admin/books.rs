use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_books_show_capacity_and_accounts_of_each_pool() {
    let site = Site::open().await;
    site.assert_is_for_staff("/admin/books").await;
    site.contract(2).await;
    let page = site.operator.get("/admin/books").await.text;
    assert!(
        page.contains("owned 20 KiB = free 16 KiB + held 0 B + sold 4 KiB"),
        "{page}"
    );
}
