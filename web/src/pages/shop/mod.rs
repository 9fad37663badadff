//! The shop: what is on sale, quotes, orders, payments.

mod home;
mod order;
mod plan;
pub(super) mod terms;
mod webhook;

use actix_web::web;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(home::routes)
        .configure(plan::routes)
        .configure(order::routes)
        .configure(webhook::routes);
}
