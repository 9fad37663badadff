//! The HTTP server.

use std::net::TcpListener;

use actix_web::{
    App as Server, HttpResponse, HttpServer,
    body::{BoxBody, EitherBody, MessageBody},
    dev::{ServiceRequest, ServiceResponse},
    http::{Method, header},
    middleware::{Compress, DefaultHeaders, Next, from_fn},
    web,
};
use anyhow::Context;

use crate::{
    agent_api,
    app::Shared,
    auth,
    error::{Said, WebError},
    health, lane, notify, pages,
};

/// Threads that work for visitors and wait for the database, per HTTP worker: together no more than
/// the pool has connections, and not many more than there are processors, so that machines'
/// requests find one.
fn blocking_threads() -> usize {
    std::thread::available_parallelism().map_or(2, |cores| cores.get().clamp(2, 4))
}

/// Scripts, styles and fonts from here alone, no framing.
const CONTENT_POLICY: &str = "default-src 'self'; img-src 'self' data:; object-src 'none'; \
     base-uri 'none'; frame-ancestors 'none'";

/// Returns when the process is told to stop: Ctrl-C, or SIGTERM as service managers send it.
pub async fn shutdown_requested() -> anyhow::Result<()> {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed?,
        _ = terminate.recv() => {}
    }
    Ok(())
}

/// Serves until the process is told to stop.
pub async fn run(app: Shared) -> anyhow::Result<()> {
    let listener = bind(&app.config.listen)?;
    if !app.config.metrics_listen.is_empty() {
        let listener = bind(&app.config.metrics_listen)?;
        tokio::spawn(health::start(app.clone(), listener)?);
    }
    let server = start(app, listener)?;
    let handle = server.handle();
    let running = tokio::spawn(server);
    notify::ready();
    shutdown_requested().await?;
    notify::stopping();
    tracing::info!("finishing open requests");
    handle.stop(true).await;
    Ok(running.await??)
}

pub fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address)
        .with_context(|| format!("cannot listen on {address}; is another program using it?"))
}

/// Answers a form or an address that cannot be read.
fn bad_input(error: &dyn std::fmt::Display) -> actix_web::Error {
    tracing::debug!(%error, "unreadable input");
    WebError::BadInput("A field of the form is missing or has an invalid value.".into()).into()
}

/// `HEAD` is answered as `GET` is, without the body, which the server leaves out by itself. An
/// address with characters that nobody types names nothing: the database would refuse to compare
/// with them.
async fn plain_requests(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody, BoxBody>>, actix_web::Error> {
    if request.method() == Method::HEAD {
        request.head_mut().method = Method::GET;
    }
    if has_control_characters(request.uri().path_and_query().map_or("", |p| p.as_str())) {
        return Ok(request
            .error_response(WebError::NotFound)
            .map_into_boxed_body()
            .map_into_right_body());
    }
    Ok(next.call(request).await?.map_into_left_body())
}

/// Percent-encoded: an address with plain ones is not HTTP.
fn has_control_characters(path: &str) -> bool {
    let bytes = path.as_bytes();
    let encoded = |at: usize| {
        bytes
            .get(at + 1..at + 3)
            .map(|hex| hex.to_ascii_lowercase())
    };
    (0..bytes.len())
        .filter(|at| bytes.get(*at) == Some(&b'%'))
        .any(|at| {
            encoded(at).is_some_and(|hex| matches!(hex.as_slice(), [b'0' | b'1', _] | [b'7', b'f']))
        })
}

/// An error's page is made again for who is signed in: nobody is signed out by a wrong address.
async fn for_the_visitor(
    request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<EitherBody<impl MessageBody, BoxBody>>, actix_web::Error> {
    let response = next.call(request).await?;
    let said = response.response().extensions().get::<Said>().cloned();
    let Some(said) = said else {
        return Ok(response.map_into_left_body());
    };
    let (request, status) = (response.request().clone(), response.status());
    let page = said.page(auth::visitor(&request).await);
    let made = HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .body(page);
    Ok(ServiceResponse::new(request, made).map_into_right_body())
}

/// The running server; it has to be awaited or spawned.
pub fn start(app: Shared, listener: TcpListener) -> anyhow::Result<actix_web::dev::Server> {
    tracing::info!(listen = %listener.local_addr()?, "serving");
    let data = web::Data::from(app);
    let server = HttpServer::new(move || {
        lane::answer_visitors();
        Server::new()
            .app_data(data.clone())
            .app_data(web::QueryConfig::default().error_handler(|error, _| bad_input(&error)))
            .app_data(web::PathConfig::default().error_handler(|_, _| WebError::NotFound.into()))
            .wrap(Compress::default())
            .wrap(from_fn(for_the_visitor))
            .wrap(from_fn(plain_requests))
            // The outermost: whatever is answered has them.
            .wrap(
                DefaultHeaders::new()
                    .add(("Content-Security-Policy", CONTENT_POLICY))
                    .add(("X-Content-Type-Options", "nosniff"))
                    .add(("Referrer-Policy", "same-origin"))
                    .add((header::CACHE_CONTROL, "no-store")),
            )
            .configure(health::routes)
            .configure(agent_api::routes)
            .configure(pages::routes)
    })
    .workers(2)
    .worker_max_blocking_threads(blocking_threads())
    .disable_signals()
    .shutdown_timeout(5)
    .listen(listener)?
    .run();
    Ok(server)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_in_an_address_are_detected() {
        for (path, bad) in [
            ("/orders/ord_1", false),
            ("/a%20b?x=%C3%96", false),
            ("/%00", true),
            ("/x?y=%0d%0a", true),
            ("/%7F", true),
            ("/%", false),
        ] {
            assert_eq!(has_control_characters(path), bad, "{path}");
        }
    }
}
