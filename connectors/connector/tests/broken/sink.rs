//! The model's sink.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use fluvial_connector::conformance::SinkSubject;
use fluvial_connector::{
    CommitError, Digest, Envelope, Error, ErrorKind, Generation, Offset, Output, OutputPartition, OutputSpec,
    OutputStatus, PartitionWrite, Position, Progress, ReadEnd, Record, Sink, SinkContext, SinkSession, SinkStatus,
    Source, Transaction, Transactor, WriterId,
};

use crate::model::{Bug, Fate, JobProgress, Model, Open, State};
use crate::source::ModelSource;

/// How long a broken sink waits for another thread to come between.
const FOR_ANOTHER_THREAD: Duration = Duration::from_secs(2);

pub(crate) struct Outputs {
    model: Model,
    patience: Duration,
}

impl Outputs {
    pub(crate) fn new(bug: Option<Bug>, patience: Duration) -> Self {
        Self { model: Model::new(bug), patience }
    }
}

impl SinkSubject for Outputs {
    fn outputs(&self) -> [Arc<dyn Output>; 2] {
        ["first", "second"].map(|name| Arc::new(ModelOutput { model: self.model.clone(), name }) as Arc<dyn Output>)
    }

    fn context(&self) -> SinkContext {
        SinkContext::new("job", self.patience)
    }

    fn crash_in_commit(&mut self, mut writer: Box<dyn Transactor>, step: usize) -> bool {
        // Its commit is one step, unless it is broken.
        let has_step = step <= 1 || step == 2 && self.model.has(Bug::CrashBetweenRecordsAndProgress);
        if has_step {
            self.model.state().crash = Some(step);
            writer.commit().unwrap_err();
        }
        has_step
    }

    fn recreate(&mut self, output: &str) -> bool {
        self.model.state().create(output);
        true
    }

    fn input(&self, output: &str) -> Option<Arc<dyn Source>> {
        Some(Arc::new(ModelSource::new(self.model.clone(), output)))
    }
}

struct ModelOutput {
    model: Model,
    name: &'static str,
}

fn partition_of(key: &[u8], partitions: u32) -> u32 {
    key.iter().fold(7u32, |hash, byte| hash.wrapping_mul(31).wrapping_add(u32::from(*byte))) % partitions
}

impl Output for ModelOutput {
    fn sink(&self) -> Arc<dyn Sink> {
        let number = self.model.state().number();
        Arc::new(ModelSink { model: self.model.clone(), number })
    }

    fn spec(&self) -> OutputSpec {
        static CALLS: AtomicU32 = AtomicU32::new(0);
        let partition_of = match () {
            () if self.model.has(Bug::PartitionOutOfRange) => {
                |key: &[u8], partitions| partition_of(key, partitions + 1)
            }
            () if self.model.has(Bug::PartitionOfCalls) => {
                |_: &[u8], partitions| CALLS.fetch_add(1, Ordering::Relaxed) % partitions
            }
            () => partition_of,
        };
        OutputSpec { name: self.name.to_owned(), envelope: Envelope::Append, partition_of }
    }
}

struct ModelSink {
    model: Model,
    number: u64,
}

impl Sink for ModelSink {
    fn identity(&self) -> String {
        let number = if self.model.has(Bug::IdentityOfEachValue) { self.number.to_string() } else { String::new() };
        format!("the model{number}")
    }

    fn connect(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        let mut state = self.model.state();
        let names: Vec<_> = outputs.iter().map(|output| output.name.clone()).collect();
        for name in &names {
            let is_missing = !state.topics.contains_key(name) && !self.model.has(Bug::ConnectCreatesNothing);
            if is_missing || self.model.has(Bug::ConnectEmpties) {
                state.create(name);
            }
        }
        if self.model.has(Bug::PreparedIsCommittedByReopening) {
            for (_, open) in std::mem::take(&mut state.open) {
                state.finish(open.id, Fate::Committed);
                keep(&mut state, &open.job, open.slot, open.progress);
            }
        }
        if self.model.has(Bug::CommitForgottenByReopening) {
            state.progress.clear();
        }
        let (model, context, number) = (self.model.clone(), context.clone(), state.number());
        let (missing, epochs, stale) = (Vec::new(), Arc::default(), Mutex::default());
        Ok(Arc::new(ModelSession { model, context, outputs: names, missing, number, epochs, stale }))
    }

