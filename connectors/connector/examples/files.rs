//! A source and a sink over the files of one directory.
//!
//! A partition is a file, `orders-0.log`; a record is a line of it, key and value in hexadecimal; offsets are bytes.
//!
//! ```text
//!   prepare:  orders-0.log  ▓▓▓▓▓▓▓┊ reserved ┊           prepared-{id}: the lines, their offsets, the progress
//!   commit:   rename prepared-{id} to `committed`         the commit point: from here on it is redone after a crash
//!             write the lines and the progress, remove `committed`
//!   fence:    write empty lines to what prepared-{id} reserved, remove it, raise epoch-{id}
//! ```
//!
//! Whatever reads or writes the sink's state holds the directory's lock, and first redoes what a crash has left in
//! `committed`. Bytes that are reserved and not decided yet are zero where a later transaction has been written behind
//! them: no reader goes past a zero byte, nor past the last end of a line.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use fluvial_connector::{
    CommitError, Envelope, Error, ErrorKind, Offset, Output, OutputPartition, OutputSpec, OutputStatus, Progress,
    ReadEnd, Record, Sink, SinkContext, SinkSession, SinkStatus, Slot, Source, SplitId, SplitReader, SplitStatus,
    Transaction, Transactor, Waker, WriterId,
};
use rustix::fs::inotify;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// How many files an output has.
const PARTITIONS: u32 = 2;

type KeyAndValue = (Option<Vec<u8>>, Option<Vec<u8>>);

/// A record's line.
pub(crate) fn line(key: Option<&[u8]>, value: Option<&[u8]>) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let field = |bytes: Option<&[u8]>| bytes.map_or_else(|| "-".to_owned(), hex);
    format!("{}\t{}\n", field(key), field(value))
}

/// Key and value of a line without its end.
fn parse(line: &[u8]) -> Option<KeyAndValue> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    let field = |text: &str| match text {
        "-" => Some(None),
        hex => hex.as_bytes().chunks(2).map(byte).collect::<Option<Vec<u8>>>().map(Some),
    };
    let (key, value) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    Some((field(key)?, field(value)?))
}

/// How many of these bytes, which begin with a line, are whole lines that are decided.
fn decided(bytes: &[u8]) -> usize {
    let nonzero = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes[..nonzero].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1)
}

/// The records of whole lines, with the offset of each; an empty line is what was aborted.
fn records(lines: &[u8], begin: u64) -> impl Iterator<Item = (u64, &[u8])> {
    let mut next = begin;
    let with_offsets = lines.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let offset = next;
        next += line.len() as u64;
        (offset, &line[..line.len() - 1])
    });
    with_offsets.filter(|(_, line)| !line.is_empty())
}

