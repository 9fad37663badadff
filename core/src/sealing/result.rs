//! Results that machines report, checked on receipt against the task's input.

use std::collections::BTreeSet;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Task, TaskKind};
use crate::fleet::protocol::PostInput;

/// The part of a result that the books need.
#[derive(Debug)]
pub enum StepOutput {
    /// The files are in place; there is no output to keep.
    Done,
    Sealed(Sealed),
    /// C1's output, which is passed on unchanged.
    C1,
    /// A SNARK.
    Proof(Vec<u8>),
    /// Vanilla proofs were made; `faulty` lists the sectors that could not be proven.
    Vanilla {
        faulty: Vec<u64>,
    },
}

/// PC2's result: commitments in hex, and the library's own output as JSON text.
#[derive(Debug, PartialEq, Eq)]
pub struct Sealed {
    pub comm_r: String,
    pub comm_d: String,
    pub pc2: String,
}

#[derive(Deserialize)]
struct SealedAnswer<'a> {
    comm_r: String,
    comm_d: String,
    #[serde(borrow)]
    pc2: &'a RawValue,
}

#[derive(Deserialize)]
struct ProofAnswer {
    proof: String,
}

#[derive(Deserialize)]
struct VanillaAnswer<'a> {
    #[serde(borrow)]
    proofs: Vec<VanillaProof<'a>>,
    faulty: Vec<(u64, String)>,
}

#[derive(Deserialize)]
struct VanillaProof<'a> {
    sector: u64,
    #[serde(borrow)]
    proof: &'a RawValue,
}

/// Bytes of a WindowPoSt's SNARK, and of a PoRep's SNARK for each of its partitions.
const SNARK: usize = 192;
/// Partitions of a PoRep for 32 or 64 GiB sectors; test sizes have one.
const LARGE_PARTITIONS: usize = 10;
/// RegisteredSealProof numbers of 32 and 64 GiB sectors.
const LARGE_PROOFS: [i64; 2] = [8, 9];

/// Longest report of a step, in bytes. C1's output for a large sector is tens of megabytes, and so
/// are a partition's vanilla proofs.
#[must_use]
pub const fn longest_report(kind: TaskKind) -> usize {
    match kind {
        TaskKind::Commit1 | TaskKind::Vanilla => 256 << 20,
        TaskKind::PreCommit2 => 1 << 20,
        _ => 64 << 10,
    }
}

/// The result of `task`, or why it is invalid.
pub fn check(task: &Task, kind: TaskKind, output: &RawValue) -> Result<StepOutput, String> {
    match kind {
        TaskKind::PreCommit1 | TaskKind::Move | TaskKind::Store | TaskKind::Finalize => {
            Ok(StepOutput::Done)
        }
        TaskKind::PreCommit2 => sealed(output).map(StepOutput::Sealed),
        TaskKind::Commit1 if output.get().trim_start().starts_with('{') => Ok(StepOutput::C1),
        TaskKind::Commit1 => Err("C1's output is not an object".into()),
        TaskKind::Commit2 => proof(output, porep_bytes(task)).map(StepOutput::Proof),
        TaskKind::WindowPost => proof(output, SNARK).map(StepOutput::Proof),
        TaskKind::Vanilla => vanilla(task, output),
    }
}

fn parse<'a, T: Deserialize<'a>>(output: &'a RawValue) -> Result<T, String> {
    serde_json::from_str(output.get()).map_err(|error| error.to_string())
}

fn commitment(name: &str, text: String) -> Result<String, String> {
    match hex::decode(&text) {
        Ok(bytes) if bytes.len() == 32 => Ok(text.to_lowercase()),
        _ => Err(format!("{name} is not 32 bytes of hex")),
    }
}

fn sealed(output: &RawValue) -> Result<Sealed, String> {
    let answer: SealedAnswer<'_> = parse(output)?;
    if !answer.pc2.get().trim_start().starts_with('{') {
        return Err("PC2's own output is not an object".into());
    }
    Ok(Sealed {
        comm_r: commitment("CommR", answer.comm_r)?,
        comm_d: commitment("CommD", answer.comm_d)?,
        pc2: answer.pc2.get().to_owned(),
    })
}

#[derive(Deserialize)]
struct C2Of {
    sector: SealProofOf,
}

#[derive(Deserialize)]
struct SealProofOf {
    proof: i64,
}

/// Bytes of the PoRep that a C2 task has to make.
fn porep_bytes(task: &Task) -> usize {
    let asked = serde_json::from_str::<C2Of>(&task.input).map(|of| of.sector.proof);
    let is_large = asked.is_ok_and(|proof| LARGE_PROOFS.contains(&proof));
    if is_large {
        SNARK * LARGE_PARTITIONS
    } else {
        SNARK
    }
}

fn proof(output: &RawValue, length: usize) -> Result<Vec<u8>, String> {
    let ProofAnswer { proof } = parse(output)?;
    match hex::decode(&proof) {
        Ok(bytes) if bytes.len() == length => Ok(bytes),
        Ok(bytes) => Err(format!(
            "the proof has {} bytes instead of {length}",
            bytes.len()
        )),
        Err(error) => Err(format!("the proof is not hex: {error}")),
    }
}

/// Accepts a result that proves, or names as faulty, each of the task's sectors once and no other
/// sector.
fn vanilla(task: &Task, output: &RawValue) -> Result<StepOutput, String> {
    let asked: PostInput = serde_json::from_str(&task.input)
        .map_err(|error| format!("the task is unreadable: {error}"))?;
    let mut left: BTreeSet<u64> = asked.sectors.iter().map(|sector| sector.number).collect();
    let answer: VanillaAnswer<'_> = parse(output)?;
    let faulty: Vec<u64> = answer
        .faulty
        .into_iter()
        .map(|(number, _)| number)
        .collect();
    for proof in &answer.proofs {
        if !proof.proof.get().starts_with('"') {
            return Err(format!(
                "the vanilla proof of sector {} is not text",
                proof.sector
            ));
        }
    }
    for number in answer
        .proofs
        .iter()
        .map(|proof| proof.sector)
        .chain(faulty.iter().copied())
    {
        if !left.remove(&number) {
            return Err(format!(
                "sector {number} was not requested, or appears twice"
            ));
        }
    }
    match left.first() {
        None => Ok(StepOutput::Vanilla { faulty }),
        Some(number) => Err(format!("sector {number} is missing from the result")),
    }
}
