//! The agents' API: enrol, heartbeat, report. JSON with a closed list of error codes.

use std::time::Duration;

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use sealyard_core::{
    clock::{Micros, SECOND},
    fleet::{
        self, EnrolError, Machine, Offer,
        check::{self, Nonsense},
        protocol::{
            EnrolRequest, ErrorAnswer, ErrorCode, HeartbeatAnswer, HeartbeatRequest, Outcome,
            ReportAnswer, ReportRequest,
        },
    },
    ids::TaskId,
    jobs::{self, AlertKind},
    sealing,
    store::{AnyConnection, DbFault, DbResult},
};
use serde::{Deserialize, de::DeserializeOwned};

use crate::app::{App, Shared};

const LARGEST_BODY: usize = 256 << 10;
/// At most [`AT_ONCE`] bodies larger than this are read at a time.
const LARGE: usize = 1 << 20;
pub const AT_ONCE: usize = 2;
/// Time that a client has to send a body.
const BODY_TIME: Duration = Duration::from_secs(30);
const LARGE_BODY_TIME: Duration = Duration::from_secs(600);

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/agent/v1")
            .route("/enrol", web::post().to(enrol))
            .route("/heartbeat", web::post().to(heartbeat))
            .route("/report", web::post().to(report)),
    );
}

fn refuse(status: StatusCode, code: ErrorCode, message: String) -> HttpResponse {
    HttpResponse::build(status).json(ErrorAnswer { code, message })
}

fn try_again(error: &dyn std::fmt::Display) -> HttpResponse {
    try_again_as("not known yet", error)
}

/// Logs the name of the machine whose request could not be answered.
fn try_again_as(machine: &str, error: &dyn std::fmt::Display) -> HttpResponse {
    tracing::error!(machine, %error, "agent request failed");
    refuse(
        StatusCode::SERVICE_UNAVAILABLE,
        ErrorCode::TryAgain,
        "the server cannot answer right now; try again".into(),
    )
}

fn bad(error: impl std::fmt::Display) -> HttpResponse {
    refuse(
        StatusCode::BAD_REQUEST,
        ErrorCode::BadRequest,
        error.to_string(),
    )
}

/// Reads a request's body, once its sender is known. It is never decompressed, so that a small body
/// cannot become a large one.
async fn json<T: DeserializeOwned + Send + 'static>(
    app: &Shared,
    body: web::Payload,
    most: usize,
) -> Result<T, HttpResponse> {
    let is_large = most > LARGE;
    let _turn = if is_large {
        app.large_bodies.acquire().await.ok()
    } else {
        None
    };
    let time = if is_large { LARGE_BODY_TIME } else { BODY_TIME };
    let Ok(read) = tokio::time::timeout(time, body.to_bytes_limited(most)).await else {
        return Err(refuse(
            StatusCode::REQUEST_TIMEOUT,
            ErrorCode::TryAgain,
            "the request body did not arrive in time".into(),
        ));
    };
    let bytes = match read {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(bad(error)),
        Err(_) => return Err(bad(format!("the body is longer than {most} bytes"))),
    };
    let parsed = app.lane.run(move || serde_json::from_slice(&bytes)).await;
    parsed.map_err(|error| try_again(&error))?.map_err(bad)
}

async fn enrol(app: web::Data<App>, body: web::Payload) -> HttpResponse {
    let app: Shared = app.into_inner();
    let mut body: EnrolRequest = match json(&app, body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if let Err(nonsense) = check::enrol(&mut body) {
        return bad(nonsense);
    }
    let now = app.now();
    match app
        .lane
        .transact(move |conn| fleet::enrol(conn, &body.token, &body.hardware, now))
        .await
    {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(EnrolError::Db(fault)) => try_again(&fault),
        Err(error) => {
            let code = match error {
                EnrolError::TokenUsed => ErrorCode::TokenUsed,
                EnrolError::TokenExpired | EnrolError::TokenWithdrawn => ErrorCode::TokenExpired,
                _ => ErrorCode::UnknownToken,
            };
            refuse(StatusCode::FORBIDDEN, code, error.to_string())
        }
    }
}

async fn machine(app: &Shared, request: &HttpRequest) -> Result<Machine, HttpResponse> {
    let key = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|h| h.to_str().ok())
        .and_then(|h| h.strip_prefix("Bearer "));
    let unknown = || {
        refuse(
            StatusCode::UNAUTHORIZED,
            ErrorCode::UnknownMachine,
            "this machine's key is not known; enrol it again".into(),
        )
    };
    let key = key.ok_or_else(unknown)?.to_owned();
    let found = app
        .lane
        .read(move |conn| fleet::by_key(conn, &key))
        .await
        .map_err(|fault| try_again(&fault))?;
    found.ok_or_else(unknown)
}