fn data(path: &Path, what: &str) -> Error {
    Error::new(ErrorKind::Data, format!("read file '{}': {what}", path.display()))
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> Error {
    move |error| Error::caused(ErrorKind::Retry, format!("use file '{}'", path.display()), error)
}

/// A directory of files. Any number of values, processes and threads may use the same one.
#[derive(Clone)]
pub(crate) struct Files(PathBuf);

/// What one transaction is going to write.
#[derive(Serialize, Deserialize)]
struct Prepared {
    job: String,
    /// File, offset, lines.
    lines: Vec<(String, u64, String)>,
    progress: Vec<(OutputPartition, Progress)>,
}

impl Files {
    pub(crate) fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    pub(crate) fn source(&self, name: &str) -> FileSource {
        FileSource { files: self.clone(), name: name.to_owned() }
    }

    pub(crate) fn output(&self, name: &str) -> FileOutput {
        FileOutput { files: self.clone(), name: name.to_owned() }
    }

    fn identity(&self) -> String {
        format!("files in {}", self.0.display())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Keeps all others out until it is dropped, and finishes what a crash has interrupted.
    fn lock(&self) -> Result<File, Error> {
        let path = self.path("lock");
        let file = File::create(&path).and_then(|file| file.lock().map(|()| file)).map_err(failed(&path))?;
        if let Some(committed) = self.load::<Prepared>("committed")? {
            for (name, begin, lines) in &committed.lines {
                self.write_at(name, *begin, lines.as_bytes())?;
            }
            let name = format!("progress-{}", committed.job);
            let mut progress = self.load::<BTreeMap<String, (OutputPartition, Progress)>>(&name)?.unwrap_or_default();
            progress.extend(committed.progress.into_iter().map(|entry| (entry.0.to_string(), entry)));
            self.store(&name, &progress)?;
            self.remove("committed")?;
        }
        Ok(file)
    }

    /// What is kept under a name, if anything is.
    fn load<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>, Error> {
        let path = self.path(name);
        match fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| data(&path, &error.to_string())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(&path)(error)),
        }
    }

    /// Keeps something under a name: all of it or nothing, and for good when this returns.
    fn store(&self, name: &str, what: &impl Serialize) -> Result<(), Error> {
        let (path, new) = (self.path(name), self.path("new"));
        let bytes = serde_json::to_vec(what).map_err(|error| data(&path, &error.to_string()))?;
        let written = File::create(&new).and_then(|mut file| file.write_all(&bytes).and_then(|()| file.sync_all()));
        written.map_err(failed(&new))?;
        self.rename("new", name)
    }

    fn rename(&self, from: &str, to: &str) -> Result<(), Error> {
        fs::rename(self.path(from), self.path(to)).and_then(|()| self.sync()).map_err(failed(&self.path(from)))
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        fs::remove_file(self.path(name)).and_then(|()| self.sync()).map_err(failed(&self.path(name)))
    }

    /// Makes what was created, renamed and removed in the directory durable.
    fn sync(&self) -> io::Result<()> {
        File::open(&self.0)?.sync_all()
    }

    fn write_at(&self, name: &str, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        let path = self.path(name);
        let file = File::options().create(true).truncate(false).write(true).open(&path);
        file.and_then(|file| file.write_all_at(bytes, offset).and_then(|()| file.sync_all())).map_err(failed(&path))
    }

    /// Where the lines of transactions that are prepared will end, by file.
    fn reserved(&self) -> Result<BTreeMap<String, u64>, Error> {
        let mut ends = BTreeMap::new();
        for entry in fs::read_dir(&self.0).map_err(failed(&self.0))? {
            let name = entry.map_err(failed(&self.0))?.file_name().to_string_lossy().into_owned();
            let prepared = if name.starts_with("prepared-") { self.load::<Prepared>(&name)? } else { None };
            for (file, begin, lines) in prepared.into_iter().flat_map(|prepared| prepared.lines) {
                let end = ends.entry(file).or_insert(0);
                *end = (begin + lines.len() as u64).max(*end);
            }
        }
        Ok(ends)
    }
}

/// Calls a waker when one of the directory's partitions grows, until it is dropped.
struct Watch {
    events: Arc<OwnedFd>,
    number: i32,
    thread: Option<JoinHandle<()>>,
}

