//! Signing up, in and out.

use actix_web::{
    HttpRequest, HttpResponse,
    http::{StatusCode, header::CACHE_CONTROL},
    web,
};
use askama::Template;
use sealyard_core::accounts::{self, AccountError, NewUser, Registration, Role, User};
use serde::Deserialize;

use super::{html, redirect};
use crate::{
    app::{App, Shared, blocking, read, transact},
    attempts::{self, Origin},
    auth::{self, Maybe},
    error::WebError,
    form::Form,
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/login").get(login_page).post(login))
        .service(web::resource("/signup").get(signup_page).post(signup))
        .route("/logout", web::post().to(logout));
}

#[derive(Template)]
#[template(path = "account/login.html")]
struct LoginPage {
    user: Option<Visitor>,
    email: String,
    problem: Option<String>,
    /// `?next=…`, for whoever goes on to open an account; empty: there is nowhere to go.
    query: String,
}

#[derive(Template)]
#[template(path = "account/signup.html")]
struct SignupPage {
    user: Option<Visitor>,
    email: String,
    name: String,
    problem: Option<String>,
    query: String,
}

/// Where somebody wanted to go who was not signed in.
#[derive(Deserialize)]
struct Next {
    next: Option<String>,
}

impl Next {
    /// A path of this site; anything else is none.
    fn path(&self) -> Option<&str> {
        let plain = |path: &&str| {
            path.chars()
                .all(|c| c.is_ascii_alphanumeric() || "/_-.".contains(c))
        };
        self.next
            .as_deref()
            .filter(|path| path.starts_with('/') && !path.starts_with("//"))
            .filter(plain)
    }

    fn query(&self) -> String {
        self.path()
            .map(|path| format!("?next={path}"))
            .unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct LoginForm {
    email: String,
    password: String,
}

#[derive(Deserialize)]
struct SignupForm {
    email: String,
    name: String,
    password: String,
}

async fn login_page(next: web::Query<Next>) -> Result<HttpResponse, WebError> {
    html(&LoginPage {
        user: None,
        email: String::new(),
        problem: None,
        query: next.query(),
    })
}

async fn signup_page(next: web::Query<Next>) -> Result<HttpResponse, WebError> {
    html(&SignupPage {
        user: None,
        email: String::new(),
        name: String::new(),
        problem: None,
        query: next.query(),
    })
}

fn again(status: StatusCode, page: &impl Template) -> Result<HttpResponse, WebError> {
    let body = page.render()?;
    Ok(HttpResponse::build(status)
        .content_type("text/html; charset=utf-8")
        .insert_header((CACHE_CONTROL, "no-store"))
        .body(body))
}

/// The form again with the reason, unless the fault is ours.
fn problem(error: AccountError) -> Result<Option<String>, WebError> {
    match error {
        AccountError::Db(fault) => Err(fault.into()),
        said => Ok(Some(said.to_string())),
    }
}

// `Maybe` also refuses forms that another site sent.
async fn login(
    app: web::Data<App>,
    _: Maybe,
    request: HttpRequest,
    next: web::Query<Next>,
    form: Form<LoginForm>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let LoginForm { email, password } = form.into_inner();
    let origin = Origin::of(&app, &request);
    if !attempts::may_sign_in(&app, &email, &origin).await? {
        let problem = Some(
            "Too many wrong passwords from your network. Wait ten minutes, then try again."
                .to_owned(),
        );
        return again(
            StatusCode::TOO_MANY_REQUESTS,
            &LoginPage {
                user: None,
                email,
                problem,
                query: next.query(),
            },
        );
    }
    let given = email.clone();
    let user = read(&app, move |conn| accounts::by_email(conn, &given)).await?;
    match blocking(move || accounts::verified(user, &password)).await {
        Ok(user) => {
            attempts::succeeded(&app, &email, &origin).await?;
            welcome(&app, &user, next.path()).await
        }
        Err(error) => {
            attempts::failed(&app, &email, &origin).await?;
            let page = LoginPage {
                user: None,
                email,
                problem: problem(error)?,
                query: next.query(),
            };
            again(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

async fn signup(
    app: web::Data<App>,
    _: Maybe,
    request: HttpRequest,
    next: web::Query<Next>,
    form: Form<SignupForm>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let SignupForm {
        email,
        name,
        password,
    } = form.into_inner();
    if !attempts::may_sign_up(&app, &Origin::of(&app, &request)).await? {
        let problem = Some(
            "Too many accounts were opened from your network. Try again in an hour.".to_owned(),
        );
        let page = SignupPage {
            user: None,
            email,
            name,
            problem,
            query: next.query(),
        };
        return again(StatusCode::TOO_MANY_REQUESTS, &page);
    }
    let (given_email, given_name, now) = (email.clone(), name.clone(), app.now());
    let checked = blocking(move || {
        let new = NewUser {
            email: &given_email,
            name: &given_name,
            password: &password,
            role: Role::Investor,
        };
        Registration::of(&new)
    });
    let registered = match checked.await {
        Ok(new) => transact(&app, move |conn| accounts::register(conn, &new, now)).await,
        Err(error) => Err(error),
    };
    match registered {
        Ok(user) => welcome(&app, &user, next.path()).await,
        Err(error) => {
            let page = SignupPage {
                user: None,
                email,
                name,
                problem: problem(error)?,
                query: next.query(),
            };
            again(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
    }
}

async fn welcome(app: &Shared, user: &User, next: Option<&str>) -> Result<HttpResponse, WebError> {
    let to = next.unwrap_or(if user.is_admin() {
        "/admin"
    } else {
        "/dashboard"
    });
    let cookie = auth::start(app, user).await?;
    Ok(HttpResponse::SeeOther()
        .insert_header(("Location", to))
        .cookie(cookie)
        .finish())
}

async fn logout(
    app: web::Data<App>,
    _: Maybe,
    request: HttpRequest,
) -> Result<HttpResponse, WebError> {
    let cookie = auth::end(&app.into_inner(), &request).await?;
    let mut response = redirect("/");
    response
        .add_cookie(&cookie)
        .map_err(|error| WebError::Internal(error.into()))?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sign_in_redirects_only_within_this_site() {
        let to = |next: &str| {
            Next {
                next: Some(next.to_owned()),
            }
            .path()
            .map(str::to_owned)
        };
        assert_eq!(to("/plans/pln_1"), Some("/plans/pln_1".to_owned()));
        for elsewhere in [
            "//evil.example",
            "https://evil.example",
            "/\\evil.example",
            "plans",
            "/a?b=c",
            "/%2f",
        ] {
            assert_eq!(to(elsewhere), None, "{elsewhere}");
        }
    }
}
