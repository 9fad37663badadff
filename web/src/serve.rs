//! The HTTP server.

use std::net::TcpListener;

use actix_web::{
    App as Server, HttpServer,
    middleware::{Compress, DefaultHeaders},
    web,
};
use anyhow::Context;

use crate::{agent_api, app::Shared, error::WebError, health, pages};

/// Threads that wait for the database, per HTTP worker: together no more than the pool has connections.
const BLOCKING_THREADS: usize = 4;
/// Scripts, styles and fonts from here alone, no framing.
const CONTENT_POLICY: &str =
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'";

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
    let server = start(app, listener)?;
    let handle = server.handle();
    let running = tokio::spawn(server);
    shutdown_requested().await?;
    tracing::info!("finishing open requests");
    handle.stop(true).await;
    Ok(running.await??)
}

pub fn bind(address: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).with_context(|| format!("cannot listen on {address}; is another program using it?"))
}

/// What a form or an address says cannot be read.
fn bad_input(error: &dyn std::fmt::Display) -> actix_web::Error {
    tracing::debug!(%error, "unreadable input");
    WebError::BadInput("Something in the form is missing, or is not what belongs there.".into()).into()
}

/// The running server; it has to be awaited or spawned.
pub fn start(app: Shared, listener: TcpListener) -> anyhow::Result<actix_web::dev::Server> {
    tracing::info!(listen = %listener.local_addr()?, "serving");
    let data = web::Data::from(app);
    let server = HttpServer::new(move || {
        Server::new()
            .app_data(data.clone())
            .app_data(web::QueryConfig::default().error_handler(|error, _| bad_input(&error)))
            .app_data(web::FormConfig::default().error_handler(|error, _| bad_input(&error)))
            .app_data(web::PathConfig::default().error_handler(|_, _| WebError::NotFound.into()))
            .wrap(Compress::default())
            .wrap(
                DefaultHeaders::new()
                    .add(("Content-Security-Policy", CONTENT_POLICY))
                    .add(("X-Content-Type-Options", "nosniff"))
                    .add(("Referrer-Policy", "same-origin")),
            )
            .configure(health::routes)
            .configure(agent_api::routes)
            .configure(pages::routes)
    })
    .workers(2)
    .worker_max_blocking_threads(BLOCKING_THREADS)
    .disable_signals()
    .shutdown_timeout(5)
    .listen(listener)?
    .run();
    Ok(server)
}
