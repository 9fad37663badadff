//! The NVIDIA GPUs that a prover could use.

use std::{fs, path::Path};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gpu {
    pub model: String,
    /// `GPU-` and hexadecimal digits.
    pub uuid: String,
}

/// The GPUs of this machine, in the order of their places on the bus.
pub fn installed() -> Vec<Gpu> {
    installed_in(Path::new("/proc/driver/nvidia/gpus"))
}

/// The installed GPUs that `CUDA_VISIBLE_DEVICES` leaves.
pub fn visible() -> Vec<Gpu> {
    let listed = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    left_by(&installed(), listed.as_deref())
}

fn installed_in(folder: &Path) -> Vec<Gpu> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut folders: Vec<_> = entries
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .collect();
    folders.sort();
    let read = |path: &Path| fs::read_to_string(path.join("information")).unwrap_or_default();
    folders.iter().map(|path| described(&read(path))).collect()
}

/// A GPU by the driver's text about it.
fn described(information: &str) -> Gpu {
    let value = |key: &str| {
        information
            .lines()
            .find_map(|line| line.strip_prefix(key))
            .map(|value| value.trim().to_owned())
    };
    Gpu {
        model: value("Model:").unwrap_or_else(|| "NVIDIA".into()),
        uuid: value("GPU UUID:").unwrap_or_default(),
    }
}

/// The GPUs that a value of `CUDA_VISIBLE_DEVICES` leaves. As for CUDA itself, the list ends before
/// its first entry that names no GPU; so an empty list, or -1, leaves none.
fn left_by(installed: &[Gpu], listed: Option<&str>) -> Vec<Gpu> {
    let Some(listed) = listed else {
        return installed.to_vec();
    };
    let mut left: Vec<Gpu> = Vec::new();
    for entry in listed.split(',').map(str::trim) {
        match named(installed, entry) {
            Some(gpu) if !left.contains(&gpu) => left.push(gpu),
            Some(_) => {}
            None => break,
        }
    }
    left
}

/// The GPU of an entry: an index, the beginning of a UUID, or a part of a GPU (MIG).
fn named(installed: &[Gpu], entry: &str) -> Option<Gpu> {
    if entry.starts_with("MIG-") && !installed.is_empty() {
        return Some(Gpu {
            model: "NVIDIA MIG".into(),
            uuid: entry.to_owned(),
        });
    }
    if entry.starts_with("GPU-") {
        return installed
            .iter()
            .find(|gpu| gpu.uuid.starts_with(entry))
            .cloned();
    }
    installed.get(entry.parse::<usize>().ok()?).cloned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gpu(model: &str, uuid: &str) -> Gpu {
        Gpu {
            model: model.into(),
            uuid: uuid.into(),
        }
    }

    #[test]
    fn the_drivers_text_names_the_gpu() {
        let text = "Model: \t\t NVIDIA RTX A5000\nIRQ:   \t\t 88\nGPU UUID: \t GPU-1f2e\n";
        assert_eq!(described(text), gpu("NVIDIA RTX A5000", "GPU-1f2e"));
        assert_eq!(described(""), gpu("NVIDIA", ""));
    }

    #[test]
    fn installed_gpus_are_sorted_by_their_place_on_the_bus() {
        let folder = tempfile::tempdir().unwrap();
        for (place, model) in [("0000:81:00.0", "B"), ("0000:01:00.0", "A")] {
            let path = folder.path().join(place);
            fs::create_dir(&path).unwrap();
            fs::write(path.join("information"), format!("Model: {model}\n")).unwrap();
        }
        let found = installed_in(folder.path());
        assert_eq!(found, [gpu("A", ""), gpu("B", "")]);
        assert!(installed_in(&folder.path().join("nowhere")).is_empty());
    }

    #[test]
    fn the_list_of_visible_devices_is_respected() {
        let all = [
            gpu("A", "GPU-aa11"),
            gpu("B", "GPU-bb22"),
            gpu("C", "GPU-cc33"),
        ];
        for (listed, left) in [
            (None, vec!["A", "B", "C"]),
            (Some(""), vec![]),
            (Some("-1"), vec![]),
            (Some("1"), vec!["B"]),
            (Some("2, 0"), vec!["C", "A"]),
            (Some("0,-1,1"), vec!["A"]),
            (Some("0,7,1"), vec!["A"]),
            (Some("0,0"), vec!["A"]),
            (Some("GPU-bb"), vec!["B"]),
            (Some("GPU-bb22,0"), vec!["B", "A"]),
            (Some("GPU-dd"), vec![]),
            (Some("NoDevFiles"), vec![]),
            (Some("MIG-5c"), vec!["NVIDIA MIG"]),
        ] {
            let models: Vec<String> = left_by(&all, listed)
                .into_iter()
                .map(|gpu| gpu.model)
                .collect();
            assert_eq!(models, left, "{listed:?}");
        }
        assert!(left_by(&[], Some("MIG-5c")).is_empty());
    }
}
