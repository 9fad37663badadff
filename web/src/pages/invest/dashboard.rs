//! An investor's dashboard: balances, contracts, open orders.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    clock::minute_text,
    money::NanoFil,
    orders::Order,
    units::Bytes,
    views::{self, Holding},
};

use crate::{
    app::{App, Shared, read},
    auth::SignedIn,
    error::WebError,
    pages::html,
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config.route("/dashboard", web::get().to(dashboard));
}

pub struct Balances {
    pub available: String,
    pub vesting: String,
    pub pledged: String,
}

struct ContractRow {
    id: String,
    size: String,
    state: String,
    sectors: String,
    earned: String,
}

struct OrderRow {
    id: String,
    state: String,
    price: String,
    at: String,
}

#[derive(Template)]
#[template(path = "invest/dashboard.html")]
struct Dashboard {
    user: Option<Visitor>,
    balances: Balances,
    contracts: Vec<ContractRow>,
    orders: Vec<OrderRow>,
}

impl From<views::Balances> for Balances {
    fn from(nano: views::Balances) -> Self {
        Self {
            available: NanoFil(nano.available).to_string(),
            vesting: NanoFil(nano.vesting).to_string(),
            pledged: NanoFil(nano.pledged).to_string(),
        }
    }
}

impl ContractRow {
    fn new(holding: Holding) -> Self {
        Self {
            id: holding.contract.public_id,
            size: Bytes(holding.contract.bytes).to_string(),
            state: holding.contract.state.words(),
            sectors: format!("{} of {}", holding.active, holding.sectors),
            earned: NanoFil(holding.earned_nano).to_string(),
        }
    }
}

impl OrderRow {
    fn new(order: Order) -> Self {
        Self {
            price: order.price().to_string(),
            id: order.public_id,
            state: order.state.words(),
            at: minute_text(order.created_at),
        }
    }
}

async fn dashboard(
    app: web::Data<App>,
    SignedIn(user): SignedIn,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let id = user.id;
    let portfolio = read(&app, move |conn| views::portfolio(conn, id)).await?;
    html(&Dashboard {
        user: Some((&user).into()),
        balances: portfolio.balances.into(),
        contracts: portfolio
            .holdings
            .into_iter()
            .map(ContractRow::new)
            .collect(),
        orders: portfolio.orders.into_iter().map(OrderRow::new).collect(),
    })
}
