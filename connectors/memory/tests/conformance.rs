//! The memory connector passes what every connector passes.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::time::Duration;

use fluvial_connector::conformance::{Ending, SinkSubject, SourceSubject, TestRecord, sink, source};
use fluvial_connector::{
    Generation, Incarnation, Offset, Output, OutputPartition, OutputRecord, PartitionWrite, Progress, SinkContext,
    SinkSession, Source, Tick, Transaction, Transactor, WriterId,
};
use fluvial_memory::{LostCommit, Memory};

fn context() -> SinkContext {
    SinkContext::new("job", Duration::from_secs(5))
}

/// Transactions of the input are written by a sink of the same memory.
struct Input {
    memory: Memory,
    session: Arc<dyn SinkSession>,
    open: Option<Box<dyn Transactor>>,
}

impl Input {
    const ID: WriterId = WriterId { incarnation: Incarnation(uuid::Uuid::nil()), slot: 0, turn: 0 };

    fn new() -> Self {
        let memory = Memory::new();
        let output = memory.append_to("in", 2);
        let session = output.sink().connect(&context(), &[output.spec()]).unwrap();
        Self { memory, session, open: None }
    }
}

impl SourceSubject for Input {
    fn source(&self) -> Arc<dyn Source> {
        Arc::new(self.memory.source("in"))
    }

    fn missing(&self) -> Arc<dyn Source> {
        Arc::new(self.memory.source("no such topic"))
    }

    fn append(&mut self, split: u32, records: &[TestRecord]) {
        for (key, value) in records {
            self.memory.append("in", split, key.as_deref(), value.as_deref()).unwrap();
        }
    }

    fn append_open(&mut self, split: u32, records: &[TestRecord]) -> bool {
        let write = PartitionWrite {
            at: OutputPartition { output: "in".to_owned(), partition: split },
            records: records
                .iter()
                .map(|(key, value)| OutputRecord { key: key.clone().unwrap(), value: value.clone() })
                .collect::<Vec<_>>()
                .into(),
            ticks: Vec::new(),
            progress: Progress::complete(Self::ID.incarnation, Generation(1), Tick(0), Offset(0)),
        };
        let mut transactor = self.session.fence(&Self::ID).unwrap();
        transactor.prepare(&Transaction { slot: 0, writes: vec![write] }).unwrap();
        self.open = Some(transactor);
        true
    }

    fn end(&mut self, ending: Ending) {
        let mut transactor = self.open.take().unwrap();
        match ending {
            Ending::Commit => transactor.commit().unwrap(),
            Ending::Abort => drop(self.session.fence(&Self::ID).unwrap()),
        }
    }

    fn truncate(&mut self, split: u32, before: Offset) -> bool {
        self.memory.truncate("in", split, before).unwrap();
        true
    }

    fn recreate(&mut self) -> bool {
        self.memory.create_topic("in", 2);
        true
    }

    fn set_available(&mut self, split: u32, available: bool) -> bool {
        self.memory.set_available("in", split, available).unwrap();
        true
    }
}

struct Outputs(Memory);

impl SinkSubject for Outputs {
    fn outputs(&self) -> [Arc<dyn Output>; 2] {
        [Arc::new(self.0.upsert("table", 2)), Arc::new(self.0.append_to("log", 2))]
    }

    fn context(&self) -> SinkContext {
        context()
    }

    fn recreate(&mut self, output: &str) -> bool {
        self.0.create_topic(output, 2);
        true
    }

    fn crash_in_commit(&mut self, mut writer: Box<dyn Transactor>, step: usize) -> bool {
        let Some(outcome) = [LostCommit::DidNot, LostCommit::Happened].get(step) else { return false };
        self.0.faults().lose_commit(1, *outcome);
        writer.commit().unwrap_err();
        true
    }

    fn input(&self, output: &str) -> Option<Arc<dyn Source>> {
        Some(Arc::new(self.0.source(output)))
    }
}

#[test]
fn the_source_conforms() {
    let report = source::all(Input::new);
    assert_eq!(report.skipped, ["a_partly_written_record_is_not_delivered"], "a memory never keeps a part of a record");
}

#[test]
fn the_sink_conforms() {
    let report = sink::all(|| Outputs(Memory::new()));
    assert_eq!(report.skipped, [""; 0]);
}
