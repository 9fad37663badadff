//! GPUs, and whether this build and its settings use them.

use sealyard_filecoin::sector::SealProof;

use super::{Finding, needs::is_large};
use crate::hardware::gpus::{self, Gpu};

/// The back ends that this program was built with.
#[derive(Clone, Copy)]
struct Build {
    /// `cuda` or `opencl`: the CPU takes over where there is no GPU.
    gpu: bool,
    supraseal: bool,
    multicore: bool,
}

const BUILD: Build = Build {
    gpu: cfg!(any(feature = "cuda", feature = "opencl")),
    supraseal: cfg!(feature = "cuda-supraseal"),
    multicore: cfg!(feature = "multicore-sdr"),
};

/// Settings of the proofs library, all off unless the environment turns them on.
#[derive(Clone, Copy, Default)]
struct Settings {
    tree_builder: bool,
    column_builder: bool,
    no_gpu: bool,
    multicore: bool,
}

impl Settings {
    fn of_environment() -> Self {
        let value = |name: &str| std::env::var(name).ok();
        let on = |name: &str| value(name).is_some_and(|value| is_on(&value));
        Self {
            tree_builder: on("FIL_PROOFS_USE_GPU_TREE_BUILDER"),
            column_builder: on("FIL_PROOFS_USE_GPU_COLUMN_BUILDER"),
            no_gpu: value("BELLMAN_NO_GPU").is_some_and(|value| value != "0"),
            multicore: on("FIL_PROOFS_USE_MULTICORE_SDR"),
        }
    }
}

/// The values that the proofs library takes as true.
fn is_on(value: &str) -> bool {
    ["1", "true", "on", "yes"]
        .iter()
        .any(|on| value.eq_ignore_ascii_case(on))
}

pub fn findings(size: Option<SealProof>) -> Vec<Finding> {
    let (visible, installed) = (gpus::visible(), gpus::installed().len());
    let settings = Settings::of_environment();
    let mut findings = vec![gpu_finding(&visible, installed, BUILD, size)];
    findings.extend(settings_findings(visible.len(), BUILD, settings));
    findings
}

fn gpu_finding(
    visible: &[Gpu],
    installed: usize,
    build: Build,
    size: Option<SealProof>,
) -> Finding {
    const SUBJECT: &str = "gpus";
    let names: Vec<&str> = visible.iter().map(|gpu| gpu.model.as_str()).collect();
    match (names.as_slice(), build.gpu || build.supraseal) {
        ([], _) if installed > 0 => Finding::warning(
            SUBJECT,
            format!("none of {installed}: CUDA_VISIBLE_DEVICES hides them"),
            "list those that the agent may use, or unset it",
        ),
        ([], true) if build.supraseal => Finding::problem(
            SUBJECT,
            "no NVIDIA GPU, and this build proves on nothing else",
            "install the GPU's driver (`nvidia-smi` must list it), or use a build without \
             cuda-supraseal",
        ),
        ([], true) => Finding::warning(
            SUBJECT,
            "no NVIDIA GPU, so proofs are made on the CPU",
            "install the GPU's driver (`nvidia-smi` must list it); offer a GPU of another maker \
             with `run --gpus 1`",
        ),
        ([], false) if size.is_some_and(is_large) => Finding::warning(
            SUBJECT,
            "none, so proofs are made on the CPU",
            "PC2 and C2 of such sectors take several times as long; leave them to machines with a \
             GPU",
        ),
        ([], false) => Finding::ok(SUBJECT, "none, so proofs are made on the CPU"),
        (names, false) => Finding::warning(
            SUBJECT,
            format!("{}, which this build does not use", names.join(", ")),
            "build the agent with --features cuda (docs/HARDWARE.md)",
        ),
        (names, true) => Finding::ok(SUBJECT, names.join(", ")),
    }
}

