//! The protocol between agents and the server: JSON over HTTP. Error codes are a closed list.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// A machine's resources. Bytes and counts.
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
    /// The machine's key from now on. It is shown only once.
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
    /// From database values; `None`: a value is negative, so there is no such sector.
    #[must_use]
    pub fn of(miner: i64, number: i64) -> Option<Self> {
        Some(Self {
            miner: u64::try_from(miner).ok()?,
            number: u64::try_from(number).ok()?,
        })
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeartbeatRequest {
    pub hardware: Hardware,
    pub running: Vec<Running>,
    /// Sectors that have files there. The agent reports all of them from time to time, over several
    /// heartbeats if there are many; otherwise the list is empty.
    #[serde(default)]
    pub stored: Vec<StoredSector>,
    /// The URL where other machines can read this one's files.
    #[serde(default)]
    pub files_url: Option<String>,
    /// It stores sealed sectors and does no sealing.
    #[serde(default)]
    pub keeps: bool,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HeartbeatAnswer {
    /// Leases that this machine holds on tasks that it does not run yet.
    pub leases: Vec<Lease>,
    /// Tasks to stop: the machine runs them but no longer holds their lease.
    pub stop: Vec<i64>,
    /// Stored sectors that nothing needs any more. The machine deletes them once the tasks in
    /// `stop` have stopped.
    #[serde(default)]
    pub drop: Vec<StoredSector>,
    /// The server's time in microseconds. Passes expire by it, whatever the machine's own clock
    /// says.
    #[serde(default)]
    pub now: i64,
}

/// Permission to do one task until the fence moves on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Lease {
    pub task: i64,
    pub fence: i64,
    pub kind: String,
    /// The step's input as raw JSON: some inputs are tens of megabytes.
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
    /// A result, serialized as JSON.
    pub fn done(output: &impl Serialize) -> Result<Self, serde_json::Error> {
        Ok(Self::Done {
            output: serde_json::value::to_raw_value(output)?,
        })
    }
}

#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Usage {
    pub wall_ms: i64,
    pub cpu_ms: i64,
    pub peak_bytes: i64,
}

/// How bad a failure is. This decides what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureLevel {
    /// The same step may succeed on the same machine.
    Temporary,
    /// The same step may succeed on another machine.
    Permanent,
    /// The sector's files are lost or wrong: the sector starts again.
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
    /// False: the lease had moved on, and the result was not used.
    pub accepted: bool,
}

/// Every error code of the agent API.
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

/// The input of a sealing step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SectorInput {
    pub miner: u64,
    pub number: u64,
    pub proof: i64,
    /// Hex; empty until drawn.
    pub ticket: String,
    pub seed: String,
    pub comm_r: String,
    /// PC2's output as JSON text; empty before PC2.
    pub pc2: String,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct PostInput {
    /// Hex.
    pub randomness: String,
    pub sectors: Vec<SectorInput>,
    /// Vanilla proofs for the SNARK, one JSON document per machine; empty for a vanilla task.
    pub vanilla: Vec<Box<RawValue>>,
}

/// The input of a transfer, which fetches a sector's files from another machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MoveInput {
    #[serde(flatten)]
    pub sector: SectorInput,
    /// That machine's `files_url`.
    pub from: String,
    /// A [`super::Pass`] as text, which that machine checks.
    pub pass: String,
    /// Hex. The copy of a sealed sector counts as complete once it was proven with this randomness.
    /// Empty for layers.
    pub prove_with: String,
}

/// A file of a sector, as listed by the machine that has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredFile {
    /// Relative to the sector's folder, with slashes.
    pub path: String,
    pub bytes: u64,
}
