//! Rules for the source tree: sizes of files and functions, dependencies between packages, and
//! paired migrations.

use std::{collections::BTreeSet, fs, path::Path};

use crate::support::root;

const LONGEST_FILE: usize = 600;
const LONGEST_FUNCTION: usize = 70;
const LONGEST_LINE: usize = 100;

fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for package in [
        "planner", "core", "filecoin", "agent", "devnet", "web", "bench", "tests",
    ] {
        walk(&root().join(package), &mut found);
    }
    assert!(found.len() > 60, "the sources were not found");
    found
}

fn walk(folder: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap().map(Result::unwrap) {
        let path = entry.path();
        if path.is_dir() {
            walk(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push((
                path.strip_prefix(root()).unwrap().display().to_string(),
                fs::read_to_string(&path).unwrap(),
            ));
        }
    }
}

#[test]
fn no_file_exceeds_the_length_limit() {
    let long: Vec<String> = sources()
        .into_iter()
        .filter(|(path, text)| text.lines().count() > LONGEST_FILE && !path.ends_with("schema.rs"))
        .map(|(path, text)| format!("{path}: {} lines", text.lines().count()))
        .collect();
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn no_line_exceeds_the_length_limit() {
    for (path, text) in sources() {
        for (number, line) in text.lines().enumerate() {
            assert!(
                line.chars().count() <= LONGEST_LINE,
                "{path}:{}",
                number + 1
            );
        }
    }
}

/// Arrows between the files of a package: the first may not name the second.
#[test]
fn no_file_names_one_above_it() {
    const FORBIDDEN: [(&str, &[&str]); 11] = [
        ("devnet/src/state/", &["crate::chain", "crate::miner"]),
        ("devnet/src/miner/", &["crate::chain"]),
        ("web/src/error.rs", &["crate::auth", "auth::"]),
        ("web/src/worker/", &["crate::pages", "crate::agent_api"]),
        ("web/src/rails/", &["crate::pages", "crate::worker"]),
        ("web/src/commands/", &["crate::demo"]),
        (
            "web/src/pages/",
            &["diesel", "crate::worker", "crate::demo::seed"],
        ),
        (
            "planner/src/model/",
            &["crate::sim", "crate::dispatch", "crate::engine"],
        ),
        ("planner/src/sim/", &["crate::dispatch", "crate::engine"]),
        ("planner/src/dispatch/", &["crate::engine"]),
        ("core/src/yields/", &["crate::views", "crate::statements"]),
    ];
    let all = sources();
    for (folder, names) in FORBIDDEN {
        let files = all.iter().filter(|(path, _)| path.starts_with(folder));
        assert!(files.clone().count() > 0, "{folder} was not found");
        for (path, text) in files {
            let found = names.iter().find(|name| text.contains(*name));
            assert!(found.is_none(), "{path} names {found:?}");
        }
    }
}

#[test]
fn no_function_exceeds_the_length_limit() {
    let mut long = Vec::new();
    for (path, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (start, line) in lines.iter().enumerate() {
            let code = line.trim_start();
            let is_function = [
                "fn ",
                "pub fn ",
                "pub(super) fn ",
                "pub(crate) fn ",
                "async fn ",
                "pub async fn ",
                "const fn ",
                "pub const fn ",
            ]
            .iter()
            .any(|prefix| code.starts_with(prefix));
            if !is_function || line.trim_end().ends_with(';') {
                continue;
            }
            let indent = &line[..line.len() - code.len()];
            let end = lines[start..]
                .iter()
                .position(|l| *l == format!("{indent}}}"))
                .unwrap_or(0);
            if end > LONGEST_FUNCTION {
                long.push(format!("{path}:{}: {end} lines", start + 1));
            }
        }
    }
    assert!(long.is_empty(), "{long:#?}");
}

#[test]
fn packages_depend_only_on_allowed_packages() {
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let allowed: &[(&str, &[&str])] = &[
        ("sealyard-planner", &[]),
        ("sealyard-core", &["sealyard-planner"]),
        ("sealyard-filecoin", &[]),
        ("sealyard-agent", &["sealyard-core", "sealyard-filecoin"]),
        ("sealyard-devnet", &["sealyard-filecoin"]),
        (
            "sealyard",
            &["sealyard-core", "sealyard-filecoin", "sealyard-devnet"],
        ),
        (
            "sealyard-bench",
            &[
                "sealyard",
                "sealyard-planner",
                "sealyard-core",
                "sealyard-filecoin",
                "sealyard-devnet",
            ],
        ),
    ];
    for (name, may) in allowed {
        let package = metadata
            .packages
            .iter()
            .find(|p| p.name.as_str() == *name)
            .unwrap();
        let knows: Vec<&str> = package
            .dependencies
            .iter()
            .map(|d| d.name.as_str())
            .filter(|n| n.starts_with("sealyard"))
            .collect();
        assert!(
            knows.iter().all(|n| may.contains(n)),
            "{name} depends on {knows:?}"
        );
    }
}

/// An unused dependency costs every build and every audit.
#[test]
fn every_dependency_is_used() {
    /// Listed only for its features: the bundled SQLite.
    const FOR_ITS_FEATURES: [&str; 1] = ["libsqlite3-sys"];
    let metadata = cargo_metadata::MetadataCommand::new()
        .manifest_path(root().join("Cargo.toml"))
        .no_deps()
        .exec()
        .unwrap();
    let (all, mut seen) = (sources(), 0);
    for package in &metadata.packages {
        let folder = package
            .manifest_path
            .parent()
            .unwrap()
            .file_name()
            .unwrap()
            .to_owned()
            + "/";
        let named = |name: &str| {
            let name = name.replace('-', "_");
            all.iter()
                .any(|(path, text)| path.starts_with(folder.as_str()) && text.contains(&name))
        };
        for dependency in &package.dependencies {
            let used =
                named(&dependency.name) || FOR_ITS_FEATURES.contains(&dependency.name.as_str());
            assert!(
                used,
                "{folder} declares {} and never names it",
                dependency.name
            );
            seen += 1;
        }
    }
    assert!(seen > 50, "only {seen} dependencies were found");
}

/// States are enums. A typo in a string would compile.
#[test]
fn no_query_or_page_compares_a_state_with_a_string() {
    let forbidden = [
        "state.eq(\"",
        "state.ne(\"",
        "state == \"",
        "state != \"",
        "state.as_str()",
    ];
    for (path, text) in sources()
        .iter()
        .filter(|(path, _)| !path.starts_with("tests/") && !path.contains("/demo/"))
    {
        for (number, line) in text.lines().enumerate() {
            let found = forbidden.iter().find(|words| line.contains(*words));
            assert!(found.is_none(), "{path}:{}: {found:?}", number + 1);
        }
    }
}

#[test]
fn migrations_are_paired_by_name() {
    let names = |backend: &str| -> BTreeSet<String> {
        let folder = root().join("migrations").join(backend);
        let entries = fs::read_dir(folder).unwrap().map(Result::unwrap);
        entries
            .inspect(|e| {
                assert!(e.path().join("up.sql").exists() && e.path().join("down.sql").exists())
            })
            .map(|e| e.file_name().into_string().unwrap())
            .collect()
    };
    assert_eq!(names("postgres"), names("sqlite"));
    assert!(!names("sqlite").is_empty());
}

#[test]
fn every_silenced_lint_gives_a_reason() {
    for (path, text) in sources() {
        if path.ends_with("tidy.rs") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            assert!(
                !line.contains("#[allow("),
                "{path}:{}: use #[expect(…, reason = …)]",
                number + 1
            );
            assert!(
                !line.contains("expect(clippy") || line.contains("reason"),
                "{path}:{}: a reason is missing",
                number + 1
            );
        }
    }
}
