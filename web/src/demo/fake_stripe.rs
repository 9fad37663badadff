//! A stand-in for Stripe with its wire format: Checkout Sessions, a page to pay on at once or by
//! bank debit, events, and signed webhooks. An answer to an idempotency key is repeated, even an
//! error. A webhook is sent until it is accepted, and then once more. `POST /control/…` makes it
//! misbehave.

use std::{
    collections::HashMap,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use actix_web::{App, HttpRequest, HttpResponse, HttpServer, http::StatusCode, web};
use anyhow::Context;
use sealyard_core::{
    clock::{HOUR, SECOND, SECONDS_A_DAY},
    ids,
};
use serde_json::{Value, json};

use crate::rails::stripe::{API_VERSION, sign};

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

type Form = HashMap<String, String>;

/// A repeatable answer, and the form that it is for.
struct Answer {
    form: Form,
    status: StatusCode,
    body: Value,
}

#[derive(Default)]
struct Sessions {
    by_id: HashMap<String, Value>,
    /// The answers to idempotency keys.
    by_key: HashMap<String, Answer>,
    events: Vec<Value>,
    /// This many requests for a session will fail. The failure is kept under their key.
    failing: u32,
    /// While true no webhook is sent.
    silent: bool,
}

/// Serves until the process ends.
pub async fn run(options: FakeStripeOptions) -> anyhow::Result<()> {
    start(options.listen, options.webhook_url, options.webhook_secret)?;
    tokio::signal::ctrl_c().await?;
    Ok(())
}

/// Starts in the background; returns where it listens.
pub fn start(
    listen: SocketAddr,
    webhook_url: String,
    webhook_secret: String,
) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind(listen)
        .with_context(|| format!("fake Stripe cannot listen on {listen}"))?;
    let address = listener.local_addr()?;
    let fake = web::Data::from(Arc::new(Fake {
        address,
        webhook_url,
        webhook_secret,
        sessions: Mutex::default(),
    }));
    let server = HttpServer::new(move || {
        App::new()
            .app_data(fake.clone())
            .route("/v1/checkout/sessions", web::post().to(create))
            .route("/v1/checkout/sessions/{id}", web::get().to(retrieve))
            .route("/v1/checkout/sessions/{id}/expire", web::post().to(expire))
            .route("/v1/events", web::get().to(events))
            .route("/control/fail/{count}", web::post().to(fail))
            .route("/control/silent/{yes}", web::post().to(silence))
            .route("/control/event", web::post().to(any_event))
            .route("/pay/{id}/debit", web::post().to(debit))
            .route("/pay/{id}/settle/{outcome}", web::post().to(settle))
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
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_secs()).ok())
        .unwrap_or_default()
}

fn refuse(status: StatusCode, message: &str) -> HttpResponse {
    HttpResponse::build(status)
        .json(json!({"error": {"type": "invalid_request_error", "message": message}}))
}

async fn create(
    fake: web::Data<Fake>,
    request: HttpRequest,
    form: web::Form<Form>,
) -> HttpResponse {
    let header = |name: &str| {
        let value = request.headers().get(name);
        value.and_then(|v| v.to_str().ok()).unwrap_or_default()
    };
    if !header("Authorization").starts_with("Bearer sk_") {
        return refuse(StatusCode::UNAUTHORIZED, "Invalid API Key provided");
    }
    let form = form.into_inner();
    let amount = match form.get(AMOUNT).map(|text| text.parse::<i64>()) {
        Some(Ok(amount)) if amount > 0 => amount,
        _ => {
            let message = format!("Invalid integer: {AMOUNT}");
            return refuse(StatusCode::BAD_REQUEST, &message);
        }
    };
    let key = header("Idempotency-Key").to_owned();
    let mut sessions = fake.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(first) = sessions.by_key.get(&key) {
        if first.form != form {
            return refuse(
                StatusCode::BAD_REQUEST,
                "Keys for idempotent requests can only be used with the same parameters.",
            );
        }
        return HttpResponse::build(first.status).json(&first.body);
    }
    if sessions.failing > 0 {
        sessions.failing -= 1;
        let body =
            json!({"error": {"type": "api_error", "message": "An error occurred on our end."}});
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        return sessions.answer(key, Answer { form, status, body });
    }
    let expires_at = form.get("expires_at").and_then(|at| at.parse::<i64>().ok());
    let Some(expires_at) = expires_at.filter(|at| may_expire(*at)) else {
        return refuse(
            StatusCode::BAD_REQUEST,
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from now.",
        );
    };
    let id = ids::public_id("cs_test");
    let body = session(&fake, &id, &form, amount, expires_at);
    sessions.by_id.insert(id, body.clone());
    let status = StatusCode::OK;
    sessions.answer(key, Answer { form, status, body })
}

