//! An investor's pages.

mod contract;
mod dashboard;
mod ledger;
mod statements;

use actix_web::web;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .configure(dashboard::routes)
        .configure(contract::routes)
        .configure(ledger::routes)
        .configure(statements::routes);
}
