//! The proof parameters for a sector size, by their published digests.

use std::path::Path;

use sealyard_filecoin::{
    params::{
        DevnetParams, Which,
        official::{self, Extent, Flaw, OfficialFile},
    },
    sector::SealProof,
};

use super::Finding;
use crate::parameters::size_name;

const SUBJECT: &str = "parameters";

pub fn findings(dir: &Path, size: SealProof) -> Vec<Finding> {
    if let Some(params) = DevnetParams::found(dir) {
        let absent: Vec<&str> = Which::ALL
            .into_iter()
            .filter(|which| !params.present(*which).unwrap_or(false))
            .map(Which::name)
            .collect();
        return vec![devnet(dir, size, &absent)];
    }
    let files = official::files(size.sector_bytes(), Extent::Needed);
    let flaws = official::flaws(dir, &files, &mut |file| {
        eprintln!("checking {}", dir.join(&file.name).display());
    });
    if flaws.is_empty() {
        let value = format!(
            "{}: all {} files for {} have their published digests",
            dir.display(),
            files.len(),
            size_name(size)
        );
        return vec![Finding::ok(SUBJECT, value)];
    }
    flaws
        .iter()
        .map(|(file, flaw)| flawed(dir, size, file, flaw))
        .collect()
}

/// A folder with the devnet's own parameters.
fn devnet(dir: &Path, size: SealProof, absent: &[&str]) -> Finding {
    let dir = dir.display();
    if size != SealProof::Drg2KiB {
        return Finding::problem(
            SUBJECT,
            format!("{dir} holds the devnet's parameters, which are for 2KiB alone"),
            "give --parameters-dir another folder, for the official ones",
        );
    }
    if !absent.is_empty() {
        return Finding::problem(
            SUBJECT,
            format!("{dir}: the devnet's own, without {}", absent.join(", ")),
            format!("make them: sealyard parameters {dir}"),
        );
    }
    Finding::ok(
        SUBJECT,
        format!("{dir}: the devnet's own, which no other network may use"),
    )
}

fn flawed(dir: &Path, size: SealProof, file: &OfficialFile, flaw: &Flaw) -> Finding {
    let fetch = format!(
        "fetch it: sealyard-agent parameters --sector-size {} --dir {}",
        size_name(size),
        dir.display()
    );
    let path = dir.join(&file.name);
    let path = path.display();
    match flaw {
        Flaw::Missing => Finding::problem(SUBJECT, format!("{path} is missing"), fetch),
        Flaw::Wrong { found } => Finding::problem(
            SUBJECT,
            format!(
                "{path} has the digest {found}, but {} was published",
                file.digest
            ),
            fetch,
        ),
        Flaw::Unreadable { reason } => Finding::problem(
            SUBJECT,
            format!("{path} cannot be read: {reason}"),
            "let the agent's user read it",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::Level;

    #[test]
    fn the_devnets_parameters_are_for_its_sectors_alone() {
        let dir = Path::new("/params");
        for (size, absent, level, words) in [
            (SealProof::Drg2KiB, vec![], Level::Ok, "the devnet's own"),
            (
                SealProof::Drg2KiB,
                vec!["PoRep"],
                Level::Problem,
                "without PoRep",
            ),
            (SealProof::Drg32GiB, vec![], Level::Problem, "2KiB alone"),
        ] {
            let finding = devnet(dir, size, &absent);
            assert_eq!(finding.level, level, "{finding}");
            assert!(finding.value.contains(words), "{finding}");
        }
    }

    #[test]
    fn every_missing_file_is_a_problem_with_a_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let found = findings(dir.path(), SealProof::Drg32GiB);
        assert_eq!(found.len(), 6);
        for finding in found {
            assert_eq!(finding.level, Level::Problem);
            assert!(
                finding.remedy.contains("parameters --sector-size 32GiB"),
                "{finding}"
            );
        }
    }

    #[test]
    fn a_folder_of_the_devnet_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        DevnetParams::open(dir.path(), "sealyard-devnet-1").unwrap();
        let found = findings(dir.path(), SealProof::Drg2KiB);
        let value = found.first().map(|finding| finding.value.as_str()).unwrap();
        assert!(
            value.contains("without WindowPoSt, WinningPoSt, PoRep"),
            "{value}"
        );
    }
}
