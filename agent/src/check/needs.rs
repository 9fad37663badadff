//! The resources that a sector's steps take, from the scheduler's own table.

use sealyard_core::{
    sealing::{Cost, TaskKind},
    units::Bytes,
};
use sealyard_filecoin::sector::SealProof;

use super::Finding;

/// The steps that take much of a machine, with the names that operators know.
const STEPS: [(TaskKind, &str); 4] = [
    (TaskKind::PreCommit1, "PC1"),
    (TaskKind::PreCommit2, "PC2"),
    (TaskKind::Commit2, "C2"),
    (TaskKind::WindowPost, "WindowPoSt"),
];

pub fn bytes_of(size: SealProof) -> i64 {
    i64::try_from(size.sector_bytes()).unwrap_or(i64::MAX)
}

pub fn cost(kind: TaskKind, size: SealProof) -> Cost {
    Cost::of(kind, bytes_of(size))
}

/// Whether steps take hours and not seconds.
pub fn is_large(size: SealProof) -> bool {
    matches!(size, SealProof::Drg32GiB | SealProof::Drg64GiB)
}

/// A resource that steps take while they run.
#[derive(Clone, Copy)]
pub enum Resource {
    Cores,
    Memory,
}

impl Resource {
    fn of(self, cost: Cost) -> i64 {
        match self {
            Self::Cores => cost.cores,
            Self::Memory => cost.memory_bytes,
        }
    }

    fn amount(self, amount: i64) -> String {
        match self {
            Self::Cores => format!("{amount} cores"),
            Self::Memory => Bytes(amount).to_string(),
        }
    }

    const fn name(self) -> &'static str {
        match self {
            Self::Cores => "cores",
            Self::Memory => "memory",
        }
    }
}

/// Compares what the machine has with what each step takes. A machine that can do some steps is of
/// use beside others.
pub fn compared(resource: Resource, have: i64, value: String, size: Option<SealProof>) -> Finding {
    let subject = resource.name();
    let Some(size) = size else {
        return Finding::ok(subject, value);
    };
    let too_large: Vec<String> = STEPS
        .into_iter()
        .map(|(kind, name)| (name, resource.of(cost(kind, size))))
        .filter(|(_, need)| *need > have)
        .map(|(name, need)| format!("{name} ({})", resource.amount(need)))
        .collect();
    if too_large.is_empty() {
        return Finding::ok(subject, value);
    }
    let lacks = format!("{value}, too little for {}", too_large.join(", "));
    if too_large.len() == STEPS.len() {
        let remedy = "no step of these sectors fits; take a larger machine";
        return Finding::problem(subject, lacks, remedy);
    }
    let remedy = "other machines must do these steps, or this one needs more";
    Finding::warning(subject, lacks, remedy)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    const GIB: i64 = 1 << 30;

    #[test]
    fn memory_is_measured_against_each_step() {
        let large = Some(SealProof::Drg32GiB);
        for (gib, size, level, words) in [
            (1, None, Level::Ok, ""),
            (8, Some(SealProof::Drg2KiB), Level::Ok, ""),
            (256, large, Level::Ok, ""),
            (128, large, Level::Warning, "too little for C2 (150 GiB)"),
            (
                64,
                large,
                Level::Warning,
                "C2 (150 GiB), WindowPoSt (96 GiB)",
            ),
            (8, large, Level::Problem, "PC1 (64 GiB), PC2 (16 GiB)"),
        ] {
            let finding = compared(Resource::Memory, gib * GIB, "some".into(), size);
            assert_eq!(finding.level, level, "{gib} GiB: {finding}");
            assert!(finding.value.contains(words), "{finding}");
        }
    }

    #[test]
    fn cores_are_measured_against_each_step() {
        for (cores, level) in [(2, Level::Problem), (4, Level::Warning), (6, Level::Ok)] {
            let finding = compared(
                Resource::Cores,
                cores,
                "some".into(),
                Some(SealProof::Drg32GiB),
            );
            assert_eq!(finding.level, level, "{finding}");
        }
    }
}
