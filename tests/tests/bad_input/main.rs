//! Whatever is wrong with what a job is given, one line says so: what was found, where, and what a person can do. The
//! exit code is the one of `run --help`, nothing wrong becomes visible, and nothing that was committed is lost.
//!
//! | given | shown in |
//! | --- | --- |
//! | unknown topic, unreachable broker, refused credentials | [`connection`] |
//! | a record that does not decode; two rows for one key; a panic; output that differs on replay | [`code`] |
//! | a program with other logic than the one that wrote the outputs, or the same built again | [`logic`] |
//! | offsets that are gone; other records at the same offsets; and going on with `--reconcile` | [`replay`] |
//! | records that compaction has removed, whether they have to be read again or not | [`compacted`] |
//! | a tail that an unclean leader election has lost | [`cut`] |
//! | a topic that is recreated or deleted, has grown or is too short, or is compacted too soon | [`topics`] |
//! | an output or progress topic that is recreated, written by somebody else, or kept for a time only | [`outputs`] |
//! | a progress topic that is lost, of another incarnation, or ahead of the journal | [`progress`] |
//! | a progress topic of which a partition has no leader for some seconds | [`progress`] |
//! | an open transaction that holds up the progress topic or an output | [`progress`] |
//! | a record or a batch that is too large for an output; an output that acknowledges nothing | [`refused`] |
//! | a permission that is missing or removed | [`permissions`] |
//! | a timestamp that the broker refuses | [`clock`] |
//! | a store that is unwritable, full or damaged | [`store`] |
//! | any of these that can be told without a run, given to `check` | [`checked`] |
//! | a checkpoint of another job, of a newer format, with an operator that is missing or of another type | [`checkpoint`] |
//!
//! Parts of these rows that no process is needed for are shown where they are decided: `protocol`, `state`, `journal`.
#![allow(clippy::unwrap_used)]

mod checked;
mod checkpoint;
mod clock;
mod code;
mod compacted;
mod connection;
mod cut;
mod logic;
mod outputs;
mod permissions;
mod progress;
mod refused;
mod replay;
mod store;
mod topics;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fluvial_tests::job::build_again;
use fluvial_tests::stage::{Finished, Stage};
use fluvial_tests::subject::Subject;

/// How soon a run ends that has nothing to wait for.
const SOON: Duration = Duration::from_secs(20);
/// What a run needs whose output is compared record by record.
const KEPT: &str = "--keep-journal --tick-header";

/// Checks that a run has failed with this code and with one line that holds each of these, and that it said no more
/// after that.
#[track_caller]
fn assert_refused(ended: &Finished, code: i32, parts: &[&str]) {
    ended.failed_with(code, parts).unwrap();
    assert_eq!(ended.said.lines().last(), ended.error().ok(), "the error is not the last line:\n{}", ended.said);
}

/// How long after `since` a line of the log was written, as its own timestamp says; within a day.
#[track_caller]
fn written_after(since: SystemTime, line: &str) -> Duration {
    const DAY: Duration = Duration::from_secs(86_400);
    let time = line.split_whitespace().find_map(|word| word.strip_suffix('Z')?.split_once('T'));
    let (_, time) = time.unwrap_or_else(|| panic!("the line has no timestamp: {line}"));
    let part = |number: usize| time.split(':').nth(number).unwrap().parse::<f64>().unwrap();
    let written = Duration::from_secs_f64(part(0) * 3600.0 + part(1) * 60.0 + part(2));
    let since = since.duration_since(UNIX_EPOCH).unwrap().as_nanos() % DAY.as_nanos();
    let since = Duration::from_nanos(u64::try_from(since).unwrap());
    if written < since { written + DAY - since } else { written - since }
}

/// The arguments of a run with one of the job's options changed.
fn args_with(stage: &Stage, option: &str, value: &str, more: &str) -> Vec<OsString> {
    let mut args = vec!["run".into()];
    args.extend(stage.common_args());
    let at = args.iter().position(|arg| arg == option).unwrap();
    args[at + 1] = value.into();
    args.extend(more.split_whitespace().map(OsString::from));
    args
}

/// A copy of a job's binary with another content hash, as if the same code had been built again.
fn built_again(stage: &Stage, binary: impl AsRef<Path>) -> PathBuf {
    let copy = stage.folder().join("built-again");
    build_again(binary.as_ref(), &copy).unwrap();
    copy
}

/// A job of this package's own, with a fault on request.
fn faulty(stage: Stage) -> Stage {
    stage.with_program(env!("CARGO_BIN_EXE_faulty"))
}

/// A stage of orders whose job has taken a checkpoint and ended well.
fn completed(records: u64) -> Stage {
    let stage = Stage::new(Subject::Orders, 2).unwrap();
    stage.feed(0..records).unwrap();
    stage.complete(&format!("{KEPT} --stop-at-end")).unwrap();
    stage
}

/// The job's objects in a folder of its store, in the order of their names.
fn objects(stage: &Stage, folder: &str) -> Vec<PathBuf> {
    fn gather(folder: PathBuf, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() { gather(path, into) } else { into.push(path) }
        }
    }
    let mut all = Vec::new();
    gather(stage.store().join(stage.name()).join(folder), &mut all);
    all.sort();
    all
}

/// The name of an object as messages have it: folder and file.
fn name_of(stage: &Stage, object: &Path) -> String {
    let name = object.strip_prefix(stage.store()).unwrap();
    name.to_str().unwrap().to_owned()
}

/// What the output holds is what the input gives, as it is now.
#[track_caller]
fn assert_right(stage: &Stage) {
    assert_eq!(stage.table().unwrap(), stage.table_of_input().unwrap());
}
