//! The machine's loop: send a heartbeat, start leased steps, report ended ones. It waits for a
//! server that is down.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use sd_notify::NotifyState;
use sealyard_core::fleet::protocol::{
    FailureLevel, HeartbeatRequest, Lease, Outcome, ReportRequest, Running, StoredSector, Usage,
};
use tokio::task::JoinSet;

use crate::{
    RunOptions,
    client::House,
    enrol,
    files::{self, Shown},
    hardware, parameters,
    runner::{Step, is_transfer, wants_disk},
    signals::Signals,
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
/// The exit code after a second signal, as shells count it.
const ENDED_BY_SIGNAL: i32 = 130;

/// Runs until SIGTERM or Ctrl-C. Then it takes no new lease, stops all steps and returns; a second
/// signal ends the process at once.
pub async fn run(options: RunOptions) -> Result<()> {
    let mut signals = Signals::listen()?;
    if options.with_parent {
        crate::step::end_with_parent();
    }
    let work = WorkDir::open(&options.dir)?;
    let _only_one = work.lock()?;
    let mut agent = tokio::select! {
        ready = Agent::ready(options, work) => ready?,
        signal = signals.next() => {
            tracing::info!(signal, "ended before any step ran");
            return Ok(());
        }
    };
    let signal = tokio::select! {
        never = agent.keep_working() => match never {},
        signal = signals.next() => signal,
    };
    tell_systemd(&NotifyState::Stopping);
    tracing::info!(signal, "ending; another signal ends at once");
    tokio::select! {
        stopped = agent.shut_down() => {
            tracing::info!(stopped, "ended");
            Ok(())
        }
        signal = signals.next() => {
            tracing::warn!(signal, "ended at once");
            std::process::exit(ENDED_BY_SIGNAL);
        }
    }
}

/// Without systemd, nothing happens.
fn tell_systemd(state: &NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::warn!(%error, "systemd could not be told the state of this process");
    }
}

/// Starts the file server if this machine offers one. Returns it with the URL for other machines.
fn show_files(
    options: &RunOptions,
    work: &WorkDir,
    key: &Key,
) -> Result<Option<(Arc<Shown>, String)>> {
    let Some(listen) = options.files_listen else {
        return Ok(None);
    };
    let (shown, at) = files::serve(listen, work.store(), key.key.clone())?;
    let url = match &options.files_url {
        Some(url) => url.clone(),
        None if at.ip().is_unspecified() => {
            bail!(
                "say how other machines reach {at}: --files-url http://<this machine>:{}",
                at.port()
            )
        }
        None => format!("http://{at}"),
    };
    tracing::info!(%url, "serving sectors' files to the fleet's machines");
    Ok(Some((shown, url)))
}

