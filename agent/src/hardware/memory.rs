//! Memory: the machine's, and the limits of the control groups around this process.

use std::{
    fs,
    path::{Component, Path},
};

/// Bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Memory {
    pub total: i64,
    /// The lowest limit of any control group around this process.
    pub limit: Option<i64>,
}

impl Memory {
    /// The memory that this process may use.
    pub fn usable(self) -> i64 {
        self.limit.map_or(self.total, |limit| limit.min(self.total))
    }
}

pub fn read() -> Memory {
    let text = |path| fs::read_to_string(path).unwrap_or_default();
    Memory {
        total: total(&text("/proc/meminfo")),
        limit: lowest_limit(Path::new("/sys/fs/cgroup"), &text("/proc/self/cgroup")),
    }
}

/// Bytes of memory by the text of `/proc/meminfo`; 0 if it does not say.
fn total(meminfo: &str) -> i64 {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"));
    let kib: i64 = line
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|n| n.parse().ok())
        .unwrap_or(0);
    kib.saturating_mul(1024)
}

/// The lowest limit on the way from this process's groups, as `/proc/self/cgroup` names them, to
/// the root. Both versions of control groups count.
fn lowest_limit(root: &Path, cgroups: &str) -> Option<i64> {
    let mut lowest: Option<i64> = None;
    for line in cgroups.lines() {
        let mut parts = line.splitn(3, ':');
        let (Some(_), Some(controllers), Some(group)) = (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let found = if controllers.is_empty() {
            limit_above(root, group, "memory.max")
        } else if controllers.split(',').any(|name| name == "memory") {
            limit_above(&root.join("memory"), group, "memory.limit_in_bytes")
        } else {
            None
        };
        lowest = lowest.into_iter().chain(found).min();
    }
    lowest
}

/// The lowest number in the file `name` of a group and of all groups around it. A container may see
/// none of them but the root.
fn limit_above(hierarchy: &Path, group: &str, name: &str) -> Option<i64> {
    let group = Path::new(group.trim_start_matches('/'));
    let stays = group
        .components()
        .all(|part| matches!(part, Component::Normal(_)));
    let group = if stays { group } else { Path::new("") };
    group
        .ancestors()
        .filter_map(|at| fs::read_to_string(hierarchy.join(at).join(name)).ok())
        .filter_map(|text| limit(&text))
        .min()
}

/// A limit in bytes; `None` for `max`, and for the huge number that stands for none in version 1.
fn limit(text: &str) -> Option<i64> {
    const NONE: i64 = i64::MAX - 65536;
    text.trim()
        .parse::<i64>()
        .ok()
        .filter(|bytes| *bytes < NONE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_from_both_versions() {
        for (text, bytes) in [
            ("max\n", None),
            ("17179869184\n", Some(16 << 30)),
            ("9223372036854771712\n", None),
            ("18446744073709551615\n", None),
            ("", None),
        ] {
            assert_eq!(limit(text), bytes, "{text:?}");
        }
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), 2 << 20);
        assert_eq!(total(""), 0);
    }

    #[test]
    fn the_lowest_limit_on_the_way_to_the_root_counts() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write("system.slice/agent.service/memory.max", "max\n");
        write("system.slice/memory.max", "3000\n");
        write("memory.max", "5000\n");
        write("memory/docker/abc/memory.limit_in_bytes", "4000\n");
        write("memory/memory.limit_in_bytes", "9223372036854771712\n");
        for (cgroups, bytes) in [
            ("0::/system.slice/agent.service\n", Some(3000)),
            ("0::/\n", Some(5000)),
            ("0::/../elsewhere\n", Some(5000)),
            ("0::/not/mounted/here\n", Some(5000)),
            ("12:cpu,cpuacct:/docker/abc\n", None),
            ("11:memory:/docker/abc\n", Some(4000)),
            ("11:memory:/\n", None),
            ("11:memory:/docker/abc\n0::/system.slice\n", Some(3000)),
            ("", None),
        ] {
            assert_eq!(lowest_limit(root.path(), cgroups), bytes, "{cgroups:?}");
        }
    }

    #[test]
    fn a_limit_above_the_machines_memory_adds_none() {
        for (limit, usable) in [(None, 8), (Some(4), 4), (Some(16), 8)] {
            assert_eq!(Memory { total: 8, limit }.usable(), usable);
        }
    }
}
