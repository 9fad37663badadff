//! The resources that a step takes on a machine, and how long it usually takes.
//!
//! Figures for 32 and 64 GiB are from Lotus' resource table (storiface/resources.go); those for
//! test sizes are our own measurements.

use super::TaskKind;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Cost {
    pub cores: i64,
    pub memory_bytes: i64,
    /// Reserved from the step's start.
    pub scratch_bytes: i64,
}

pub(crate) const MIB: i64 = 1 << 20;
const GIB: i64 = 1024 * MIB;

impl Cost {
    #[must_use]
    pub fn of(kind: TaskKind, sector_bytes: i64) -> Self {
        let large = sector_bytes >= 32 * GIB;
        let scale = if sector_bytes > 32 * GIB { 2 } else { 1 };
        let (cores, memory_bytes) = match kind {
            // Transfers use only disk and network.
            TaskKind::Move | TaskKind::Store => (0, 0),
            TaskKind::PreCommit1 if large => (4, 64 * GIB * scale),
            TaskKind::PreCommit2 if large => (6, 16 * GIB * scale),
            TaskKind::Commit2 if large => (6, 150 * GIB + 40 * GIB * (scale - 1)),
            TaskKind::WindowPost if large => (6, 96 * GIB + 24 * GIB * (scale - 1)),
            TaskKind::Commit2 => (1, 3 * GIB),
            TaskKind::WindowPost => (1, 256 * MIB),
            _ if large => (1, GIB),
            _ => (1, 64 * MIB),
        };
        // PC1 reserves the whole pipeline's scratch: unsealed, sealed and 14.1 sector sizes of
        // cache.
        let scratch_bytes = if kind == TaskKind::PreCommit1 {
            sector_bytes.saturating_mul(161) / 10
        } else {
            0
        };
        Self {
            cores,
            memory_bytes,
            scratch_bytes,
        }
    }
}

/// Seconds that a step usually takes. A first estimate, until measured history replaces it.
#[must_use]
pub fn typical_seconds(kind: TaskKind, sector_bytes: i64) -> i64 {
    let large = sector_bytes >= 32 * GIB;
    match kind {
        TaskKind::PreCommit1 if large => 3 * 3600,
        // 450 GiB at 10 Gb/s.
        TaskKind::Move if large => 8 * 60,
        TaskKind::Store if large => 60,
        TaskKind::PreCommit2 if large => 12 * 60,
        TaskKind::Commit2 if large => 16 * 60,
        TaskKind::Commit2 => 90,
        _ => 5,
    }
}