impl Sessions {
    /// Keeps an answer under its key, and gives it.
    fn answer(&mut self, key: String, answer: Answer) -> HttpResponse {
        let response = HttpResponse::build(answer.status).json(&answer.body);
        self.by_key.insert(key, answer);
        response
    }
}

const AMOUNT: &str = "line_items[0][price_data][unit_amount]";

/// Stripe's rule: half an hour to a day from now.
fn may_expire(at: i64) -> bool {
    (now() + HOUR / SECOND / 2..=now() + SECONDS_A_DAY).contains(&at)
}

/// A new session.
fn session(fake: &Fake, id: &str, form: &Form, amount: i64, expires_at: i64) -> Value {
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    json!({
        "id": id,
        "object": "checkout.session",
        "mode": "payment",
        "status": "open",
        "payment_status": "unpaid",
        "amount_total": amount,
        "currency": field("line_items[0][price_data][currency]"),
        "client_reference_id": field("client_reference_id"),
        "metadata": {"order": field("metadata[order]")},
        "success_url": field("success_url"),
        "cancel_url": field("cancel_url"),
        "livemode": false,
        "created": now(),
        "payment_intent": null,
        "expires_at": expires_at,
        "url": format!("http://{}/pay/{id}", fake.address),
    })
}

async fn fail(fake: web::Data<Fake>, count: web::Path<u32>) -> HttpResponse {
    fake.sessions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .failing = count.into_inner();
    HttpResponse::Ok().finish()
}

async fn silence(fake: web::Data<Fake>, yes: web::Path<bool>) -> HttpResponse {
    fake.sessions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .silent = yes.into_inner();
    HttpResponse::Ok().finish()
}

/// An event of any kind about any object: `{"type": …, "object": {…}}`.
async fn any_event(fake: web::Data<Fake>, event: web::Json<Value>) -> HttpResponse {
    let kind = event
        .get("type")
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned();
    let object = event.get("object").cloned().unwrap_or_default();
    announce(fake, &kind, object);
    HttpResponse::Ok().finish()
}

/// Keeps an event and sends it.
fn announce(fake: web::Data<Fake>, kind: &str, object: Value) {
    let event = json!({
        "id": ids::public_id("evt"),
        "object": "event",
        "type": kind,
        "api_version": API_VERSION,
        "created": now(),
        "livemode": false,
        "data": {"object": object},
    });
    let is_silent = {
        let mut sessions = fake.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.events.push(event.clone());
        sessions.silent
    };
    if !is_silent {
        tokio::spawn(deliver(fake, event.to_string()));
    }
}

#[derive(serde::Deserialize)]
struct Listed {
    #[serde(rename = "created[gte]")]
    from: Option<i64>,
    #[serde(rename = "created[lt]")]
    to: Option<i64>,
    starting_after: Option<String>,
}

/// The newest first, as Stripe lists them, two to a page.
async fn events(fake: web::Data<Fake>, query: web::Query<Listed>) -> HttpResponse {
    let sessions = fake.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let created = |event: &Value| {
        event
            .get("created")
            .and_then(Value::as_i64)
            .unwrap_or_default()
    };
    let within = |event: &&Value| {
        query.from.is_none_or(|from| created(event) >= from)
            && query.to.is_none_or(|to| created(event) < to)
    };
    let listed: Vec<&Value> = sessions.events.iter().rev().filter(within).collect();
    let is_last = |event: &&&Value| {
        event.get("id").and_then(Value::as_str) == query.starting_after.as_deref()
    };
    let skip = listed
        .iter()
        .position(|event| is_last(&event))
        .map_or(0, |at| at + 1);
    let page: Vec<&&Value> = listed.iter().skip(skip).take(2).collect();
    HttpResponse::Ok()
        .json(json!({"object": "list", "has_more": skip + page.len() < listed.len(), "data": page}))
}

/// Ends a session that nobody has paid on.
async fn expire(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    let mut sessions = fake.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let Some(session) = sessions
        .by_id
        .get_mut(id.as_str())
        .and_then(Value::as_object_mut)
    else {
        return refuse(StatusCode::NOT_FOUND, "No such checkout.session");
    };
    if session.get("status") != Some(&json!("open")) {
        return refuse(
            StatusCode::BAD_REQUEST,
            "Only Checkout Sessions with a status in [\"open\"] can be expired.",
        );
    }
    session.insert("status".into(), json!("expired"));
    HttpResponse::Ok().json(Value::Object(session.clone()))
}

