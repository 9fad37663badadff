//! One place that builds HTTP clients, so that every outgoing call has a timeout and the same TLS provider.

use std::{sync::Once, time::Duration};

static PROVIDER: Once = Once::new();

/// An HTTP client with a total timeout per request. TLS uses ring, installed once per process.
pub fn client(timeout: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder().timeout(timeout).build()
}

/// For what takes as long as it is large: fails when nothing has come for `silence`. It goes to the address that it is given and nowhere
/// else: redirects are not followed.
pub fn streaming_client(silence: Duration) -> Result<reqwest::Client, reqwest::Error> {
    builder().redirect(reqwest::redirect::Policy::none()).connect_timeout(silence).read_timeout(silence).build()
}

fn builder() -> reqwest::ClientBuilder {
    PROVIDER.call_once(|| {
        // A provider that is already installed is as good as ours.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder().no_proxy()
}
