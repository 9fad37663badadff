use sealyard_core::{
    clock::DAY,
    ledger::{self, AccountSpec, Transfer},
    money::NanoFil,
};

use super::Site;

#[tokio::test(flavor = "multi_thread")]
async fn an_investor_reads_every_entry_of_their_own() {
    let site = Site::open().await;
    site.assert_needs_sign_in("/ledger").await;
    let contract = site.contract(1).await;
    let (user, nano) = (site.ada_id(), 1_234_567_891);
    site.db
        .transact(|conn| {
            let transfer = Transfer {
                id: "test-reward".into(),
                from: AccountSpec::ChainRewards(contract.pool_id),
                to: AccountSpec::Available(user),
                amount: nano,
                kind: "reward",
                subject: contract.public_id.clone(),
                effective_day: contract.created_at.div_euclid(DAY),
                booked_at: contract.created_at,
            };
            ledger::post(conn, &transfer)
        })
        .unwrap();
    let amount = NanoFil(nano).to_string();
    let (mine, other) = (site.ada.get("/ledger").await, site.bob.get("/ledger").await);
    assert!(mine.text.contains(&amount), "{amount}: {}", mine.text);
    assert!(!other.text.contains(&amount), "{}", other.text);
    assert!(site.bob.get("/ledger").await.text.contains("no entries"));
    assert_eq!(site.ada.get("/ledger?before=soon").await.status, 422);
}
