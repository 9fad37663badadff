//! The child process: it runs one step, and leaves a log and a result. It ends when its parent
//! does.

use std::{fs, io::Read, path::Path, time::Instant};

use anyhow::{Context, Result, bail};
use sealyard_core::{
    fleet::protocol::{FailureLevel, MoveInput, Outcome, PostInput, SectorInput, Usage},
    sealing::TaskKind,
};
use sealyard_filecoin::{
    hash::Hash32,
    proofs::{self, C1Input, ProofError, Replica, SealFiles, VanillaOutcome},
    sector::{SealProof, SectorIdent},
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    fetch::fetch,
    signals::leave_to_parent,
    work_dir::{StepInput, StepResult, WorkDir, sector_files, write_whole},
};

pub fn main(folder: &Path) -> Result<()> {
    leave_to_parent()?;
    end_with_parent();
    let started = Instant::now();
    let input: StepInput = serde_json::from_slice(&fs::read(folder.join("input.json"))?)?;
    let outcome = match run(&input) {
        Ok(output) => Outcome::done(&output)?,
        Err(failure) => Outcome::Failed {
            level: failure.level,
            reason: failure.reason,
        },
    };
    let usage = usage(started);
    write_whole(
        &folder.join("result.json"),
        &serde_json::to_vec(&StepResult { outcome, usage })?,
    )
}

/// Exits when the parent does: the parent holds our standard input open.
pub fn end_with_parent() {
    std::thread::spawn(|| {
        let mut byte = [0];
        while matches!(std::io::stdin().read(&mut byte), Ok(n) if n > 0) {}
        std::process::exit(3);
    });
}

struct Failure {
    level: FailureLevel,
    reason: String,
}

impl From<ProofError> for Failure {
    fn from(error: ProofError) -> Self {
        let reason = error.to_string();
        let level = match error {
            ProofError::Rejected { .. } | ProofError::FaultySector { .. } => FailureLevel::Abort,
            // Space can be freed on a full disk; other failures may not recur on another machine.
            ProofError::Failed { .. } if reason.contains("No space left") => {
                FailureLevel::Temporary
            }
            ProofError::Failed { .. } => FailureLevel::Permanent,
        };
        Self { level, reason }
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self {
            level: FailureLevel::Permanent,
            reason: format!("{error:#}"),
        }
    }
}

fn run(step: &StepInput) -> Result<Value, Failure> {
    let kind = TaskKind::from_name(&step.kind)
        .with_context(|| format!("this agent does not know step {:?}; update it", step.kind))?;
    match kind {
        TaskKind::PreCommit1 => pre_commit_1(step),
        TaskKind::Move | TaskKind::Store => fetch_here(step),
        TaskKind::PreCommit2 => pre_commit_2(step),
        TaskKind::Commit1 => commit_1(step),
        TaskKind::Commit2 => commit_2(step),
        TaskKind::Finalize => finalize(step),
        TaskKind::Vanilla => vanilla(step),
        TaskKind::WindowPost => window_post(step),
    }
}

fn read<T: for<'a> Deserialize<'a>>(value: &RawValue) -> Result<T> {
    serde_json::from_str(value.get()).context("the step's input is unreadable")
}

fn ident(input: &SectorInput) -> Result<SectorIdent> {
    Ok(SectorIdent {
        miner: input.miner,
        number: input.number,
        proof: SealProof::try_from(input.proof)?,
    })
}

fn pre_commit_1(step: &StepInput) -> Result<Value, Failure> {
    let input: SectorInput = read(&step.input)?;
    let sector = ident(&input)?;
    let (folder, files) = sector_files(&step.store, &sector);
    fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
    let output = proofs::pc1(
        &sector,
        &files,
        input.ticket.parse::<Hash32>().context("ticket")?,
    )?;
    // PC2's input is stored with the layers, so that it moves with them.
    write_whole(&folder.join("pc1.json"), &output)?;
    Ok(json!({}))
}

/// Every failure here is temporary: the source still has the files.
fn fetch_here(step: &StepInput) -> Result<Value, Failure> {
    let input: MoveInput = read(&step.input)?;
    let work = WorkDir::of_store(&step.store)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("starting")?;
    let temporary = |error: anyhow::Error| Failure {
        level: FailureLevel::Temporary,
        reason: format!("{error:#}"),
    };
    runtime
        .block_on(fetch(&work, step.task, &input))
        .map_err(temporary)?;
    if !input.prove_with.is_empty() {
        can_be_proven(&work, step.task, &input).map_err(temporary)?;
    }
    let name = proofs::folder_name(input.sector.miner, input.sector.number);
    work.take_in(step.task, &name).map_err(temporary)?;
    Ok(json!({}))
}

