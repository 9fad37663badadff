//! The basic duties of a site: methods, headers, characters, timeouts, and monitoring.

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use sealyard_core::jobs::{self, AlertKind};

use crate::{
    fixture::{Shop, free_address, wait_for},
    outside::customer::{self, Customer},
};

/// Sends a raw request. Returns the status and headers in lower case, and the body.
fn raw(shop: &Shop, request: &str) -> (String, String) {
    let address = shop.url.strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(30)))
        .unwrap();
    stream
        .write_all(request.replace("HOST", address).as_bytes())
        .unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_lowercase(), body.to_owned())
}

fn ask(shop: &Shop, method: &str, path: &str) -> (String, String) {
    raw(
        shop,
        &format!("{method} {path} HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n"),
    )
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread")]
async fn head_requests_get_the_status_of_get_without_a_body() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, _db) = customer::shop(dir.path(), "");
    for (path, expected) in [
        ("/", "200"),
        ("/healthz", "200"),
        ("/readyz", "200"),
        ("/static/site.css", "200"),
        ("/nothing", "404"),
    ] {
        let ((get, text), (head, none)) = (ask(&shop, "GET", path), ask(&shop, "HEAD", path));
        assert_eq!(
            (status(&get), status(&head)),
            (expected, expected),
            "{path}"
        );
        assert!(!text.is_empty() && none.is_empty(), "{path}: {none}");
    }
    assert_eq!(
        status(&ask(&shop, "GET", "/metrics").0),
        "404",
        "the public cannot read the metrics"
    );
    for path in ["/orders/%00", "/plans/a%0d%0ab", "/?x=%1b"] {
        assert_eq!(status(&ask(&shop, "GET", path).0), "404", "{path}");
    }
    assert!(
        !shop.serve.log().contains('\u{1b}'),
        "a log file has no colour codes: {}",
        shop.serve.log()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_are_not_cached_and_errors_sign_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = customer::shop(dir.path(), "");
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    let placed = ada.order(&db, 1).await;
    let cookie = ada.cookie();
    for (path, code) in [
        ("/dashboard", "200"),
        ("/nothing", "404"),
        ("/orders/ord_nothing", "404"),
        ("/admin/orders", "403"),
    ] {
        let (head, text) = raw(
            &shop,
            &format!(
                "GET {path} HTTP/1.1\r\nhost: HOST\r\ncookie: {cookie}\r\nconnection: close\r\n\r\n"
            ),
        );
        assert_eq!(status(&head), code, "{path}");
        assert!(head.contains("cache-control: no-store"), "{path}: {head}");
        assert!(text.contains("Sign out"), "{path}: {text}");
    }
    // The same holds for a form that is refused.
    let refused = ada
        .post(&format!("/orders/{}/cancel", "x".repeat(20)), &[])
        .await;
    assert!(
        refused.status == 404 && refused.text.contains("Sign out"),
        "{}",
        refused.text
    );
    assert!(
        ask(&shop, "GET", "/static/site.css").0.contains("max-age"),
        "static files may be cached"
    );
    assert!(
        ask(&shop, "GET", "/").1.contains("Sign in"),
        "a visitor without a session is signed out"
    );
    assert!(
        ask(&shop, "GET", &format!("/orders/{}", placed.public_id))
            .0
            .contains("no-store")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn control_characters_in_a_form_are_refused_and_the_field_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, db) = customer::shop(dir.path(), "");
    let visitor = Customer::visitor(&shop);
    let good = [
        ("email", "ada@example.org"),
        ("name", "Ada"),
        ("password", "long enough"),
    ];
    for (field, bad) in [
        ("email", "ada\0@example.org"),
        ("name", "A\u{7}da"),
        ("password", "long\u{1b}enough"),
        ("name", "A\nda"),
    ] {
        let form = good.map(|(name, value)| (name, if name == field { bad } else { value }));
        let answer = visitor.post("/signup", &form).await;
        assert_eq!(answer.status, 422, "{field}");
        assert!(
            answer.text.contains(&format!("The field {field}")),
            "{}",
            answer.text
        );
    }
    assert_eq!(
        visitor.post("/signup", &good).await.status,
        303,
        "a valid form is accepted"
    );
    let ada = Customer::signed_up(&shop, "eve@example.org").await;
    let (path, key, shown) = ada.quote(&db, 1).await;
    let placed = ada
        .post(
            &path,
            &[
                ("units", "1"),
                ("request_key", &format!("{key}\0")),
                ("shown", &shown),
            ],
        )
        .await;
    assert_eq!(placed.status, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_body_that_never_ends_times_out() {
    let dir = tempfile::tempdir().unwrap();
    let (shop, _db) = customer::shop(dir.path(), "");
    let began = Instant::now();
    let form = "content-type: application/x-www-form-urlencoded\r\ncontent-length: 500\r\n\
                connection: close\r\n\r\nemail=a";
    let (head, _) = raw(
        &shop,
        &format!("POST /login HTTP/1.1\r\nhost: HOST\r\n{form}"),
    );
    assert_eq!(status(&head), "408", "{head}");
    assert!(began.elapsed() < Duration::from_secs(25));
}

/// The checker of Prometheus itself accepts the metrics.
#[tokio::test(flavor = "multi_thread")]
async fn metrics_and_details_are_served_on_the_operators_address() {
    let dir = tempfile::tempdir().unwrap();
    let operator = free_address();
    let (mut shop, db) = customer::shop(dir.path(), "");
    let config = std::fs::read_to_string(&shop.config).unwrap();
    let line = format!("metrics_listen = \"{operator}\"");
    let config = config.replace("metrics_listen = \"\"", &line);
    std::fs::write(&shop.config, config).unwrap();
    shop.serve.kill();
    shop.serve.start();
    wait_for(operator);
    let ada = Customer::signed_up(&shop, "ada@example.org").await;
    ada.order(&db, 1).await;
    let http = sealyard_filecoin::http::client(Duration::from_secs(30)).unwrap();
    let page = async |name: &str| {
        let answer = http.get(format!("http://{operator}/{name}")).send().await;
        answer.unwrap().text().await.unwrap()
    };
    let text = page("metrics").await;
    for line in [
        "# HELP sealyard_capacity_bytes",
        "# TYPE sealyard_capacity_bytes gauge",
        "part=\"held\"} 2048",
        "sealyard_refunds_due 0",
    ] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    assert_eq!(promtool(&text), Ok(()));
    let wrong = text.replace(
        "# TYPE sealyard_refunds_due gauge",
        "# TYPE sealyard_refunds_due counter",
    );
    assert!(promtool(&wrong).is_err());
    let told = "the node at example is 9 epochs behind";
    db.write(|conn| jobs::raise(conn, AlertKind::Node, "test", told, 0))
        .unwrap();
    let details = page("readyz").await;
    assert!(details.contains("9 epochs behind"), "{details}");
    assert_eq!(
        ask(&shop, "GET", "/readyz").1.trim(),
        "ready",
        "the public gets no details"
    );
    let text = page("metrics").await;
    assert!(text.contains("sealyard_alerts{kind=\"node\"} 1"), "{text}");
}

fn promtool(text: &str) -> Result<(), String> {
    let mut check = Command::new("promtool");
    let mut child = check
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool is missing; run the tests with scripts/test, which installs it");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let said = [output.stderr, output.stdout].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    if output.status.success() {
        Ok(())
    } else {
        Err(said)
    }
}
