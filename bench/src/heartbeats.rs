//! Measures whether greedy visitors delay the machines' heartbeats.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use futures_util::future::join_all;
use sealyard_core::{
    clock::{Clock, DAY, SystemClock},
    fleet::{
        self,
        protocol::{Hardware, HeartbeatRequest},
    },
};
use tokio::{runtime::Runtime, task::JoinHandle};

use crate::HeartbeatOptions;
use sealyard::{app, config::Config, demo, serve};

/// A server with one machine, and the machine's key.
fn open(options: &HeartbeatOptions) -> anyhow::Result<(app::Shared, String)> {
    let config = Config {
        database_url: options.database.clone(),
        session_secret: "a bench has no sessions worth keeping".into(),
        ..Config::default()
    };
    let app = app::App::new(config, Arc::new(SystemClock))?;
    app.db.migrate()?;
    demo::seed(&app)?;
    let now = SystemClock.now();
    let key = app.db.write(|conn| {
        let token = fleet::new_token(conn, "bench", now, now + DAY)?;
        let enrolled = fleet::enrol(conn, &token, &hardware(), now);
        Ok(enrolled.map(|answer| answer.key).ok())
    })?;
    Ok((app, key.context("the machine was not enrolled")?))
}

fn hardware() -> Hardware {
    Hardware {
        cores: 8,
        memory_bytes: 32 << 30,
        disk_bytes: 1 << 40,
        disk_free_bytes: 1 << 39,
        gpus: Vec::new(),
        description: "bench".into(),
    }
}

/// Durations of heartbeats, ascending.
async fn beat(
    http: &reqwest::Client,
    url: &str,
    key: &str,
    times: u32,
) -> anyhow::Result<Vec<Duration>> {
    let body = HeartbeatRequest {
        hardware: hardware(),
        running: Vec::new(),
        stored: Vec::new(),
        files_url: None,
        keeps: false,
    };
    let mut took = Vec::new();
    for _ in 0..times {
        let began = Instant::now();
        let answer = http
            .post(format!("{url}/agent/v1/heartbeat"))
            .bearer_auth(key)
            .json(&body)
            .send()
            .await?;
        ensure!(
            answer.status().is_success(),
            "a heartbeat was answered {}",
            answer.status()
        );
        took.push(began.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    took.sort_unstable();
    Ok(took)
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted
        .get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

/// Connections that request the front page again and again without a pause.
struct Visitors {
    is_over: Arc<AtomicBool>,
    /// Pages that they saw.
    pages: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<()>>,
}

impl Visitors {
    fn send(on: &Runtime, number: u32, url: &str) -> anyhow::Result<Self> {
        let mut visitors = Self {
            is_over: Arc::new(AtomicBool::new(false)),
            pages: Arc::new(AtomicU64::new(0)),
            tasks: Vec::new(),
        };
        for _ in 0..number {
            let url = format!("{url}/");
            let (is_over, pages) = (Arc::clone(&visitors.is_over), Arc::clone(&visitors.pages));
            let http = sealyard_filecoin::http::client(Duration::from_secs(30))?;
            visitors.tasks.push(on.spawn(async move {
                while !is_over.load(Ordering::Relaxed) {
                    let page = http.get(&url).send().await;
                    pages.fetch_add(
                        u64::from(page.is_ok_and(|page| page.status().is_success())),
                        Ordering::Relaxed,
                    );
                }
            }));
        }
        Ok(visitors)
    }

    /// Ends the visits. Returns the number of pages seen.
    async fn dismiss(self) -> u64 {
        self.is_over.store(true, Ordering::Relaxed);
        join_all(self.tasks).await;
        self.pages.load(Ordering::Relaxed)
    }
}

/// Measures heartbeats without visitors, then while `greedy` connections request the front page
/// without a pause.
pub fn run(options: &HeartbeatOptions) -> anyhow::Result<()> {
    let (app, key) = open(options)?;
    // Separate runtimes, so that neither client waits for the other: in reality they are on
    // different computers.
    let runtime = || {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
    };
    let (server, visiting) = (runtime()?, runtime()?);
    let machine = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let url = format!("http://{}", listener.local_addr()?);
    let serving = server.enter();
    server.spawn(serve::start(app, listener)?);
    drop(serving);
    machine.block_on(async {
        let http = sealyard_filecoin::http::client(Duration::from_secs(30))?;
        beat(&http, &url, &key, 50).await?;
        let idle = beat(&http, &url, &key, options.times).await?;
        let visitors = Visitors::send(&visiting, options.greedy, &url)?;
        let busy = beat(&http, &url, &key, options.times).await?;
        let pages = visitors.dismiss().await;
        ensure!(
            pages > u64::from(options.greedy),
            "the visitors saw {pages} pages: nothing was measured"
        );
        report(&idle, &busy);
        println!(
            "{} greedy connections saw {pages} pages; p99 is {:.2} times the idle one",
            options.greedy,
            percentile(&busy, 99).as_secs_f64() / percentile(&idle, 99).as_secs_f64()
        );
        Ok(())
    })
}

fn report(idle: &[Duration], busy: &[Duration]) {
    for (name, took) in [("idle", idle), ("busy", busy)] {
        println!(
            "{name}: p50 {:.1?}, p99 {:.1?}, longest {:.1?}",
            percentile(took, 50),
            percentile(took, 99),
            percentile(took, 100)
        );
    }
}
