//! The agents' door: enrol, heartbeat, report. JSON with a closed list of error codes.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use sealyard_core::{
    clock::SECOND,
    fleet::{
        self, EnrolError, Machine, Offer,
        protocol::{EnrolRequest, ErrorAnswer, ErrorCode, HeartbeatAnswer, HeartbeatRequest, ReportAnswer, ReportRequest},
    },
    sealing::{self, ReportError},
    store::DbFault,
};
use serde::de::DeserializeOwned;

use crate::app::{App, Shared, read, transact};

/// C1's output of a large sector is tens of megabytes. Only machines that we know may send so much.
const LARGEST_REPORT: usize = 256 << 20;
const LARGEST_BODY: usize = 256 << 10;

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
    tracing::error!(%error, "agent request failed");
    refuse(StatusCode::SERVICE_UNAVAILABLE, ErrorCode::TryAgain, "the house cannot answer right now; try again".into())
}

/// Reads the body, when it is known who sends it. Never decompressed: a small body cannot become a large one.
async fn json<T: DeserializeOwned + Send + 'static>(body: web::Payload, most: usize) -> Result<T, HttpResponse> {
    let bad = |error: String| refuse(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, error);
    let bytes = match body.to_bytes_limited(most).await {
        Ok(Ok(bytes)) => bytes,
        Ok(Err(error)) => return Err(bad(error.to_string())),
        Err(_) => return Err(bad(format!("the body is longer than {most} bytes"))),
    };
    let parsed = web::block(move || serde_json::from_slice(&bytes)).await.map_err(|error| try_again(&error))?;
    parsed.map_err(|error| bad(error.to_string()))
}

async fn enrol(app: web::Data<App>, body: web::Payload) -> HttpResponse {
    let app: Shared = app.into_inner();
    let body: EnrolRequest = match json(body, LARGEST_BODY).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let now = app.now();
    match transact(&app, move |conn| fleet::enrol(conn, &body.token, &body.hardware, now)).await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(EnrolError::Db(fault)) => try_again(&fault),
        Err(error) => {
            let code = match error {
                EnrolError::TokenUsed => ErrorCode::TokenUsed,
                EnrolError::TokenExpired => ErrorCode::TokenExpired,
                _ => ErrorCode::UnknownToken,
            };
            refuse(StatusCode::FORBIDDEN, code, error.to_string())
        }
    }
}

async fn machine(app: &Shared, request: &HttpRequest) -> Result<Machine, HttpResponse> {
    let key = request.headers().get(header::AUTHORIZATION).and_then(|h| h.to_str().ok()).and_then(|h| h.strip_prefix("Bearer "));
    let unknown =
        || refuse(StatusCode::UNAUTHORIZED, ErrorCode::UnknownMachine, "this machine's key is not known; enrol it again".into());
    let key = key.ok_or_else(unknown)?.to_owned();
    let found = read(app, move |conn| fleet::by_key(conn, &key)).await.map_err(|fault| try_again(&fault))?;
    found.ok_or_else(unknown)
}

/// Which machine asks, and what.
async fn asked<T: DeserializeOwned + Send + 'static>(
    app: &Shared,
    request: &HttpRequest,
    (body, most): (web::Payload, usize),
) -> Result<(Machine, T), HttpResponse> {
    let machine = machine(app, request).await?;
    Ok((machine, json(body, most).await?))
}

async fn heartbeat(app: web::Data<App>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let app: Shared = app.into_inner();
    let (machine, body): (Machine, HeartbeatRequest) = match asked(&app, &request, (body, LARGEST_BODY)).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let now = app.now();
    let until = now + app.config.lease_s * SECOND;
    let done = transact(&app, move |conn| {
        fleet::heartbeat(conn, &machine, &body.hardware, now)?;
        let offer = Offer { files_url: body.files_url.as_deref(), keeps: body.keeps };
        fleet::offer(conn, &machine, offer)?;
        sealing::copies_seen(conn, machine.id, &body.stored, now)?;
        let leases = sealing::leases_of(conn, machine.id, &body.running, until)?;
        Ok::<_, DbFault>(HeartbeatAnswer { drop: sealing::not_needed(conn, machine.id, &body.stored, now)?, now, ..leases })
    });
    match done.await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(fault) => try_again(&fault),
    }
}

async fn report(app: web::Data<App>, request: HttpRequest, body: web::Payload) -> HttpResponse {
    let app: Shared = app.into_inner();
    let (machine, body): (Machine, ReportRequest) = match asked(&app, &request, (body, LARGEST_REPORT)).await {
        Ok(asked) => asked,
        Err(answer) => return answer,
    };
    let now = app.now();
    match transact(&app, move |conn| sealing::report(conn, machine.id, &body, now)).await {
        Ok(accepted) => HttpResponse::Ok().json(ReportAnswer { accepted }),
        Err(ReportError::Output { kind, reason }) => {
            refuse(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, format!("{kind}: {reason}"))
        }
        Err(ReportError::Db(fault)) => try_again(&fault),
    }
}