/// Settings without which a build leaves a part of the hardware unused.
fn settings_findings(visible: usize, build: Build, settings: Settings) -> Vec<Finding> {
    const SUBJECT: &str = "settings";
    let mut findings = Vec::new();
    let uses_gpu = visible > 0 && (build.gpu || build.supraseal);
    if uses_gpu && settings.no_gpu {
        findings.push(Finding::warning(
            SUBJECT,
            "BELLMAN_NO_GPU keeps proofs off the GPU",
            "unset it in the agent's environment",
        ));
    }
    if uses_gpu && !(settings.tree_builder && settings.column_builder) {
        findings.push(Finding::warning(
            SUBJECT,
            "PC2 builds its trees on the CPU",
            "set FIL_PROOFS_USE_GPU_TREE_BUILDER=1 and FIL_PROOFS_USE_GPU_COLUMN_BUILDER=1 in the \
             agent's environment",
        ));
    }
    if build.multicore && !settings.multicore {
        findings.push(Finding::warning(
            SUBJECT,
            "PC1 uses one core, although this build could use more",
            "set FIL_PROOFS_USE_MULTICORE_SDR=1 in the agent's environment, if the machine runs \
             one PC1 at a time (docs/HARDWARE.md)",
        ));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    const CPU: Build = Build {
        gpu: false,
        supraseal: false,
        multicore: false,
    };
    const CUDA: Build = Build { gpu: true, ..CPU };
    const SUPRASEAL: Build = Build {
        supraseal: true,
        ..CPU
    };

    #[test]
    fn gpus_are_measured_against_the_build() {
        let (none, one) = (
            vec![],
            vec![Gpu {
                model: "NVIDIA L4".into(),
                uuid: "GPU-1".into(),
            }],
        );
        let large = Some(SealProof::Drg32GiB);
        for (visible, installed, build, size, level, words) in [
            (&none, 0, CPU, None, Level::Ok, "on the CPU"),
            (&none, 0, CPU, large, Level::Warning, "on the CPU"),
            (&none, 2, CUDA, large, Level::Warning, "none of 2"),
            (&none, 0, CUDA, large, Level::Warning, "no NVIDIA GPU"),
            (&none, 0, SUPRASEAL, large, Level::Problem, "nothing else"),
            (&one, 1, CPU, large, Level::Warning, "NVIDIA L4, which"),
            (&one, 1, CUDA, large, Level::Ok, "NVIDIA L4"),
            (&one, 1, SUPRASEAL, large, Level::Ok, "NVIDIA L4"),
        ] {
            let finding = gpu_finding(visible, installed, build, size);
            assert_eq!(finding.level, level, "{finding}");
            assert!(finding.value.contains(words), "{finding}");
        }
    }

    #[test]
    fn settings_that_leave_hardware_unused_are_named() {
        let off = Settings::default();
        let trees = Settings {
            tree_builder: true,
            column_builder: true,
            ..off
        };
        let multicore = Build {
            multicore: true,
            ..CPU
        };
        for (visible, build, settings, words) in [
            (0, CPU, off, vec![]),
            (1, CPU, off, vec![]),
            (0, CUDA, off, vec![]),
            (1, CUDA, off, vec!["PC2"]),
            (1, CUDA, trees, vec![]),
            (
                1,
                CUDA,
                Settings {
                    no_gpu: true,
                    ..trees
                },
                vec!["BELLMAN_NO_GPU"],
            ),
            (0, multicore, off, vec!["PC1"]),
            (
                0,
                multicore,
                Settings {
                    multicore: true,
                    ..off
                },
                vec![],
            ),
        ] {
            let findings = settings_findings(visible, build, settings);
            assert_eq!(findings.len(), words.len(), "{findings:?}");
            for (finding, word) in findings.iter().zip(words) {
                assert!(finding.value.contains(word), "{finding}");
            }
        }
    }

    #[test]
    fn values_that_the_proofs_library_takes_as_true_are_known() {
        for (value, on) in [
            ("1", true),
            ("True", true),
            ("yes", true),
            ("0", false),
            ("", false),
        ] {
            assert_eq!(is_on(value), on, "{value:?}");
        }
    }
}
