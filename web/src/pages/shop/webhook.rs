//! Stripe's webhook: verified on the raw bytes, kept as it came with what became of it, acted on
//! once.

use actix_web::{HttpRequest, HttpResponse, web};
use sealyard_core::clock::SECOND;

use crate::{
    app::{App, Shared},
    rails::{self, stripe::check_signature},
};

/// Stripe's largest events have some tens of kilobytes.
const LARGEST: usize = 1 << 20;

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::resource("/webhooks/stripe")
            .app_data(web::PayloadConfig::new(LARGEST))
            .route(web::post().to(receive)),
    );
}

async fn receive(app: web::Data<App>, request: HttpRequest, body: web::Bytes) -> HttpResponse {
    let app: Shared = app.into_inner();
    let header = request
        .headers()
        .get("Stripe-Signature")
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    let secret = &app.config.stripe_webhook_secret;
    if secret.is_empty() {
        return HttpResponse::NotFound().finish();
    }
    if let Err(error) = check_signature(secret, header, &body, app.outside_now() / SECOND) {
        tracing::warn!(%error, "webhook refused");
        return HttpResponse::BadRequest().body(error.to_string());
    }
    let Ok(raw) = String::from_utf8(body.to_vec()) else {
        return HttpResponse::BadRequest().body("not UTF-8");
    };
    let now = app.now();
    match app
        .lane
        .transact(move |conn| rails::receive_stripe(conn, &raw, now))
        .await
    {
        Ok(Some(fate)) => HttpResponse::Ok().body(fate.name()),
        Ok(None) => HttpResponse::BadRequest().body("not an event"),
        // Nothing was kept: Stripe sends it again.
        Err(error) => {
            tracing::error!(%error, "webhook failed");
            HttpResponse::InternalServerError().finish()
        }
    }
}
