//! Buying: the quote, the order with its hold, the way to the payment page.

use actix_web::{HttpResponse, web};
use anyhow::Context;
use askama::Template;
use sealyard_core::{
    catalog::{self, Plan},
    clock::{DAY, MINUTE, Micros, SECOND, minute_text},
    contracts,
    ids::{self, UserId},
    ledger::{self, AccountSpec},
    money::NanoFil,
    orders::{self, Order, OrderState, PaymentState, PlaceOrder, Stock},
    scheduler::Promised,
    store::{AnyConnection, DbResult},
    yields::{self, Outcomes},
};
use serde::Deserialize;

use super::{
    html,
    public::{PlanCard, plan_card},
    redirect,
    terms::{TermRow, term_rows},
};
use crate::{
    app::{App, Shared, read, transact, write},
    auth::{SignedIn, Visitor},
    error::WebError,
    form::Form,
    rails::stripe::{self, StripeError},
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/plans/{plan}").get(plan_page).post(place))
        .service(web::resource("/orders/{order}").get(order_page))
        .route("/orders/{order}/cancel", web::post().to(cancel));
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
    text.get(..text.len() + decimals - 9).unwrap_or(&text).to_owned()
}

fn forecast_rows(conn: &mut AnyConnection, plan: &Plan, units: i64, now: i64) -> DbResult<Vec<ForecastRow>> {
    let outcomes = yields::outcomes(conn, plan.id, now.div_euclid(DAY))?;
    let fil = |nano: i64| about(nano.saturating_mul(units));
    let rows = yields::latest_forecasts(conn, plan.id)?.into_iter().map(|made| {
        let past = outcomes.iter().find(|(horizon, _)| *horizon == made.horizon).map(|(_, past)| *past);
        let record = past.map(|Outcomes { below, within, above }| format!("{below} below, {within} within, {above} above"));
        ForecastRow {
            days: made.horizon,
            p10: fil(made.p10_nano),
            p50: fil(made.p50_nano),
            p90: fil(made.p90_nano),
            record: record.unwrap_or_default(),
        }
    });
    Ok(rows.collect())
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

#[derive(Template)]
#[template(path = "invest/order.html")]
struct OrderPage {
    user: Option<Visitor>,
    id: String,
    state: &'static str,
    bytes: String,
    price: String,
    expires: String,
    pay_url: Option<String>,
    contract: Option<String>,
    can_cancel: bool,
    /// The money is on its way: the capacity is held until the bank has decided.
    is_under_way: bool,
    /// The provider gave no page to pay on just now.
    provider_is_away: bool,
}

async fn find_plan(app: &Shared, id: String) -> Result<Plan, WebError> {
    read(app, move |conn| catalog::plan_by_public_id(conn, &id)).await?.ok_or(WebError::NotFound)
}

async fn plan_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
    query: web::Query<Units>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let plan = find_plan(&app, id.into_inner()).await?;
    let (units, now, visitor) = (query.units, app.now(), Some((&user).into()));
    let asked = plan.clone();
    let quote = read(&app, move |conn| orders::quote(conn, &asked, units, now)).await?;
    let mine = read(&app, move |conn| ledger::balance(conn, &AccountSpec::Available(user.id))).await?.free();
    let asked = plan.clone();
    let forecasts = read(&app, move |conn| forecast_rows(conn, &asked, units, now)).await?;
    let quote = quote.ok_or_else(|| WebError::BadInput(format!("This plan sells 1 to {} units.", plan.max_units)))?;
    let needed = quote.pledge_each_nano.saturating_mul(quote.sectors);
    html(&PlanPage {
        user: visitor,
        plan: plan_card(&plan),
        units,
        max_units: plan.max_units,
        bytes: quote.bytes.to_string(),
        price: quote.price.to_string(),
        terms: term_rows(&plan.terms),
        pledge: (needed > 0).then(|| PledgeRow { needed: NanoFil(needed).to_string(), available: NanoFil(mine).to_string() }),
        pledge_is_short: needed > mine,
        promised: quote.promised.map(|promised| {
            let shown = signed_date(&app, (user.id, &plan), promised.p95);
            Promise::of(promised, shown)
        }),
        forecasts,
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
    let plan = find_plan(&app, id.into_inner()).await?;
    let OrderForm { units, request_key, shown } = form.into_inner();
    if request_key.len() < 16 || request_key.len() > 64 {
        return Err(WebError::BadInput("The form was incomplete.".into()));
    }
    let shown = shown_date(&app, (user.id, &plan), &shown)?;
    let now = app.now();
    let (asked, buyer) = (plan.clone(), user.id);
    let caps = app.config.caps();
    let order = transact(&app, move |conn| {
        orders::check_caps(conn, buyer, (&asked, units), &request_key, caps)?;
        orders::place(conn, &PlaceOrder { user: buyer, plan: &asked, units, request_key: &request_key, shown }, now)
    })
    .await?;
    // The order is placed, whether the provider answers now or when its page is opened.
    try_for_payment(&app, &order, &plan).await;
    Ok(redirect(&format!("/orders/{}", order.public_id)))
}

/// A provider's page lasts half an hour at least.
const SHORTEST_PAGE: Micros = 31 * MINUTE;
/// Its page ends a little before the hold.
const PAGE_MARGIN: Micros = 2 * MINUTE;

/// The order and its hold are committed; the payment page can be asked for again at any time.
async fn ask_for_payment(app: &Shared, mut order: Order, plan: &Plan) -> Result<(), WebError> {
    let Some(rail) = &app.stripe else { return Ok(()) };
    let (id, now) = (order.id, app.now());
    if order.expires_at - now - PAGE_MARGIN < SHORTEST_PAGE {
        order = write(app, move |conn| orders::renew_hold(conn, id, now)).await?;
    }
    // The provider goes by its own clock.
    let expires_at = (app.outside_now() + order.expires_at - now - PAGE_MARGIN) / SECOND;
    let session = match rail.checkout(&order, &plan.name, &app.config.public_url, expires_at).await {
        Ok(session) => session,
        Err(error) => {
            if matches!(error, StripeError::Refused { .. }) {
                write(app, move |conn| orders::checkout_failed(conn, &order)).await?;
            }
            return Err(WebError::Internal(anyhow::Error::new(error).context("asking for a payment page")));
        }
    };
    let url = session.url.context("the payment provider returned no payment page")?;
    write(app, move |conn| orders::open_payment(conn, id, stripe::RAIL, &session.id, &url, now)).await?;
    Ok(())
}

/// False: there is no page to pay on yet.
async fn try_for_payment(app: &Shared, order: &Order, plan: &Plan) -> bool {
    let asked = ask_for_payment(app, order.clone(), plan).await;
    if let Err(error) = &asked {
        tracing::error!(order = order.public_id, %error, "no payment page");
    }
    asked.is_ok()
}

/// The date that a quote showed, so that it can be sent back with the order and by nobody changed.
fn signed_date(app: &App, (user, plan): (UserId, &Plan), shown: Micros) -> String {
    format!("{shown}.{}", date_code(app, (user, plan), shown))
}

fn date_code(app: &App, (user, plan): (UserId, &Plan), shown: Micros) -> String {
    ids::keyed_digest(&app.config.session_secret, &format!("shown date:{user}:{}:{shown}", plan.public_id))
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
    shown.map(Some).ok_or_else(|| WebError::BadInput("This quote is no longer valid. Open the plan again for a new one.".into()))
}

async fn cancel(app: web::Data<App>, SignedIn(user): SignedIn, id: web::Path<String>) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let id = id.into_inner();
    let order = read(&app, move |conn| orders::by_public_id(conn, &id)).await?;
    let order = order.filter(|o| o.user_id == user.id).ok_or(WebError::NotFound)?;
    let order_id = order.id;
    let page = read(&app, move |conn| orders::latest_payment(conn, order_id)).await?.filter(|p| p.state == PaymentState::Open);
    if let (Some(rail), Some(page)) = (&app.stripe, page) {
        // Nobody can pay on it any more. If that cannot be said now, a late payment is dealt with as such.
        if let Err(error) = rail.expire(&page.rail_ref).await {
            tracing::warn!(order = order.public_id, %error, "the payment page of a cancelled order stays open");
        }
    }
    let now = app.now();
    if transact(&app, move |conn| orders::cancel(conn, order_id, now)).await.map_err(|e| WebError::Internal(e.into()))? {
        Ok(redirect(&format!("/orders/{}", order.public_id)))
    } else {
        Err(WebError::BadInput("This order can no longer be cancelled: it has been paid, is being paid, or has ended.".into()))
    }
}

async fn order_page(app: web::Data<App>, SignedIn(user): SignedIn, id: web::Path<String>) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let id = id.into_inner();
    let order = read(&app, move |conn| orders::by_public_id(conn, &id)).await?;
    let order = order.filter(|o| o.user_id == user.id || user.is_admin()).ok_or(WebError::NotFound)?;
    let order_id = order.id;
    let mut payment = read(&app, move |conn| orders::latest_payment(conn, order_id)).await?;
    let plan_id = order.plan_id;
    let waits = order.is(OrderState::Placed) && order.paying_since.is_none();
    let mut provider_is_away = false;
    if payment.is_none() && waits && app.stripe.is_some() {
        // The provider did not answer when the order was placed: ask again.
        let plan = read(&app, move |conn| catalog::plan_for(conn, plan_id)).await?;
        provider_is_away = !try_for_payment(&app, &order, &plan).await;
        payment = read(&app, move |conn| orders::latest_payment(conn, order_id)).await?;
    }
    let order = read(&app, move |conn| orders::by_id(conn, order_id)).await?;
    let contract = read(&app, move |conn| contracts::of_order(conn, order_id)).await?;
    let state = match order.state {
        OrderState::Placed if order.paying_since.is_some() => "payment under way",
        OrderState::Placed => "waiting for payment",
        OrderState::Fulfilled => "paid",
        OrderState::Expired if order.cancelled_at.is_some() => "cancelled",
        OrderState::Expired => "expired unpaid",
        OrderState::RefundDue if order.refunded_at.is_some() => "paid too late; your money was refunded",
        OrderState::RefundDue => "paid too late; we will refund your money",
    };
    html(&OrderPage {
        user: Some((&user).into()),
        id: order.public_id.clone(),
        state,
        bytes: sealyard_core::units::Bytes(order.bytes).to_string(),
        price: order.price().to_string(),
        expires: minute_text(order.expires_at),
        pay_url: payment.map(|p| p.pay_url).filter(|url| waits && !url.is_empty()),
        can_cancel: waits,
        is_under_way: order.paying_since.is_some(),
        provider_is_away,
        contract: contract.map(|c| c.public_id),
    })
}
