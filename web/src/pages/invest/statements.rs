//! An investor's statements: the list, one on a page, one as a PDF.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{accounts::User, clock::minute_text, statements};

use crate::{
    app::{App, Shared, read},
    auth::SignedIn,
    error::WebError,
    pages::html,
    render::{StatementView, statement_pdf, statement_view},
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/statements", web::get().to(statements_page))
        .route("/statements/{id}", web::get().to(statement_page))
        .route("/statements/{id}/pdf", web::get().to(statement_file));
}

struct StatementRow {
    id: String,
    month: String,
    sent: String,
}

#[derive(Template)]
#[template(path = "invest/statements.html")]
struct StatementsPage {
    user: Option<Visitor>,
    statements: Vec<StatementRow>,
}

async fn statements_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let id = user.id;
    let list = read(&app, move |conn| statements::of_user(conn, id)).await?;
    let statements = list
        .into_iter()
        .map(|s| StatementRow {
            id: s.public_id,
            month: s.month,
            sent: match (s.sent_at, s.refused_at) {
                (Some(at), _) => minute_text(at),
                (None, Some(_)) => {
                    "not delivered: your mail server refused it. Read it here, and give us another \
                     address"
                        .into()
                }
                (None, None) => "being sent".into(),
            },
        })
        .collect();
    html(&StatementsPage {
        user: Some((&user).into()),
        statements,
    })
}

#[derive(Template)]
#[template(path = "invest/statement.html")]
struct StatementPage {
    user: Option<Visitor>,
    id: String,
    view: StatementView,
}

async fn find_statement(
    app: &Shared,
    user: &User,
    id: String,
) -> Result<(String, StatementView), WebError> {
    let found = read(app, move |conn| statements::by_public_id(conn, &id)).await?;
    let statement = found
        .filter(|s| s.user_id == user.id || user.is_admin())
        .ok_or(WebError::NotFound)?;
    let model = statement
        .parsed()
        .map_err(|error| WebError::Internal(error.into()))?;
    Ok((statement.public_id, statement_view(&model, String::new())))
}

async fn statement_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let (id, view) = find_statement(&app.into_inner(), &user, id.into_inner()).await?;
    html(&StatementPage {
        user: Some((&user).into()),
        id,
        view,
    })
}

async fn statement_file(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let (_, view) = find_statement(&app.into_inner(), &user, id.into_inner()).await?;
    let pdf = web::block(move || statement_pdf(&view))
        .await
        .map_err(|error| WebError::Internal(error.into()))??;
    Ok(HttpResponse::Ok().content_type("application/pdf").body(pdf))
}
