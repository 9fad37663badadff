//! A stand-in for Stripe with its wire format: Checkout Sessions with idempotency keys, a page to pay on, signed webhooks that
//! are sent again until accepted, and one time more than needed.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::header, web};
use anyhow::Context;
use sealyard_core::ids;
use serde_json::{Value, json};

use crate::rails::stripe::sign;

#[derive(clap::Args)]
pub struct FakeStripeOptions {
    #[arg(long)]
    listen: SocketAddr,
    #[arg(long)]
    webhook_url: String,
    #[arg(long)]
    webhook_secret: String,
}

struct Fake {
    address: SocketAddr,
    webhook_url: String,
    webhook_secret: String,
    sessions: Mutex<Sessions>,
}

#[derive(Default)]
struct Sessions {
    by_id: HashMap<String, Value>,
    by_key: HashMap<String, String>,
}

/// Serves until the process ends.
pub async fn run(options: FakeStripeOptions) -> anyhow::Result<()> {
    start(options.listen, options.webhook_url, options.webhook_secret)?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Starts in the background; returns where it listens.
pub fn start(listen: SocketAddr, webhook_url: String, webhook_secret: String) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen).with_context(|| format!("fake Stripe cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let fake = web::Data::from(Arc::new(Fake { address, webhook_url, webhook_secret, sessions: Mutex::default() }));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(fake.clone())
            .route("/v1/checkout/sessions", web::post().to(create))
            .route("/v1/checkout/sessions/{id}", web::get().to(retrieve))
            .service(web::resource("/pay/{id}").get(pay_page).post(pay))
    })
    .workers(1)
    .disable_signals()
    .listen(listener)?
    .run();
    tokio::spawn(server);
    Ok(address)
}

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).ok().and_then(|d| i64::try_from(d.as_secs()).ok()).unwrap_or_default()
}

fn refuse(status: actix_web::http::StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(status).json(json!({"error": {"type": "invalid_request_error", "message": message}}))
}

async fn create(fake: web::Data<Fake>, request: HttpRequest, form: web::Form<HashMap<String, String>>) -> HttpResponse {
    use actix_web::http::StatusCode;
    let authorised = request.headers().get(header::AUTHORIZATION).is_some_and(|h| h.as_bytes().starts_with(b"Bearer sk_"));
    if !authorised {
        return refuse(StatusCode::UNAUTHORIZED, "Invalid API Key provided");
    }
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    let amount: i64 = match field("line_items[0][price_data][unit_amount]").parse() {
        Ok(amount) if amount > 0 => amount,
        _ => return refuse(StatusCode::BAD_REQUEST, "Invalid integer: line_items[0][price_data][unit_amount]"),
    };
    let key = request.headers().get("Idempotency-Key").and_then(|h| h.to_str().ok()).unwrap_or_default().to_owned();
    let mut sessions = fake.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(earlier) = sessions.by_key.get(&key).and_then(|id| sessions.by_id.get(id)) {
        return HttpResponse::Ok().json(earlier);
    }
    // As Stripe has it: half an hour to a day from now.
    if !field("expires_at").parse::<i64>().is_ok_and(|at| (now() + 1800..=now() + 86_400).contains(&at)) {
        return refuse(StatusCode::BAD_REQUEST, "The `expires_at` timestamp must be between 30 minutes and 24 hours from now.");
    }
    let id = ids::public_id("cs_test");
    let session = json!({
        "id": id, "object": "checkout.session", "mode": "payment", "status": "open", "payment_status": "unpaid",
        "amount_total": amount, "currency": field("line_items[0][price_data][currency]"),
        "client_reference_id": field("client_reference_id"), "metadata": {"order": field("metadata[order]")},
        "success_url": field("success_url"), "cancel_url": field("cancel_url"), "livemode": false, "created": now(),
        "expires_at": field("expires_at").parse::<i64>().unwrap_or_default(), "url": format!("http://{}/pay/{id}", fake.address),
    });
    sessions.by_key.insert(key, id.clone());
    sessions.by_id.insert(id, session.clone());
    HttpResponse::Ok().json(session)
}

fn find(fake: &Fake, id: &str) -> Option<Value> {
    fake.sessions.lock().unwrap_or_else(PoisonError::into_inner).by_id.get(id).cloned()
}

async fn retrieve(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    match find(&fake, &id) {
        Some(session) => HttpResponse::Ok().json(session),
        None => refuse(actix_web::http::StatusCode::NOT_FOUND, "No such checkout.session"),
    }
}

async fn pay_page(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    let Some(session) = find(&fake, &id) else { return HttpResponse::NotFound().body("no such session") };
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport content='width=device-width'><title>Test payment</title>\
         <body style='font-family:sans-serif;max-width:24rem;margin:3rem auto'><h1>Test payment</h1><p>{} {} cents</p>\
         <form method=post><button id=pay style='font-size:1.2rem;padding:.6rem 1.2rem'>Pay</button></form>",
        session.get("currency").and_then(Value::as_str).unwrap_or_default(),
        session.get("amount_total").and_then(Value::as_i64).unwrap_or_default(),
    );
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(page)
}

async fn pay(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    let paid = {
        let mut sessions = fake.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(session) = sessions.by_id.get_mut(id.as_str()).and_then(Value::as_object_mut) else {
            return HttpResponse::NotFound().body("no such session");
        };
        session.insert("status".into(), json!("complete"));
        session.insert("payment_status".into(), json!("paid"));
        Value::Object(session.clone())
    };
    let back = paid.get("success_url").and_then(Value::as_str).unwrap_or("/").to_owned();
    let event = json!({
        "id": ids::public_id("evt"), "object": "event", "type": "checkout.session.completed", "api_version": "2026-09-30.endive",
        "created": now(), "livemode": false, "data": {"object": paid},
    });
    tokio::spawn(deliver(fake, event.to_string()));
    HttpResponse::SeeOther().insert_header(("Location", back)).finish()
}

/// Sends until it is accepted, then once more: receivers must cope with both.
async fn deliver(fake: web::Data<Fake>, body: String) {
    const MOST_TRIES: u32 = 60;
    let Ok(http) = sealyard_filecoin::http::client(Duration::from_secs(10)) else { return };
    let mut accepted = 0;
    for _ in 0..MOST_TRIES {
        let signature = sign(&fake.webhook_secret, body.as_bytes(), now());
        let sent = http.post(&fake.webhook_url).header("Stripe-Signature", signature).body(body.clone()).send().await;
        if sent.is_ok_and(|response| response.status().is_success()) {
            accepted += 1;
        }
        if accepted == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
