//! A customer buys in a real browser: sign up, quote, order, pay, see the contract; on a phone's width too.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use sealyard_core::store::{Database, DbFault};
use thirtyfour::prelude::*;

use crate::support::{program, root};

/// Ends with the test, whatever comes.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn wait_for(address: SocketAddr) {
    let started = Instant::now();
    while TcpStream::connect(address).is_err() {
        assert!(started.elapsed() < Duration::from_secs(30), "nothing listens on {address}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn spawn(command: &mut Command) -> Running {
    Running(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
}

struct House {
    url: String,
    _processes: Vec<Running>,
}

/// Site and payment provider; no network is needed to buy.
fn house(dir: &Path) -> House {
    let (site, stripe) = (free_address(), free_address());
    let url = format!("http://{site}");
    let config = dir.join("sealyard.toml");
    fs::write(
        &config,
        format!(
            "database_url = \"sqlite://{}/house.db\"\nlisten = \"{site}\"\npublic_url = \"{url}\"\n\
             session_secret = \"0123456789abcdef0123456789abcdef\"\nstripe_secret_key = \"sk_test_x\"\n\
             stripe_webhook_secret = \"whsec_x\"\nstripe_api = \"http://{stripe}\"\nparameters_dir = \"{}\"\n",
            dir.display(),
            dir.join("params").display()
        ),
    )
    .unwrap();
    let sealyard = |arguments: &[&str]| {
        let mut command = Command::new(program("sealyard"));
        command.arg("--config").arg(&config).args(arguments).current_dir(root());
        command
    };
    let pool = [
        "pool",
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
    assert!(sealyard(&pool).status().unwrap().success());
    let webhook = format!("{url}/webhooks/stripe");
    let provider = ["fake-stripe", "--listen", &stripe.to_string(), "--webhook-url", &webhook, "--webhook-secret", "whsec_x"];
    let processes = vec![spawn(&mut sealyard(&provider)), spawn(&mut sealyard(&["serve"]))];
    wait_for(stripe);
    wait_for(site);
    House { url, _processes: processes }
}

async fn browser(dir: &Path, driver: SocketAddr, width: u32) -> WebDriver {
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
    wanted.add_arg(&format!("--window-size={width},900")).unwrap();
    wanted.add_arg(&format!("--user-data-dir={}", dir.join(format!("profile-{width}")).display())).unwrap();
    WebDriver::new(format!("http://{driver}"), wanted).await.unwrap()
}

async fn fill(driver: &WebDriver, name: &str, text: &str) {
    driver.find(By::Name(name)).await.unwrap().send_keys(text).await.unwrap();
}

async fn click(driver: &WebDriver, css: &str) {
    driver.query(By::Css(css)).first().await.unwrap().click().await.unwrap();
}

/// Buys two units; returns the heading of the contract's page.
async fn buy(driver: &WebDriver, house: &House, email: &str) -> WebDriverResult<String> {
    driver.goto(format!("{}/signup", house.url)).await?;
    fill(driver, "name", "Ada").await;
    fill(driver, "email", email).await;
    fill(driver, "password", "long enough").await;
    click(driver, "main form .button").await;
    driver.goto(&house.url).await?;
    click(driver, ".card .button").await;
    assert!(driver.source().await?.contains("25.00 USD"));
    click(driver, "#order").await;
    click(driver, "#pay").await;
    click(driver, "#pay").await;
    // The webhook may come a moment after the customer does.
    let started = Instant::now();
    while !driver.source().await?.contains("See your contract") {
        assert!(started.elapsed() < Duration::from_secs(20), "the payment was not noticed");
        tokio::time::sleep(Duration::from_millis(200)).await;
        driver.refresh().await?;
    }
    click(driver, "main a.button").await;
    driver.find(By::Tag("h1")).await?.text().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_customer_buys_in_the_browser_on_desktop_and_phone() {
    // Installs the TLS provider that the driver's client asks for.
    sealyard_filecoin::http::client(Duration::from_secs(1)).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let house = house(dir.path());
    let address = free_address();
    let _driver = spawn(Command::new("chromedriver").arg(format!("--port={}", address.port())));
    wait_for(address);
    for (width, email) in [(1280, "ada@example.org"), (390, "bob@example.org")] {
        let driver = browser(dir.path(), address, width).await;
        let outcome = buy(&driver, &house, email).await;
        let overflow = driver.execute("return document.documentElement.scrollWidth > window.innerWidth + 1", vec![]).await;
        let overflow: bool = overflow.unwrap().convert().unwrap();
        driver.quit().await.unwrap();
        assert!(outcome.unwrap().starts_with("Contract ctr_"));
        assert!(!overflow, "the contract page is wider than {width} pixels");
    }
    let db = Database::open(&format!("sqlite://{}/house.db", dir.path().display()), 2).unwrap();
    let contracts = db.read(|conn| sealyard_core::contracts::recent(conn, 10).map_err(DbFault::from)).unwrap();
    assert_eq!(contracts.len(), 2, "although every webhook was sent twice");
}
