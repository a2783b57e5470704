//! The output of a run, which must never block or fail the run, whatever happens to its reader.
//!
//! ```text
//!   process 0: stdout, stderr ──pipes──┐
//!   process 1: stdout, stderr ──pipes──┼─► Lines (bounded) ─► a thread ─► the run's own stdout and stderr
//!   the supervisor's log ──────────────┘
//! ```
//!
//! The supervisor reads what its processes print, so that none of their writes can fail or block: neither those of the log or a
//! panic, nor those of a closure of the job or a C library. Lines that the supervisor itself cannot write (the reader of its log
//! has ended, the disk is full) are lost and counted, and the log says how many were lost as soon as it can be written again. A
//! reader that does not read is treated in the same way once 4 MiB are waiting for it.
//!
//! In a cluster the lines of processes go to the [`logs`](crate::logs) of their jobs instead.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::process::Child;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

use crate::logs::{AttemptLogs, ProcessLog, Split, Stream};

/// The maximum number of bytes that wait to be written.
const MOST_WAITING_BYTES: usize = 4 << 20;
/// How long the end of a run waits for a reader that does not read.
const LAST_LINES: Duration = Duration::from_secs(1);
/// The maximum number of bytes that a process may print without an end of line before they are passed on.
const LONGEST_LINE: usize = 64 << 10;

/// The run's own streams, in its supervisor.
static RUN: OnceLock<Streams> = OnceLock::new();

struct Streams {
    out: Lines,
    err: Lines,
}

/// Makes this process the one that prints for its run.
///
/// # Errors
/// The system has no more threads.
pub fn print_for_the_run() -> std::io::Result<()> {
    if RUN.get().is_none() {
        let streams =
            Streams { out: Lines::to("stdout", std::io::stdout())?, err: Lines::to("stderr", std::io::stderr())? };
        // A second run in the process of a test goes on with the first one's.
        let _ = RUN.set(streams);
    }
    Ok(())
}

/// Prints a line to stderr. A line that cannot be written is lost.
pub fn say(line: &str) {
    // [`Writer`] takes everything.
    let _ = Writer.write_all(format!("{line}\n").as_bytes());
}

/// Waits until everything is written, or until it is clear that it will not be.
pub fn finish() {
    for lines in RUN.get().iter().flat_map(|streams| [&streams.out, &streams.err]) {
        lines.drain(LAST_LINES);
    }
}

/// The index of this process in its generation, if there are several processes: each line of the log holds it.
static PROCESS: OnceLock<usize> = OnceLock::new();

/// Sets the index of this process, which is one of several of its generation.
pub fn this_is_process(index: usize) {
    // The index is set once for each process.
    let _ = PROCESS.set(index);
}

/// A line of the log with the index of the process, in its own field if the line is JSON.
fn with_process(line: &[u8], process: usize) -> Vec<u8> {
    match (line.strip_prefix(b"{"), line.strip_suffix(b"\n")) {
        (Some(fields), _) => [format!("{{\"process\":{process},").as_bytes(), fields].concat(),
        (None, Some(text)) => [text, format!(" process={process}\n").as_bytes()].concat(),
        (None, None) => line.to_vec(),
    }
}

/// The writer of the log, which accepts everything and never fails.
#[derive(Clone, Copy, Debug)]
pub struct Writer;

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let line = PROCESS.get().map(|process| with_process(bytes, *process));
        let line = line.as_deref().unwrap_or(bytes);
        match RUN.get() {
            Some(streams) => streams.err.push(line.to_vec()),
            // Elsewhere nobody could be told that it failed.
            None => drop(std::io::stderr().write_all(line)),
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Writer {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        Self
    }
}

/// Follows what the processes of a generation print, and passes it on.
pub(crate) struct Following {
    /// Held by each thread that follows a stream, and by nobody else once all are followed.
    open: Option<Sender<()>>,
    ended: Receiver<()>,
    /// Where the lines are kept; `None` if they are printed.
    logs: Option<AttemptLogs>,
}

impl Following {
    pub(crate) fn new(logs: Option<AttemptLogs>) -> Self {
        let (open, ended) = channel();
        Self { open: Some(open), ended, logs }
    }

