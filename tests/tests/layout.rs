//! The workspace is laid out as `engine/ARCHITECTURE.md` says: folders, crates, the arrows between them, the layers of the
//! engine, names, README and CI.
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
    "connectors/kafka-embedded",
    "connectors/memory",
    "engine/cli",
    "engine/fluvial",
    "engine/node",
    "engine/protocol",
    "engine/store",
    "jobs/bank",
    "jobs/components",
    "jobs/demo",
    "jobs/orders",
    "jobs/words",
    "tests",
    "tests/benchmark",
    "tests/kafka-apache",
    "tests/s3",
];

/// The folders and files of `engine/fluvial/src`, layer by layer from the lowest: a layer uses those below it. The two
/// parts of what a job's author writes with, streams and durable operators, are one layer.
const LAYERS: &[&[&str]] = &[
    &["fail_point", "stages"],
    &["journal"],
    &["state"],
    &["stream", "durable"],
    &["job"],
    &["runtime"],
    &["harness"],
    &["cli"],
];

/// What the protocol may depend on: none of these can do I/O.
const PROTOCOL_DEPENDS_ON: &[&str] = &["serde", "thiserror", "uuid"];

/// No file or folder may be called so: such a name does not say what is in it.
const NAMELESS: &[&str] = &["util", "utils", "common", "helper", "helpers", "misc", "manager"];