impl Watch {
    fn new(files: &Files, waker: Waker) -> Result<Self, Error> {
        let begin = || {
            let events = Arc::new(inotify::init(inotify::CreateFlags::CLOEXEC)?);
            let number = inotify::add_watch(&*events, &files.0, inotify::WatchFlags::MODIFY)?;
            let watched = Arc::clone(&events);
            let thread = std::thread::Builder::new().name("watch".to_owned()).spawn(move || {
                let mut buffer = [MaybeUninit::uninit(); 4096];
                let mut events = inotify::Reader::new(&*watched, &mut buffer);
                while let Ok(event) = events.next() {
                    // The last event is that the watch was removed.
                    if event.events().contains(inotify::ReadFlags::IGNORED) {
                        break;
                    }
                    if event.file_name().is_some_and(|name| name.to_bytes().ends_with(b".log")) {
                        waker.wake();
                    }
                }
            })?;
            Ok(Self { events, number, thread: Some(thread) })
        };
        begin().map_err(failed(&files.0))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // The directory may be gone, and its watch with it.
        let _ = inotify::remove_watch(&*self.events, self.number);
        // A user may have few inotify instances, and the thread holds this one until it has ended.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The files `{name}-….log` as an input; each is a split, named as the file is.
pub(crate) struct FileSource {
    files: Files,
    name: String,
}

impl Source for FileSource {
    fn describe(&self) -> String {
        format!("files '{}-*.log'", self.files.path(&self.name).display())
    }

    fn as_output(&self) -> Option<(String, String)> {
        Some((self.files.identity(), self.name.clone()))
    }

    fn splits(&self, _patience: Duration) -> Result<Vec<SplitStatus>, Error> {
        let is_split = |name: &str| {
            let number = name.strip_prefix(&self.name).and_then(|rest| rest.strip_prefix('-'));
            number.and_then(|rest| rest.strip_suffix(".log")).is_some_and(|number| number.parse::<u32>().is_ok())
        };
        let entries = fs::read_dir(&self.files.0).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        let mut splits = Vec::new();
        for name in names.filter(|name| is_split(name)) {
            let path = self.files.path(&name);
            let end = decided(&fs::read(&path).map_err(failed(&path))?) as u64;
            splits.push(SplitStatus::available(SplitId(name), Offset(0), Offset(end), String::new()));
        }
        if splits.is_empty() {
            let what = format!("{} do not exist: check directory and name", self.describe());
            return Err(Error::new(ErrorKind::Configuration, what));
        }
        Ok(splits)
    }

    fn reader(&self, waker: Waker) -> Result<Box<dyn SplitReader>, Error> {
        let (files, watch) = (self.files.clone(), Watch::new(&self.files, waker)?);
        Ok(Box::new(FileReader { files, _watch: watch, places: Vec::new() }))
    }
}

struct FileReader {
    files: Files,
    _watch: Watch,
    places: Vec<Place>,
}

struct Place {
    slot: Slot,
    path: PathBuf,
    file: File,
    position: u64,
    paused: bool,
}

impl Place {
    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        let end = self.file.metadata().map_err(failed(&self.path))?.len();
        if self.position > end {
            return Err(data(&self.path, &format!("offset {} is gone: the file ends at {end}", self.position)));
        }
        // Twice as much each time, until there is a whole line.
        let (mut bytes, mut size) = (Vec::new(), 1 << 16);
        while decided(&bytes) == 0 && (bytes.len() as u64) < end - self.position {
            bytes.resize(size, 0);
            let read = self.file.read_at(&mut bytes, self.position).map_err(failed(&self.path))?;
            bytes.truncate(read);
            if read < size {
                break;
            }
            size *= 2;
        }
        let (begin, whole, mut count) = (self.position, decided(&bytes), 0);
        for (offset, line) in records(&bytes[..whole], begin) {
            self.position = offset;
            if count == most {
                return Ok(count);
            }
            let bad = || data(&self.path, &format!("the line at offset {offset} is no record"));
            let (key, value) = parse(line).ok_or_else(bad)?;
            let (key, value) = (key.as_deref(), value.as_deref());
            take(self.slot, Record { offset: Offset(offset), key, value, ..Record::default() });
            count += 1;
        }
        self.position = begin + whole as u64;
        Ok(count)
    }
}

impl SplitReader for FileReader {
    fn start(&mut self, slot: Slot, split: &SplitId, from: Offset) -> Result<(), Error> {
        let path = self.files.path(&split.0);
        let file = File::open(&path).map_err(failed(&path))?;
        self.places.retain(|place| place.slot != slot);
        self.places.push(Place { slot, path, file, position: from.0, paused: false });
        Ok(())
    }

    fn set_paused(&mut self, slot: Slot, paused: bool) -> Result<(), Error> {
        self.places.iter_mut().filter(|place| place.slot == slot).for_each(|place| place.paused = paused);
        Ok(())
    }

    fn poll(&mut self, most: usize, take: &mut dyn FnMut(Slot, Record<'_>)) -> Result<usize, Error> {
        let mut count = 0;
        for place in self.places.iter_mut().filter(|place| !place.paused) {
            count += place.poll(most - count, take)?;
        }
        // No split comes first each time.
        let next = usize::from(!self.places.is_empty());
        self.places.rotate_left(next);
        Ok(count)
    }

    fn position(&self, slot: Slot) -> Offset {
        Offset(self.places.iter().find(|place| place.slot == slot).map_or(0, |place| place.position))
    }
}

/// The files `{name}-….log` as an output.
pub(crate) struct FileOutput {
    files: Files,
    name: String,
}

impl Output for FileOutput {
    fn sink(&self) -> Arc<dyn Sink> {
        Arc::new(FileSink(self.files.clone()))
    }

    fn spec(&self) -> OutputSpec {
        let partition_of =
            |key: &[u8], partitions| key.iter().fold(0u32, |sum, byte| sum + u32::from(*byte)) % partitions;
        OutputSpec { name: self.name.clone(), envelope: Envelope::Append, partition_of }
    }
}

struct FileSink(Files);

impl Sink for FileSink {
    fn identity(&self) -> String {
        self.0.identity()
    }

    fn connect(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        fs::create_dir_all(&self.0.0).map_err(failed(&self.0.0))?;
        let _lock = self.0.lock()?;
        let outputs: Vec<_> = outputs.iter().map(|output| output.name.clone()).collect();
        for output in &outputs {
            for partition in 0..PARTITIONS {
                self.0.write_at(&file_of(&OutputPartition { output: output.clone(), partition }), 0, b"")?;
            }
        }
        self.0.sync().map_err(failed(&self.0.0))?;
        Ok(Arc::new(FileSession { files: self.0.clone(), context: context.clone(), outputs }))
    }

