//! The operator's pipeline: sectors, steps, and what needs a person.

use actix_web::{HttpResponse, web};
use askama::Template;
use sealyard_core::{
    accounts,
    clock::minute_text,
    ids::SectorId,
    payments, sealing,
    sealing::SectorState,
    units::Bytes,
    views::{self, SectorInPipeline, StepView},
};
use serde::Deserialize;

use crate::{
    app::{App, Shared, read, write},
    auth::Admin,
    error::WebError,
    form::Form,
    pages::{html, redirect},
    visitor::Visitor,
};

pub fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/admin/pipeline", web::get().to(pipeline_page))
        .route("/admin/payments/settle", web::post().to(settle))
        .route("/admin/sectors/{sector}/release", web::post().to(release));
}

struct SectorRow {
    id: i64,
    number: i64,
    is_quarantined: bool,
    state: String,
    machine: String,
    due: String,
    failures: i64,
    reason: String,
}

struct TaskRow {
    kind: String,
    subject: String,
    state: String,
    machine: String,
    fence: i64,
    took: String,
    memory: String,
    note: String,
}

/// A worker's loop that makes no progress.
struct FailingRow {
    name: String,
    since: String,
    error: String,
}

/// An event of a rail that a person has to see to.
struct EventRow {
    id: String,
    kind: String,
    at: String,
    note: String,
}

#[derive(Template)]
#[template(path = "admin/pipeline.html")]
struct PipelinePage {
    user: Option<Visitor>,
    failing: Vec<FailingRow>,
    /// Orders that were paid when there was no room any more.
    refunds: i64,
    events: Vec<EventRow>,
    sectors: Vec<SectorRow>,
    tasks: Vec<TaskRow>,
}

impl SectorRow {
    fn new(row: SectorInPipeline) -> Self {
        let sector = row.sector;
        Self {
            id: sector.id.0,
            is_quarantined: sector.state == SectorState::Quarantined,
            number: sector.number,
            state: sector.state.words(),
            machine: row.machine,
            due: minute_text(sector.due_at),
            failures: sector.failures,
            reason: sector.reason.unwrap_or_default(),
        }
    }
}

impl TaskRow {
    fn new(row: StepView) -> Self {
        let task = row.task;
        let seconds = |ms: i64| format!("{}.{:03} s", ms / 1000, ms % 1000);
        Self {
            subject: row
                .sector
                .map_or_else(|| "WindowPoSt".into(), |n| format!("sector {n}")),
            machine: row.machine,
            took: task.wall_ms.map(seconds).unwrap_or_default(),
            memory: task
                .peak_bytes
                .map(|b| Bytes(b).to_string())
                .unwrap_or_default(),
            note: task.failure.or(task.progress).unwrap_or_default(),
            kind: task.kind.words(),
            state: task.state.words(),
            fence: task.fence,
        }
    }
}

async fn pipeline_page(app: web::Data<App>, Admin(user): Admin) -> Result<HttpResponse, WebError> {
    let view = read(&app.into_inner(), views::pipeline).await?;
    let failing = view.attention.into_iter().map(|row| FailingRow {
        name: row.name,
        since: minute_text(row.since),
        error: row.error,
    });
    let events = view.events.into_iter().map(|event| EventRow {
        at: minute_text(event.received_at),
        id: event.id,
        kind: event.kind,
        note: event.note,
    });
    html(&PipelinePage {
        user: Some((&user).into()),
        failing: failing.collect(),
        refunds: view.refunds,
        events: events.collect(),
        sectors: view.sectors.into_iter().map(SectorRow::new).collect(),
        tasks: view.steps.into_iter().map(TaskRow::new).collect(),
    })
}

#[derive(Deserialize)]
struct SettleForm {
    event: String,
}

async fn settle(
    app: web::Data<App>,
    Admin(user): Admin,
    form: Form<SettleForm>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (event, now, admin) = (form.into_inner().event, app.now(), user.id);
    if write(&app, move |conn| payments::settle(conn, &event, admin, now)).await? {
        Ok(redirect("/admin/pipeline"))
    } else {
        Err(WebError::BadInput(
            "This event has already been dealt with.".into(),
        ))
    }
}

async fn release(
    app: web::Data<App>,
    Admin(user): Admin,
    id: web::Path<i64>,
) -> Result<HttpResponse, WebError> {
    let app: Shared = app.into_inner();
    let (id, now, admin) = (SectorId(id.into_inner()), app.now(), user.id);
    let released = write(&app, move |conn| {
        let released = sealing::release(conn, id, now)?;
        if released {
            let sector = format!("sector row {id}");
            accounts::record(
                conn,
                now,
                Some(admin),
                "release from quarantine",
                &sector,
                "",
            )?;
        }
        Ok(released)
    })
    .await?;
    if released {
        Ok(redirect("/admin/pipeline"))
    } else {
        Err(WebError::BadInput(
            "This sector is no longer in quarantine.".into(),
        ))
    }
}