    /// Prints or keeps what a process prints from now on. Returns the log where it is kept.
    ///
    /// # Errors
    /// The system has no more threads.
    pub(crate) fn follow(&self, index: u32, child: &mut Child) -> std::io::Result<Option<ProcessLog>> {
        if let Some(logs) = &self.logs {
            let log = logs.process(index);
            return self.keep(&log, child).map(|()| Some(log));
        }
        let Some(streams) = RUN.get() else { return Ok(None) };
        if let Some(out) = child.stdout.take() {
            self.print("process-stdout", out, streams.out.clone())?;
        }
        if let Some(err) = child.stderr.take() {
            self.print("process-stderr", err, streams.err.clone())?;
        }
        Ok(None)
    }

    fn print(&self, name: &str, stream: impl Read + Send + 'static, to: Lines) -> std::io::Result<()> {
        self.read_by_thread(name, move || pump(stream, &to))
    }

    fn keep(&self, log: &ProcessLog, child: &mut Child) -> std::io::Result<()> {
        if let Some(out) = child.stdout.take() {
            let log = log.clone();
            self.read_by_thread("process-stdout", move || keep(out, Stream::Stdout, &log))?;
        }
        if let Some(err) = child.stderr.take() {
            let log = log.clone();
            self.read_by_thread("process-stderr", move || keep(err, Stream::Stderr, &log))?;
        }
        Ok(())
    }

    fn read_by_thread(&self, name: &str, read: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
        let open = self.open.clone();
        let read = move || {
            read();
            drop(open);
        };
        std::thread::Builder::new().name(name.to_owned()).spawn(read).map(drop)
    }

    /// Waits until everything that the processes had printed when they ended has been read. The wait is short, because
    /// a program that a process has started may hold its streams open.
    pub(crate) fn end(&mut self) {
        self.open = None;
        let until = Instant::now() + LAST_LINES;
        while let Ok(()) | Err(RecvTimeoutError::Timeout) =
            self.ended.recv_timeout(until.saturating_duration_since(Instant::now()))
        {
            if Instant::now() >= until {
                return;
            }
        }
    }
}

/// Hands on what is read until the stream ends.
fn read_all(mut stream: impl Read, mut read: impl FnMut(&[u8])) {
    let mut buffer = vec![0; 16 << 10];
    loop {
        match stream.read(&mut buffer) {
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Ok(0) | Err(_) => return,
            Ok(count) => read(&buffer[..count]),
        }
    }
}

/// Keeps the lines of a process until the stream ends.
fn keep(stream: impl Read, of: Stream, log: &ProcessLog) {
    let mut split = Split::default();
    read_all(stream, |bytes| split.feed(bytes, |line| log.push(of, line)));
    split.end(|line| log.push(of, line));
}

/// Hands on whole lines until the stream ends.
fn pump(stream: impl Read, to: &Lines) {
    let mut line = Vec::new();
    read_all(stream, |bytes| {
        line.extend_from_slice(bytes);
        let end = line.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let end = if end == 0 && line.len() >= LONGEST_LINE { line.len() } else { end };
        if end > 0 {
            let rest = line.split_off(end);
            to.push(std::mem::replace(&mut line, rest));
        }
    });
    to.push(line);
}

/// A stream of lines to something that may fail, or take nothing, for a while or for good.
#[derive(Clone)]
struct Lines(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Vec<u8>>,
    bytes: usize,
    /// Whether some lines are being written.
    writing: bool,
    /// How many lines were dropped because too many bytes waited.
    overflowed: u64,
}

