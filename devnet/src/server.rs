//! The HTTP server: loopback only, bearer tokens, one chain behind a lock.

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use actix_web::{
    App, HttpRequest, HttpResponse, HttpServer,
    dev::{Server, ServerHandle},
    http::header,
    web,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    config::{Clock, Config, ConfigError},
    rpc::{Permission, Request, answer},
    state::Chain,
};

#[derive(Debug, thiserror::Error)]
pub enum DevnetError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error("the devnet listens on loopback only; {0} is not a loopback address")]
    NotLoopback(SocketAddr),
    #[error("cannot listen on {address}: {source}")]
    Listen {
        address: SocketAddr,
        source: std::io::Error,
    },
    #[error("cannot open the chain in {dir}: {reason}")]
    Chain { dir: String, reason: String },
    #[error("cannot make the access token: {0}")]
    Token(#[from] jsonwebtoken::errors::Error),
}

/// Connection data for clients, printed as one JSON line by `sealyard devnet`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Ready {
    pub url: String,
    pub token: String,
    pub miner: String,
}

/// A running devnet. It stops on request or when the process ends.
pub struct Devnet {
    pub ready: Ready,
    handle: ServerHandle,
}

#[derive(Serialize, Deserialize)]
struct Claims {
    #[serde(rename = "Allow")]
    allow: Vec<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    exp: Option<i64>,
}

struct Shared {
    chain: Mutex<Chain>,
    secret: Vec<u8>,
}

impl Devnet {
    /// Opens or creates the chain in `data_dir` and serves it. Must be called inside an actix or
    /// tokio runtime.
    pub async fn start(
        listen: SocketAddr,
        data_dir: &Path,
        config: Config,
    ) -> Result<Self, DevnetError> {
        config.check()?;
        if !listen.ip().is_loopback() {
            return Err(DevnetError::NotLoopback(listen));
        }
        let (dir, shown) = (data_dir.to_owned(), data_dir.display().to_string());
        let chain = tokio::task::spawn_blocking(move || Chain::open(&dir, config))
            .await
            .map_err(|error| error.to_string())
            .and_then(|opened| opened.map_err(|error| format!("{error:#}")))
            .map_err(|reason| DevnetError::Chain { dir: shown, reason })?;
        let clock = chain.config.clock;
        let miner = format!("f0{}", chain.config.miner_id);
        let secret = chain.world.token_secret.clone().into_bytes();
        let token = token(&secret, &["read", "write", "sign", "admin"], None)?;
        let shared = Arc::new(Shared {
            chain: Mutex::new(chain),
            secret,
        });

        let (address, server) = serve(listen, Arc::clone(&shared))?;
        let handle = server.handle();
        tokio::spawn(server);
        if let Clock::Ticking { milliseconds } = clock {
            tokio::spawn(tick(shared, Duration::from_millis(milliseconds)));
        }
        Ok(Self {
            ready: Ready {
                url: format!("http://{address}/rpc/v1"),
                token,
                miner,
            },
            handle,
        })
    }

    pub async fn stop(self) {
        self.handle.stop(true).await;
    }
}

/// A server of the chain at `listen`, still to be run, and the address that it has there.
fn serve(listen: SocketAddr, shared: Arc<Shared>) -> Result<(SocketAddr, Server), DevnetError> {
    let failed =
        |address: SocketAddr| move |source: std::io::Error| DevnetError::Listen { address, source };
    let listener = TcpListener::bind(listen).map_err(failed(listen))?;
    let address = listener.local_addr().map_err(failed(listen))?;
    let data = web::Data::from(shared);
    let server = HttpServer::new(move || {
        App::new()
            .app_data(data.clone())
            .app_data(web::PayloadConfig::new(16 << 20))
            .route("/rpc/v1", web::post().to(rpc))
    })
    .workers(1)
    .disable_signals()
    .shutdown_timeout(1)
    .listen(listener)
    .map_err(failed(address))?
    .run();
    Ok((address, server))
}

/// A token as Lotus issues it: HS256 over the list of permissions. `expires` is in Unix seconds.
fn token(
    secret: &[u8],
    allow: &[&str],
    expires: Option<i64>,
) -> Result<String, jsonwebtoken::errors::Error> {
    let claims = Claims {
        allow: allow.iter().map(|&name| name.to_owned()).collect(),
        exp: expires,
    };
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret),
    )
}

/// `None` if the request has an invalid token. Without a token, reading is allowed.
fn permission(request: &HttpRequest, secret: &[u8]) -> Option<Permission> {
    let Some(sent) = request.headers().get(header::AUTHORIZATION) else {
        return Some(Permission::Read);
    };
    let token = sent.to_str().ok()?.strip_prefix("Bearer ")?;
    let mut validation = Validation::new(Algorithm::HS256);
    validation.required_spec_claims.clear();
    validation.validate_exp = true;
    let data =
        jsonwebtoken::decode::<Claims>(token, &DecodingKey::from_secret(secret), &validation)
            .ok()?;
    Some(Permission::from_claim(&data.claims.allow))
}

async fn rpc(request: HttpRequest, shared: web::Data<Shared>, body: web::Bytes) -> HttpResponse {
    let Some(granted) = permission(&request, &shared.secret) else {
        return HttpResponse::Unauthorized().finish();
    };
    let parsed: Request = match serde_json::from_slice(&body) {
        Ok(parsed) => parsed,
        Err(error) => {
            let message = format!("the body is no JSON-RPC request: {error}");
            let error = json!({"code": -32700, "message": message});
            return HttpResponse::BadRequest()
                .json(json!({"jsonrpc": "2.0", "id": null, "error": error}));
        }
    };
    let shared = shared.into_inner();
    let done = web::block(move || {
        let mut chain = shared.chain.lock().unwrap_or_else(PoisonError::into_inner);
        answer(&mut chain, granted, parsed)
    });
    match done.await {
        Ok(answer) => HttpResponse::Ok().json(answer),
        Err(_) => HttpResponse::InternalServerError().finish(),
    }
}

async fn tick(shared: Arc<Shared>, every: Duration) {
    let mut interval = tokio::time::interval(every);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        let shared = Arc::clone(&shared);
        let stepped = tokio::task::spawn_blocking(move || {
            shared
                .chain
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .step(1, true)
        });
        if let Ok(Err(error)) = stepped.await {
            tracing::error!(error = format!("{error:#}"), "the devnet cannot go on");
            return;
        }
    }
}