/// Accepts the copy of a sealed sector only if it can be proven.
fn can_be_proven(work: &WorkDir, task: i64, input: &MoveInput) -> Result<()> {
    let (sector, files) = (
        ident(&input.sector)?,
        SealFiles::under(&work.incoming(task)),
    );
    let replica = Replica {
        sector,
        comm_r: input.sector.comm_r.parse().context("CommR")?,
        files,
    };
    let outcome =
        proofs::window_vanilla(&[replica], input.prove_with.parse().context("randomness")?);
    match outcome.faulty.first() {
        None => Ok(()),
        Some((_, reason)) => bail!("what arrived cannot be proven: {reason}"),
    }
}

fn pre_commit_2(step: &StepInput) -> Result<Value, Failure> {
    let sector = ident(&read(&step.input)?)?;
    let (folder, files) = sector_files(&step.store, &sector);
    let pc1 = fs::read(folder.join("pc1.json"));
    let pc1 = pc1.map_err(|error| Failure {
        level: FailureLevel::Abort,
        reason: format!("PC1's output is missing: {error}"),
    })?;
    let sealed = proofs::pc2(&files, &pc1)?;
    Ok(serde_json::to_value(sealed).context("PC2's output")?)
}

fn commit_1(step: &StepInput) -> Result<Value, Failure> {
    let input: SectorInput = read(&step.input)?;
    let sector = ident(&input)?;
    let (_, files) = sector_files(&step.store, &sector);
    let c1 = C1Input {
        ticket: input.ticket.parse().context("ticket")?,
        seed: input.seed.parse().context("seed")?,
        pc2: serde_json::from_str(&input.pc2).context("PC2's output")?,
    };
    let output = proofs::c1(&sector, &files, &c1)?;
    Ok(serde_json::from_slice(&output).context("C1's output")?)
}

#[derive(Deserialize)]
struct Commit2Input {
    sector: SectorInput,
    c1: Box<RawValue>,
}

fn commit_2(step: &StepInput) -> Result<Value, Failure> {
    let input: Commit2Input = read(&step.input)?;
    let proof = proofs::c2(&ident(&input.sector)?, input.c1.get().as_bytes())?;
    Ok(json!({"proof": hex::encode(proof)}))
}

fn finalize(step: &StepInput) -> Result<Value, Failure> {
    let sector = ident(&read(&step.input)?)?;
    let (folder, files) = sector_files(&step.store, &sector);
    proofs::finalize(&files)?;
    let _ = fs::remove_file(folder.join("pc1.json"));
    Ok(json!({}))
}

fn vanilla(step: &StepInput) -> Result<Value, Failure> {
    let input: PostInput = read(&step.input)?;
    let mut replicas = Vec::new();
    for sector in &input.sectors {
        let ident = ident(sector)?;
        let (_, files) = sector_files(&step.store, &ident);
        replicas.push(Replica {
            sector: ident,
            comm_r: sector.comm_r.parse().context("CommR")?,
            files,
        });
    }
    let outcome =
        proofs::window_vanilla(&replicas, input.randomness.parse().context("randomness")?);
    Ok(serde_json::to_value(outcome).context("vanilla proofs")?)
}

fn window_post(step: &StepInput) -> Result<Value, Failure> {
    let input: PostInput = read(&step.input)?;
    let first = input.sectors.first().context("no sector to prove")?;
    let mut vanilla = Vec::new();
    for part in &input.vanilla {
        vanilla.extend(read::<VanillaOutcome>(part)?.proofs);
    }
    let proof = proofs::window_post(
        &ident(first)?,
        &vanilla,
        input.randomness.parse().context("randomness")?,
    )?;
    Ok(json!({"proof": hex::encode(proof)}))
}

fn usage(started: Instant) -> Usage {
    use nix::sys::resource::{UsageWho, getrusage};
    let wall_ms = i64::try_from(started.elapsed().as_millis()).unwrap_or(i64::MAX);
    let Ok(used) = getrusage(UsageWho::RUSAGE_SELF) else {
        return Usage {
            wall_ms,
            ..Usage::default()
        };
    };
    let milliseconds = |time: nix::sys::time::TimeVal| time.tv_sec() * 1000 + time.tv_usec() / 1000;
    Usage {
        wall_ms,
        cpu_ms: milliseconds(used.user_time()) + milliseconds(used.system_time()),
        peak_bytes: used.max_rss().saturating_mul(1024),
    }
}