    fn look(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        let mut state = self.model.state();
        let names: Vec<_> = outputs.iter().map(|output| output.name.clone()).collect();
        let missing: Vec<_> = names.iter().filter(|name| !state.topics.contains_key(*name)).cloned().collect();
        if self.model.has(Bug::LookCreates) {
            missing.iter().for_each(|name| state.create(name));
        }
        let (model, context, number) = (self.model.clone(), context.clone(), state.number());
        let (epochs, stale) = (Arc::default(), Mutex::default());
        Ok(Arc::new(ModelSession { model, context, outputs: names, missing, number, epochs, stale }))
    }
}

/// Adds the progress of a transaction to that of its job.
fn keep(state: &mut State, job: &str, slot: u32, progress: Vec<(OutputPartition, Progress)>) {
    let kept = state.progress.entry(job.to_owned()).or_default();
    kept.extend(progress.into_iter().map(|(at, progress)| (at, (slot, progress))));
}

/// The epochs of writers that one session has fenced.
type SessionEpochs = Arc<Mutex<BTreeMap<WriterId, u64>>>;

struct ModelSession {
    model: Model,
    context: SinkContext,
    outputs: Vec<String>,
    /// Those that did not exist when it was looked for them.
    missing: Vec<String>,
    number: u64,
    /// For bugs that forget other sessions.
    epochs: SessionEpochs,
    /// For a bug that shows progress of an earlier time.
    stale: Mutex<BTreeMap<OutputPartition, Progress>>,
}

/// The name that progress is kept under.
fn job(model: &Model, context: &SinkContext, session: u64) -> String {
    match () {
        () if model.has(Bug::OneProgressForAllJobs) => "any job".to_owned(),
        () if model.has(Bug::ProgressOfTheProcess) => context.process.to_string(),
        () if model.has(Bug::ProgressOfTheSession) => session.to_string(),
        () => context.process.job.clone(),
    }
}

impl ModelSession {
    fn job(&self) -> String {
        job(&self.model, &self.context, self.number)
    }

    /// Waits until something is over that an open transaction is the reason for.
    fn wait_for_open<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        deadline: Instant,
        is_open: impl FnMut(&mut State) -> bool,
    ) -> Result<MutexGuard<'a, State>, Error> {
        let left = deadline.saturating_duration_since(Instant::now());
        let (state, is_over) = self.model.wait_while(state, left, is_open);
        let error = || Error::new(ErrorKind::Retry, "an open transaction holds it up");
        if is_over { Ok(state) } else { Err(error()) }
    }
}

impl SinkSession for ModelSession {
    fn status(&self) -> Result<SinkStatus, Error> {
        let state = self.model.state();
        let mut status = SinkStatus { progress_name: self.job(), ..SinkStatus::default() };
        for name in &self.missing {
            let identity = OutputStatus::NOT_YET.to_owned();
            status.outputs.insert(name.clone(), OutputStatus { partitions: 2, identity });
        }
        for name in self.outputs.iter().filter(|name| !self.missing.contains(name)) {
            if let Some(topic) = state.topics.get(name) {
                let identity = if self.model.has(Bug::OutputKeepsItsIdentity) { 1 } else { topic.identity };
                status.outputs.insert(name.clone(), OutputStatus { partitions: 2, identity: identity.to_string() });
            }
        }
        Ok(status)
    }

    fn writers(&self, output: &str) -> Result<Vec<String>, Error> {
        let state = self.model.state();
        let others = state.progress.iter().filter(|(job, _)| **job != self.job() || self.model.has(Bug::NamesItself));
        let of_output = others.filter(|(_, progress)| progress.keys().any(|at| at.output == output));
        Ok(of_output.map(|(job, _)| format!("job '{job}'")).collect())
    }