/// Sets aside a machine that reports impossible values: nothing of them is used, and a person is
/// told. The answer comes once that is recorded.
async fn set_aside(
    app: &Shared,
    machine: &Machine,
    what: &'static str,
    nonsense: &Nonsense,
) -> HttpResponse {
    let (subject, now) = (format!("{}: {what}", machine.name), app.now());
    let text = format!(
        "machine {} reports impossible values and gets no work: in its {what}, {nonsense}",
        machine.name
    );
    let kept = app
        .lane
        .write(move |conn| jobs::raise(conn, AlertKind::Machine, &subject, &text, now))
        .await;
    match kept {
        Ok(_) => bad(nonsense),
        Err(fault) => try_again_as(&machine.name, &fault),
    }
}

async fn heartbeat(app: web::Data<App>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let app: Shared = app.into_inner();
    let machine = match machine(&app, &request).await {
        Ok(machine) => machine,
        Err(answer) => return answer,
    };
    let mut body: HeartbeatRequest = match json(&app, body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if let Err(nonsense) = check::heartbeat(&mut body) {
        return set_aside(&app, &machine, "heartbeat", &nonsense).await;
    }
    let now = app.now();
    let until = now + app.config.lease_s * SECOND;
    let name = machine.name.clone();
    let done = app
        .lane
        .write(move |conn| answer_heartbeat(conn, &machine, &body, until, now));
    match done.await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(fault) => try_again_as(&name, &fault),
    }
}

/// Records a heartbeat and extends the machine's leases to `until`.
fn answer_heartbeat(
    conn: &mut AnyConnection,
    machine: &Machine,
    body: &HeartbeatRequest,
    until: Micros,
    now: Micros,
) -> DbResult<HeartbeatAnswer> {
    fleet::heartbeat(conn, machine, &body.hardware, now)?;
    jobs::clear(
        conn,
        AlertKind::Machine,
        &format!("{}: heartbeat", machine.name),
    )?;
    note_offer(conn, machine, body, now)?;
    sealing::copies_seen(conn, machine.id, &body.stored, now)?;
    let leases = sealing::leases_of(conn, machine.id, &body.running, until)?;
    Ok(HeartbeatAnswer {
        drop: sealing::not_needed(conn, machine.id, &body.stored, now)?,
        now,
        ..leases
    })
}

/// Records the address from which the machine offers its files, and raises an alert if it is not
/// the enrolled one.
fn note_offer(
    conn: &mut AnyConnection,
    machine: &Machine,
    body: &HeartbeatRequest,
    now: Micros,
) -> DbResult<()> {
    let offer = Offer {
        files_url: body.files_url.as_deref(),
        keeps: body.keeps,
    };
    let moved = format!("{}: files", machine.name);
    if fleet::offer(conn, machine, offer)? {
        jobs::clear(conn, AlertKind::Machine, &moved)?;
    } else {
        let text = format!(
            "machine {} gives {} as its file address, but was enrolled with {}: no machine \
             fetches from there. If it moved, give it a new key",
            machine.name,
            body.files_url.as_deref().unwrap_or_default(),
            machine.files_host.as_deref().unwrap_or_default()
        );
        jobs::raise(conn, AlertKind::Machine, &moved, &text, now)?;
    }
    Ok(())
}

/// The task that a report is about. Its kind determines how long the report may be.
#[derive(Deserialize)]
struct About {
    task: Option<i64>,
}

/// Bytes of the longest report that this machine may send about a task.
async fn longest_report(
    app: &Shared,
    machine: &Machine,
    task: Option<TaskId>,
) -> Result<usize, DbFault> {
    let id = machine.id;
    let kind = app
        .lane
        .read(move |conn| task.map_or(Ok(None), |task| sealing::leased_kind(conn, task, id)))
        .await?;
    Ok(kind.map_or(0, sealing::longest_report).max(LARGEST_BODY))
}

async fn report(
    app: web::Data<App>,
    request: HttpRequest,
    about: web::Query<About>,
    body: web::Payload,
) -> HttpResponse {
    let app: Shared = app.into_inner();
    let machine = match machine(&app, &request).await {
        Ok(machine) => machine,
        Err(answer) => return answer,
    };
    let most = match longest_report(&app, &machine, about.task.map(TaskId)).await {
        Ok(most) => most,
        Err(fault) => return try_again_as(&machine.name, &fault),
    };
    let mut body: ReportRequest = match json(&app, body, most).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    if let Err(nonsense) = check::report(&mut body) {
        return set_aside(&app, &machine, "report", &nonsense).await;
    }
    let now = app.now();
    if let Outcome::Failed { level, reason } = &body.outcome {
        tracing::warn!(
            machine = machine.name,
            task = body.task,
            level = level.name(),
            reason,
            "a step failed"
        );
    }
    match app
        .lane
        .transact(move |conn| sealing::report(conn, machine.id, &body, now))
        .await
    {
        Ok(accepted) => HttpResponse::Ok().json(ReportAnswer { accepted }),
        Err(fault) => try_again_as(&machine.name, &fault),
    }
}
