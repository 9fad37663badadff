//! Stripe: Checkout Sessions and signed webhooks, with only the fields that we use.
//!
//! The API version is pinned, every call has a timeout, and creating a session carries the order's
//! id as idempotency key, so that asking twice gives one session.

use std::time::Duration;

use hmac::{Hmac, KeyInit, Mac};
use sealyard_core::{orders::Order, payments::Happening};
use serde::Deserialize;
use sha2::Sha256;

pub const API_VERSION: &str = "2026-09-30.endive";
/// Seconds for which a webhook's signature is valid.
const TOLERANCE_S: i64 = 300;
pub const RAIL: &str = "stripe";

#[derive(Debug, thiserror::Error)]
pub enum StripeError {
    #[error("the payment provider cannot be reached: {0}")]
    Unreachable(#[from] reqwest::Error),
    #[error("the payment provider refused ({status}): {message}")]
    Refused { status: u16, message: String },
}

pub struct Stripe {
    http: reqwest::Client,
    api: String,
    key: String,
}

#[derive(Clone, Debug, Deserialize)]
pub struct CheckoutSession {
    pub id: String,
    pub url: Option<String>,
    /// `open`, `complete` or `expired`.
    #[serde(default)]
    pub status: String,
    #[serde(flatten)]
    pub object: EventObject,
}

#[derive(Deserialize)]
struct ErrorBody {
    error: ErrorDetail,
}

#[derive(Deserialize)]
struct ErrorDetail {
    #[serde(default)]
    message: String,
}

impl Stripe {
    pub fn new(api: &str, key: &str) -> Result<Self, reqwest::Error> {
        let http = sealyard_filecoin::http::client(Duration::from_secs(20))?;
        Ok(Self {
            http,
            api: api.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        })
    }

    /// A page on which the order can be paid until `expires_at`, Unix seconds.
    pub async fn checkout(
        &self,
        order: &Order,
        plan_name: &str,
        public_url: &str,
        expires_at: i64,
    ) -> Result<CheckoutSession, StripeError> {
        let back = format!("{public_url}/orders/{}", order.public_id);
        let expires_at = expires_at.to_string();
        let amount = order.amount_minor.to_string();
        let currency = order.currency.to_lowercase();
        let product = format!("{plan_name}, {}", sealyard_core::units::Bytes(order.bytes));
        let form = [
            ("mode", "payment"),
            ("client_reference_id", order.public_id.as_str()),
            ("success_url", back.as_str()),
            ("cancel_url", back.as_str()),
            ("expires_at", expires_at.as_str()),
            ("line_items[0][quantity]", "1"),
            ("line_items[0][price_data][currency]", currency.as_str()),
            ("line_items[0][price_data][unit_amount]", amount.as_str()),
            (
                "line_items[0][price_data][product_data][name]",
                product.as_str(),
            ),
            ("metadata[order]", order.public_id.as_str()),
        ];
        let request = self
            .http
            .post(format!("{}/v1/checkout/sessions", self.api))
            // The provider repeats its answer to a key, even an error. Each attempt that was
            // answered therefore has its own key.
            .header(
                "Idempotency-Key",
                format!("checkout-{}-{}", order.public_id, order.checkout_attempts),
            )
            .form(&form);
        self.ask(request).await
    }

    /// A session as the provider has it now.
    pub async fn session(&self, id: &str) -> Result<CheckoutSession, StripeError> {
        self.ask(
            self.http
                .get(format!("{}/v1/checkout/sessions/{id}", self.api)),
        )
        .await
    }

    /// Ends an unpaid session, so that nobody can pay on it any more.
    pub async fn expire(&self, id: &str) -> Result<CheckoutSession, StripeError> {
        self.ask(
            self.http
                .post(format!("{}/v1/checkout/sessions/{id}/expire", self.api)),
        )
        .await
    }

