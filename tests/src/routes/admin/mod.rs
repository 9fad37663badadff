//! `/admin`

mod books;
mod fleet;
mod orders;
mod payments;
mod pipeline;
mod plan;
mod sectors;

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_console_opens_with_the_fleet() {
    let site = Site::open().await;
    site.assert_needs_sign_in("/admin").await;
    assert_eq!(site.ada.get("/admin").await.status, 403);
    let answer = site.operator.get("/admin").await;
    assert_eq!(
        (answer.status, answer.location.as_str()),
        (303, "/admin/fleet")
    );
}