    fn look(&self, context: &SinkContext, outputs: &[OutputSpec]) -> Result<Arc<dyn SinkSession>, Error> {
        let outputs = outputs.iter().map(|output| output.name.clone()).collect();
        Ok(Arc::new(FileSession { files: self.0.clone(), context: context.clone(), outputs }))
    }
}

fn file_of(at: &OutputPartition) -> String {
    format!("{}-{}.log", at.output, at.partition)
}

struct FileSession {
    files: Files,
    context: SinkContext,
    outputs: Vec<String>,
}

impl FileSession {
    /// The whole file. The lock makes the call wait for a transaction that is writing.
    fn read(&self, path: &Path) -> Result<Vec<u8>, Error> {
        let _lock = self.files.lock()?;
        fs::read(path).map_err(failed(path))
    }
}

impl SinkSession for FileSession {
    fn status(&self) -> Result<SinkStatus, Error> {
        let output = |name: &String| {
            let first = self.files.path(&file_of(&OutputPartition { output: name.clone(), partition: 0 }));
            let identity = if first.exists() { String::new() } else { OutputStatus::NOT_YET.to_owned() };
            (name.clone(), OutputStatus { partitions: PARTITIONS, identity })
        };
        Ok(SinkStatus {
            outputs: self.outputs.iter().map(output).collect(),
            progress_name: format!("the file 'progress-{}'", self.context.process.job),
            progress_identity: String::new(),
        })
    }

    fn fence(&self, id: &WriterId) -> Result<Box<dyn Transactor>, Error> {
        let _lock = self.files.lock()?;
        let (prepared, epochs) = (format!("prepared-{id}"), format!("epoch-{id}"));
        if let Some(left) = self.files.load::<Prepared>(&prepared)? {
            for (name, begin, lines) in &left.lines {
                self.files.write_at(name, *begin, &vec![b'\n'; lines.len()])?;
            }
            self.files.remove(&prepared)?;
        }
        let epoch = self.files.load::<u64>(&epochs)?.unwrap_or(0) + 1;
        self.files.store(&epochs, &epoch)?;
        let (files, context) = (self.files.clone(), self.context.clone());
        Ok(Box::new(FileTransactor { files, context, prepared, epochs, epoch }))
    }

    fn progress(&self) -> Result<BTreeMap<OutputPartition, Progress>, Error> {
        let _lock = self.files.lock()?;
        let name = format!("progress-{}", self.context.process.job);
        let progress = self.files.load::<BTreeMap<String, (OutputPartition, Progress)>>(&name)?;
        Ok(progress.unwrap_or_default().into_values().collect())
    }

