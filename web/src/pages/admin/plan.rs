//! The operator's view of the plan, and what would change if something did.

use actix_web::{HttpResponse, web};
use askama::Template;
use serde::Deserialize;

use crate::{
    app::{App, Shared, read},
    auth::Admin,
    error::WebError,
    pages::html,
    planning::{self, EffectView, PlanAnswer, PlanView, Question},
    visitor::Visitor,
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
        let Self {
            change,
            machine,
            pool,
            sectors,
        } = self;
        Ok(match change.as_deref() {
            None => None,
            Some("drain") => Some(Question::Drain { machine }),
            Some("fail") => Some(Question::Fail { machine }),
            Some("add") => Some(Question::Add { machine }),
            Some("order") => Some(Question::Order { pool, sectors }),
            Some(other) => {
                return Err(WebError::BadInput(format!(
                    "{other:?} is not a change that can be simulated."
                )));
            }
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

async fn plan_page(
    app: web::Data<App>,
    Admin(user): Admin,
    asked: web::Query<Asked>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let question = asked.into_inner().question()?;
    let now = app.now();
    let found = read(&app, move |conn| {
        planning::look(conn, question.as_ref(), now)
    })
    .await?;
    let PlanAnswer {
        view,
        effect,
        machines,
        pools,
    } = found.map_err(|unknown| WebError::BadInput(format!("{unknown:#}.")))?;
    html(&PlanPage {
        user: Some((&user).into()),
        view,
        machines,
        pools,
        effect,
    })
}
