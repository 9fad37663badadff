use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_the_plan_is_answered_or_refused_with_a_reason() {
    let site = Site::open().await;
    site.assert_is_for_staff("/admin/plan").await;
    site.contract(2).await;
    for (query, status, words) in [
        ("change=drain&machine=yard", 200, "yard"),
        ("change=order&pool=Test&sectors=2", 200, "Test"),
        ("change=drain&machine=nothing", 422, "nothing"),
        ("change=order&pool=Nowhere&sectors=2", 422, "Nowhere"),
        ("change=explode", 422, "explode"),
        ("change=order&pool=Test&sectors=x", 422, "invalid"),
    ] {
        let answer = site.operator.get(&format!("/admin/plan?{query}")).await;
        assert_eq!(answer.status, status, "{query}: {}", answer.text);
        assert!(answer.text.contains(words), "{query}: {}", answer.text);
    }
}
