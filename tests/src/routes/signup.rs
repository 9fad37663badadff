use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn bad_input_is_explained_and_kept() {
    let site = Site::open().await;
    for (email, name, password, words) in [
        (
            "not an address",
            "Eve",
            "long enough",
            "not a valid e-mail address",
        ),
        ("eve@example.org", "", "long enough", "enter a name"),
        (
            "eve@example.org",
            "Eve",
            "short",
            "a password needs at least",
        ),
        ("ada@example.org", "Eve", "long enough", "sign in instead"),
    ] {
        let form = [("email", email), ("name", name), ("password", password)];
        let answer = site.stranger.post("/signup", &form).await;
        assert_eq!(answer.status, 422, "{words}");
        assert!(answer.text.contains(words), "{words}: {}", answer.text);
        assert!(answer.text.contains(email), "what was typed is kept");
    }
}
