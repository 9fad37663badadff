use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_and_an_unknown_address_get_the_same_answer() {
    let site = Site::open().await;
    let enter = async |email: &str| {
        let form = [("email", email), ("password", "not the password")];
        site.stranger.post("/login", &form).await
    };
    let (wrong, unknown) = (
        enter("ada@example.org").await,
        enter("eve@example.org").await,
    );
    assert_eq!((wrong.status, unknown.status), (422, 422));
    let without_address = |text: &str| text.replace("ada@", "").replace("eve@", "");
    assert_eq!(without_address(&wrong.text), without_address(&unknown.text));
    assert!(
        wrong.text.contains("ada@example.org"),
        "the address that was typed is kept"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signing_in_leads_back_to_a_page_of_this_site_only() {
    let site = Site::open().await;
    let form = [("email", "ada@example.org"), ("password", "long enough")];
    for (next, leads_to) in [
        ("%2Fledger", "/ledger"),
        ("%2F%2Fevil.example", "/dashboard"),
        ("https%3A%2F%2Fevil.example", "/dashboard"),
        ("%2F%5Cevil.example", "/dashboard"),
    ] {
        let answer = site
            .stranger
            .post(&format!("/login?next={next}"), &form)
            .await;
        assert_eq!(
            (answer.status, answer.location.as_str()),
            (303, leads_to),
            "{next}"
        );
    }
}
