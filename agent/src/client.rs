//! This machine's connection to the server.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use sealyard_core::fleet::protocol::{
    EnrolAnswer, EnrolRequest, ErrorAnswer, HeartbeatAnswer, HeartbeatRequest, ReportAnswer,
    ReportRequest,
};
use serde::{Serialize, de::DeserializeOwned};

pub struct House {
    http: reqwest::Client,
    url: String,
    key: String,
}

impl House {
    /// Refuses a `url` without a scheme: it could never be reached.
    pub fn new(url: &str, key: &str) -> Result<Self> {
        if !url.starts_with("https://") && !url.starts_with("http://") {
            bail!("{url} has no scheme; write --url https://{url}");
        }
        let http = sealyard_filecoin::http::client(Duration::from_secs(60))?;
        Ok(Self {
            http,
            url: url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        })
    }

    async fn post<Q: Serialize, A: DeserializeOwned>(&self, path: &str, question: &Q) -> Result<A> {
        let url = format!("{}/agent/v1/{path}", self.url);
        let response = self
            .http
            .post(&url)
            .bearer_auth(&self.key)
            .json(question)
            .send()
            .await;
        let response = response.with_context(|| format!("{} cannot be reached", self.url))?;
        let status = response.status();
        let bytes = response.bytes().await?;
        if status.is_success() {
            return serde_json::from_slice(&bytes)
                .with_context(|| format!("{url} gave an unexpected answer"));
        }
        match serde_json::from_slice::<ErrorAnswer>(&bytes) {
            Ok(error) => bail!("{} ({:?})", error.message, error.code),
            Err(_) => bail!("{url} answered HTTP {status}"),
        }
    }

    pub async fn enrol(&self, request: &EnrolRequest) -> Result<EnrolAnswer> {
        self.post("enrol", request).await
    }

    pub async fn heartbeat(&self, request: &HeartbeatRequest) -> Result<HeartbeatAnswer> {
        self.post("heartbeat", request).await
    }

    pub async fn report(&self, request: &ReportRequest) -> Result<ReportAnswer> {
        self.post(&format!("report?task={}", request.task), request)
            .await
    }
}
