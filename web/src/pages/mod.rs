//! The site's pages. A page is a struct with amounts already written out; a handler parses, authorises, asks `core`, renders.

mod account;
mod admin;
mod assets;
mod buy;
mod fleet;
mod investor;
mod plan;
mod public;
#[cfg(test)]
mod snapshots;
mod terms;
pub mod webhook;

use actix_web::{HttpResponse, http::header::CACHE_CONTROL, web};
use askama::Template;

use crate::error::WebError;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(assets::routes)
        .configure(public::routes)
        .configure(account::routes)
        .configure(buy::routes)
        .configure(investor::routes)
        .configure(admin::routes)
        .configure(fleet::routes)
        .configure(plan::routes)
        .configure(webhook::routes)
        .default_service(web::to(|| async { Err::<HttpResponse, _>(WebError::NotFound) }));
}

/// Renders a page; nothing of it may be cached or framed elsewhere.
fn html(page: &impl Template) -> Result<HttpResponse, WebError> {
    let mut response = HttpResponse::Ok();
    response.content_type("text/html; charset=utf-8").insert_header((CACHE_CONTROL, "no-store"));
    Ok(response.body(page.render()?))
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header(("Location", to)).finish()
}
