//! The worked example passes the conformance kit.
#![allow(clippy::unwrap_used)]

#[path = "../examples/files.rs"]
mod files;

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use files::Files;
use fluvial_connector::conformance::{SinkSubject, SourceSubject, TestRecord, sink, source};
use fluvial_connector::{Output, SinkContext, Source, Transactor};
use tempfile::TempDir;

/// Files that are written by another program, a line at a time.
struct Input {
    directory: TempDir,
    /// What is missing of the line that is partly written.
    rest: Vec<u8>,
}

impl Input {
    fn new() -> Self {
        let (directory, rest) = (tempfile::tempdir().unwrap(), Vec::new());
        let input = Self { directory, rest };
        input.write(0, b"");
        input.write(1, b"");
        input
    }

    fn write(&self, split: u32, bytes: &[u8]) {
        let path = self.directory.path().join(format!("in-{split}.log"));
        File::options().create(true).append(true).open(path).unwrap().write_all(bytes).unwrap();
    }
}

impl SourceSubject for Input {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(Files::new(self.directory.path()).source("in"))
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(Files::new(self.directory.path()).source("missing"))
    }

    fn append(&mut self, split: u32, records: &[TestRecord]) {
        for (key, value) in records {
            self.write(split, files::line(key.as_deref(), value.as_deref()).as_bytes());
        }
    }

    fn splits(&self) -> [String; 2] {
        ["in-0.log".to_owned(), "in-1.log".to_owned()]
    }

    fn append_part(&mut self, split: u32, (key, value): &TestRecord) -> bool {
        assert_eq!(split, 0);
        let line = files::line(key.as_deref(), value.as_deref());
        let (part, rest) = line.as_bytes().split_at(line.len() / 2);
        self.write(split, part);
        self.rest = rest.to_vec();
        true
    }

    fn append_rest(&mut self) {
        let rest = std::mem::take(&mut self.rest);
        self.write(0, &rest);
    }
}

struct Outputs(TempDir);

impl Outputs {
    fn files(&self) -> Files {
        Files::new(self.0.path().join("made by connect"))
    }
}

impl SinkSubject for Outputs {
    fn outputs(&self) -> [Arc<dyn Output>; 2] {
        [Arc::new(self.files().output("first")), Arc::new(self.files().output("second"))]
    }

    fn context(&self) -> SinkContext {
        SinkContext::new("job", Duration::from_secs(20))
    }

    /// Before the commit point, after it, when the lines of one file are in part written, when all is written and the
    /// transaction is still marked as committed, and after the commit.
    fn crash_in_commit(&mut self, mut writer: Box<dyn Transactor>, step: usize) -> bool {
        let root = self.0.path().join("made by connect");
        let is_prepared = |name: &str| name.starts_with("prepared-");
        let names = fs::read_dir(&root).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let prepared = root.join(names.into_iter().find(|name| is_prepared(name)).unwrap());
        let (committed, log) = (root.join("committed"), root.join("first-0.log"));
        let commit_point = || fs::rename(&prepared, &committed).unwrap();
        match step {
            0 => {}
            1 => commit_point(),
            2 => {
                // All but the last bytes of the file: what comes first when the commit is done by the writer.
                let before = fs::read(&log).unwrap().len();
                let copy = fs::read(&prepared).unwrap();
                writer.commit().unwrap();
                let all = fs::read(&log).unwrap();
                fs::write(&log, &all[..(before + all.len()) / 2]).unwrap();
                fs::write(&committed, copy).unwrap();
            }
            3 => {
                let copy = fs::read(&prepared).unwrap();
                writer.commit().unwrap();
                fs::write(&committed, copy).unwrap();
            }
            4 => writer.commit().unwrap(),
            _ => return false,
        }
        true
    }

    fn input(&self, output: &str) -> Option<Arc<dyn Source>> {
        Some(Arc::new(self.files().source(output)))
    }
}

#[test]
fn the_source_conforms() {
    let report = source::all(Input::new);
    let skipped = [
        "the_waker_is_called_when_a_transaction_commits",
        "only_committed_records_are_delivered",
        "an_offset_that_is_gone_is_a_data_error",
        "the_position_passes_what_is_never_delivered",
        "an_unavailable_split_holds_up_no_other",
        "a_recreated_input_has_another_identity",
    ];
    assert_eq!(report.skipped, skipped, "files have no transactions and no retention");
}

#[test]
fn the_sink_conforms() {
    let report = sink::all(|| Outputs(tempfile::tempdir().unwrap()));
    let skipped = ["an_output_that_is_recreated_has_another_identity", "other_jobs_that_write_an_output_are_named"];
    assert_eq!(report.skipped, skipped, "files have no identities");
}
