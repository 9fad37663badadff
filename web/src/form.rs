//! A form that a visitor sent: in time, of a form's length, and without characters that no keyboard
//! types.

use std::{future::Future, pin::Pin, time::Duration};

use actix_web::{FromRequest, HttpRequest, dev::Payload, web};
use serde::de::DeserializeOwned;

use crate::error::WebError;

/// Bytes; the longest form has a few fields of a line each.
const LONGEST: usize = 16 << 10;
const TIME: Duration = Duration::from_secs(10);

pub struct Form<T>(pub T);

impl<T> Form<T> {
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T: DeserializeOwned + 'static> FromRequest for Form<T> {
    type Error = WebError;
    type Future = Pin<Box<dyn Future<Output = Result<Self, WebError>>>>;

    fn from_request(request: &HttpRequest, payload: &mut Payload) -> Self::Future {
        let body = web::Payload::from_request(request, payload);
        Box::pin(async move {
            let body = body
                .await
                .map_err(|error| WebError::BadInput(error.to_string()))?;
            let Ok(read) = tokio::time::timeout(TIME, body.to_bytes_limited(LONGEST)).await else {
                return Err(WebError::TooSlow);
            };
            match read {
                Ok(Ok(bytes)) => parse(&bytes).map(Self),
                Ok(Err(error)) => Err(WebError::BadInput(error.to_string())),
                Err(_) => Err(WebError::BadInput("The form is too long.".into())),
            }
        })
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, WebError> {
    let incomplete =
        || WebError::BadInput("A field of the form is missing or has an invalid value.".into());
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_bytes(bytes).map_err(|_| incomplete())?;
    if let Some((name, _)) = pairs
        .iter()
        .find(|(_, value)| value.contains(char::is_control))
    {
        let name: String = name
            .chars()
            .filter(|c| c.is_alphanumeric())
            .take(30)
            .collect();
        return Err(WebError::BadInput(format!(
            "The field {name} contains a character that cannot be shown. Type it again."
        )));
    }
    serde_urlencoded::from_bytes(bytes).map_err(|_| incomplete())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_refused_and_the_field_is_named() {
        type Pairs = Vec<(String, String)>;
        assert!(parse::<Pairs>(b"name=Ada+Lindqvist&city=%C3%96rebro").is_ok());
        for bad in ["name=a%00b", "name=a%0ab", "name=%1b%5b31m", "name=a%7f"] {
            let error = parse::<Pairs>(bad.as_bytes()).unwrap_err().to_string();
            assert!(error.contains("The field name"), "{bad}: {error}");
        }
    }
}
