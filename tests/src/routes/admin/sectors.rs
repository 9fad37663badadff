//! `/admin/sectors/{sector}/release`

use diesel::{ExpressionMethods, QueryDsl, RunQueryDsl};
use sealyard_core::{
    sealing::{self, SectorState},
    store::{DbFault, schema::sectors},
};

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn a_sector_in_quarantine_is_released_once_and_the_act_is_recorded() {
    let site = Site::open().await;
    site.contract(1).await;
    let sector = || {
        let all = site
            .db
            .read(|conn| sealing::all_sectors(conn, 9).map_err(DbFault::from));
        all.unwrap().remove(0)
    };
    let id = sector().id;
    let path = format!("/admin/sectors/{}/release", id.0);
    site.assert_form_is_for_staff(&path, &[]).await;
    assert_eq!(
        site.operator.post(&path, &[]).await.status,
        422,
        "it is not in quarantine"
    );
    site.db
        .write(|conn| {
            let row = diesel::update(sectors::table.find(id));
            row.set(sectors::state.eq(SectorState::Quarantined.name()))
                .execute(conn)
        })
        .unwrap();
    assert_eq!(site.operator.post(&path, &[]).await.status, 303);
    assert_ne!(sector().state, SectorState::Quarantined);
    assert_eq!(site.operator.post(&path, &[]).await.status, 422);
}
