//! The site's pages. A page is a struct with amounts already written out; a handler parses,
//! authorises, asks `core`, renders.

mod account;
mod admin;
mod assets;
mod invest;
mod shop;
#[cfg(test)]
mod snapshots;

use actix_web::{HttpResponse, http::header::CACHE_CONTROL, web};
use askama::Template;

use crate::error::WebError;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(assets::routes)
        .configure(shop::routes)
        .configure(account::routes)
        .configure(invest::routes)
        .configure(admin::routes)
        .default_service(web::to(|| async {
            Err::<HttpResponse, _>(WebError::NotFound)
        }));
}

/// Renders a page; nothing of it may be cached or framed elsewhere.
fn html(page: &impl Template) -> Result<HttpResponse, WebError> {
    let mut response = HttpResponse::Ok();
    response
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"));
    Ok(response.body(page.render()?))
}

fn redirect(to: &str) -> HttpResponse {
    HttpResponse::SeeOther()
        .insert_header(("Location", to))
        .finish()
}
