//! This machine's hardware.

pub mod gpus;
pub mod memory;

use std::{fs, path::Path};

use sealyard_core::fleet::protocol::Hardware;

/// Reads the hardware from the kernel. `offered` overrides the cores and GPUs.
pub fn read(dir: &Path, offered: (Option<i64>, Option<usize>)) -> Hardware {
    let (cores, gpus) = offered;
    let (disk_bytes, disk_free_bytes) = disk(dir).unwrap_or_default();
    Hardware {
        cores: cores.unwrap_or_else(self::cores),
        memory_bytes: memory::read().usable(),
        disk_bytes,
        disk_free_bytes,
        gpus: offered_gpus(gpus::visible(), gpus),
        description: format!("{}, Linux {}", cpu_model(), kernel()),
    }
}

/// The cores that this process may use. Affinity and the quota of its control group count.
pub fn cores() -> i64 {
    let counted = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    i64::try_from(counted).unwrap_or(1)
}

/// Total and free bytes of a folder's file system. `None` if it cannot be asked.
pub fn disk(dir: &Path) -> Option<(i64, i64)> {
    let stat = nix::sys::statvfs::statvfs(dir).ok()?;
    let bytes = |blocks: u64| {
        i64::try_from(blocks.saturating_mul(stat.fragment_size())).unwrap_or(i64::MAX)
    };
    Some((bytes(stat.blocks()), bytes(stat.blocks_available())))
}

/// The GPUs' names, cut or filled up to the number that the operator offers.
fn offered_gpus(visible: Vec<gpus::Gpu>, offered: Option<usize>) -> Vec<String> {
    let names = visible.into_iter().map(|gpu| gpu.model);
    match offered {
        Some(count) => names
            .chain(std::iter::repeat("GPU".to_owned()))
            .take(count)
            .collect(),
        None => names.collect(),
    }
}

fn cpu_model() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("model name"));
    line.map_or_else(
        || "unknown processor".into(),
        |rest| rest.trim_start_matches([' ', '\t', ':']).to_owned(),
    )
}

fn kernel() -> String {
    fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_number_of_gpus_wins() {
        let gpu = |model: &str| gpus::Gpu {
            model: model.to_owned(),
            uuid: String::new(),
        };
        for (offered, names) in [
            (None, vec!["A", "B"]),
            (Some(0), vec![]),
            (Some(1), vec!["A"]),
            (Some(3), vec!["A", "B", "GPU"]),
        ] {
            assert_eq!(offered_gpus(vec![gpu("A"), gpu("B")], offered), names);
        }
    }
}
