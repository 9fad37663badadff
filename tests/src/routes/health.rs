//! `/healthz`, `/readyz` and `/metrics`

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn the_public_learns_whether_the_site_is_up_and_no_more() {
    let site = Site::open().await;
    for (path, expected) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 404)] {
        let answer = site.stranger.get(path).await;
        assert_eq!(answer.status, expected, "{path}");
        assert!(
            expected == 404 || answer.text.len() < 40,
            "{path}: {}",
            answer.text
        );
    }
}
