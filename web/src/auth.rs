//! The visitor: a JWT in a cookie names a session row, so that signing out takes effect at once.

use std::{future::Future, pin::Pin};

use actix_web::{FromRequest, HttpRequest, cookie, dev::Payload, http::header, web::Data};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use sealyard_core::{
    accounts::{self, User},
    clock::{DAY, SECOND},
};
use serde::{Deserialize, Serialize};

use crate::{
    app::{App, Shared, read, transact},
    error::WebError,
    visitor::Visitor,
};

/// With its prefix a browser takes the cookie only over TLS, for this host and all of its paths. On
/// loopback there is no TLS.
const COOKIE: &str = "__Host-sealyard";
const LOOPBACK_COOKIE: &str = "sealyard";
const LIFE_DAYS: i64 = 7;

#[derive(Serialize, Deserialize)]
struct Claims {
    /// The session's id.
    sid: String,
    exp: i64,
}

/// Requires a signed-in user.
pub struct SignedIn(pub User);

/// Requires an administrator.
pub struct Admin(pub User);

/// Anybody; tells who when somebody is signed in.
pub struct Maybe(pub Option<User>);

/// Starts a session and returns its cookie.
pub async fn start(app: &Shared, user: &User) -> Result<cookie::Cookie<'static>, WebError> {
    let now = app.now();
    let expires = now + LIFE_DAYS * DAY;
    let id = user.id;
    let sid = transact(app, move |conn| {
        Ok::<_, sealyard_core::store::DbFault>(accounts::start_session(conn, id, now, expires)?)
    })
    .await?;
    let key = EncodingKey::from_secret(app.config.session_secret.as_bytes());
    let token = jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &Claims {
            sid,
            exp: expires / SECOND,
        },
        &key,
    )
    .map_err(|error| WebError::Internal(error.into()))?;
    Ok(build_cookie(
        app,
        token,
        cookie::time::Duration::days(LIFE_DAYS),
    ))
}

/// Ends the session of a request; returns the cookie that removes the cookie.
pub async fn end(app: &Shared, request: &HttpRequest) -> Result<cookie::Cookie<'static>, WebError> {
    if let Some(sid) = session_id(app, request) {
        let now = app.now();
        transact(app, move |conn| {
            Ok::<_, sealyard_core::store::DbFault>(accounts::end_session(conn, &sid, now)?)
        })
        .await?;
    }
    Ok(build_cookie(
        app,
        String::new(),
        cookie::time::Duration::ZERO,
    ))
}

fn build_cookie(app: &App, value: String, life: cookie::time::Duration) -> cookie::Cookie<'static> {
    cookie::Cookie::build(cookie_name(app), value)
        .path("/")
        .http_only(true)
        .secure(is_secure(app))
        .same_site(cookie::SameSite::Lax)
        .max_age(life)
        .finish()
}

fn is_secure(app: &App) -> bool {
    app.config.public_url.starts_with("https://")
}

fn cookie_name(app: &App) -> &'static str {
    if is_secure(app) {
        COOKIE
    } else {
        LOOPBACK_COOKIE
    }
}

fn session_id(app: &App, request: &HttpRequest) -> Option<String> {
    let cookie = request.cookie(cookie_name(app))?;
    let key = DecodingKey::from_secret(app.config.session_secret.as_bytes());
    let mut validation = Validation::new(Algorithm::HS256);
    // The session's row decides by the server's clock.
    validation.validate_exp = false;
    jsonwebtoken::decode::<Claims>(cookie.value(), &key, &validation)
        .ok()
        .map(|data| data.claims.sid)
}

/// A form that another site sent on the user's behalf is refused: browsers say where a POST comes
/// from.
fn same_origin(app: &App, request: &HttpRequest) -> bool {
    if request.method().is_safe() {
        return true;
    }
    let Some(origin) = request
        .headers()
        .get(header::ORIGIN)
        .and_then(|o| o.to_str().ok())
    else {
        return true;
    };
    let host = request
        .headers()
        .get(header::HOST)
        .and_then(|h| h.to_str().ok())
        .unwrap_or_default();
    origin == app.config.public_url.trim_end_matches('/')
        || origin.split_once("://").is_some_and(|(_, o)| o == host)
}

async fn user_of(request: HttpRequest) -> Result<Option<User>, WebError> {
    let app = request
        .app_data::<Data<App>>()
        .ok_or_else(|| WebError::Internal(anyhow::anyhow!("no application state")))?;
    let app: Shared = app.clone().into_inner();
    if !same_origin(&app, &request) {
        return Err(WebError::BadInput(
            "This form was sent from another site.".into(),
        ));
    }
    let Some(sid) = session_id(&app, &request) else {
        return Ok(None);
    };
    let now = app.now();
    Ok(read(&app, move |conn| accounts::session_user(conn, &sid, now)).await?)
}

/// The visitor of a page that went wrong; nobody, when that cannot be told either.
pub async fn visitor(request: &HttpRequest) -> Option<Visitor> {
    let app: Shared = request.app_data::<Data<App>>()?.clone().into_inner();
    let sid = session_id(&app, request)?;
    let now = app.now();
    let user = read(&app, move |conn| accounts::session_user(conn, &sid, now))
        .await
        .ok()??;
    Some(Visitor::from(&user))
}

type Extracted<T> = Pin<Box<dyn Future<Output = Result<T, WebError>>>>;

impl FromRequest for Maybe {
    type Error = WebError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        Box::pin(async move { Ok(Self(user_of(request).await?)) })
    }
}

impl FromRequest for SignedIn {
    type Error = WebError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        let path = request.path().to_owned();
        Box::pin(async move {
            user_of(request)
                .await?
                .map(Self)
                .ok_or(WebError::SignIn(path))
        })
    }
}

impl FromRequest for Admin {
    type Error = WebError;
    type Future = Extracted<Self>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let request = request.clone();
        let path = request.path().to_owned();
        Box::pin(async move {
            match user_of(request).await? {
                None => Err(WebError::SignIn(path)),
                Some(user) if user.is_admin() => Ok(Self(user)),
                Some(_) => Err(WebError::Forbidden),
            }
        })
    }
}
