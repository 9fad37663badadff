//! This machine's hardware.

use std::{fs, path::Path};

use sealyard_core::fleet::protocol::Hardware;

/// Reads the hardware from the kernel. `offered` overrides the cores and GPUs.
pub fn read(dir: &Path, offered: (Option<i64>, Option<usize>)) -> Hardware {
    let (cores, gpus) = offered;
    let counted = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let (disk_bytes, disk_free_bytes) = disk(dir);
    Hardware {
        cores: cores.unwrap_or_else(|| i64::try_from(counted).unwrap_or(1)),
        memory_bytes: meminfo("MemTotal:"),
        disk_bytes,
        disk_free_bytes,
        gpus: match gpus {
            Some(count) => found_gpus().into_iter().chain(std::iter::repeat("GPU".to_owned())).take(count).collect(),
            None => found_gpus(),
        },
        description: format!("{}, Linux {}", cpu_model(), kernel()),
    }
}

fn meminfo(key: &str) -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(key));
    let kib: i64 = line.and_then(|rest| rest.split_whitespace().next()).and_then(|n| n.parse().ok()).unwrap_or(0);
    kib.saturating_mul(1024)
}

fn disk(dir: &Path) -> (i64, i64) {
    let Ok(stat) = nix::sys::statvfs::statvfs(dir) else { return (0, 0) };
    let bytes = |blocks: u64| i64::try_from(blocks.saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX);
    (bytes(stat.blocks()), bytes(stat.blocks_available()))
}

/// Names of the GPUs that a prover could use.
fn found_gpus() -> Vec<String> {
    let Ok(entries) = fs::read_dir("/proc/driver/nvidia/gpus") else { return Vec::new() };
    let model = |entry: fs::DirEntry| {
        let text = fs::read_to_string(entry.path().join("information")).unwrap_or_default();
        text.lines().find_map(|line| line.strip_prefix("Model:")).map_or_else(|| "NVIDIA".into(), |name| name.trim().to_owned())
    };
    entries.filter_map(Result::ok).map(model).collect()
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    line.map_or_else(|| "unknown processor".into(), |rest| rest.trim_start_matches([' ', '\t', ':']).to_owned())
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
