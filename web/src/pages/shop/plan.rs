//! A plan's page with its quote, and the order that is placed there.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    catalog::{self, Plan},
    clock::{Micros, minute_text},
    ids::{self, UserId},
    money::NanoFil,
    orders::{self, PlaceOrder, Stock},
    scheduler::Promised,
    views::{self, ForecastWithRecord, Offer},
    yields::Outcomes,
};
use serde::Deserialize;

use super::{
    home::{PlanCard, plan_card},
    order::try_for_payment,
    terms::{TermRow, term_rows},
};
use crate::{
    app::{App, Shared, read, transact},
    auth::SignedIn,
    error::WebError,
    form::Form,
    pages::{html, redirect},
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(web::resource("/plans/{plan}").get(plan_page).post(place));
}

#[derive(Deserialize)]
struct Units {
    #[serde(default = "one")]
    units: i64,
}

fn one() -> i64 {
    1
}

#[derive(Deserialize)]
struct OrderForm {
    units: i64,
    request_key: String,
    /// The date that the quote showed, signed.
    #[serde(default)]
    shown: String,
}

/// When it would earn.
struct Promise {
    /// To be sent back with the order, signed.
    shown: String,
    by: String,
    usually: String,
    ahead: i64,
    why: String,
}

impl Promise {
    fn of(promised: Promised, shown: String) -> Self {
        Self {
            shown,
            by: minute_text(promised.p95),
            usually: minute_text(promised.p50),
            ahead: promised.ahead,
            why: promised.why,
        }
    }
}

/// Net earnings of the units in the first days of their life.
struct ForecastRow {
    days: i64,
    p10: String,
    p50: String,
    p90: String,
    /// Outcomes of earlier ones; empty: none is over.
    record: String,
}

/// FIL with as many decimals as an estimate deserves; cut, not rounded up.
fn about(nano: i64) -> String {
    let text = NanoFil(nano).to_string();
    let decimals = if nano >= 100_000_000_000 {
        1
    } else if nano >= 1_000_000_000 {
        3
    } else {
        6
    };
    text.get(..text.len() + decimals - 9)
        .unwrap_or(&text)
        .to_owned()
}

impl ForecastRow {
    fn new(made: ForecastWithRecord, units: i64) -> Self {
        let ForecastWithRecord { forecast, record } = made;
        let fil = |nano: i64| about(nano.saturating_mul(units));
        let record = record.map(
            |Outcomes {
                 below,
                 within,
                 above,
             }| { format!("{below} below, {within} within, {above} above") },
        );
        Self {
            days: forecast.horizon,
            p10: fil(forecast.p10_nano),
            p50: fil(forecast.p50_nano),
            p90: fil(forecast.p90_nano),
            record: record.unwrap_or_default(),
        }
    }
}

/// The pledge that the buyer puts up, and the balance for it.
struct PledgeRow {
    needed: String,
    available: String,
}

#[derive(Template)]
#[template(path = "invest/plan.html")]
struct PlanPage {
    user: Option<Visitor>,
    plan: PlanCard,
    units: i64,
    max_units: i64,
    bytes: String,
    price: String,
    terms: Vec<TermRow>,
    /// `None`: the operator's.
    pledge: Option<PledgeRow>,
    pledge_is_short: bool,
    promised: Option<Promise>,
    forecasts: Vec<ForecastRow>,
    stock: Stock,
    /// Sent with the form, so that sending it twice places one order.
    request_key: String,
}

impl PledgeRow {
    /// `None`: the operator pledges.
    fn of(needed: i64, available: i64) -> Option<Self> {
        (needed > 0).then(|| Self {
            needed: NanoFil(needed).to_string(),
            available: NanoFil(available).to_string(),
        })
    }
}

async fn plan_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
    query: web::Query<Units>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (id, units, now, buyer) = (id.into_inner(), query.units, app.now(), user.id);
    let found = read(&app, move |conn| {
        views::offer(conn, (&id, units), buyer, now)
    })
    .await?;
    let Offer {
        plan,
        quote,
        available_nano,
        forecasts,
    } = found.ok_or(WebError::NotFound)?;
    let quote = quote.ok_or_else(|| {
        WebError::BadInput(format!("This plan sells 1 to {} units.", plan.max_units))
    })?;
    let needed = quote.pledge_each_nano.saturating_mul(quote.sectors);
    html(&PlanPage {
        user: Some((&user).into()),
        plan: plan_card(&plan),
        units,
        max_units: plan.max_units,
        bytes: quote.bytes.to_string(),
        price: quote.price.to_string(),
        terms: term_rows(&plan.terms),
        pledge: PledgeRow::of(needed, available_nano),
        pledge_is_short: needed > available_nano,
        promised: quote.promised.map(|promised| {
            let shown = signed_date(&app, (user.id, &plan), promised.p95);
            Promise::of(promised, shown)
        }),
        forecasts: forecasts
            .into_iter()
            .map(|f| ForecastRow::new(f, units))
            .collect(),
        stock: quote.stock,
        request_key: ids::secret(),
    })
}

async fn place(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
    form: Form<OrderForm>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let id = id.into_inner();
    let plan = read(&app, move |conn| catalog::plan_by_public_id(conn, &id)).await?;
    let plan = plan.ok_or(WebError::NotFound)?;
    let OrderForm {
        units,
        request_key,
        shown,
    } = form.into_inner();
    if request_key.len() < 16 || request_key.len() > 64 {
        return Err(WebError::BadInput("The form was incomplete.".into()));
    }
    let shown = shown_date(&app, (user.id, &plan), &shown)?;
    let now = app.now();
    let (asked, buyer) = (plan.clone(), user.id);
    let caps = app.config.caps();
    let order = transact(&app, move |conn| {
        orders::check_caps(conn, buyer, (&asked, units), &request_key, caps)?;
        orders::place(
            conn,
            &PlaceOrder {
                user: buyer,
                plan: &asked,
                units,
                request_key: &request_key,
                shown,
            },
            now,
        )
    })
    .await?;
    // The order is placed, whether the provider answers now or when its page is opened.
    try_for_payment(&app, &order, &plan).await;
    Ok(redirect(&format!("/orders/{}", order.public_id)))
}

/// The date that a quote showed, so that it can be sent back with the order and by nobody changed.
fn signed_date(app: &App, (user, plan): (UserId, &Plan), shown: Micros) -> String {
    format!("{shown}.{}", date_code(app, (user, plan), shown))
}

fn date_code(app: &App, (user, plan): (UserId, &Plan), shown: Micros) -> String {
    ids::keyed_digest(
        &app.config.session_secret,
        &format!("shown date:{user}:{}:{shown}", plan.public_id),
    )
}

/// The date of a form, if it is one that this buyer was shown for this plan.
fn shown_date(app: &App, of: (UserId, &Plan), text: &str) -> Result<Option<Micros>, WebError> {
    if text.is_empty() {
        return Ok(None);
    }
    let shown = text.split_once('.').and_then(|(shown, code)| {
        let shown = shown.parse().ok()?;
        (date_code(app, of, shown) == code).then_some(shown)
    });
    shown.map(Some).ok_or_else(|| {
        WebError::BadInput(
            "This quote is no longer valid. Open the plan again for a new one.".into(),
        )
    })
}
