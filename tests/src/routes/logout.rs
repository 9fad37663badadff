use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_session_ends_on_the_server_too() {
    let site = Site::open().await;
    assert_eq!(site.ada.get("/dashboard").await.status, 200);
    assert_eq!(site.ada.post("/logout", &[]).await.status, 303);
    // The cookie is sent again, as somebody who copied it would.
    assert_eq!(site.ada.get("/dashboard").await.status, 303);
    assert_eq!(
        site.bob.get("/dashboard").await.status,
        200,
        "another session goes on"
    );
}
