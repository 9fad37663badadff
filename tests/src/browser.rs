//! A customer buys in a real browser: signs up, gets a quote, orders, pays and sees the contract.
//! The test repeats this at the width of a phone.

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use sealyard_core::{
    capacity,
    store::{AnyConnection, Database, DbFault},
};
use thirtyfour::prelude::*;

use crate::{
    fixture::{Part, Shop, database_url, free_address, wait_for},
    support::{machine, program},
};

/// A shop with a machine, a pool and a plan. Buying needs no network.
fn shop(dir: &Path) -> Shop {
    let shop = Shop::open(
        dir,
        &format!("parameters_dir = \"{}\"\n", dir.join("params").display()),
    );
    let pool = [
        "--name",
        "Test",
        "--miner-id",
        "1000",
        "--sector-bytes",
        "2048",
        "--capacity-bytes",
        "20480",
        "--price-minor",
        "2500",
    ];
    let mut command = Command::new(program("sealyard"));
    assert!(
        command
            .arg("--config")
            .arg(&shop.config)
            .arg("pool")
            .args(pool)
            .status()
            .unwrap()
            .success()
    );
    let db = Database::open(&database_url(dir), 2).unwrap();
    machine(&db, "yard");
    let pledgeable = |conn: &mut AnyConnection| {
        let pool = capacity::pools(conn)?.remove(0);
        Ok::<_, DbFault>(capacity::set_collateral(conn, pool.id, 10, 0)?)
    };
    db.transact(pledgeable).unwrap();
    shop
}

async fn browser(dir: &Path, driver: std::net::SocketAddr, width: u32) -> WebDriver {
    let mut wanted = DesiredCapabilities::chrome();
    for argument in [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--disable-dev-shm-usage",
    ] {
        wanted.add_arg(argument).unwrap();
    }
    wanted
        .add_arg(&format!("--window-size={width},900"))
        .unwrap();
    wanted
        .add_arg(&format!(
            "--user-data-dir={}",
            dir.join(format!("profile-{width}")).display()
        ))
        .unwrap();
    WebDriver::new(format!("http://{driver}"), wanted)
        .await
        .unwrap()
}

async fn fill(driver: &WebDriver, name: &str, text: &str) {
    driver
        .find(By::Name(name))
        .await
        .unwrap()
        .send_keys(text)
        .await
        .unwrap();
}

async fn click(driver: &WebDriver, css: &str) {
    driver
        .query(By::Css(css))
        .first()
        .await
        .unwrap()
        .click()
        .await
        .unwrap();
}

/// Buys two units; returns the heading of the contract's page.
async fn buy(driver: &WebDriver, shop: &Shop, email: &str) -> WebDriverResult<String> {
    driver.goto(format!("{}/signup", shop.url)).await?;
    fill(driver, "name", "Ada").await;
    fill(driver, "email", email).await;
    fill(driver, "password", "long enough").await;
    click(driver, "main form .button").await;
    // Wait for the answer. A visitor who leaves the page too early would see it later.
    driver
        .query(By::Css("form[action='/logout']"))
        .first()
        .await?;
    driver.goto(&shop.url).await?;
    click(driver, ".card .button").await;
    assert!(driver.source().await?.contains("25.00 USD"));
    click(driver, "#order").await;
    click(driver, "#pay").await;
    click(driver, "#pay").await;
    // The webhook may arrive a moment after the customer.
    let started = Instant::now();
    while !driver.source().await?.contains("See your contract") {
        assert!(
            started.elapsed() < Duration::from_secs(20),
            "the payment was not noticed"
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
        driver.refresh().await?;
    }
    click(driver, "main a.button").await;
    driver.find(By::Tag("h1")).await?.text().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_buys_in_the_browser_on_desktop_and_phone() {
    // This installs the TLS provider that the driver client needs.
    sealyard_filecoin::http::client(Duration::from_secs(1)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let shop = shop(dir.path());
    let address = free_address();
    let _driver = Part::new(
        dir.path(),
        "chromedriver",
        &["chromedriver", &format!("--port={}", address.port())],
    )
    .started();
    wait_for(address);
    for (width, email) in [(1280, "ada@example.org"), (390, "bob@example.org")] {
        let driver = browser(dir.path(), address, width).await;
        let outcome = buy(&driver, &shop, email).await;
        let overflow = driver
            .execute(
                "return document.documentElement.scrollWidth > window.innerWidth + 1",
                vec![],
            )
            .await;
        let overflow: bool = overflow.unwrap().convert().unwrap();
        driver.quit().await.unwrap();
        assert!(outcome.unwrap().starts_with("Contract ctr_"));
        assert!(!overflow, "the contract page is wider than {width} pixels");
    }
    let db = Database::open(&database_url(dir.path()), 2).unwrap();
    let contracts = db
        .read(|conn| sealyard_core::contracts::recent(conn, 10).map_err(DbFault::from))
        .unwrap();
    assert_eq!(
        contracts.len(),
        2,
        "a webhook that arrives twice counts once"
    );
}
