use sealyard_core::{
    orders,
    store::{DbFault, schema},
};

use diesel::{QueryDsl, RunQueryDsl};

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_is_quoted_and_ordered_once_with_one_form() {
    let site = Site::open().await;
    let (path, key, shown) = site.ada.quote(&site.db, 2).await;
    site.assert_needs_sign_in(&path).await;
    let form = [
        ("units", "2"),
        ("request_key", key.as_str()),
        ("shown", shown.as_str()),
    ];
    let first = site.ada.post(&path, &form).await;
    let again = site.ada.post(&path, &form).await;
    assert_eq!((first.status, again.status), (303, 303));
    assert_eq!(
        first.location, again.location,
        "a second click places no second order"
    );
    let count = site
        .db
        .read(|conn| Ok::<_, DbFault>(schema::orders::table.count().get_result::<i64>(conn)?));
    assert_eq!(count.unwrap(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_units_and_unknown_plans_are_refused() {
    let site = Site::open().await;
    let (path, key, shown) = site.ada.quote(&site.db, 1).await;
    for units in ["0", "-1", "100000", "9223372036854775807", "x", ""] {
        let answer = site.ada.get(&format!("{path}?units={units}")).await;
        assert_eq!(answer.status, 422, "{units}: {}", answer.text);
        let form = [
            ("units", units),
            ("request_key", key.as_str()),
            ("shown", shown.as_str()),
        ];
        assert_eq!(site.ada.post(&path, &form).await.status, 422, "{units}");
    }
    assert_eq!(site.ada.get("/plans/pln_nothing").await.status, 404);
    assert_eq!(
        site.ada
            .post(
                "/plans/pln_nothing",
                &[("units", "1"), ("request_key", &key)]
            )
            .await
            .status,
        404
    );
    let placed = site
        .db
        .read(|conn| Ok::<_, DbFault>(orders::recent(conn, 9)?.len()));
    assert_eq!(placed.unwrap(), 0);
}