    fn read_all_committed(
        &self,
        from: &[(OutputPartition, Offset)],
        take: &mut dyn FnMut(usize, Record<'_>),
    ) -> Result<Vec<ReadEnd>, Error> {
        let deadline = Instant::now() + self.context.patience;
        let mut ends = Vec::new();
        for (place, (at, from)) in from.iter().enumerate() {
            let path = self.files.path(&file_of(at));
            let is_enough = |bytes: &[u8]| *from == Offset(u64::MAX) || decided(bytes) == bytes.len();
            let mut bytes = self.read(&path)?;
            if !is_enough(&bytes) {
                // After the hole follow records that were committed while an earlier transaction was open. They count
                // once that transaction has ended, so its end is waited for.
                let (changed, change) = mpsc::channel();
                let changed = Waker::new(move || {
                    // If nobody receives this, the reader has returned already.
                    let _ = changed.send(());
                });
                let _watch = Watch::new(&self.files, changed)?;
                let what = format!("read file '{}': an open transaction holds it up", path.display());
                let _wait = self.context.waits.begin(what.clone());
                bytes = self.read(&path)?;
                while !is_enough(&bytes) {
                    let left = deadline.saturating_duration_since(Instant::now());
                    change.recv_timeout(left).map_err(|_| Error::new(ErrorKind::Retry, what.clone()))?;
                    bytes = self.read(&path)?;
                }
            }
            let begin = usize::try_from(from.0).unwrap_or(usize::MAX).min(bytes.len());
            for (offset, line) in records(&bytes[begin..], begin as u64) {
                let bad = || data(&path, &format!("the line at offset {offset} is no record"));
                let (key, value) = parse(line).ok_or_else(bad)?;
                let (key, value) = (key.as_deref(), value.as_deref());
                take(place, Record { offset: Offset(offset), key, value, ..Record::default() });
            }
            let is_aborted = begin as u64 == from.0 && bytes[..begin].ends_with(b"\n\n");
            let aborted = is_aborted.then(|| Offset(from.0 - 1));
            ends.push(ReadEnd { aborted, ..ReadEnd::at(Offset(bytes.len() as u64)) });
        }
        Ok(ends)
    }
}

struct FileTransactor {
    files: Files,
    context: SinkContext,
    prepared: String,
    epochs: String,
    epoch: u64,
}

impl FileTransactor {
    /// The lock, if there is no newer writer.
    fn lock(&self) -> Result<File, CommitError> {
        let lock = self.files.lock().map_err(CommitError::Unknown)?;
        if self.files.load(&self.epochs).map_err(CommitError::Unknown)? != Some(self.epoch) {
            let what = format!("write '{}': a newer writer has replaced this one", self.prepared);
            return Err(CommitError::Fenced(Error::new(ErrorKind::Fenced, what)));
        }
        Ok(lock)
    }
}

impl Transactor for FileTransactor {
    fn prepare(&mut self, transaction: &Transaction) -> Result<Vec<Offset>, CommitError> {
        let _lock = self.lock()?;
        let reserved = self.files.reserved().map_err(CommitError::Unknown)?;
        let job = self.context.process.job.clone();
        let (mut prepared, mut ends) = (Prepared { job, lines: Vec::new(), progress: Vec::new() }, Vec::new());
        for write in &transaction.writes {
            let name = file_of(&write.at);
            let path = self.files.path(&name);
            let length = fs::metadata(&path).map_err(|error| CommitError::Unknown(failed(&path)(error)))?.len();
            let begin = reserved.get(&name).map_or(length, |reserved| length.max(*reserved));
            let (mut lines, mut ends_of_lines) = (String::new(), Vec::new());
            for record in write.records.iter() {
                lines += &line(Some(record.key), record.value);
                ends_of_lines.push(Offset(begin + lines.len() as u64));
            }
            let progress = write.progress_at(|index| ends_of_lines[index]);
            ends.push(progress.end);
            prepared.progress.push((write.at.clone(), progress));
            if !lines.is_empty() {
                prepared.lines.push((name, begin, lines));
            }
        }
        // Records and progress are written by one call.
        self.files.store(&self.prepared, &prepared).map_err(CommitError::Unknown)?;
        Ok(ends)
    }

    fn commit(&mut self) -> Result<(), CommitError> {
        let lock = self.lock()?;
        // The commit point. Whoever takes the lock next writes the lines: here it is this writer itself.
        self.files.rename(&self.prepared, "committed").map_err(CommitError::Unknown)?;
        drop(lock);
        self.files.lock().map(drop).map_err(CommitError::Unknown)
    }
}

/// Writes one record and reads it back.
#[allow(dead_code)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    use fluvial_connector::{Generation, Incarnation, OutputRecord, PartitionWrite, Tick, TickCount};

    let directory = tempfile::tempdir()?;
    let files = Files::new(directory.path());
    let output = files.output("orders");
    let session = output.sink().connect(&SinkContext::new("job", Duration::from_secs(10)), &[output.spec()])?;
    let id = WriterId { incarnation: Incarnation(uuid::Uuid::new_v4()), slot: 0, turn: 0 };
    let mut writer = session.fence(&id)?;
    let write = PartitionWrite {
        at: OutputPartition { output: "orders".to_owned(), partition: 0 },
        records: vec![OutputRecord { key: b"k".to_vec(), value: Some(b"v".to_vec()) }].into(),
        ticks: vec![TickCount { tick: Tick(1), records: 1 }],
        progress: Progress::complete(id.incarnation, Generation(1), Tick(1), Offset(0)),
    };
    writer.prepare(&Transaction { slot: 0, writes: vec![write] })?;
    writer.commit()?;

    let mut reader = files.source("orders").reader(Waker::new(|| ()))?;
    reader.start(Slot(0), &SplitId("orders-0.log".to_owned()), Offset(0))?;
    let mut keys = Vec::new();
    reader.poll(10, &mut |_, record| keys.push(record.key.map(<[u8]>::to_vec)))?;
    assert_eq!(keys, [Some(b"k".to_vec())]);
    Ok(())
}
