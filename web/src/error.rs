//! One error for every page: what happened and what to do next for the user, details for the log.

use actix_web::{HttpResponse, ResponseError, http::StatusCode};
use askama::Template;
use sealyard_core::{
    accounts::AccountError, ids, ledger::LedgerError, orders::PlaceError, store::DbFault,
};

use crate::visitor::Visitor;

#[derive(Debug)]
pub enum WebError {
    /// Nobody is signed in; the way leads to the sign-in page, and from there to this path.
    SignIn(String),
    NotFound,
    /// The user's input, in words for the user.
    BadInput(String),
    Forbidden,
    /// The form did not come in time.
    TooSlow,
    Internal(anyhow::Error),
}

/// The text of an error's page, kept beside it: the page is made again for who is signed in.
#[derive(Clone)]
pub struct Said {
    title: &'static str,
    what: String,
    next: &'static str,
    request: String,
}

impl Said {
    pub fn page(&self, user: Option<Visitor>) -> String {
        let page = ErrorPage {
            user,
            title: self.title,
            what: &self.what,
            next: self.next,
            request: &self.request,
        };
        page.render().unwrap_or_else(|_| self.what.clone())
    }
}

impl std::fmt::Display for WebError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::SignIn(_) => f.write_str("sign in first"),
            Self::NotFound => f.write_str("there is no such page"),
            Self::BadInput(what) => f.write_str(what),
            Self::Forbidden => f.write_str("this page is for administrators"),
            Self::TooSlow => f.write_str("the form did not arrive in time"),
            Self::Internal(error) => write!(f, "{error:#}"),
        }
    }
}

#[derive(Template)]
#[template(path = "error.html")]
struct ErrorPage<'a> {
    user: Option<Visitor>,
    title: &'a str,
    what: &'a str,
    next: &'a str,
    request: &'a str,
}

impl ResponseError for WebError {
    fn status_code(&self) -> StatusCode {
        match self {
            Self::SignIn(_) => StatusCode::SEE_OTHER,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::BadInput(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::Forbidden => StatusCode::FORBIDDEN,
            Self::TooSlow => StatusCode::REQUEST_TIMEOUT,
            Self::Internal(_) => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    fn error_response(&self) -> HttpResponse {
        let request = ids::public_id("req");
        let (title, what, next): (_, String, _) = match self {
            Self::SignIn(path) => {
                let to = format!("/login?next={path}");
                return HttpResponse::SeeOther()
                    .insert_header(("Location", to))
                    .finish();
            }
            Self::NotFound => (
                "Not found",
                "There is no such page, or it is not yours.".into(),
                "Go back to the start page.",
            ),
            Self::BadInput(what) => ("That did not work", what.clone(), "Go back and try again."),
            Self::Forbidden => (
                "Not allowed",
                "This page is for administrators.".into(),
                "Go back to the start page.",
            ),
            Self::TooSlow => (
                "That took too long",
                "The form did not arrive in time.".into(),
                "Go back and send it again.",
            ),
            Self::Internal(error) => {
                tracing::error!(request, error = format!("{error:#}"), "request failed");
                let what = "Something went wrong on our side. Nothing was lost or charged.".into();
                (
                    "Our fault",
                    what,
                    "Try again in a minute. If it happens again, tell us the request number below.",
                )
            }
        };
        let said = Said {
            title,
            what,
            next,
            request,
        };
        let page = said.page(None);
        let mut response = HttpResponse::build(self.status_code())
            .content_type("text/html; charset=utf-8")
            .body(page);
        response.extensions_mut().insert(said);
        response
    }
}

impl From<DbFault> for WebError {
    fn from(error: DbFault) -> Self {
        Self::Internal(error.into())
    }
}

impl From<askama::Error> for WebError {
    fn from(error: askama::Error) -> Self {
        Self::Internal(error.into())
    }
}

impl From<anyhow::Error> for WebError {
    fn from(error: anyhow::Error) -> Self {
        Self::Internal(error)
    }
}

impl From<LedgerError> for WebError {
    fn from(error: LedgerError) -> Self {
        Self::Internal(error.into())
    }
}

impl From<AccountError> for WebError {
    fn from(error: AccountError) -> Self {
        match error {
            AccountError::Db(fault) => fault.into(),
            said => Self::BadInput(said.to_string()),
        }
    }
}

impl From<PlaceError> for WebError {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Db(fault) => fault.into(),
            PlaceError::Ledger(error) => Self::Internal(error.into()),
            said => Self::BadInput(said.to_string()),
        }
    }
}
