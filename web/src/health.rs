//! For machines that watch us: alive, ready, counted.

use actix_web::{HttpResponse, web};
use sealyard_core::{capacity, fleet, jobs, orders, sealing, yields};

use crate::app::{App, Shared, read};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/healthz", web::get().to(|| async { HttpResponse::Ok().body("ok\n") }))
        .route("/readyz", web::get().to(ready))
        .route("/metrics", web::get().to(metrics));
}

/// Ready when the database answers and is up to date.
async fn ready(app: web::Data<App>) -> HttpResponse {
    let db = app.db.clone();
    match web::block(move || db.is_current()).await {
        Ok(Ok(true)) => HttpResponse::Ok().body("ready\n"),
        Ok(Ok(false)) => HttpResponse::ServiceUnavailable().body("the database is not migrated; run `sealyard migrate`\n"),
        Ok(Err(error)) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}

/// Prometheus text.
async fn metrics(app: web::Data<App>) -> HttpResponse {
    let app: Shared = app.into_inner();
    let gathered = read(&app, |conn| {
        use std::fmt::Write;
        let mut text = String::new();
        for pool in capacity::pools(conn)? {
            let capacity = capacity::capacity(conn, pool.id)?;
            let parts = [
                ("owned", capacity.owned),
                ("free", capacity.free),
                ("held", capacity.held),
                ("sold", capacity.sold),
                ("own_use", capacity.own_use),
                ("down", capacity.down),
            ];
            for (part, bytes) in parts {
                let _ = writeln!(text, "sealyard_capacity_bytes{{pool=\"{}\",part=\"{part}\"}} {bytes}", pool.public_id);
            }
            if let Some(cursor) = yields::cursor(conn, pool.id)? {
                let _ = writeln!(text, "sealyard_chain_next_epoch{{pool=\"{}\"}} {}", pool.public_id, cursor.next_epoch);
            }
        }
        let counts = sealing::count_sectors(conn)?;
        for state in sealing::SectorState::ALL {
            let count: i64 = counts.iter().filter(|c| c.state == state).map(|c| c.sectors).sum();
            let _ = writeln!(text, "sealyard_sectors{{state=\"{}\"}} {count}", state.name());
        }
        let machines = fleet::machines(conn)?;
        let lost = machines.iter().filter(|m| m.is_lost()).count();
        let draining = machines.iter().filter(|m| !m.is_lost() && m.is_draining()).count();
        for (state, count) in [("active", machines.len() - lost - draining), ("draining", draining), ("lost", lost)] {
            let _ = writeln!(text, "sealyard_machines{{state=\"{state}\"}} {count}");
        }
        let _ = writeln!(text, "sealyard_tasks_open {}", sealing::count_open_tasks(conn)?);
        // Of these, `books` is the check of every balance: too much to be done whenever somebody asks.
        for name in jobs::failing(conn)?.into_iter().map(|failing| failing.name) {
            let _ = writeln!(text, "sealyard_loop_failing{{loop=\"{name}\"}} 1");
        }
        for (kind, count) in jobs::count_alerts(conn)? {
            let _ = writeln!(text, "sealyard_alerts{{kind=\"{}\"}} {count}", kind.name());
        }
        let _ = writeln!(text, "sealyard_jobs_struggling {}", jobs::struggling(conn)?.len());
        let _ = writeln!(text, "sealyard_refunds_due {}", orders::refunds_due(conn)?);
        Ok(text)
    });
    match gathered.await {
        Ok(text) => HttpResponse::Ok().content_type("text/plain; version=0.0.4").body(text),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}
