//! The agents' door: enrol, heartbeat, report. JSON with a closed list of error codes.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, http::header, web};
use sealyard_core::{
    clock::SECOND,
    fleet::{
        self, EnrolError, Machine,
        protocol::{EnrolRequest, ErrorAnswer, ErrorCode, HeartbeatRequest, ReportAnswer, ReportRequest},
    },
    sealing::{self, ReportError},
    store::DbFault,
};

use crate::app::{App, Shared, read, transact};

/// C1's output of a large sector is tens of megabytes.
const LARGEST_BODY: usize = 256 << 20;

pub fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::scope("/agent/v1")
            .app_data(web::JsonConfig::default().limit(LARGEST_BODY).error_handler(|error, _| {
                let answer = refuse(StatusCode::BAD_REQUEST, ErrorCode::BadRequest, error.to_string());
                actix_web::error::InternalError::from_response(error, answer).into()
            }))
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

async fn enrol(app: web::Data<App>, body: web::Json<EnrolRequest>) -> HttpResponse {
    let (app, body): (Shared, EnrolRequest) = (app.into_inner(), body.into_inner());
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

async fn heartbeat(app: web::Data<App>, request: HttpRequest, body: web::Json<HeartbeatRequest>) -> HttpResponse {
    let (app, body): (Shared, HeartbeatRequest) = (app.into_inner(), body.into_inner());
    let machine = match machine(&app, &request).await {
        Ok(machine) => machine,
        Err(answer) => return answer,
    };
    let now = app.now();
    let until = now + app.config.lease_s * SECOND;
    let done = transact(&app, move |conn| {
        fleet::heartbeat(conn, &machine, &body.hardware, now)?;
        Ok::<_, DbFault>(sealing::leases_of(conn, machine.id, &body.running, until)?)
    });
    match done.await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(fault) => try_again(&fault),
    }
}

async fn report(app: web::Data<App>, request: HttpRequest, body: web::Json<ReportRequest>) -> HttpResponse {
    let (app, body): (Shared, ReportRequest) = (app.into_inner(), body.into_inner());
    let machine = match machine(&app, &request).await {
        Ok(machine) => machine,
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
