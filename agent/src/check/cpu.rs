//! Cores, their caches, NUMA nodes, and the instructions that PC1 lives on.

use std::{fs, path::Path};

use sealyard_filecoin::sector::SealProof;

use super::{
    Finding,
    needs::{Resource, compared},
};
use crate::hardware;

pub fn findings(size: Option<SealProof>) -> Vec<Finding> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cores = hardware::cores();
    let mut parts = vec![cores.to_string()];
    parts.extend(caches(Path::new("/sys/devices/system/cpu/cpu0/cache")));
    parts.push(nodes_text(nodes(Path::new("/sys/devices/system/node"))));
    vec![
        compared(Resource::Cores, cores, parts.join(", "), size),
        sha_finding(&cpuinfo),
    ]
}

/// The caches of one core, in the kernel's order. Empty if the kernel shows none, as in some
/// virtual machines.
fn caches(folder: &Path) -> Vec<String> {
    let read = |index: usize, name: &str| {
        let path = folder.join(format!("index{index}")).join(name);
        fs::read_to_string(path).unwrap_or_default()
    };
    (0..)
        .take_while(|index| folder.join(format!("index{index}")).is_dir())
        .map(|index| {
            cache_text(
                &read(index, "level"),
                &read(index, "type"),
                &read(index, "size"),
                &read(index, "shared_cpu_list"),
            )
        })
        .collect()
}

/// `L3 32768K for 16 threads`.
fn cache_text(level: &str, kind: &str, size: &str, shared: &str) -> String {
    let kind = match kind.trim() {
        "Data" => "d",
        "Instruction" => "i",
        _ => "",
    };
    let (level, size) = (level.trim(), size.trim());
    match listed(shared) {
        0 | 1 => format!("L{level}{kind} {size}"),
        many => format!("L{level}{kind} {size} for {many} threads"),
    }
}

/// How many numbers a list of the kernel's has, such as `0-3,8`.
fn listed(list: &str) -> usize {
    let many = |range: &str| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        let (from, to) = (from.parse::<usize>().ok()?, to.parse::<usize>().ok()?);
        to.checked_sub(from)?.checked_add(1)
    };
    list.trim()
        .split(',')
        .filter_map(many)
        .fold(0, usize::saturating_add)
}

/// How many NUMA nodes the machine has. A kernel without NUMA shows none.
fn nodes(folder: &Path) -> usize {
    let is_node = |name: &str| {
        name.strip_prefix("node")
            .is_some_and(|number| number.parse::<u32>().is_ok())
    };
    let Ok(entries) = fs::read_dir(folder) else {
        return 1;
    };
    let count = entries
        .filter_map(Result::ok)
        .filter(|entry| entry.file_name().to_str().is_some_and(is_node))
        .count();
    count.max(1)
}

fn nodes_text(nodes: usize) -> String {
    match nodes {
        1 => "1 NUMA node".to_owned(),
        many => format!(
            "{many} NUMA nodes (PC1 runs fastest with cores and memory of one: start one agent a \
             node, under numactl)"
        ),
    }
}

fn sha_finding(cpuinfo: &str) -> Finding {
    match sha_instructions(cpuinfo) {
        Some(name) => Finding::ok("sha", name),
        None => Finding::warning(
            "sha",
            "the processor has no SHA-256 instructions",
            "PC1 takes several times as long; leave it to other machines, or check that the \
             virtual machine passes the processor's flags on",
        ),
    }
}

/// The flag of the SHA-256 instructions, if the processor has them.
fn sha_instructions(cpuinfo: &str) -> Option<&'static str> {
    let has = |key: &str, flag: &str| {
        cpuinfo
            .lines()
            .filter(|line| line.starts_with(key))
            .any(|line| line.split_whitespace().any(|word| word == flag))
    };
    if has("flags", "sha_ni") {
        Some("sha_ni")
    } else if has("Features", "sha2") {
        Some("sha2")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn lists_of_the_kernel_are_counted() {
        for (list, count) in [
            ("0\n", 1),
            ("0-7\n", 8),
            ("0-7,64-71\n", 16),
            ("0,2,4", 3),
            ("", 0),
            ("7-0", 0),
            ("x", 0),
        ] {
            assert_eq!(listed(list), count, "{list:?}");
        }
    }

    #[test]
    fn caches_are_read_from_the_kernels_folder() {
        let folder = tempfile::tempdir().unwrap();
        for (index, values) in [
            ["1\n", "Data\n", "32K\n", "0\n"],
            ["1\n", "Instruction\n", "32K\n", "0\n"],
            ["2\n", "Unified\n", "1024K\n", "0,64\n"],
            ["3\n", "Unified\n", "32768K\n", "0-7,64-71\n"],
        ]
        .into_iter()
        .enumerate()
        {
            let at = folder.path().join(format!("index{index}"));
            fs::create_dir(&at).unwrap();
            for (name, value) in ["level", "type", "size", "shared_cpu_list"]
                .into_iter()
                .zip(values)
            {
                fs::write(at.join(name), value).unwrap();
            }
        }
        assert_eq!(
            caches(folder.path()),
            [
                "L1d 32K",
                "L1i 32K",
                "L2 1024K for 2 threads",
                "L3 32768K for 16 threads"
            ]
        );
        assert!(caches(&folder.path().join("nowhere")).is_empty());
    }

    #[test]
    fn numa_nodes_are_counted() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(nodes(&folder.path().join("nowhere")), 1);
        for name in ["node0", "node1", "possible", "nodes"] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        assert_eq!(nodes(folder.path()), 2);
    }

    #[test]
    fn sha_instructions_are_found_on_both_architectures() {
        for (cpuinfo, level) in [
            ("flags\t\t: fpu sha_ni avx\n", Level::Ok),
            ("Features\t: fp asimd sha1 sha2\n", Level::Ok),
            ("flags\t\t: fpu avx\nbugs: sha_ni\n", Level::Warning),
            ("Features\t: fp sha1\n", Level::Warning),
            ("", Level::Warning),
        ] {
            assert_eq!(sha_finding(cpuinfo).level, level, "{cpuinfo:?}");
        }
    }
}
