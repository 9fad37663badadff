//! What agents and the house say to each other, as JSON over HTTP. Codes are a closed list.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// What a machine has. Bytes and counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hardware {
    pub cores: i64,
    pub memory_bytes: i64,
    pub disk_bytes: i64,
    pub disk_free_bytes: i64,
    pub gpus: Vec<String>,
    /// For people: processor model, kernel.
    pub description: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolRequest {
    pub token: String,
    pub hardware: Hardware,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct EnrolAnswer {
    pub machine: String,
    /// The machine's key from now on; shown once.
    pub key: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Running {
    pub task: i64,
    pub fence: i64,
    /// For people: `running for 12 s, 2.6 GiB`.
    pub progress: String,
}

/// A sector whose files are on a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoredSector {
    pub miner: u64,
    pub number: u64,
}

impl StoredSector {
    /// From rows; `None`: there is no such sector.
    #[must_use]
    pub fn of(miner: i64, number: i64) -> Option<Self> {
        Some(Self { miner: u64::try_from(miner).ok()?, number: u64::try_from(number).ok()? })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeartbeatRequest {
    pub hardware: Hardware,
    pub running: Vec<Running>,
    /// Now and then all sectors that have files there; else empty.
    #[serde(default)]
    pub stored: Vec<StoredSector>,
    /// Where other machines can read this one's files.
    #[serde(default)]
    pub files_url: Option<String>,
    /// It keeps sealed sectors, and seals none.
    #[serde(default)]
    pub keeps: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// Everything that this machine holds a lease on and does not run yet.
    pub leases: Vec<Lease>,
    /// Tasks it runs without holding their lease any more: to be stopped.
    pub stop: Vec<i64>,
    /// Of what it has stored, what nothing needs any more: to be deleted, once what is to be stopped has stopped.
    #[serde(default)]
    pub drop: Vec<StoredSector>,
    /// The server's time, microseconds: passes end by it, whatever a machine's own clock says.
    #[serde(default)]
    pub now: i64,
}

/// Permission to do one task until the fence moves on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lease {
    pub task: i64,
    pub fence: i64,
    pub kind: String,
    /// The step's input, JSON as it is: some are tens of megabytes.
    pub input: Box<RawValue>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportRequest {
    pub task: i64,
    pub fence: i64,
    pub outcome: Outcome,
    pub usage: Usage,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Done { output: Box<RawValue> },
    Failed { level: FailureLevel, reason: String },
}

impl Outcome {
    /// A result that can be written as JSON.
    pub fn done(output: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::Done { output: serde_json::value::to_raw_value(output)? })
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    pub wall_ms: i64,
    pub cpu_ms: i64,
    pub peak_bytes: i64,
}

/// How bad a failure is, and so what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureLevel {
    /// The same step may succeed on the same machine.
    Temporary,
    /// The same step may succeed on another machine.
    Permanent,
    /// The sector's files are lost or wrong: it starts again.
    Abort,
    /// Nothing will help: a person has to look.
    Critical,
}

impl FailureLevel {
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Temporary => "temporary",
            Self::Permanent => "permanent",
            Self::Abort => "abort",
            Self::Critical => "critical",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ReportAnswer {
    /// False: the lease had moved on, the result was not used.
    pub accepted: bool,
}

/// Every error that the agent API answers with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorCode {
    UnknownToken,
    TokenUsed,
    TokenExpired,
    UnknownMachine,
    BadRequest,
    TryAgain,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ErrorAnswer {
    pub code: ErrorCode,
    pub message: String,
}

/// Inputs of the steps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorInput {
    pub miner: u64,
    pub number: u64,
    pub proof: i64,
    /// Hex; empty until drawn.
    pub ticket: String,
    pub seed: String,
    pub comm_r: String,
    /// PC2's output as JSON text; empty before.
    pub pc2: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostInput {
    /// Hex.
    pub randomness: String,
    pub sectors: Vec<SectorInput>,
    /// Vanilla proofs collected so far, for the SNARK; one JSON document per machine.
    pub vanilla: Vec<Box<RawValue>>,
}

/// A sector's files are to be fetched from another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveInput {
    #[serde(flatten)]
    pub sector: SectorInput,
    /// That machine's `files_url`.
    pub from: String,
    /// What it lets us read: a [`super::Pass`] as text.
    pub pass: String,
    /// Hex. A sealed sector has to be proven from its copy with this randomness before that counts as whole; empty for layers.
    pub prove_with: String,
}

/// A file of a sector, as the machine that has it tells of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Below the sector's folder, with slashes.
    pub path: String,
    pub bytes: u64,
}
