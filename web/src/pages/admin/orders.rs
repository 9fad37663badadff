//! The operator's list of orders.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{clock::minute_text, orders, units::Bytes};

use crate::{
    app::{App, read},
    auth::Admin,
    error::WebError,
    pages::html,
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/admin/orders", web::get().to(orders_page));
}

struct OrderRow {
    id: String,
    state: String,
    bytes: String,
    price: String,
    at: String,
}

#[derive(Template)]
#[template(path = "admin/orders.html")]
struct OrdersPage {
    user: Option<Visitor>,
    orders: Vec<OrderRow>,
}

async fn orders_page(app: web::Data<App>, Admin(user): Admin) -> Result<HttpResponse, WebError> {
    let orders = read(&app.into_inner(), |conn| orders::recent(conn, 200)).await?;
    let orders = orders
        .into_iter()
        .map(|o| OrderRow {
            price: o.price().to_string(),
            id: o.public_id,
            state: if o.refunded_at.is_some() {
                "refunded".into()
            } else {
                o.state.words()
            },
            bytes: Bytes(o.bytes).to_string(),
            at: minute_text(o.created_at),
        })
        .collect();
    html(&OrdersPage {
        user: Some((&user).into()),
        orders,
    })
}
