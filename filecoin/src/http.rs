//! One place that builds HTTP clients, so that every outgoing call has a timeout and the same TLS provider.

use std::{sync::Once, time::Duration};

static PROVIDER: Once = Once::new();

/// An HTTP client with a total timeout per request. TLS uses ring, installed once per process.
pub fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    PROVIDER.call_once(|| {
        // A provider that is already installed is as good as ours.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().timeout(timeout).no_proxy().build()
}