/// Whether a crate may depend on another of the workspace, both by folder.
fn may_depend(from: &str, to: &str, in_tests: bool) -> bool {
    let connector = to.starts_with("connectors/");
    match from {
        "tests" => true,
        "tests/kafka-apache" => false,
        // For processes that end with the test.
        "tests/s3" => to == "tests/kafka-apache",
        // Itself, with the conformance kit.
        "connectors/connector" => in_tests && to == from,
        "engine/protocol" | "engine/store" => to == "connectors/connector",
        "engine/cli" => ["connectors/connector", "engine/node", "engine/protocol", "engine/store"].contains(&to),
        "engine/node" => ["connectors/connector", "engine/protocol", "engine/store"].contains(&to),
        "engine/fluvial" => {
            ["connectors/connector", "engine/node", "engine/protocol", "engine/store"].contains(&to)
                || (in_tests && to == "connectors/memory")
        }
        "tests/benchmark" => {
            connector || ["engine/fluvial", "engine/store", "tests", "tests/kafka-apache", "tests/s3"].contains(&to)
        }
        _ if from.starts_with("connectors/") => to == "connectors/connector" || (in_tests && connector),
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
    let others: Vec<_> = top.iter().filter(|name| !TOP.contains(name)).collect();
    assert!(others.is_empty(), "there is no place for {others:?} at the top");
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
        let right = folder == "tests" || (depth == 2 && ["engine", "connectors", "jobs", "tests"].contains(&top));
        assert!(right, "the crate {folder} is in no folder that is meant for crates");
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
fn the_protocol_depends_on_nothing_that_can_do_io() {
    let protocol = &packages()["engine/protocol"];
    let others: Vec<_> = protocol.others.iter().filter(|name| !PROTOCOL_DEPENDS_ON.contains(&name.as_str())).collect();
    assert!(others.is_empty(), "engine/protocol must not depend on {others:?}");
}

/// Which part of the engine a file belongs to: `runtime` for `engine/fluvial/src/runtime/worker.rs`.
fn part_of(file: &str) -> Option<&str> {
    let within = file.strip_prefix("engine/fluvial/src/")?;
    within.split_once('/').map_or_else(|| within.strip_suffix(".rs"), |(folder, _)| Some(folder))
}

#[test]
fn the_layers_of_the_engine_use_only_those_below() {
    let layer_of = |part: &str| LAYERS.iter().position(|layer| layer.contains(&part));
    for file in files() {
        let Some(part) = part_of(&file).filter(|part| *part != "lib") else { continue };
        let layer = layer_of(part).unwrap_or_else(|| panic!("{file}: the part '{part}' is in no layer"));
        // Unit tests run what they test, by whatever runs it.
        if file.ends_with("/tests.rs") {
            continue;
        }
        let text = fs::read_to_string(root().join(&file)).unwrap();
        assert!(part == "cli" || !text.contains("clap::"), "{file} uses clap, which only the command line may");
        let (code, _tests) = text.split_once("\n#[cfg(test)]\nmod tests {").unwrap_or((&text, ""));
        for used in code.split("crate::").skip(1) {
            let name = used.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap();
            if let Some(below) = layer_of(name) {
                assert!(below <= layer, "{file} uses crate::{name}, which is in a layer above '{part}'");
            }
        }
    }
}

/// Each library that a job links, with its features.
fn libraries_of(job: &str) -> BTreeSet<String> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["tree", "--package", job, "--edges", "normal,build", "--prefix", "none", "--format", "{p} {f}"]);
    let output = cargo.args(["--offline", "--locked"]).current_dir(root()).output().unwrap();
    assert!(output.status.success(), "cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let libraries = lines.lines().map(|line| line.trim_end_matches(" (*)").to_owned());
    libraries.filter(|line| !line.starts_with(&format!("{job} "))).collect()
}

/// Three libraries had more features where the demos' broker is linked. So a job of one's own, built after a demo, built parquet,
/// librdkafka and the engine again, which took minutes.
#[test]
fn all_jobs_have_the_same_builds_of_libraries() {
    let with_a_demo = libraries_of("orders");
    for job in ["words", "bank", "components"] {
        let others: Vec<_> = libraries_of(job).difference(&with_a_demo).cloned().collect();
        assert!(others.is_empty(), "{job} has other features, so these are built again: {others:?}");
    }
}

#[test]
fn every_file_belongs_to_a_crate() {
    let files = files();
    for file in files.iter().filter(|file| file.ends_with(".rs")) {
        let Some((folder, name)) = file.split_once("/src/").map(|_| file.rsplit_once('/').unwrap()) else { continue };
        let (module, of) = match name.strip_suffix(".rs").unwrap() {
            "mod" => (folder.rsplit_once('/').unwrap().1, folder.rsplit_once('/').unwrap().0),
            name => (name, folder),
        };
        if ["lib", "main"].contains(&module) || folder.ends_with("/bin") {
            continue;
        }
        let parents = [format!("{of}/mod.rs"), format!("{of}/lib.rs"), format!("{of}/main.rs"), format!("{of}.rs")];
        let declared = parents.iter().filter(|parent| files.contains(*parent)).any(|parent| {
            let text = fs::read_to_string(root().join(parent)).unwrap();
            text.lines().any(|line| line.trim().ends_with(&format!("mod {module};")))
        });
        assert!(declared, "no module declares {file}, so nothing compiles it");
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
    assert!(lines <= 235, "README.md has {lines} lines; 235 is the most");
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

/// `cargo test` is content with a program that has no test.
#[test]
fn each_test_that_ci_names_exists() {
    let ci = fs::read_to_string(root().join(".ci/run")).unwrap();
    let words: Vec<_> = ci.split_whitespace().collect();
    let named: Vec<_> = words.windows(2).filter(|pair| pair[0] == "--test").map(|pair| pair[1]).collect();
    assert_eq!(named, ["without_tls"]);
    for name in named {
        let file = files().into_iter().find(|file| file.ends_with(&format!("/tests/{name}.rs")));
        let file = file.unwrap_or_else(|| panic!("there is no test program {name}"));
        let text = fs::read_to_string(root().join(&file)).unwrap();
        assert!(text.contains("#[test]"), "{file} has no test");
    }
}

/// The words in backquotes.
fn quoted(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

#[test]
fn each_failure_of_other_systems_names_tests_that_exist() {
    let read = |file: &String| fs::read_to_string(root().join(file)).unwrap();
    let files = files();
    let tests: String = files.iter().filter(|file| file.ends_with(".rs")).map(read).collect();
    let table = read(&"tests/src/group/histories.rs".to_owned());
    let rows: Vec<_> = table.lines().filter(|line| line.starts_with("//! | ")).skip(2).collect();
    assert_eq!(rows.len(), 27);
    for row in rows {
        let shown = row.split(" | ").nth(3).unwrap();
        for name in quoted(shown) {
            let name = name.split('(').next().unwrap();
            let there = if name.starts_with(char::is_uppercase) {
                // A blow.
                tests.contains(&format!("Self::{name}"))
            } else {
                let program = |file: &String| {
                    *file == format!("tests/tests/{name}.rs") || file.starts_with(&format!("tests/tests/{name}/"))
                };
                tests.contains(&format!("fn {name}(")) || files.iter().any(program)
            };
            assert!(there, "there is no {name}: {row}");
        }
    }
}