    /// Events made in `[from, to)`, Unix seconds, as the provider wrote them. `after`: the last
    /// event of the previous page.
    pub async fn events(
        &self,
        (from, to): (i64, i64),
        after: Option<&str>,
    ) -> Result<EventPage, StripeError> {
        let mut query = vec![
            ("created[gte]", from.to_string()),
            ("created[lt]", to.to_string()),
            ("limit", "100".to_owned()),
        ];
        query.extend(after.map(|id| ("starting_after", id.to_owned())));
        self.ask(
            self.http
                .get(format!("{}/v1/events", self.api))
                .query(&query),
        )
        .await
    }

    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        request: reqwest::RequestBuilder,
    ) -> Result<T, StripeError> {
        let response = request
            .bearer_auth(&self.key)
            .header("Stripe-Version", API_VERSION)
            .send()
            .await?;
        let status = response.status();
        let bytes = response.bytes().await?;
        if status.is_success()
            && let Ok(answer) = serde_json::from_slice(&bytes)
        {
            return Ok(answer);
        }
        let message = serde_json::from_slice::<ErrorBody>(&bytes)
            .map_or_else(|_| "unreadable answer".into(), |b| b.error.message);
        Err(StripeError::Refused {
            status: status.as_u16(),
            message,
        })
    }
}

/// One page of events.
#[derive(Deserialize)]
pub struct EventPage {
    pub data: Vec<Box<serde_json::value::RawValue>>,
    #[serde(default)]
    pub has_more: bool,
}

/// The reason why a webhook is not trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    #[error("the Stripe-Signature header is missing or malformed")]
    Malformed,
    #[error("the signature is too old")]
    TooOld,
    #[error("the signature does not match")]
    Mismatch,
}

/// Checks `t=…,v1=…` over the raw body; any of several v1 signatures may match (secrets are
/// rotated). `now` in Unix seconds.
pub fn check_signature(
    secret: &str,
    header: &str,
    body: &[u8],
    now: i64,
) -> Result<(), SignatureError> {
    let mut timestamp = None;
    let mut signatures = Vec::new();
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", value)) => timestamp = value.parse::<i64>().ok(),
            Some(("v1", value)) => signatures.extend(hex::decode(value)),
            _ => {}
        }
    }
    let timestamp = timestamp
        .filter(|_| !signatures.is_empty())
        .ok_or(SignatureError::Malformed)?;
    if now.abs_diff(timestamp) > TOLERANCE_S.unsigned_abs() {
        return Err(SignatureError::TooOld);
    }
    let matches = signatures.iter().any(|signature| {
        mac(secret, timestamp, body).is_some_and(|m| m.verify_slice(signature).is_ok())
    });
    if matches {
        Ok(())
    } else {
        Err(SignatureError::Mismatch)
    }
}

fn mac(secret: &str, timestamp: i64, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(format!("{timestamp}.").as_bytes());
    mac.update(body);
    Some(mac)
}

/// The header that Stripe would send, for the fake and for tests.
#[must_use]
pub fn sign(secret: &str, body: &[u8], now: i64) -> String {
    let digest = mac(secret, now, body)
        .map(|m| hex::encode(m.finalize().into_bytes()))
        .unwrap_or_default();
    format!("t={now},v1={digest}")
}

/// An event, read leniently: unknown kinds and fields are no error.
#[derive(Clone, Debug, Deserialize)]
pub struct Event {
    pub id: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub data: EventData,
}

#[derive(Clone, Debug, Deserialize)]
pub struct EventData {
    pub object: EventObject,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct EventObject {
    #[serde(default)]
    pub id: String,
    #[serde(default)]
    pub payment_status: String,
    #[serde(default)]
    pub amount_total: Option<i64>,
    #[serde(default)]
    pub currency: Option<String>,
    #[serde(default)]
    pub client_reference_id: Option<String>,
    #[serde(default)]
    pub metadata: Option<Metadata>,
    #[serde(default)]
    pub payment_intent: Option<String>,
    #[serde(default)]
    pub amount_refunded: Option<i64>,
    #[serde(default)]
    pub amount: Option<i64>,
    #[serde(default)]
    pub reason: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
pub struct Metadata {
    #[serde(default)]
    pub order: Option<String>,
}

impl EventObject {
    fn order(&self) -> Option<String> {
        self.metadata
            .as_ref()
            .and_then(|m| m.order.clone())
            .or_else(|| self.client_reference_id.clone())
    }

