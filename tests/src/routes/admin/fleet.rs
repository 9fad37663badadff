//! `/admin/fleet`, `/admin/fleet/tokens/withdraw` and, for a machine, `drain`, `key`, `revoke`,
//! `remove`

use sealyard_core::{fleet, store::DbFault};

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn machines_are_drained_by_staff_only_and_a_form_sent_twice_drains_once() {
    let site = Site::open().await;
    site.assert_is_for_staff("/admin/fleet").await;
    let yard = || {
        let machines = site
            .db
            .read(|conn| fleet::machines(conn).map_err(DbFault::from));
        machines.unwrap().remove(0)
    };
    let at = |what: &str| format!("/admin/fleet/{}/{what}", yard().public_id);
    for action in ["drain", "key", "revoke", "remove"] {
        site.assert_form_is_for_staff(&at(action), &[("drain", "true")])
            .await;
    }
    site.assert_form_is_for_staff("/admin/fleet/tokens/withdraw", &[("token", "x")])
        .await;
    assert!(!yard().is_draining() && yard().revoked_at.is_none());
    for _ in 0..2 {
        assert_eq!(
            site.operator
                .post(&at("drain"), &[("drain", "true")])
                .await
                .status,
            303
        );
        assert!(yard().is_draining());
    }
    assert_eq!(
        site.operator
            .post(&at("drain"), &[("drain", "perhaps")])
            .await
            .status,
        422
    );
    assert_eq!(
        site.operator
            .post(&at("drain"), &[("drain", "false")])
            .await
            .status,
        303
    );
    assert!(!yard().is_draining());
    let elsewhere = site
        .operator
        .post("/admin/fleet/mch_nothing/drain", &[("drain", "true")])
        .await;
    assert_eq!(elsewhere.status, 404);
}
