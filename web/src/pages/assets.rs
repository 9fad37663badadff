//! Style, script and font, built into the program.

use actix_web::{HttpResponse, http::header, web};

macro_rules! asset {
    ($config:ident, $path:literal, $file:literal, $kind:literal) => {
        $config.route(
            $path,
            web::get().to(|| async {
                HttpResponse::Ok()
                    .content_type($kind)
                    .insert_header((header::CACHE_CONTROL, "public, max-age=3600"))
                    .body(include_bytes!(concat!("../../../static/", $file)).as_slice())
            }),
        )
    };
}

pub fn routes(config: &mut web::ServiceConfig) {
    asset!(
        config,
        "/static/tokens.css",
        "css/tokens.css",
        "text/css; charset=utf-8"
    );
    asset!(
        config,
        "/static/site.css",
        "css/site.css",
        "text/css; charset=utf-8"
    );
    asset!(
        config,
        "/static/live.js",
        "js/live.js",
        "text/javascript; charset=utf-8"
    );
    asset!(
        config,
        "/static/inter-regular.ttf",
        "fonts/inter-regular.ttf",
        "font/ttf"
    );
    asset!(
        config,
        "/static/inter-semibold.ttf",
        "fonts/inter-semibold.ttf",
        "font/ttf"
    );
}