    /// The happening of a complete session: it is paid, or its money is on the way.
    #[must_use]
    pub fn completed(&self) -> Happening {
        let (page, order, intent) = (self.id.clone(), self.order(), self.payment_intent.clone());
        if self.payment_status == "paid" {
            let (minor, currency) = (
                self.amount_total.unwrap_or_default(),
                self.currency.clone().unwrap_or_default(),
            );
            return Happening::Paid {
                page,
                order,
                minor,
                currency,
                intent,
            };
        }
        Happening::UnderWay {
            page,
            order,
            intent,
        }
    }
}

impl Event {
    /// The event in the terms that all rails share.
    #[must_use]
    pub fn happening(&self) -> Happening {
        let object = &self.data.object;
        let (page, order) = (object.id.clone(), object.order());
        match (self.kind.as_str(), object.payment_intent.clone()) {
            ("checkout.session.completed" | "checkout.session.async_payment_succeeded", _) => {
                object.completed()
            }
            ("checkout.session.async_payment_failed", _) => Happening::Failed { page, order },
            ("checkout.session.expired", _) => Happening::PageExpired { page, order },
            (
                "charge.refunded"
                | "charge.refund.updated"
                | "refund.created"
                | "refund.updated"
                | "refund.failed",
                Some(intent),
            ) => {
                let minor = object.amount_refunded.or(object.amount).unwrap_or_default();
                Happening::Refunded {
                    intent,
                    minor,
                    currency: object.currency.clone().unwrap_or_default(),
                }
            }
            (kind, Some(intent)) if kind.starts_with("charge.dispute.") => {
                let reason = object.reason.as_deref().unwrap_or("no reason given");
                Happening::Disputed {
                    intent,
                    what: format!("{}, {reason}", kind.trim_start_matches("charge.dispute.")),
                }
            }
            _ => Happening::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_bound_to_secret_body_and_time() {
        let header = sign("whsec_a", b"{}", 1000);
        assert_eq!(check_signature("whsec_a", &header, b"{}", 1000), Ok(()));
        assert_eq!(check_signature("whsec_a", &header, b"{}", 1299), Ok(()));
        assert_eq!(
            check_signature("whsec_a", &header, b"{}", 1301),
            Err(SignatureError::TooOld)
        );
        assert_eq!(
            check_signature("whsec_b", &header, b"{}", 1000),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            check_signature("whsec_a", &header, b"{ }", 1000),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            check_signature("whsec_a", "t=1000", b"{}", 1000),
            Err(SignatureError::Malformed)
        );
        let rotated = format!("{},v1={}", header, "00".repeat(32));
        assert_eq!(check_signature("whsec_a", &rotated, b"{}", 1000), Ok(()));
    }

    #[test]
    fn unknown_events_are_ignored_and_unpaid_sessions_are_under_way() {
        let event: Event =
            serde_json::from_str(r#"{"id":"evt_1","type":"new.kind","data":{"object":{"x":1}}}"#)
                .unwrap();
        assert_eq!(event.happening(), Happening::Other);
        let unpaid = r#"{
            "id": "e",
            "type": "checkout.session.completed",
            "data": {"object": {"id": "cs", "payment_status": "unpaid"}}
        }"#;
        let happening = serde_json::from_str::<Event>(unpaid).unwrap().happening();
        assert!(
            matches!(happening, Happening::UnderWay { .. }),
            "{happening:?}"
        );
    }
}
