//! The operator's console.

mod books;
mod fleet;
mod orders;
mod pipeline;
mod plan;

use actix_web::web;

use crate::auth::Admin;

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route(
            "/admin",
            web::get().to(|_: Admin| async { super::redirect("/admin/fleet") }),
        )
        .configure(fleet::routes)
        .configure(pipeline::routes)
        .configure(plan::routes)
        .configure(orders::routes)
        .configure(books::routes);
}