/// Changes a session and returns it.
fn change(fake: &Fake, id: &str, status: &str, payment_status: &str) -> Option<Value> {
    let mut sessions = fake.sessions.lock().unwrap_or_else(PoisonError::into_inner);
    let session = sessions.by_id.get_mut(id).and_then(Value::as_object_mut)?;
    session.insert("status".into(), json!(status));
    session.insert("payment_status".into(), json!(payment_status));
    session.entry("payment_intent").and_modify(|intent| {
        if intent.is_null() {
            *intent = json!(format!("pi_{id}"));
        }
    });
    Some(Value::Object(session.clone()))
}

/// Pays by bank debit: the money arrives some days later, or does not.
async fn debit(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    let Some(session) = change(&fake, &id, "complete", "unpaid") else {
        return HttpResponse::NotFound().body("no such session");
    };
    announce(fake, "checkout.session.completed", session.clone());
    back(&session)
}

async fn settle(fake: web::Data<Fake>, path: web::Path<(String, String)>) -> HttpResponse {
    let (id, outcome) = path.into_inner();
    let (payment, kind) = match outcome.as_str() {
        "paid" => ("paid", "checkout.session.async_payment_succeeded"),
        _ => ("unpaid", "checkout.session.async_payment_failed"),
    };
    let Some(session) = change(&fake, &id, "complete", payment) else {
        return HttpResponse::NotFound().body("no such session");
    };
    announce(fake, kind, session);
    HttpResponse::Ok().finish()
}

fn back(session: &Value) -> HttpResponse {
    let to = session
        .get("success_url")
        .and_then(Value::as_str)
        .unwrap_or("/")
        .to_owned();
    HttpResponse::SeeOther()
        .insert_header(("Location", to))
        .finish()
}

fn find(fake: &Fake, id: &str) -> Option<Value> {
    fake.sessions
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .by_id
        .get(id)
        .cloned()
}

async fn retrieve(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    match find(&fake, &id) {
        Some(session) => HttpResponse::Ok().json(session),
        None => refuse(StatusCode::NOT_FOUND, "No such checkout.session"),
    }
}

async fn pay_page(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    let Some(session) = find(&fake, &id) else {
        return HttpResponse::NotFound().body("no such session");
    };
    let page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8>\
         <meta name=viewport content='width=device-width'><title>Test payment</title>\
         <body style='font-family:sans-serif;max-width:24rem;margin:3rem auto'>\
         <h1>Test payment</h1><p>{} {} cents</p><form method=post>\
         <button id=pay style='font-size:1.2rem;padding:.6rem 1.2rem'>Pay</button></form>",
        session
            .get("currency")
            .and_then(Value::as_str)
            .unwrap_or_default(),
        session
            .get("amount_total")
            .and_then(Value::as_i64)
            .unwrap_or_default(),
    );
    HttpResponse::Ok()
        .content_type("text/html; charset=utf-8")
        .body(page)
}

async fn pay(fake: web::Data<Fake>, id: web::Path<String>) -> HttpResponse {
    let is_open =
        find(&fake, &id).is_some_and(|session| session.get("status") == Some(&json!("open")));
    if !is_open {
        return HttpResponse::Gone().body("this session is over");
    }
    let Some(paid) = change(&fake, &id, "complete", "paid") else {
        return HttpResponse::NotFound().body("no such session");
    };
    announce(fake, "checkout.session.completed", paid.clone());
    back(&paid)
}

/// Sends a webhook until it is accepted, and then once more. Receivers must cope with both.
async fn deliver(fake: web::Data<Fake>, body: String) {
    const MOST_TRIES: u32 = 60;
    let Ok(http) = sealyard_filecoin::http::client(Duration::from_secs(10)) else {
        return;
    };
    let mut accepted = 0;
    for _ in 0..MOST_TRIES {
        let signature = sign(&fake.webhook_secret, body.as_bytes(), now());
        let sent = http
            .post(&fake.webhook_url)
            .header("Stripe-Signature", signature)
            .body(body.clone())
            .send()
            .await;
        if sent.is_ok_and(|response| response.status().is_success()) {
            accepted += 1;
        }
        if accepted == 2 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
