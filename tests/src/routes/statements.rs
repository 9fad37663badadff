use sealyard_core::store::{DbFault, schema};

use diesel::{QueryDsl, RunQueryDsl};

use super::Site;
use crate::outside::mail;

/// `/statements`, `/statements/{id}` and `/statements/{id}/pdf`
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_is_private_in_every_form() {
    let site = Site::open().await;
    site.assert_needs_sign_in("/statements").await;
    mail::statement_of(&site.db, site.ada_id());
    let id = site.db.read(|conn| {
        let ids = schema::statements::table.select(schema::statements::public_id);
        Ok::<_, DbFault>(ids.first::<String>(conn)?)
    });
    let id = id.unwrap();
    for path in [format!("/statements/{id}"), format!("/statements/{id}/pdf")] {
        site.assert_is_private(&path).await;
    }
    assert!(site.ada.get("/statements").await.text.contains(&id));
    assert!(!site.bob.get("/statements").await.text.contains(&id));
    assert_eq!(site.ada.get("/statements/st_nothing/pdf").await.status, 404);
}