impl Lines {
    fn to(name: &'static str, out: impl Write + Send + 'static) -> std::io::Result<Self> {
        let lines = Self(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }));
        let of_thread = lines.clone();
        let write = move || of_thread.write(name, out);
        std::thread::Builder::new().name(format!("print-{name}")).spawn(write)?;
        Ok(lines)
    }

    /// Adds lines to what is to be written.
    fn push(&self, lines: Vec<u8>) {
        let mut state = self.state();
        if state.bytes + lines.len() > MOST_WAITING_BYTES {
            state.overflowed += count(&lines);
        } else if !lines.is_empty() {
            state.bytes += lines.len();
            state.waiting.push_back(lines);
            self.0.changed.notify_all();
        }
    }

    /// Waits until all that was added has been written or lost, no longer than that.
    fn drain(&self, within: Duration) {
        let busy = |state: &mut State| state.writing || !state.waiting.is_empty();
        drop(self.0.changed.wait_timeout_while(self.state(), within, busy));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next lines, and how many did not fit since.
    fn next(&self) -> (Vec<u8>, u64) {
        let mut state = self.state();
        loop {
            if let Some(lines) = state.waiting.pop_front() {
                state.bytes -= lines.len();
                state.writing = true;
                return (lines, std::mem::take(&mut state.overflowed));
            }
            state.writing = false;
            self.0.changed.notify_all();
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn write(&self, name: &str, mut out: impl Write) {
        let (mut lost, mut reason) = (0, String::new());
        // Whether the last thing that was written is the beginning of a line.
        let mut cut = false;
        loop {
            let (lines, overflowed) = self.next();
            if overflowed > 0 {
                lost += overflowed;
                "nobody read them in time".clone_into(&mut reason);
            }
            match write_whole(&mut out, &lines, &mut cut) {
                Ok(()) if lost > 0 => {
                    tracing::warn!(lines = lost, stream = name, reason, "log lines could not be written and are lost");
                    lost = 0;
                }
                Ok(()) => {}
                Err((left, error)) => {
                    lost += count(left);
                    reason = error.to_string();
                }
            }
        }
    }
}

/// Writes lines, on a line of their own. Returns those that are left where that fails.
fn write_whole<'a>(out: &mut impl Write, lines: &'a [u8], cut: &mut bool) -> Result<(), (&'a [u8], std::io::Error)> {
    let mut left = lines;
    if *cut {
        out.write_all(b"\n").map_err(|error| (left, error))?;
        *cut = false;
    }
    while !left.is_empty() {
        match out.write(left) {
            Ok(0) => return Err((left, std::io::ErrorKind::WriteZero.into())),
            Ok(written) => {
                *cut = left[written - 1] != b'\n';
                left = &left[written..];
            }
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err((left, error)),
        }
    }
    *cut = false;
    out.flush().map_err(|error| (left, error))
}

fn count(lines: &[u8]) -> u64 {
    lines.split_inclusive(|byte| *byte == b'\n').count() as u64
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Takes so many bytes, then fails until there is room again.
    #[derive(Default)]
    struct Disk {
        holds: Vec<u8>,
        room: usize,
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            let count = bytes.len().min(self.room);
            if count == 0 {
                return Err(std::io::ErrorKind::StorageFull.into());
            }
            self.room -= count;
            self.holds.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_of_the_log_says_which_process_it_is_of() {
        let check = |line: &str, expected: &str| assert_eq!(with_process(line.as_bytes(), 3), expected.as_bytes());
        check("INFO running lag_ms=0\n", "INFO running lag_ms=0 process=3\n");
        check("{\"level\":\"INFO\"}\n", "{\"process\":3,\"level\":\"INFO\"}\n");
    }

    #[test]
    fn a_line_that_is_cut_does_not_spoil_the_next_one() {
        let (mut disk, mut cut) = (Disk { room: 6, ..Disk::default() }, false);
        let (left, _) = write_whole(&mut disk, b"one\ntwo\nthree\n", &mut cut).unwrap_err();
        assert_eq!((count(left), cut), (2, true));
        assert_eq!(count(write_whole(&mut disk, b"four\n", &mut cut).unwrap_err().0), 1);
        disk.room = 100;
        write_whole(&mut disk, b"five\n", &mut cut).unwrap();
        assert_eq!(disk.holds, b"one\ntw\nfive\n");
    }

    #[test]
    fn a_reader_that_stands_still_holds_up_nobody() {
        struct Still(Receiver<()>);
        impl Write for Still {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                // Ends when the test does.
                let _ = self.0.recv();
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let (hold, held) = channel();
        let lines = Lines::to("test", Still(held)).unwrap();
        let line = [vec![b'x'; 1 << 20], vec![b'\n']].concat();
        lines.push(line.clone());
        // The writer has taken the first line once none waits, and stands still with it.
        while !lines.state().waiting.is_empty() {
            std::thread::yield_now();
        }
        (0..20).for_each(|_| lines.push(line.clone()));
        // The blocked writer may hold one more line.
        assert!(lines.state().waiting.len() <= 4, "what waits is bounded");
        lines.drain(Duration::from_millis(1));
        drop(hold);
    }

    #[test]
    fn what_a_process_prints_comes_in_whole_lines() {
        let lines = Lines(Arc::new(Shared { state: Mutex::default(), changed: Condvar::new() }));
        pump(&b"one\ntwo\nthr"[..], &lines);
        let waiting: Vec<_> = lines.state().waiting.drain(..).collect();
        assert_eq!(waiting, [b"one\ntwo\n".to_vec(), b"thr".to_vec()]);
    }
}
