//! `/admin/payments/settle`

use sealyard_core::{
    payments::{self, Happening, Incoming},
    store::DbFault,
};

use super::Site;
use crate::support::NOW;

#[tokio::test(flavor = "multi_thread")]
async fn an_event_is_settled_by_staff_once() {
    let site = Site::open().await;
    let path = "/admin/payments/settle";
    site.assert_form_is_for_staff(path, &[("event", "evt_7")])
        .await;
    let incoming = Incoming {
        id: "evt_7",
        rail: "stripe",
        kind: "checkout.session.completed",
        raw: "{}",
    };
    // Money for an order that nobody knows.
    let happening = Happening::Paid {
        page: "cs_unknown".into(),
        order: Some("ord_unknown".into()),
        minor: 2500,
        currency: "usd".into(),
        intent: None,
    };
    site.db
        .transact(|conn| payments::receive(conn, &incoming, &happening, NOW))
        .unwrap();
    let waiting = || {
        let waiting = site
            .db
            .read(|conn| payments::waiting(conn).map_err(DbFault::from));
        waiting.unwrap().len()
    };
    assert_eq!(waiting(), 1);
    assert!(
        site.operator
            .get("/admin/pipeline")
            .await
            .text
            .contains("evt_7")
    );
    assert_eq!(
        site.operator.post(path, &[("event", "evt_7")]).await.status,
        303
    );
    assert_eq!(waiting(), 0);
    for event in ["evt_7", "evt_nothing"] {
        assert_eq!(
            site.operator.post(path, &[("event", event)]).await.status,
            422,
            "{event}"
        );
    }
}