impl Agent {
    /// Enrols this machine if it is new, and starts serving files if it offers them.
    async fn ready(options: RunOptions, work: WorkDir) -> Result<Self> {
        if !options.storage {
            parameters::require(&options.parameters())?;
        }
        // Before enrolment, which waits for a server that is down.
        tell_systemd(&NotifyState::Ready);
        let key = match work.key()?.filter(|_| !options.renew_key) {
            Some(key) => key,
            None => enrol::enrol(&options, &work).await?,
        };
        tracing::info!(machine = %key.machine, house = %options.url, "working");
        let house = House::new(&options.url, &key.key)?;
        let shown = show_files(&options, &work, &key)?;
        let (steps, waiting, refused) = (HashMap::new(), HashMap::new(), HashMap::new());
        let agent = Self {
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
        Ok(agent)
    }

    /// Exchanges with the server and dozes, in turn and without end.
    async fn keep_working(&mut self) -> Infallible {
        let heartbeat = Duration::from_millis(self.options.heartbeat_ms);
        let mut wait = heartbeat;
        loop {
            match self.turn().await {
                Ok(true) => wait = Duration::ZERO,
                Ok(false) => wait = heartbeat,
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "will try again");
                    wait = (wait.max(heartbeat) * 2).min(Duration::from_secs(30));
                }
            }
            self.doze(wait).await;
        }
    }

    /// Stops all steps, and keeps the results of those that have just ended. This machine keeps its
    /// leases for as long as the server waits, so the next start runs the stopped steps again.
    /// Returns how many were stopped.
    async fn shut_down(&mut self) -> usize {
        if let Err(error) = self.collect(Duration::from_secs(self.options.step_timeout_s)) {
            tracing::warn!(
                error = format!("{error:#}"),
                "ended steps cannot be looked at"
            );
        }
        let mut stopping = JoinSet::new();
        for (task, step) in self.steps.drain() {
            let kind = step.lease.kind.clone();
            stopping.spawn(async move {
                step.stop().await;
                tracing::info!(
                    task,
                    kind,
                    "stopped a step; the server will have it run again"
                );
            });
        }
        let count = stopping.len();
        while stopping.join_next().await.is_some() {}
        for report in std::mem::take(&mut self.unwritten) {
            if let Err(error) = self.work.keep(&report) {
                tracing::warn!(
                    task = report.task,
                    error = format!("{error:#}"),
                    "the result cannot be stored; the step will run again"
                );
            }
        }
        count
    }

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
        let stored = self.next_stored();
        let request = HeartbeatRequest {
            hardware: hardware::read(self.work.root(), self.options.offered()),
            running: self.running(),
            stored: stored.clone(),
            files_url: self.shown.as_ref().map(|(_, url)| url.clone()),
            keeps: self.options.storage,
        };
        let answer = self.house.heartbeat(&request).await?;
        if let Some((shown, _)) = self.shown.as_ref().filter(|_| answer.now > 0) {
            shown.set_time(answer.now);
        }
        self.untold
            .truncate(self.untold.len().saturating_sub(stored.len()));
        for task in answer.stop {
            self.stop(task).await;
        }
        let over: Vec<StoredSector> = answer
            .drop
            .into_iter()
            .filter(|sector| stored.contains(sector) && !self.works_on(sector))
            .collect();
        self.tidy(&over);
        for lease in answer.leases {
            self.start(&lease).await;
        }
        self.start_waiting().await;
        self.forget_incoming();
        Ok(delivered)
    }

    /// The leases that this machine keeps, with the progress of each.
    fn running(&self) -> Vec<Running> {
        let mut running: Vec<Running> = self.steps.values().map(Step::running).collect();
        running.extend(self.waiting.values().map(|(lease, _)| Running {
            task: lease.task,
            fence: lease.fence,
            progress: format!("{} waits for disk space, see the agent's log", lease.kind),
        }));
        running.extend(
            self.refused
                .iter()
                .map(|((task, fence), (why, _))| Running {
                    task: *task,
                    fence: *fence,
                    progress: format!("the server does not accept its result: {why}"),
                }),
        );
        running
    }

    /// The stored sectors to report with the next heartbeat: the last of `untold`, which is filled
    /// again when the next inventory is due.
    fn next_stored(&mut self) -> Vec<StoredSector> {
        if self.inventory <= Instant::now() && self.untold.is_empty() {
            self.untold = self.work.stored().unwrap_or_else(|error| {
                tracing::warn!(
                    error = format!("{error:#}"),
                    "the stored sectors cannot be listed"
                );
                Vec::new()
            });
            self.inventory = Instant::now() + INVENTORY_PAUSE;
        }
        if self.is_read() {
            self.inventory = self
                .inventory
                .min(Instant::now() + INVENTORY_PAUSE_WHILE_READ);
        }
        let from = self.untold.len().saturating_sub(TOLD_AT_ONCE);
        self.untold.get(from..).unwrap_or_default().to_vec()
    }

    /// Gives up a task whose lease this machine has lost.
    async fn stop(&mut self, task: i64) {
        self.waiting.remove(&task);
        self.forget_refused(task);
        if let Some(step) = self.steps.remove(&task) {
            tracing::info!(task, "stopped: this machine no longer has the lease");
            step.stop().await;
            self.untidy = true;
        }
    }

    /// Starts the steps that have waited long enough.
    async fn start_waiting(&mut self) {
        let again: Vec<Lease> = self
            .waiting
            .values()
            .filter(|(_, when)| *when <= Instant::now())
            .map(|(lease, _)| lease.clone())
            .collect();
        for lease in again {
            self.waiting.remove(&lease.task);
            self.start(&lease).await;
        }
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
        let going_on: Vec<i64> = self
            .steps
            .keys()
            .chain(self.waiting.keys())
            .copied()
            .collect();
        if let Err(error) = self.work.forget_incoming(&going_on) {
            tracing::warn!(
                error = format!("{error:#}"),
                "the files of an abandoned transfer cannot be deleted"
            );
            self.untidy = true;
        }
        self.empty();
    }

    /// Whether a step that runs or waits here is about this sector.
    fn works_on(&self, sector: &StoredSector) -> bool {
        let leases = self
            .steps
            .values()
            .map(|step| &step.lease)
            .chain(self.waiting.values().map(|(lease, _)| lease));
        leases.into_iter().any(|lease| {
            serde_json::from_str::<StoredSector>(lease.input.get()).is_ok_and(|of| of == *sector)
        })
    }

    /// Deletes sectors that are no longer needed. A failure is logged and retried with the next
    /// inventory.
    fn tidy(&self, over: &[StoredSector]) {
        for sector in over {
            match self.work.drop_sector(sector) {
                Ok(()) => tracing::info!(
                    miner = sector.miner,
                    sector = sector.number,
                    "a sector's files are no longer needed"
                ),
                Err(error) => tracing::warn!(
                    error = format!("{error:#}"),
                    "a sector's files cannot be removed"
                ),
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
                tracing::warn!(
                    error = format!("{error:#}"),
                    "removed files cannot be deleted"
                );
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
        match Step::start(&self.work, &self.options.parameters(), lease) {
            Ok(step) => drop(self.steps.insert(lease.task, step)),
            Err(error) => {
                if is_transfer(lease) {
                    // Another machine may have the space that it takes.
                    let outcome = Outcome::Failed {
                        level: FailureLevel::Temporary,
                        reason: format!("{error:#}"),
                    };
                    let Lease { task, fence, .. } = *lease;
                    return self.unwritten.push(ReportRequest {
                        task,
                        fence,
                        outcome,
                        usage: Usage::default(),
                    });
                }
                tracing::warn!(
                    task = lease.task,
                    error = format!("{error:#}"),
                    "the step cannot start yet; it waits"
                );
                self.waiting
                    .insert(lease.task, (lease.clone(), Instant::now() + DISK_PAUSE));
            }
        }
    }

    /// Stores the results of ended steps. True if any step ended.
    fn collect(&mut self, timeout: Duration) -> Result<bool> {
        let mut ended = Vec::new();
        for step in self.steps.values_mut() {
            if let Some(report) = step.poll(timeout)? {
                if let Outcome::Failed { level, reason } = &report.outcome {
                    tracing::warn!(
                        task = report.task,
                        level = level.name(),
                        reason,
                        "a step failed"
                    );
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
                    tracing::warn!(
                        task = report.task,
                        "the disk is full; the step waits for space"
                    );
                    self.waiting.insert(
                        report.task,
                        (step.lease.clone(), Instant::now() + DISK_PAUSE),
                    );
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
            if self
                .refused
                .get(&id)
                .is_some_and(|(_, when)| Instant::now() < *when)
            {
                continue;
            }
            match self.house.report(report).await {
                Ok(answer) => {
                    if !answer.accepted {
                        tracing::warn!(
                            task = report.task,
                            fence = report.fence,
                            "the result came too late and was not used"
                        );
                    }
                    self.drop_result(report);
                    delivered = true;
                }
                // A server that cannot be reached accepts no other report either. A connection that
                // closes in the middle of a report is another matter: a proxy may find this report
                // too long.
                Err(error)
                    if error
                        .downcast_ref::<reqwest::Error>()
                        .is_some_and(reqwest::Error::is_connect) =>
                {
                    return Err(error);
                }
                // The other results are still delivered, and heartbeats go on.
                Err(error) => {
                    let why = format!("{error:#}");
                    tracing::error!(
                        task = report.task,
                        why,
                        "the server does not accept the result; it is kept"
                    );
                    self.refused
                        .insert(id, (why, Instant::now() + REFUSED_PAUSE));
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
        reports.retain(|report| {
            report.task == task && self.refused.contains_key(&(task, report.fence))
        });
        reports.iter().for_each(|report| self.drop_result(report));
    }
}
