//! The workspace is laid out as design.md §8 says: folders, crates, the arrows between them, names, README and CI.
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use fluvial_tests::workspace::root;
use serde_json::Value;

/// What may lie at the top.
const TOP: &[&str] = &[
    ".ci",
    ".gitignore",
    ".rustfmt.toml",
    "Cargo.lock",
    "Cargo.toml",
    "README.md",
    "connectors",
    "engine",
    "jobs",
    "tests",
];

/// The crates that must be there, by folder.
const CRATES: &[&str] = &[
    "connectors/connector",
    "connectors/kafka",
    "connectors/kafka-apache",
    "connectors/kafka-embedded",
    "connectors/memory",
    "engine/fluvial",
    "jobs/bank",
    "jobs/benchmark",
    "jobs/demo",
    "jobs/orders",
    "jobs/words",
    "tests",
];

/// No file or folder may be called so: such a name does not say what is in it.
const NAMELESS: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

/// Whether a crate may depend on another of the workspace, both by folder.
fn may_depend(from: &str, to: &str, in_tests: bool) -> bool {
    let connector = to.starts_with("connectors/");
    match from {
        "tests" => true,
        "connectors/connector" => false,
        _ if from.starts_with("connectors/") => to == "connectors/connector" || (in_tests && connector),
        _ if from.starts_with("engine/") => {
            to == "connectors/connector"
                || (to.starts_with("engine/") && from != "engine/fluvial")
                || (in_tests && to == "connectors/memory")
        }
        _ if from.starts_with("jobs/") => to == "engine/fluvial" || connector || to == "jobs/demo",
        _ => false,
    }
}

/// The files that git knows, or would take in.
fn files() -> Vec<String> {
    let mut git = Command::new("git");
    git.args(["ls-files", "--cached", "--others", "--exclude-standard"]).current_dir(root());
    let output = git.output().unwrap();
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).unwrap();
    names.lines().filter(|name| root().join(name).exists()).map(str::to_owned).collect()
}

struct Package {
    /// The workspace's crates that it depends on, by folder, and whether for its tests alone.
    ours: Vec<(String, bool)>,
    /// The names of the others.
    others: BTreeSet<String>,
}

fn packages() -> BTreeMap<String, Package> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["metadata", "--format-version", "1", "--no-deps", "--offline"]).current_dir(root());
    let output = cargo.output().unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let folder = |path: &str| Path::new(path).strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let package = |package: &Value| {
        let manifest = package["manifest_path"].as_str().unwrap();
        let (mut ours, mut others) = (Vec::new(), BTreeSet::new());
        for dependency in package["dependencies"].as_array().unwrap() {
            let in_tests = dependency["kind"] == "dev";
            match dependency["path"].as_str() {
                Some(path) => ours.push((folder(path), in_tests)),
                None if in_tests => {}
                None => {
                    others.insert(dependency["name"].as_str().unwrap().to_owned());
                }
            }
        }
        (folder(manifest.strip_suffix("/Cargo.toml").unwrap()), Package { ours, others })
    };
    metadata["packages"].as_array().unwrap().iter().map(package).collect()
}

#[test]
fn nothing_else_lies_at_the_top() {
    let files = files();
    let top: BTreeSet<_> = files.iter().map(|name| name.split('/').next().unwrap()).collect();
    let strangers: Vec<_> = top.iter().filter(|name| !TOP.contains(name)).collect();
    assert!(strangers.is_empty(), "design.md §8 has no place for {strangers:?} at the top");
    let missing: Vec<_> = TOP.iter().filter(|name| !top.contains(*name)).collect();
    assert!(missing.is_empty(), "these are missing at the top: {missing:?}");
}

#[test]
fn every_crate_is_where_it_belongs() {
    let there: BTreeSet<_> = packages().into_keys().collect();
    let missing: Vec<_> = CRATES.iter().filter(|folder| !there.contains(**folder)).collect();
    assert!(missing.is_empty(), "these crates are missing: {missing:?}");
    for folder in &there {
        let (top, depth) = (folder.split('/').next().unwrap(), folder.split('/').count());
        let right = folder == "tests" || (depth == 2 && ["engine", "connectors", "jobs"].contains(&top));
        assert!(right, "the crate {folder} is in no folder of design.md §8");
    }
}

#[test]
fn the_arrows_go_one_way() {
    for (from, package) in packages() {
        for (to, in_tests) in package.ours {
            assert!(may_depend(&from, &to, in_tests), "{from} must not depend on {to}");
        }
    }
}

#[test]
fn a_connector_knows_no_dataflow() {
    for (folder, package) in packages().into_iter().filter(|(folder, _)| folder.starts_with("connectors/")) {
        for dataflow in ["timely", "differential-dataflow"] {
            assert!(!package.others.contains(dataflow), "{folder} must not depend on {dataflow}");
        }
    }
}

#[test]
fn every_name_says_what_is_in_it() {
    for name in files() {
        let nameless = name.split('/').find(|part| NAMELESS.contains(&part.split('.').next().unwrap()));
        assert!(nameless.is_none(), "{name}: {nameless:?} says nothing");
    }
}

/// The code block of a section of the README, `## Section`.
fn command_of(section: &str) -> String {
    let readme = fs::read_to_string(root().join("README.md")).unwrap();
    let (_, rest) = readme.split_once(&format!("\n## {section}\n")).unwrap_or_else(|| panic!("no section {section}"));
    let body = rest.split("\n## ").next().unwrap();
    let code = body.split("```").nth(1).unwrap_or_else(|| panic!("section {section} has no code block"));
    let (_language, code) = code.split_once('\n').unwrap();
    code.trim().to_owned()
}

#[test]
fn the_readme_is_short() {
    let lines = fs::read_to_string(root().join("README.md")).unwrap().lines().count();
    assert!(lines <= 200, "README.md has {lines} lines; 200 is the most");
}

#[test]
fn the_readme_has_one_command_to_try_and_one_to_test() {
    for section in ["Try it", "Test"] {
        let command = command_of(section);
        assert_eq!(command.lines().count(), 1, "section {section} holds one command, not\n{command}");
    }
}

#[test]
fn ci_runs_the_readmes_test_command() {
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let command = command_of("Test");
    let run = ci.lines().any(|line| line.trim_end().strip_suffix(&command).is_some_and(|step| step.ends_with(' ')));
    assert!(run, "no line of .ci/run ends with the README's test command {command:?}");
    assert!(root().join(&command).is_file(), "there is no {command}");
}
