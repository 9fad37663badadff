//! `/agent/v1/enrol`, `/agent/v1/heartbeat` and `/agent/v1/report`

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_machine_without_a_key_learns_nothing() {
    let site = Site::open().await;
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    for path in ["/agent/v1/enrol", "/agent/v1/heartbeat", "/agent/v1/report"] {
        for (key, body) in [
            ("", "{}"),
            ("Bearer nothing", "{}"),
            ("Bearer \u{7f}", "not JSON"),
        ] {
            let request = http.post(format!("{}{path}", site.shop.url)).body(body);
            let request = request.header("content-type", "application/json");
            let Ok(answer) = request.header("authorization", key).send().await else {
                continue;
            };
            let status = answer.status().as_u16();
            assert!(
                (400..500).contains(&status),
                "{path} with {key:?}: {status}"
            );
        }
    }
}