    fn fence(&self, id: &WriterId) -> Result<Box<dyn Transactor>, Error> {
        let mut id = *id;
        if self.model.has(Bug::OneTurn) {
            id.turn = 0;
        }
        let mut state = self.model.state();
        let all = self.model.has(Bug::FencesAllWriters);
        let left: Vec<_> = state.open.keys().copied().filter(|open| all || *open == id).collect();
        for open in left {
            if !self.model.has(Bug::FenceLeavesOpen) {
                let open = state.open.remove(&open).unwrap();
                let fate = if self.model.has(Bug::FenceCommits) { Fate::Committed } else { Fate::Aborted };
                state.finish(open.id, fate);
            }
        }
        let epoch = state.number();
        let mut of_session = self.epochs.lock().unwrap();
        if self.model.has(Bug::FencesTheSessionOnly) { &mut *of_session } else { &mut state.epochs }.insert(id, epoch);
        drop((state, of_session));
        self.model.wake([0, 1].into_iter(), true);
        let (model, context, epochs, session) =
            (self.model.clone(), self.context.clone(), Arc::clone(&self.epochs), self.number);
        Ok(Box::new(ModelTransactor { model, context, epochs, session, id, epoch, is_prepared: false }))
    }

    fn progress(&self) -> Result<BTreeMap<OutputPartition, Progress>, Error> {
        let (mut state, has) = (self.model.state(), |bug| self.model.has(bug));
        state.questions += 1;
        self.model.has_changed();
        if has(Bug::ProgressWaitsForEver) {
            let long = Duration::from_secs(20);
            state = self.model.wait_while(state, long, |state| !state.open.is_empty()).0;
        }
        if has(Bug::ProgressAsOfTheOpenTransaction) && !state.open.is_empty() {
            return Ok(self.stale.lock().unwrap().clone());
        }
        let job = self.job();
        let mut all: BTreeMap<_, _> = state.progress.get(&job).cloned().unwrap_or_default();
        if has(Bug::ProgressBeforeTheCommit) {
            for open in state.open.values().filter(|open| open.job == job) {
                all.extend(open.progress.iter().map(|(at, progress)| (at.clone(), (open.slot, progress.clone()))));
            }
        }
        Ok(all.into_iter().map(|(at, (_, progress))| (at, progress)).collect())
    }

