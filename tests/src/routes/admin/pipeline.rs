use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_pipeline_lists_sectors_in_words() {
    let site = Site::open().await;
    site.assert_is_for_staff("/admin/pipeline").await;
    site.contract(2).await;
    let page = site.operator.get("/admin/pipeline").await.text;
    assert!(page.matches("<td class=\"num\">").count() >= 2, "{page}");
    assert!(
        !page.contains('_') || !page.contains("pre_commit"),
        "no state's code: {page}"
    );
}
