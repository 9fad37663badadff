//! Probes and metrics for monitoring. Details are served on the operator's own address only.

use std::net::TcpListener;

use actix_web::{App as Server, HttpResponse, HttpServer, web};
use anyhow::Context;
use prometheus_client::{
    encoding::prometheus_text::{CONTENT_TYPE, encode},
    metrics::{family::Family, gauge::Gauge, info::Info},
    registry::Registry,
};
use sealyard_core::{
    capacity, fleet,
    jobs::{self, AlertKind},
    orders, sealing,
    store::{AnyConnection, DbResult, Schema},
    yields,
};

use crate::app::{App, Shared, read};

/// The site's own probes: they say yes or no, and nothing else.
pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route(
            "/healthz",
            web::get().to(|| async { HttpResponse::Ok().body("ok\n") }),
        )
        .route("/readyz", web::get().to(ready));
}

/// Serves `/metrics`, and `/readyz` with its reasons, on the operator's address.
pub fn start(app: Shared, listener: TcpListener) -> anyhow::Result<actix_web::dev::Server> {
    tracing::info!(listen = %listener.local_addr()?, "metrics");
    let data = web::Data::from(app);
    let server = HttpServer::new(move || {
        Server::new()
            .app_data(data.clone())
            .route(
                "/healthz",
                web::get().to(|| async { HttpResponse::Ok().body("ok\n") }),
            )
            .route("/readyz", web::get().to(ready_in_detail))
            .route("/metrics", web::get().to(metrics))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)
    .context("the metrics cannot be served")?
    .run();
    Ok(server)
}

/// The site's condition, as sentences.
struct Findings {
    /// The reasons why it is not ready.
    unready: Vec<String>,
    /// Troubles that do not keep customers from buying.
    noted: Vec<String>,
}

impl Findings {
    const fn unready(reasons: Vec<String>) -> Self {
        Self {
            unready: reasons,
            noted: Vec::new(),
        }
    }
}

async fn findings(app: Shared) -> Findings {
    let db = app.db.clone();
    let schema = web::block(move || db.schema()).await;
    let unready = match schema {
        Ok(Ok(Schema::Current)) => Vec::new(),
        Ok(Ok(Schema::Older(missing))) => vec![format!(
            "{missing} migrations have not run; run `sealyard migrate`"
        )],
        Ok(Ok(Schema::Newer(newest))) => {
            vec![format!(
                "a newer release has migrated the database ({newest}); install that release"
            )]
        }
        Ok(Err(error)) => vec![error.to_string()],
        Err(error) => vec![error.to_string()],
    };
    if !unready.is_empty() {
        return Findings::unready(unready);
    }
    let noted = read(&app, |conn| {
        let alerts = jobs::alerts(conn)?.into_iter().map(|alert| alert.text);
        let loops = jobs::failing(conn)?
            .into_iter()
            .map(|failing| format!("{}: {}", failing.name, failing.error));
        Ok(alerts.chain(loops).collect())
    });
    match noted.await {
        Ok(noted) => Findings {
            unready: Vec::new(),
            noted,
        },
        Err(error) => Findings::unready(vec![error.to_string()]),
    }
}

/// Ready when the database answers and has the tables of this release.
async fn ready(app: web::Data<App>) -> HttpResponse {
    if findings(app.into_inner()).await.unready.is_empty() {
        HttpResponse::Ok().body("ready\n")
    } else {
        HttpResponse::ServiceUnavailable().body("not ready\n")
    }
}

async fn ready_in_detail(app: web::Data<App>) -> HttpResponse {
    let Findings { unready, noted } = findings(app.into_inner()).await;
    if !unready.is_empty() {
        return HttpResponse::ServiceUnavailable()
            .body(format!("not ready\n{}\n", unready.join("\n")));
    }
    let lines: Vec<String> = std::iter::once("ready".to_owned()).chain(noted).collect();
    HttpResponse::Ok().body(format!("{}\n", lines.join("\n")))
}

type Labels = Vec<(&'static str, String)>;

/// The gauges of one moment.
struct Gauges(Registry);

impl Gauges {
    fn family(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = (Labels, i64)>) {
        let family = Family::<Labels, Gauge>::default();
        for (labels, value) in values {
            family.get_or_create(&labels).set(value);
        }
        self.0.register(name, help, family);
    }

    fn one(&mut self, name: &str, help: &str, value: i64) {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        self.0.register(name, help, gauge);
    }
}

fn gather(conn: &mut AnyConnection) -> DbResult<Registry> {
    let mut gauges = Gauges(Registry::with_prefix("sealyard"));
    let version = vec![("version", env!("CARGO_PKG_VERSION").to_owned())];
    gauges.0.register(
        "build",
        "Version of the running program",
        Info::new(version),
    );
    gauges.pools(conn)?;
    gauges.sealing(conn)?;
    gauges.machines(conn)?;
    gauges.loops(conn)?;
    gauges.troubles(conn)?;
    Ok(gauges.0)
}

impl Gauges {
    fn pools(&mut self, conn: &mut AnyConnection) -> DbResult<()> {
        let (mut bytes, mut epochs) = (Vec::new(), Vec::new());
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
            for (part, value) in parts {
                bytes.push((
                    vec![("pool", pool.public_id.clone()), ("part", part.to_owned())],
                    value,
                ));
            }
            if let Some(cursor) = yields::cursor(conn, pool.id)? {
                epochs.push((vec![("pool", pool.public_id.clone())], cursor.next_epoch));
            }
        }
        self.family(
            "capacity_bytes",
            "Bytes of raw power in the books, by pool and part",
            bytes,
        );
        self.family(
            "chain_next_epoch",
            "The first epoch that is not recorded yet",
            epochs,
        );
        Ok(())
    }

    fn sealing(&mut self, conn: &mut AnyConnection) -> DbResult<()> {
        let counts = sealing::count_sectors(conn)?;
        let sectors = sealing::SectorState::ALL.map(|state| {
            let count = counts
                .iter()
                .filter(|c| c.state == state)
                .map(|c| c.sectors)
                .sum();
            (vec![("state", state.name().to_owned())], count)
        });
        self.family("sectors", "Sectors by state", sectors);
        self.one(
            "tasks_open",
            "Steps that are waiting or running",
            sealing::count_open_tasks(conn)?,
        );
        Ok(())
    }

    fn machines(&mut self, conn: &mut AnyConnection) -> DbResult<()> {
        let machines = fleet::machines(conn)?;
        let count = |of: &dyn Fn(&fleet::Machine) -> bool| {
            i64::try_from(machines.iter().filter(|m| of(m)).count()).unwrap_or(i64::MAX)
        };
        let states = [
            ("active", count(&|m| !m.is_lost() && !m.is_draining())),
            ("draining", count(&|m| !m.is_lost() && m.is_draining())),
            ("lost", count(&|m| m.is_lost())),
        ];
        self.family(
            "machines",
            "Machines by state",
            states.map(|(state, value)| (vec![("state", state.to_owned())], value)),
        );
        Ok(())
    }

    fn loops(&mut self, conn: &mut AnyConnection) -> DbResult<()> {
        let failing = jobs::failing(conn)?;
        let loops = jobs::loops(conn)?.into_iter().map(|name| {
            let fails = failing.iter().any(|failing| failing.name == name);
            (vec![("loop", name)], i64::from(fails))
        });
        self.family(
            "loop_failing",
            "Loops of the worker: 1 when the last turn failed",
            loops,
        );
        Ok(())
    }

    /// Everything that a person has to look at.
    fn troubles(&mut self, conn: &mut AnyConnection) -> DbResult<()> {
        let alerts = jobs::count_alerts(conn)?.into_iter();
        self.family(
            "alerts",
            "Alerts that a person has to look at, by kind",
            alerts.map(|(kind, value): (AlertKind, i64)| {
                (vec![("kind", kind.name().to_owned())], value)
            }),
        );
        let struggling = i64::try_from(jobs::struggling(conn)?.len()).unwrap_or(i64::MAX);
        self.one(
            "jobs_struggling",
            "Jobs that have failed repeatedly or permanently",
            struggling,
        );
        self.one(
            "refunds_due",
            "Orders that were paid after their capacity was gone",
            orders::refunds_due(conn)?,
        );
        Ok(())
    }
}

async fn metrics(app: web::Data<App>) -> HttpResponse {
    let gathered = read(&app.into_inner(), gather).await;
    let text = gathered.map_err(anyhow::Error::from).and_then(|registry| {
        let mut text = String::new();
        encode(&mut text, &registry)?;
        Ok(text)
    });
    match text {
        Ok(text) => HttpResponse::Ok().content_type(CONTENT_TYPE).body(text),
        Err(error) => HttpResponse::ServiceUnavailable().body(format!("{error}\n")),
    }
}
