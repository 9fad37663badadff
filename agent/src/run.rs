//! The machine's loop: send a heartbeat, start leased steps, report ended ones. It waits for a
//! server that is down.

use std::{
    collections::HashMap,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use sealyard_core::fleet::protocol::{
    EnrolRequest, FailureLevel, HeartbeatRequest, Lease, Outcome, ReportRequest, Running, StoredSector, Usage,
};

use crate::{
    RunOptions,
    client::House,
    files::{self, Shown},
    hardware,
    runner::{Step, is_transfer, wants_disk},
    work_dir::{Key, WorkDir},
};

struct Agent {
    options: RunOptions,
    work: WorkDir,
    house: House,
    steps: HashMap<i64, Step>,
    /// Steps that found the disk full or could not start, and when to try them again. Their leases
    /// are kept.
    waiting: HashMap<i64, (Lease, Instant)>,
    /// Results that could not be written to disk; they are delivered from memory.
    unwritten: Vec<ReportRequest>,
    /// Results that the server, or a proxy in front of it, does not accept: the reason, and when to
    /// try again. Their leases are kept.
    refused: HashMap<(i64, i64), (String, Instant)>,
    /// Stored sectors still to be reported, and when to list them again.
    untold: Vec<StoredSector>,
    inventory: Instant,
    /// The files that other machines may read here, and the URL of this file server.
    shown: Option<(Arc<Shown>, String)>,
    /// Files of an abandoned transfer may be left on disk.
    untidy: bool,
}

const REFUSED_PAUSE: Duration = Duration::from_secs(60);
const INVENTORY_PAUSE: Duration = Duration::from_secs(1800);
/// While other machines fetch from here, the sectors that they fetched are soon no longer needed.
const INVENTORY_PAUSE_WHILE_READ: Duration = Duration::from_secs(60);
const READ_LATELY: Duration = Duration::from_secs(600);
/// Most stored sectors that one heartbeat reports.
const TOLD_AT_ONCE: usize = 2000;
const DISK_PAUSE: Duration = Duration::from_secs(30);

pub async fn run(options: RunOptions) -> Result<()> {
    if options.with_parent {
        crate::step::end_with_parent();
    }
    let work = WorkDir::open(&options.dir)?;
    let _only_one = work.lock()?;
    if !options.storage {
        check_parameters(&options.parameters_dir)?;
    }
    let key = match work.key()?.filter(|_| !options.renew_key) {
        Some(key) => key,
        None => enrol(&options, &work).await?,
    };
    tracing::info!(machine = %key.machine, house = %options.url, "working");
    let house = House::new(&options.url, &key.key)?;
    let shown = show_files(&options, &work, &key)?;
    let (steps, waiting, refused) = (HashMap::new(), HashMap::new(), HashMap::new());
    let mut agent = Agent {
        options,
        work,
        house,
        steps,
        waiting,
        unwritten: Vec::new(),
        refused,
        untold: Vec::new(),
        inventory: Instant::now(),
        shown,
        untidy: true,
    };
    agent.empty();
    let heartbeat = Duration::from_millis(agent.options.heartbeat_ms);
    let mut wait = heartbeat;
    loop {
        tokio::select! {
            done = agent.turn() => match done {
                Ok(true) => { wait = Duration::ZERO; }
                Ok(false) => wait = heartbeat,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "will try again");
                    wait = (wait.max(heartbeat) * 2).min(Duration::from_secs(30));
                }
            },
            _ = tokio::signal::ctrl_c() => return Ok(()),
        }
        agent.doze(wait).await;
    }
}

/// Starts the file server if this machine offers one. Returns it with the URL for other machines.
fn show_files(options: &RunOptions, work: &WorkDir, key: &Key) -> Result<Option<(Arc<Shown>, String)>> {
    let Some(listen) = options.files_listen else { return Ok(None) };
    let (shown, at) = files::serve(listen, work.store(), key.key.clone())?;
    let url = match &options.files_url {
        Some(url) => url.clone(),
        None if at.ip().is_unspecified() => {
            bail!("say how other machines reach {at}: --files-url http://<this machine>:{}", at.port())
        }
        None => format!("http://{at}"),
    };
    tracing::info!(%url, "serving sectors' files to the fleet's machines");
    Ok(Some((shown, url)))
}

