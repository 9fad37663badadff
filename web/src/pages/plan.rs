//! The operator's view of the plan, and what would change if something did.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{capacity, fleet, scheduler};
use serde::Deserialize;

use super::html;
use crate::{
    app::{App, Shared, read},
    auth::{Admin, Visitor},
    error::WebError,
    planning::{EffectView, PlanView, Question, change, effect_view, plan_view},
};

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/admin/plan", web::get().to(plan_page));
}

#[derive(Deserialize)]
struct Asked {
    change: Option<String>,
    #[serde(default)]
    machine: String,
    #[serde(default)]
    pool: String,
    #[serde(default)]
    sectors: i64,
}

impl Asked {
    fn question(self) -> Result<Option<Question>, WebError> {
        let Self { change, machine, pool, sectors } = self;
        Ok(match change.as_deref() {
            None => None,
            Some("drain") => Some(Question::Drain { machine }),
            Some("fail") => Some(Question::Fail { machine }),
            Some("add") => Some(Question::Add { machine }),
            Some("order") => Some(Question::Order { pool, sectors }),
            Some(other) => return Err(WebError::BadInput(format!("{other:?} is not a change that can be simulated."))),
        })
    }
}

#[derive(Template)]
#[template(path = "admin/plan.html")]
struct PlanPage {
    user: Option<Visitor>,
    view: PlanView,
    machines: Vec<String>,
    pools: Vec<String>,
    effect: Option<EffectView>,
}

async fn plan_page(app: web::Data<App>, Admin(user): Admin, asked: web::Query<Asked>) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let question = asked.into_inner().question()?;
    let now = app.now();
    let page = read(&app, move |conn| {
        let snapshot = scheduler::load(conn, now)?;
        let effect = match question.as_ref().map(|q| change(conn, q)).transpose()? {
            Some(Ok((change, title))) => Some(effect_view(conn, &snapshot, &scheduler::what_if(&snapshot, &change), title)?),
            Some(Err(unknown)) => return Ok(Err(WebError::BadInput(format!("{unknown:#}.")))),
            None => None,
        };
        Ok(Ok(PlanPage {
            user: Some((&user).into()),
            view: plan_view(conn, &snapshot)?,
            machines: fleet::machines(conn)?.into_iter().map(|m| m.name).collect(),
            pools: capacity::pools(conn)?.into_iter().map(|p| p.name).collect(),
            effect,
        }))
    })
    .await??;
    html(&page)
}
