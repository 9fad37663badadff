//! The disk of the agent's folder: free space, and how fast it writes and reads.

use std::{
    fs,
    io::{self, Read, Seek, SeekFrom, Write},
    path::Path,
    time::{Duration, Instant},
};

use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use sealyard_core::{
    sealing::{TaskKind, typical_seconds},
    units::Bytes,
};
use sealyard_filecoin::sector::SealProof;

use super::{
    Finding,
    needs::{bytes_of, cost, is_large},
};
use crate::hardware;

const MIB: i64 = 1 << 20;
/// Bytes of one write, each followed by a flush to the disk.
const PIECE: usize = 16 << 20;
const PIECES: usize = 16;
/// Below this the test itself could fill the disk.
const LEAST_FREE: i64 = 2 << 30;
/// A sector of 32 or 64 GiB has 11 layers. PC1 writes them and a tree of two sector sizes, PC2
/// reads the layers.
const LAYERS: i64 = 11;
const WRITTEN_BY_PC1: i64 = LAYERS + 2;

pub fn findings(dir: &Path, size: Option<SealProof>) -> Vec<Finding> {
    let Some((total, free)) = hardware::disk(dir) else {
        return vec![Finding::problem(
            "disk",
            format!("{} cannot be looked at", dir.display()),
            "create the folder, and let the agent's user write there",
        )];
    };
    let mut findings = vec![space(dir, (total, free), size)];
    if free < LEAST_FREE {
        findings.push(Finding::warning(
            "disk speed",
            "not measured: less than 2 GiB are free",
            "free some space",
        ));
        return findings;
    }
    match measure(dir, PIECES) {
        Ok((write, read)) => {
            findings.push(speed("disk write", write, wanted_write(size)));
            findings.push(speed("disk read", read, wanted_read(size)));
        }
        Err(error) => findings.push(Finding::problem(
            "disk speed",
            format!("{} cannot be written: {error}", dir.display()),
            "let the user of the agent write there; run this check as that user",
        )),
    }
    findings
}

fn space(dir: &Path, (total, free): (i64, i64), size: Option<SealProof>) -> Finding {
    let value = format!(
        "{}: {} free of {}",
        dir.display(),
        Bytes(free),
        Bytes(total)
    );
    let Some(size) = size else {
        return Finding::ok("disk", value);
    };
    let scratch = cost(TaskKind::PreCommit1, size).scratch_bytes;
    match free.checked_div(scratch).unwrap_or(0) {
        0 => Finding::warning(
            "disk",
            format!("{value}, no room to seal a sector ({})", Bytes(scratch)),
            "the machine seals nothing until there is room; free space, or use a larger disk",
        ),
        at_once => Finding::ok("disk", format!("{value}, room to seal {at_once} at once")),
    }
}

/// Bytes a second.
fn speed(subject: &'static str, measured: i64, wanted: Option<i64>) -> Finding {
    let value = format!("{} MiB/s", measured / MIB);
    match wanted {
        Some(wanted) if measured < wanted => Finding::warning(
            subject,
            value,
            format!(
                "steps will take longer than usual: a sector takes {} MiB/s; use NVMe disks, \
                 several together if need be",
                wanted / MIB
            ),
        ),
        _ => Finding::ok(subject, value),
    }
}

/// Bytes a second with which PC1 of one sector writes if it takes the usual time.
fn wanted_write(size: Option<SealProof>) -> Option<i64> {
    wanted(size, WRITTEN_BY_PC1, TaskKind::PreCommit1)
}

/// Bytes a second with which PC2 of one sector reads if it takes the usual time.
fn wanted_read(size: Option<SealProof>) -> Option<i64> {
    wanted(size, LAYERS, TaskKind::PreCommit2)
}

/// `None` for test sizes, which every disk is fast enough for.
fn wanted(size: Option<SealProof>, sectors: i64, kind: TaskKind) -> Option<i64> {
    let size = size.filter(|size| is_large(*size))?;
    let bytes = bytes_of(size);
    bytes
        .checked_mul(sectors)?
        .checked_div(typical_seconds(kind, bytes))
}