/// Without parameters every proof would fail at once, and the sectors would be blamed.
fn check_parameters(dir: &Path) -> Result<()> {
    let is_parameters = |entry: std::fs::DirEntry| entry.path().extension().is_some_and(|extension| extension == "params");
    let found = std::fs::read_dir(dir).is_ok_and(|entries| entries.filter_map(Result::ok).any(is_parameters));
    if !found {
        bail!(
            "{} holds no proof parameters; put the official ones there (`lotus fetch-params`), or for a devnet make them with \
             `sealyard parameters {}`",
            dir.display(),
            dir.display()
        );
    }
    Ok(())
}

/// The token from the option or from the named file.
fn token(options: &RunOptions) -> Result<String> {
    if let Some(path) = &options.token_file {
        let text = std::fs::read_to_string(path).with_context(|| format!("reading the token from {}", path.display()))?;
        return Ok(text.trim().to_owned());
    }
    options
        .token
        .clone()
        .context("this machine is new: give it the enrolment token that an administrator made (--token or --token-file)")
}

async fn enrol(options: &RunOptions, work: &WorkDir) -> Result<Key> {
    let token = token(options)?;
    let hardware = hardware::read(work.root(), options.offered());
    let house = House::new(&options.url, "")?;
    let request = EnrolRequest { token, hardware };
    let mut wait = Duration::from_millis(200);
    let answer = loop {
        match house.enrol(&request).await {
            Ok(answer) => break answer,
            // Retry only if the server cannot be reached; a refused token stays refused.
            Err(error) if error.downcast_ref::<reqwest::Error>().is_some() => {
                tracing::warn!(error = format!("{error:#}"), "will try again");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(Duration::from_secs(30));
            }
            Err(error) => return Err(error),
        }
    };
    let key = Key { machine: answer.machine, key: answer.key };
    work.save_key(&key)?;
    Ok(key)
}

impl Agent {
    /// Waits for `wait`, or until a step ends if that is sooner.
    async fn doze(&mut self, wait: Duration) {
        const LOOK: Duration = Duration::from_millis(20);
        let timeout = Duration::from_secs(self.options.step_timeout_s);
        let end = tokio::time::Instant::now() + wait;
        while tokio::time::Instant::now() < end {
            tokio::time::sleep(LOOK.min(wait)).await;
            if self.collect(timeout).is_ok_and(|ended| ended) {
                return;
            }
        }
    }

