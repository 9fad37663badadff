//! The storefront: what is on sale, and what backs it.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    catalog::{self, Pledge},
    scheduler,
    units::Bytes,
    views::{self, PoolSupply},
};

use super::terms::bears_nothing;
use crate::{
    app::{App, read},
    auth::Maybe,
    error::WebError,
    pages::html,
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/", web::get().to(home))
        .route("/promises", web::get().to(promises));
}

pub struct PlanCard {
    pub id: String,
    pub name: String,
    pub unit: String,
    pub days: i64,
    pub price: String,
    pub fee: String,
    /// Whose the pledge is.
    pub pledge: &'static str,
    pub bears_nothing: bool,
}

struct PoolCard {
    name: String,
    miner: String,
    owned: String,
    sold: String,
    free: String,
    on_chain: i64,
}

#[derive(Template)]
#[template(path = "public/home.html")]
struct Home {
    user: Option<Visitor>,
    plans: Vec<PlanCard>,
    pools: Vec<PoolCard>,
}

pub fn plan_card(plan: &catalog::Plan) -> PlanCard {
    let price = plan
        .priced(1)
        .map(|(_, price)| price.to_string())
        .unwrap_or_default();
    PlanCard {
        id: plan.public_id.clone(),
        name: plan.name.clone(),
        unit: Bytes(plan.unit_bytes).to_string(),
        days: plan.days,
        price,
        fee: plan.fee().to_string(),
        pledge: if matches!(plan.terms.pledge, Pledge::Investor { .. }) {
            "yours, returned at the end"
        } else {
            "ours"
        },
        bears_nothing: bears_nothing(&plan.terms),
    }
}

impl PoolCard {
    fn new(supply: PoolSupply) -> Self {
        Self {
            name: supply.pool.name,
            miner: supply.pool.miner,
            owned: Bytes(supply.capacity.owned).to_string(),
            sold: Bytes(supply.capacity.sold).to_string(),
            free: Bytes(supply.capacity.free).to_string(),
            on_chain: supply.on_chain,
        }
    }
}

async fn home(app: web::Data<App>, Maybe(user): Maybe) -> Result<HttpResponse, WebError> {
    let shop = read(&app.into_inner(), views::storefront).await?;
    html(&Home {
        user: user.as_ref().map(Visitor::from),
        plans: shop.plans.iter().map(plan_card).collect(),
        pools: shop.pools.into_iter().map(PoolCard::new).collect(),
    })
}

struct MonthRow {
    name: String,
    made: i64,
    kept: i64,
    broken: i64,
    open: i64,
    moved: i64,
    share: String,
}

#[derive(Template)]
#[template(path = "public/promises.html")]
struct Promises {
    user: Option<Visitor>,
    months: Vec<MonthRow>,
}

async fn promises(app: web::Data<App>, Maybe(user): Maybe) -> Result<HttpResponse, WebError> {
    let months = read(&app.into_inner(), scheduler::months).await?;
    let rows = months.into_iter().map(|m| MonthRow {
        share: m.kept_permille().map_or_else(
            || "none due yet".into(),
            |share| format!("{}.{} %", share / 10, share % 10),
        ),
        open: m.made - m.kept - m.broken,
        name: m.month.to_string(),
        made: m.made,
        kept: m.kept,
        broken: m.broken,
        moved: m.moved,
    });
    html(&Promises {
        user: user.as_ref().map(Visitor::from),
        months: rows.collect(),
    })
}