    fn read_all_committed(
        &self,
        from: &[(OutputPartition, Offset)],
        take: &mut dyn FnMut(usize, Record<'_>),
    ) -> Result<Vec<ReadEnd>, Error> {
        let has = |bug| self.model.has(bug);
        let deadline = Instant::now() + self.context.patience;
        let mut order: Vec<usize> = (0..from.len()).collect();
        if has(Bug::PartitionsInTheirOwnOrder) {
            order.sort_by_key(|place| &from[*place].0);
        }
        let mut ends = Vec::new();
        let mut state = self.model.state();
        for (place, number) in order.into_iter().enumerate() {
            let (at, from) = &from[number];
            let is_open = |state: &mut State| {
                let partition = &state.topics[&at.output].partitions[at.partition as usize];
                state.stable(partition) < partition.next
            };
            if has(Bug::ReadWaitsForEver) && *from != Offset(u64::MAX) {
                state = self.model.wait_while(state, Duration::from_secs(20), is_open).0;
            } else if *from != Offset(u64::MAX)
                && !has(Bug::ReadStopsAtOpen)
                && !has(Bug::RecordsBeforeTheCommit)
                && !has(Bug::EndBeforeOpen)
            {
                state = self.wait_for_open(state, deadline, is_open)?;
            }
            let partition = &state.topics[&at.output].partitions[at.partition as usize];
            let stable = if has(Bug::RecordsBeforeTheCommit) { partition.next } else { state.stable(partition) };
            let first = match () {
                () if has(Bug::SkipsTheFirstRecord) && from.0 > 0 => from.0.saturating_add(1),
                () if has(Bug::ReadsNothingFromTheMiddle) && from.0 > 0 => u64::MAX,
                () => from.0,
            };
            let is_seen = |fate| fate == Fate::Committed || fate == Fate::Open && has(Bug::RecordsBeforeTheCommit);
            for entry in partition.entries.iter().filter(|entry| entry.offset >= first && entry.offset < stable) {
                if is_seen(state.fate(entry)) {
                    let (key, value) = (entry.key.as_deref(), entry.value.as_deref());
                    take(place, Record { offset: Offset(entry.offset), key, value, ..Record::default() });
                }
            }
            let before = partition.entries.iter().find(|entry| entry.end == from.0);
            let aborted = before.filter(|entry| state.fate(entry) == Fate::Aborted && !has(Bug::AbortedIsNotTold));
            let end = match () {
                () if has(Bug::EndIsTheLastOutputRecord) => partition.entries.last().map_or(0, |entry| entry.offset),
                () => partition.next,
            };
            let earliest = Offset(if has(Bug::BeginsAtItsEnd) { end } else { 0 });
            let aborted = aborted.map(|entry| Offset(entry.offset));
            ends.push(ReadEnd { earliest, aborted, end: Offset(end) });
        }
        Ok(ends)
    }

    fn end(&self, at: &OutputPartition) -> Result<Offset, Error> {
        if self.model.has(Bug::EndBeforeOpen) {
            let mut state = self.model.state();
            return Ok(Offset(state.partition(&at.output, at.partition).first));
        }
        self.read_committed(at, Offset(u64::MAX), &mut |_| ())
    }
}

struct ModelTransactor {
    model: Model,
    context: SinkContext,
    epochs: SessionEpochs,
    session: u64,
    id: WriterId,
    epoch: u64,
    is_prepared: bool,
}

impl Drop for ModelTransactor {
    fn drop(&mut self) {
        if self.model.has(Bug::DropWaits) && self.is_prepared {
            let id = self.id;
            let state = self.model.state();
            drop(self.model.wait_while(state, self.context.patience, |state| state.open.contains_key(&id)));
        }
    }
}

impl ModelTransactor {
    fn check(&self, state: &State) -> Result<(), CommitError> {
        let of_session = self.epochs.lock().unwrap();
        let epochs = if self.model.has(Bug::FencesTheSessionOnly) { &*of_session } else { &state.epochs };
        if epochs.get(&self.id) == Some(&self.epoch) {
            return Ok(());
        }
        let error = Error::new(ErrorKind::Fenced, "there is a newer writer");
        Err(if self.model.has(Bug::FencedIsUnknown) { CommitError::Unknown(error) } else { CommitError::Fenced(error) })
    }

