//! `/static`

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn files_are_served_from_their_folder_alone() {
    let site = Site::open().await;
    assert_eq!(site.stranger.get("/static/site.css").await.status, 200);
    for path in [
        "/static/",
        "/static/nothing.css",
        "/static/..%2fCargo.toml",
        "/static/%2e%2e/Cargo.toml",
    ] {
        assert_eq!(site.stranger.get(path).await.status, 404, "{path}");
    }
}