/// Bytes a second, written and read. The file is removed from its folder at once, so that its space
/// is freed however this process ends.
fn measure(dir: &Path, pieces: usize) -> io::Result<(i64, i64)> {
    let path = dir.join(format!("sealyard-check-{}.tmp", std::process::id()));
    let mut file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)?;
    fs::remove_file(&path)?;
    let piece = noise();
    let began = Instant::now();
    for _ in 0..pieces {
        file.write_all(&piece)?;
        file.sync_data()?;
    }
    let written = rate(PIECE.saturating_mul(pieces), began.elapsed());
    // Without it, the read would only copy from memory. A file system in memory refuses it.
    let _ = posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    file.seek(SeekFrom::Start(0))?;
    let mut buffer = piece;
    let began = Instant::now();
    for _ in 0..pieces {
        file.read_exact(&mut buffer)?;
    }
    Ok((written, rate(PIECE.saturating_mul(pieces), began.elapsed())))
}

/// Bytes that no file system compresses.
fn noise() -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut piece = Vec::with_capacity(PIECE);
    while piece.len() < PIECE {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        piece.extend_from_slice(&state.to_le_bytes());
    }
    piece
}

/// Bytes a second.
fn rate(bytes: usize, took: Duration) -> i64 {
    let micros = took.as_micros().max(1);
    let bytes = u128::try_from(bytes).unwrap_or(u128::MAX);
    i64::try_from(bytes.saturating_mul(1_000_000) / micros).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    const GIB: i64 = 1 << 30;
    const LARGE: Option<SealProof> = Some(SealProof::Drg32GiB);

    #[test]
    fn free_space_is_measured_in_sectors() {
        let dir = Path::new("/sealing");
        for (free, size, level, words) in [
            (1, None, Level::Ok, "1 GiB free of 8 GiB"),
            (514, LARGE, Level::Warning, "no room to seal a sector"),
            (516, LARGE, Level::Ok, "room to seal 1 at once"),
            (1600, LARGE, Level::Ok, "room to seal 3 at once"),
        ] {
            let finding = space(dir, (8 * GIB, free * GIB), size);
            assert_eq!(finding.level, level, "{finding}");
            assert!(finding.value.contains(words), "{finding}");
        }
    }

    #[test]
    fn speed_is_measured_against_the_usual_time_of_a_step() {
        assert_eq!(wanted_read(LARGE).map(|rate| rate / MIB), Some(500));
        assert_eq!(wanted_write(LARGE).map(|rate| rate / MIB), Some(39));
        assert_eq!(wanted_read(Some(SealProof::Drg2KiB)), None);
        for (measured, wanted, level) in [
            (499, Some(500), Level::Warning),
            (500, Some(500), Level::Ok),
            (1, None, Level::Ok),
        ] {
            let finding = speed("disk read", measured, wanted);
            assert_eq!(finding.level, level, "{finding}");
        }
    }

    #[test]
    fn a_rate_is_bytes_a_second() {
        for (bytes, millis, rate_is) in [(1000, 1000, 1000), (1000, 500, 2000), (0, 10, 0)] {
            assert_eq!(rate(bytes, Duration::from_millis(millis)), rate_is);
        }
        assert_eq!(rate(1, Duration::ZERO), 1_000_000);
    }

    #[test]
    fn a_measurement_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let (write, read) = measure(dir.path(), 1).unwrap();
        assert!(write > 0 && read > 0);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
        assert!(measure(&dir.path().join("nowhere"), 1).is_err());
    }

    #[test]
    fn a_folder_that_is_not_there_is_a_problem() {
        let findings = findings(Path::new("/nowhere/at/all"), None);
        assert_eq!(
            findings.iter().map(|f| f.level).collect::<Vec<_>>(),
            [Level::Problem]
        );
    }
}