    /// Writes the records, and returns the partition's progress.
    fn write(&self, state: &mut State, write: &PartitionWrite, id: u64) -> Progress {
        let has = |bug| self.model.has(bug);
        let mut records: Vec<_> = write.records.iter().map(|record| record.to_record()).collect();
        if has(Bug::FirstPartOnly) {
            let first = write.records.parts().next();
            records = first.into_iter().flatten().map(|record| record.to_record()).collect();
        }
        if has(Bug::LargeTransactionsInDisorder) && records.len() > 100_000 {
            records[100_000..].reverse();
        }
        if has(Bug::DeletionIsEmpty) {
            for record in &mut records {
                record.value.get_or_insert_default();
            }
        }
        let mut ends = Vec::new();
        for record in &records {
            let (at, record) = (&write.at, (Some(&*record.key), record.value.as_deref()));
            ends.push(Offset(state.append(&at.output, at.partition, record, Some(id))));
        }
        let mut progress = write.progress_at(|index| ends[index.min(ends.len() - 1)]);
        if has(Bug::OneEndForAllTicks) {
            let end = progress.end;
            progress.ticks.iter_mut().for_each(|tick| tick.end = end);
        }
        if has(Bug::EarlierTicksAreDropped) {
            progress.ticks.drain(..write.progress.ticks.len());
        }
        if has(Bug::OneGeneration) {
            progress.generation = Generation(1);
        }
        if has(Bug::TicksAreComplete) {
            progress.position = Position::Complete;
        }
        if has(Bug::DigestOf64Bits) {
            progress.digest = Digest(progress.digest.0 & u128::from(u64::MAX));
        }
        if has(Bug::BeginsWhereItEnds) {
            progress.begin = write.progress.end;
        }
        progress
    }
}

impl Transactor for ModelTransactor {
    fn prepare(&mut self, transaction: &Transaction) -> Result<Vec<Offset>, CommitError> {
        let has = |bug| self.model.has(bug);
        let mut state = self.model.state();
        if !has(Bug::OldWriterPrepares) {
            self.check(&state)?;
        }
        let what = "records that are not acknowledged";
        let wait = self.context.waits.begin(what);
        if has(Bug::WaitsStay) {
            std::mem::forget(wait);
        }
        let id = state.number();
        state.fates.insert(id, Fate::Open);
        let (mut ends, mut progress) = (Vec::new(), Vec::new());
        for write in &transaction.writes {
            let of = self.write(&mut state, write, id);
            ends.push((write.at.clone(), of.end));
            if !(has(Bug::NoProgressWithoutRecords) && write.records.is_empty()
                || has(Bug::ProgressOfTheFirstWrite) && !progress.is_empty())
            {
                progress.push((write.at.clone(), of));
            }
        }
        if has(Bug::EndsInOrderOfPartitions) {
            ends.sort();
        }
        let job = job(&self.model, &self.context, self.session);
        state.open.insert(self.id, Open { id, progress, job, slot: transaction.slot });
        self.is_prepared = true;
        Ok(ends.into_iter().map(|(_, end)| end).collect())
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let has = |bug| self.model.has(bug);
        let unknown = || CommitError::Unknown(Error::new(ErrorKind::Restart, "the process crashed"));
        let mut state = self.model.state();
        let crash = state.crash.take();
        if crash == Some(0) {
            return Err(unknown());
        }
        if has(Bug::OldWriterCommits) && self.check(&state).is_err() {
            return Ok(());
        }
        self.check(&state)?;
        let open = state.open.remove(&self.id).ok_or_else(unknown)?;
        self.is_prepared = false;
        state.finish(open.id, Fate::Committed);
        if has(Bug::CrashBetweenRecordsAndProgress) && crash == Some(1) {
            return Err(unknown());
        }
        let slot = open.slot;
        let is_older = |state: &State, at: &OutputPartition| {
            let kept = state.progress.get(&open.job).and_then(|kept: &JobProgress| kept.get(at));
            kept.is_some_and(|(of, _)| *of > slot)
        };
        let mut progress = open.progress;
        if has(Bug::ProgressOfTheGreatestSlot) {
            progress.retain(|(at, _)| !is_older(&state, at));
        }
        if has(Bug::ProgressAfterTheRecords) {
            // Until another thread has asked for the progress in between.
            let questions = state.questions;
            self.model.has_changed();
            state = self.model.wait_while(state, FOR_ANOTHER_THREAD, |state| state.questions == questions).0;
        }
        if has(Bug::LosesUpdates) {
            // What the job had before another thread committed is written back.
            let kept = state.progress.get(&open.job).cloned().unwrap_or_default();
            state.commits += 1;
            let pair = state.commits.next_multiple_of(2);
            self.model.has_changed();
            state = self.model.wait_while(state, FOR_ANOTHER_THREAD, |state| state.commits < pair).0;
            state.progress.insert(open.job.clone(), kept);
        }
        keep(&mut state, &open.job, slot, progress);
        drop(state);
        self.model.wake([0, 1].into_iter(), true);
        if crash.is_some() { Err(unknown()) } else { Ok(()) }
    }
}
