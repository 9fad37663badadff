use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_contract_is_private_and_shows_its_sectors() {
    let site = Site::open().await;
    let contract = site.contract(2).await;
    let path = format!("/contracts/{}", contract.public_id);
    site.assert_is_private(&path).await;
    let page = site.ada.get(&path).await.text;
    assert_eq!(
        page.matches("<article class=\"sector\">").count(),
        2,
        "{page}"
    );
    assert_eq!(site.ada.get("/contracts/ctr_nothing").await.status, 404);
    for bad in ["yesterday", "2026-02-30", "9999999999"] {
        let answer = site.ada.get(&format!("{path}?before={bad}")).await;
        assert_eq!(answer.status, 422, "{bad}");
        assert!(
            answer.text.contains("2026-11-02"),
            "it says how to write a day: {}",
            answer.text
        );
    }
}

/// `/contracts/{id}/progress`
#[tokio::test(flavor = "multi_thread")]
async fn the_part_that_changes_is_served_alone() {
    let site = Site::open().await;
    let contract = site.contract(1).await;
    let path = format!("/contracts/{}/progress", contract.public_id);
    site.assert_is_private(&path).await;
    let part = site.ada.get(&path).await.text;
    assert!(
        part.contains("Sector 1") && !part.contains("<html"),
        "{part}"
    );
}
