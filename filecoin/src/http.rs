//! Builds all HTTP clients, so that every outgoing call has a timeout and the same TLS provider.

use std::{sync::Once, time::Duration};

static PROVIDER: Once = Once::new();

/// An HTTP client with a total timeout per request. TLS uses ring, installed once per process.
pub fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder().timeout(timeout).build()
}

/// An HTTP client for large transfers: it fails only when nothing has arrived for `silence`. It
/// does not follow redirects, so it contacts only the given address.
pub fn streaming_client(silence: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(silence)
        .read_timeout(silence)
        .build()
}

fn builder() -> reqwest::ClientBuilder {
    PROVIDER.call_once(|| {
        // An already installed provider serves equally well.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy()
}
