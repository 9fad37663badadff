//! Stripe's webhook: verified on the raw bytes, stored as it came, acted on once.

use actix_web::{HttpRequest, HttpResponse, web};
use diesel::prelude::*;
use sealyard_core::{
    clock::SECOND,
    on_conn,
    orders::{self, Paid, PayError},
    store::{AnyConnection, DbFault, DbResult, schema::webhook_events},
};

use crate::{
    app::{App, Shared, transact},
    rails::stripe::{self, Event, check_signature},
};

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/webhooks/stripe", web::post().to(receive));
}

async fn receive(app: web::Data<App>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let app: Shared = app.into_inner();
    let header = request.headers().get("Stripe-Signature").and_then(|h| h.to_str().ok()).unwrap_or_default();
    let secret = &app.config.stripe_webhook_secret;
    if secret.is_empty() {
        return HttpResponse::NotFound().finish();
    }
    if let Err(error) = check_signature(secret, header, &body, app.outside_now() / SECOND) {
        tracing::warn!(%error, "webhook refused");
        return HttpResponse::BadRequest().body(error.to_string());
    }
    let Ok(raw) = String::from_utf8(body.to_vec()) else { return HttpResponse::BadRequest().body("not UTF-8") };
    let event: Event = match serde_json::from_str(&raw) {
        Ok(event) => event,
        Err(error) => return HttpResponse::BadRequest().body(error.to_string()),
    };
    let now = app.now();
    // Kept whatever comes of it: money may have come.
    let kept = event.clone();
    if let Err(error) = transact(&app, move |conn| Ok::<_, DbFault>(store(conn, &kept, &raw, now)?)).await {
        tracing::error!(%error, "webhook not kept");
        return HttpResponse::InternalServerError().finish();
    }
    let done = transact(&app, move |conn| {
        let object = &event.data.object;
        if !event.is_paid() {
            return Ok(());
        }
        let paid = Paid {
            rail: stripe::RAIL,
            rail_ref: &object.id,
            minor: object.amount_total.unwrap_or_default(),
            currency: object.currency.as_deref().unwrap_or_default(),
        };
        orders::fulfil(conn, &paid, now).map(drop)
    });
    match done.await {
        Ok(()) => HttpResponse::Ok().finish(),
        // The event can arrive before our own row of the session is committed: Stripe sends it again.
        Err(error @ PayError::Unknown { .. }) => {
            tracing::warn!(%error, "webhook for an unknown payment");
            HttpResponse::Conflict().body(error.to_string())
        }
        Err(error) => {
            tracing::error!(%error, "webhook failed");
            HttpResponse::InternalServerError().finish()
        }
    }
}

fn store(conn: &mut AnyConnection, event: &Event, raw: &str, now: i64) -> DbResult<()> {
    let values = (
        webhook_events::id.eq(&event.id),
        webhook_events::rail.eq(stripe::RAIL),
        webhook_events::kind.eq(&event.kind),
        webhook_events::raw.eq(raw),
        webhook_events::received_at.eq(now),
    );
    on_conn!(&mut *conn, |c| diesel::insert_into(webhook_events::table).values(values).on_conflict_do_nothing().execute(c))
        .map(drop)
}
