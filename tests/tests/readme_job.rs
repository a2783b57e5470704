//! The README's own job: what it shows is what `jobs/words` is, and that runs.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::process::Command;
use std::time::Duration;

use fluvial_kafka_embedded::{Broker, Config};
use fluvial_tests::child::{Folder, Process, Spec};
use fluvial_tests::client::{Endpoint, Isolation, Message};
use fluvial_tests::job::binary;
use fluvial_tests::workspace;

fn readme() -> String {
    fs::read_to_string(workspace::root().join("README.md")).unwrap()
}

/// The text of a section, up to the next of its kind.
fn section<'a>(readme: &'a str, title: &str) -> &'a str {
    let begin = readme.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("README has no section {title}"));
    let rest = &readme[begin + 4..];
    rest.find("\n## ").map_or(rest, |end| &rest[..end])
}

/// The only fenced block of a language in a section.
fn block<'a>(section: &'a str, language: &str) -> &'a str {
    let fence = format!("```{language}\n");
    let parts: Vec<_> = section.split(fence.as_str()).collect();
    assert_eq!(parts.len(), 2, "one {language} block in\n{section}");
    parts[1].split("```").next().unwrap()
}

/// The dependencies that the sentence before the block names: a crate, and its features.
fn dependencies(section: &str) -> BTreeMap<String, Vec<String>> {
    let sentence =
        section.split("depends on").nth(1).expect("README says what to depend on").split(';').next().unwrap();
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut last = String::new();
    let pieces: Vec<_> = sentence.split('`').collect();
    for pair in pieces.chunks(2) {
        let [before, name] = pair else { break };
        if before.contains("(with") {
            found.get_mut(&last).unwrap().push((*name).to_owned());
        } else {
            last = (*name).to_owned();
            found.insert(last.clone(), Vec::new());
        }
    }
    found
}

/// What `jobs/words` depends on, in the same form.
fn dependencies_of_words() -> BTreeMap<String, Vec<String>> {
    let workspace = fs::read_to_string(workspace::root().join("Cargo.toml")).unwrap();
    let features = |name: &str| -> Vec<String> {
        let line = workspace.lines().find(|line| line.starts_with(&format!("{name} = {{"))).unwrap_or_default();
        let list = line.split_once("features = [").map_or("", |(_, rest)| rest.split(']').next().unwrap());
        list.split(',').map(|f| f.trim().trim_matches('"').to_owned()).filter(|f| !f.is_empty()).collect()
    };
    let manifest = fs::read_to_string(workspace::root().join("jobs/words/Cargo.toml")).unwrap();
    let (_, list) = manifest.split_once("[dependencies]\n").unwrap();
    let names = list.lines().take_while(|line| !line.is_empty()).map(|line| line.split('.').next().unwrap());
    names.map(|name| (name.to_owned(), features(name))).collect()
}

#[test]
fn the_readmes_job_is_the_crate_words() {
    let readme = readme();
    let section = section(&readme, "Your own job");
    let code = block(section, "rust");
    let lines = code.lines().filter(|line| !line.trim().is_empty()).count();
    assert!(lines <= 30, "a job of {lines} lines is no small one");
    assert_eq!(code, fs::read_to_string(workspace::root().join("jobs/words/src/main.rs")).unwrap());
    // The workspace may have switched on more of a crate than this job needs.
    let (named, mut has) = (dependencies(section), dependencies_of_words());
    for (name, features) in &mut has {
        features.retain(|feature| named.get(name).is_some_and(|named| named.contains(feature)));
    }
    assert_eq!(named, has);
}

#[test]
fn the_readmes_job_counts() {
    let folder = Folder::new("fluvial-readme-").unwrap();
    let program = binary("words").unwrap();
    let broker = Broker::start(Config::default()).unwrap();
    broker.create_topic("lines", 2).unwrap();
    let endpoint = Endpoint::new(broker.bootstrap());
    let lines = ["to be or not to be", "that is the question", "to be sure"];
    let messages: Vec<_> = lines.iter().zip(0..).map(|(line, n)| Message::text("lines", n % 2, "k", line)).collect();
    endpoint.writer(&[]).unwrap().write(&messages).unwrap();
    let store = folder.path().join("store");
    let args = ["run", "--brokers", endpoint.bootstrap(), "--store", store.to_str().unwrap(), "--stop-at-end"];
    let args = args.iter().map(OsString::from).collect();
    let log = folder.path().join("log");
    let job = Process::start(Spec { name: "words".to_owned(), program, args, env: Vec::new(), log }).unwrap();
    let status = job.wait(Duration::from_secs(60)).unwrap();
    assert!(status.success(), "{status}: {}", job.log_end());
    let text = |bytes: Option<Vec<u8>>| String::from_utf8(bytes.unwrap_or_default()).unwrap();
    let records = endpoint.read("counts", Isolation::Committed).unwrap().into_iter();
    let counts: BTreeMap<_, _> = records.map(|record| (text(record.key), text(record.value))).collect();
    let mut expected: BTreeMap<String, u64> = BTreeMap::new();
    for word in lines.iter().flat_map(|line| line.split(' ')) {
        *expected.entry(word.to_owned()).or_default() += 1;
    }
    let expected: BTreeMap<_, _> = expected
        .into_iter()
        .map(|(word, count)| (word.clone(), format!(r#"{{"word":"{word}","count":{count}}}"#)))
        .collect();
    assert_eq!(counts, expected);
}

#[test]
fn the_first_command_is_one_that_the_binary_knows() {
    let readme = readme();
    let command = block(section(&readme, "Try it"), "sh").trim();
    let words: Vec<_> = command.split_whitespace().collect();
    let ["cargo", "run", "-p", package, "--", args @ ..] = words.as_slice() else {
        panic!("README's first command is {command}");
    };
    let output = Command::new(binary(package).unwrap()).args(args).arg("--help").output().unwrap();
    assert!(output.status.success(), "{command} --help: {}", String::from_utf8_lossy(&output.stderr));
    let help = String::from_utf8(output.stdout).unwrap();
    assert!(help.contains("--for"), "{help}");
}
