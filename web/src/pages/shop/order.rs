//! An order: its page, the way to the payment page, cancelling.

use actix_web::{HttpResponse, web};
use anyhow::Context;
use askama::Template;
use sealyard_core::{
    accounts::User,
    catalog::Plan,
    clock::{MINUTE, Micros, SECOND, minute_text},
    orders::{self, Order, OrderState, PaymentState},
    units::Bytes,
    views::{self, OrderView},
};

use crate::{
    app::{App, Shared, read, transact, write},
    auth::SignedIn,
    error::WebError,
    pages::{html, redirect},
    rails::stripe::{self, StripeError},
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .service(web::resource("/orders/{order}").get(order_page))
        .route("/orders/{order}/cancel", web::post().to(cancel));
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

/// A provider's page lasts half an hour at least.
const SHORTEST_PAGE: Micros = 31 * MINUTE;
/// Its page ends a little before the hold.
const PAGE_MARGIN: Micros = 2 * MINUTE;

/// The order and its hold are committed; the payment page can be asked for again at any time.
async fn ask_for_payment(app: &Shared, mut order: Order, plan: &Plan) -> Result<(), WebError> {
    let Some(rail) = &app.stripe else {
        return Ok(());
    };
    let (id, now) = (order.id, app.now());
    if order.expires_at - now - PAGE_MARGIN < SHORTEST_PAGE {
        order = write(app, move |conn| orders::renew_hold(conn, id, now)).await?;
    }
    // The provider goes by its own clock.
    let expires_at = (app.outside_now() + order.expires_at - now - PAGE_MARGIN) / SECOND;
    let session = match rail
        .checkout(&order, &plan.name, &app.config.public_url, expires_at)
        .await
    {
        Ok(session) => session,
        Err(error) => {
            if matches!(error, StripeError::Refused { .. }) {
                write(app, move |conn| orders::checkout_failed(conn, &order)).await?;
            }
            return Err(WebError::Internal(
                anyhow::Error::new(error).context("asking for a payment page"),
            ));
        }
    };
    let url = session
        .url
        .context("the payment provider returned no payment page")?;
    write(app, move |conn| {
        orders::open_payment(conn, id, stripe::RAIL, &session.id, &url, now)
    })
    .await?;
    Ok(())
}

/// False: there is no page to pay on yet.
pub async fn try_for_payment(app: &Shared, order: &Order, plan: &Plan) -> bool {
    let asked = ask_for_payment(app, order.clone(), plan).await;
    if let Err(error) = &asked {
        tracing::error!(order = order.public_id, %error, "no payment page");
    }
    asked.is_ok()
}

async fn find(app: &Shared, id: String, viewer: &User) -> Result<OrderView, WebError> {
    let viewer = viewer.clone();
    let found = read(app, move |conn| views::order(conn, &id, &viewer)).await?;
    found.ok_or(WebError::NotFound)
}

async fn cancel(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let OrderView { order, payment, .. } = find(&app, id.into_inner(), &user).await?;
    if order.user_id != user.id {
        return Err(WebError::NotFound);
    }
    let page = payment.filter(|payment| payment.state == PaymentState::Open);
    if let (Some(rail), Some(page)) = (&app.stripe, page) {
        // Nobody can pay on it any more. If the provider cannot be told now, a late payment is
        // refunded.
        if let Err(error) = rail.expire(&page.rail_ref).await {
            tracing::warn!(
                order = order.public_id,
                %error,
                "the payment page of a cancelled order stays open"
            );
        }
    }
    let (id, now) = (order.id, app.now());
    let cancelled = transact(&app, move |conn| orders::cancel(conn, id, now)).await;
    if cancelled.map_err(|error| WebError::Internal(error.into()))? {
        Ok(redirect(&format!("/orders/{}", order.public_id)))
    } else {
        Err(WebError::BadInput(
            "This order can no longer be cancelled: it has been paid, is being paid, or has ended."
                .into(),
        ))
    }
}

fn state_text(order: &Order) -> &'static str {
    match order.state {
        OrderState::Placed if order.paying_since.is_some() => "payment under way",
        OrderState::Placed => "waiting for payment",
        OrderState::Fulfilled => "paid",
        OrderState::Expired if order.cancelled_at.is_some() => "cancelled",
        OrderState::Expired => "expired unpaid",
        OrderState::RefundDue if order.refunded_at.is_some() => {
            "paid too late; your money was refunded"
        }
        OrderState::RefundDue => "paid too late; we will refund your money",
    }
}

async fn order_page(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
    id: web::Path<String>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let id = id.into_inner();
    let mut view = find(&app, id.clone(), &user).await?;
    let waits = view.order.is(OrderState::Placed) && view.order.paying_since.is_none();
    let mut provider_is_away = false;
    if view.payment.is_none() && waits && app.stripe.is_some() {
        // The provider did not answer when the order was placed: ask again.
        provider_is_away = !try_for_payment(&app, &view.order, &view.plan).await;
        view = find(&app, id, &user).await?;
    }
    let OrderView {
        order,
        payment,
        contract,
        ..
    } = view;
    html(&OrderPage {
        user: Some((&user).into()),
        state: state_text(&order),
        bytes: Bytes(order.bytes).to_string(),
        price: order.price().to_string(),
        expires: minute_text(order.expires_at),
        pay_url: payment
            .map(|p| p.pay_url)
            .filter(|url| waits && !url.is_empty()),
        can_cancel: waits,
        is_under_way: order.paying_since.is_some(),
        provider_is_away,
        contract: contract.map(|c| c.public_id),
        id: order.public_id,
    })
}
