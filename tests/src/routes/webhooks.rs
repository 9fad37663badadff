//! `/webhooks/stripe`

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_the_providers_signature_is_refused() {
    let site = Site::open().await;
    let answer = site
        .stranger
        .post("/webhooks/stripe", &[("id", "evt_1")])
        .await;
    assert_eq!(answer.status, 400, "{}", answer.text);
    let page = site.operator.get("/admin/pipeline").await.text;
    assert!(!page.contains("evt_1"), "nothing of it is kept");
}
