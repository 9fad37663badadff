//! Serves sectors' files to other machines that have a pass from the server.

use std::{
    collections::VecDeque,
    fs,
    net::{SocketAddr, TcpListener},
    path::{Component, Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::Instant,
};

use actix_files::NamedFile;
use actix_web::{App, HttpRequest, HttpResponse, HttpServer, Responder, http::header, web};
use anyhow::{Context, Result};
use sealyard_core::{
    clock::{Clock, Micros, SystemClock},
    fleet::{
        Pass,
        protocol::{StoredFile, StoredSector},
    },
};
use sealyard_filecoin::proofs;

/// The files that a machine serves, and when another machine last read here.
pub struct Shown {
    store: PathBuf,
    key: String,
    read_at: Mutex<Option<Instant>>,
    /// Microseconds by which the server's clock is ahead of this machine's.
    ahead: AtomicI64,
}

impl Shown {
    pub fn read_at(&self) -> Option<Instant> {
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the time that the server has just reported.
    pub fn set_time(&self, now: Micros) {
        self.ahead
            .store(now.saturating_sub(SystemClock.now()), Ordering::Relaxed);
    }

    fn folder(&self, request: &HttpRequest, sector: StoredSector) -> Option<PathBuf> {
        let pass = request
            .headers()
            .get(header::AUTHORIZATION)?
            .to_str()
            .ok()?
            .strip_prefix("Bearer ")?;
        let now = SystemClock
            .now()
            .saturating_add(self.ahead.load(Ordering::Relaxed));
        Pass::read(pass, sector, &self.key, now)?;
        *self.read_at.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        Some(
            self.store
                .join(proofs::folder_name(sector.miner, sector.number)),
        )
    }
}

/// Starts serving in the background. Returns the address.
pub fn serve(listen: SocketAddr, store: PathBuf, key: String) -> Result<(Arc<Shown>, SocketAddr)> {
    let shown = Arc::new(Shown {
        store,
        key,
        read_at: Mutex::default(),
        ahead: AtomicI64::new(0),
    });
    let listener = TcpListener::bind(listen)
        .with_context(|| format!("cannot listen on {listen}; choose another --files-listen"))?;
    let at = listener.local_addr()?;
    let data = web::Data::from(shown.clone());
    let app = move || {
        App::new()
            .app_data(data.clone())
            .route("/files/v1/{miner}/{number}", web::get().to(list))
            .route("/files/v1/{miner}/{number}/{path:.+}", web::get().to(file))
    };
    let server = HttpServer::new(app)
        .workers(2)
        .disable_signals()
        .listen(listener)?
        .run();
    tokio::spawn(async move {
        if let Err(error) = server.await {
            tracing::error!(error = %error, "the file server has stopped");
        }
    });
    Ok((shown, at))
}

fn refused() -> HttpResponse {
    HttpResponse::Forbidden().body("this pass is not valid for this sector")
}

async fn list(
    shown: web::Data<Shown>,
    request: HttpRequest,
    path: web::Path<(u64, u64)>,
) -> HttpResponse {
    let (miner, number) = path.into_inner();
    let Some(folder) = shown.folder(&request, StoredSector { miner, number }) else {
        return refused();
    };
    match web::block(move || files_in(&folder)).await {
        Ok(Ok(files)) if !files.is_empty() => HttpResponse::Ok().json(files),
        Ok(Ok(_)) => HttpResponse::NotFound().body("that sector has no files here"),
        Ok(Err(error)) => HttpResponse::InternalServerError().body(format!("{error:#}")),
        Err(error) => HttpResponse::InternalServerError().body(error.to_string()),
    }
}

async fn file(
    shown: web::Data<Shown>,
    request: HttpRequest,
    path: web::Path<(u64, u64, String)>,
) -> HttpResponse {
    let (miner, number, path) = path.into_inner();
    let Some(folder) = shown.folder(&request, StoredSector { miner, number }) else {
        return refused();
    };
    let Some(below) = inside(&path) else {
        return refused();
    };
    match NamedFile::open(folder.join(below)) {
        Ok(file) => file
            .use_etag(false)
            .use_last_modified(false)
            .respond_to(&request),
        Err(error) => HttpResponse::NotFound().body(format!("{path}: {error}")),
    }
}

/// The path, if it stays below the folder that it is joined to.
pub fn inside(path: &str) -> Option<&Path> {
    let path = Path::new(path);
    let stays = path
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    (stays && path.components().next().is_some()).then_some(path)
}

/// Files of a sector, in all folders below its own. Empty if there is no such sector.
fn files_in(folder: &Path) -> Result<Vec<StoredFile>> {
    let mut files = Vec::new();
    let mut folders = VecDeque::from([folder.to_owned()]);
    while let Some(next) = folders.pop_front() {
        let entries = match fs::read_dir(&next) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            entries => entries.with_context(|| format!("reading {}", next.display()))?,
        };
        for entry in entries {
            let entry = entry?;
            let path = entry.path();
            let metadata = fs::metadata(&path)?;
            if metadata.is_dir() {
                folders.push_back(path);
                continue;
            }
            let below = path
                .strip_prefix(folder)?
                .to_str()
                .context("a file's name is not text")?
                .to_owned();
            files.push(StoredFile {
                path: below,
                bytes: metadata.len(),
            });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(files)
}