    /// One exchange with the server. True if a result was delivered: the next lease is then
    /// requested at once.
    async fn turn(&mut self) -> Result<bool> {
        self.collect(Duration::from_secs(self.options.step_timeout_s))?;
        let delivered = self.deliver().await?;
        let hardware = hardware::read(self.work.root(), self.options.offered());
        let mut running: Vec<Running> = self.steps.values().map(Step::running).collect();
        running.extend(self.waiting.values().map(|(lease, _)| Running {
            task: lease.task,
            fence: lease.fence,
            progress: format!("{} waits for disk space, see the agent's log", lease.kind),
        }));
        running.extend(self.refused.iter().map(|((task, fence), (why, _))| Running {
            task: *task,
            fence: *fence,
            progress: format!("the server does not accept its result: {why}"),
        }));
        if self.inventory <= Instant::now() && self.untold.is_empty() {
            self.untold = self.work.stored().unwrap_or_else(|error| {
                tracing::warn!(error = format!("{error:#}"), "the stored sectors cannot be listed");
                Vec::new()
            });
            self.inventory = Instant::now() + INVENTORY_PAUSE;
        }
        if self.is_read() {
            self.inventory = self.inventory.min(Instant::now() + INVENTORY_PAUSE_WHILE_READ);
        }
        let untold = self.untold.len().saturating_sub(TOLD_AT_ONCE);
        let stored = self.untold.get(untold..).unwrap_or_default().to_vec();
        let files_url = self.shown.as_ref().map(|(_, url)| url.clone());
        let request = HeartbeatRequest { hardware, running, stored: stored.clone(), files_url, keeps: self.options.storage };
        let answer = self.house.heartbeat(&request).await?;
        if let Some((shown, _)) = self.shown.as_ref().filter(|_| answer.now > 0) {
            shown.set_time(answer.now);
        }
        self.untold.truncate(untold);
        for task in answer.stop {
            self.waiting.remove(&task);
            self.forget_refused(task);
            if let Some(step) = self.steps.remove(&task) {
                tracing::info!(task, "stopped: this machine no longer has the lease");
                step.stop().await;
                self.untidy = true;
            }
        }
        let over: Vec<StoredSector> =
            answer.drop.into_iter().filter(|sector| stored.contains(sector) && !self.works_on(sector)).collect();
        self.tidy(&over);
        for lease in answer.leases {
            self.start(&lease).await;
        }
        let again: Vec<Lease> =
            self.waiting.values().filter(|(_, when)| *when <= Instant::now()).map(|(lease, _)| lease.clone()).collect();
        for lease in again {
            self.waiting.remove(&lease.task);
            self.start(&lease).await;
        }
        self.forget_incoming();
        Ok(delivered)
    }

    /// Whether another machine has fetched from here lately.
    fn is_read(&self) -> bool {
        let read_at = self.shown.as_ref().and_then(|(shown, _)| shown.read_at());
        read_at.is_some_and(|at| at.elapsed() < READ_LATELY)
    }

    /// Deletes the files of transfers that are no longer running or waiting here.
    fn forget_incoming(&mut self) {
        if !std::mem::take(&mut self.untidy) {
            return;
        }
        let going_on: Vec<i64> = self.steps.keys().chain(self.waiting.keys()).copied().collect();
        if let Err(error) = self.work.forget_incoming(&going_on) {
            tracing::warn!(error = format!("{error:#}"), "the files of an abandoned transfer cannot be deleted");
            self.untidy = true;
        }
        self.empty();
    }

    /// Whether a step that runs or waits here is about this sector.
    fn works_on(&self, sector: &StoredSector) -> bool {
        let leases = self.steps.values().map(|step| &step.lease).chain(self.waiting.values().map(|(lease, _)| lease));
        leases.into_iter().any(|lease| serde_json::from_str::<StoredSector>(lease.input.get()).is_ok_and(|of| of == *sector))
    }

    /// Deletes sectors that are no longer needed. A failure is logged and retried with the next
    /// inventory.
    fn tidy(&self, over: &[StoredSector]) {
        for sector in over {
            match self.work.drop_sector(sector) {
                Ok(()) => tracing::info!(miner = sector.miner, sector = sector.number, "a sector's files are no longer needed"),
                Err(error) => tracing::warn!(error = format!("{error:#}"), "a sector's files cannot be removed"),
            }
        }
        if !over.is_empty() {
            self.empty();
        }
    }

    /// Deletes removed files in the background, so that heartbeats do not wait.
    fn empty(&self) {
        let work = self.work.clone();
        drop(tokio::task::spawn_blocking(move || {
            if let Err(error) = work.empty() {
                tracing::warn!(error = format!("{error:#}"), "removed files cannot be deleted");
            }
        }));
    }

    /// Starts a step. One that cannot start, because its folder cannot be written, waits while the
    /// others go on.
    async fn start(&mut self, lease: &Lease) {
        if let Some(old) = self.steps.remove(&lease.task) {
            old.stop().await;
        }
        tracing::info!(task = lease.task, fence = lease.fence, kind = %lease.kind, "starting");
        match Step::start(&self.work, &self.options.parameters_dir, lease) {
            Ok(step) => drop(self.steps.insert(lease.task, step)),
            Err(error) => {
                if is_transfer(lease) {
                    // Another machine may have the space that it takes.
                    let outcome = Outcome::Failed { level: FailureLevel::Temporary, reason: format!("{error:#}") };
                    let Lease { task, fence, .. } = *lease;
                    return self.unwritten.push(ReportRequest { task, fence, outcome, usage: Usage::default() });
                }
                tracing::warn!(task = lease.task, error = format!("{error:#}"), "the step cannot start yet; it waits");
                self.waiting.insert(lease.task, (lease.clone(), Instant::now() + DISK_PAUSE));
            }
        }
    }

    /// Stores the results of ended steps. True if any step ended.
    fn collect(&mut self, timeout: Duration) -> Result<bool> {
        let mut ended = Vec::new();
        for step in self.steps.values_mut() {
            if let Some(report) = step.poll(timeout)? {
                if let Outcome::Failed { level, reason } = &report.outcome {
                    tracing::warn!(task = report.task, level = level.name(), reason, "a step failed");
                }
                let done = matches!(report.outcome, Outcome::Done { .. });
                tracing::info!(task = report.task, done, ms = report.usage.wall_ms, "ended");
                ended.push(report);
            }
        }
        for report in &ended {
            let step = self.steps.remove(&report.task);
            match step {
                Some(step) if wants_disk(&step.lease, report) => {
                    tracing::warn!(task = report.task, "the disk is full; the step waits for space");
                    self.waiting.insert(report.task, (step.lease.clone(), Instant::now() + DISK_PAUSE));
                }
                _ => {
                    // The transfer may have left files behind, or replaced older ones.
                    self.untidy |= step.is_some_and(|step| is_transfer(&step.lease));
                    if let Err(error) = self.work.keep(report) {
                        tracing::warn!(
                            task = report.task,
                            error = format!("{error:#}"),
                            "the result cannot be stored; it is delivered from memory"
                        );
                        self.unwritten.push(report.clone());
                    }
                }
            }
        }
        Ok(!ended.is_empty())
    }

    /// Results that the server does not have yet.
    fn results(&self) -> Vec<ReportRequest> {
        let mut reports = self.work.undelivered();
        reports.extend_from_slice(&self.unwritten);
        reports
    }

    async fn deliver(&mut self) -> Result<bool> {
        let reports = self.results();
        let mut delivered = false;
        for report in &reports {
            let id = (report.task, report.fence);
            if self.refused.get(&id).is_some_and(|(_, when)| Instant::now() < *when) {
                continue;
            }
            match self.house.report(report).await {
                Ok(answer) => {
                    if !answer.accepted {
                        tracing::warn!(task = report.task, fence = report.fence, "the result came too late and was not used");
                    }
                    self.drop_result(report);
                    delivered = true;
                }
                // A server that cannot be reached accepts no other report either. A connection that
                // closes in the middle of a report is another matter: a proxy may find this report
                // too long.
                Err(error) if error.downcast_ref::<reqwest::Error>().is_some_and(reqwest::Error::is_connect) => {
                    return Err(error);
                }
                // The other results are still delivered, and heartbeats go on.
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::error!(task = report.task, why, "the server does not accept the result; it is kept");
                    self.refused.insert(id, (why, Instant::now() + REFUSED_PAUSE));
                }
            }
        }
        Ok(delivered)
    }

    fn drop_result(&mut self, report: &ReportRequest) {
        let id = (report.task, report.fence);
        self.work.delivered(report);
        self.unwritten.retain(|kept| (kept.task, kept.fence) != id);
        self.refused.remove(&id);
    }

    /// Drops a refused result once this machine has lost its lease: nobody wants it any more.
    fn forget_refused(&mut self, task: i64) {
        let mut reports = self.results();
        reports.retain(|report| report.task == task && self.refused.contains_key(&(task, report.fence)));
        reports.iter().for_each(|report| self.drop_result(report));
    }
}
