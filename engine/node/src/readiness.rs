//! Whether this copy could run the job now, by the command `check` of its own binary.
//!
//! ```text
//!   thread 'readiness': check ─► pause (long while all is well, short after a failure) ─► check ─► …
//!                         └─ a child process, which ends with this one ─► its verdict ─► whoever listens
//! ```
//!
//! A check is a process of its own because it builds the job's dataflow and connects with brokers and store: whatever goes
//! wrong there, a panic or a hang, ends the check and not the node. It ends when its standard input does, which this process
//! holds open, so that a check never outlives its node.

use std::ffi::OsString;
use std::io::{Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use serde::{Deserialize, Serialize};

use crate::isolation::{AttemptGroup, Isolation, Limits, Secrets, secrets, stage};
use crate::keeper::shortened;
use crate::process_link::write_line;
use crate::status::Graph;

/// What the command `check --json` prints.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether the job could be run now: there are no problems.
    pub ready: bool,
    /// The version: the hash of the binary and of the job's own options.
    pub version: String,
    /// Why the job could not be run now.
    pub problems: Vec<Problem>,
    /// What a person should know, and what would not end a run.
    pub warnings: Vec<String>,
    /// The parts of the job by name, with what becomes of each in a job that has a checkpoint.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<Part>,
    /// The dataflow of the job, if it can be built.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graph: Option<Graph>,
}

/// A part of a job, compared with the newest checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Part {
    /// `source`, `durable operator` or `output`.
    pub kind: String,
    /// Its name in the job.
    pub name: String,
    /// What becomes of it.
    pub becomes: Becomes,
}

/// What becomes of a part of a job when this program goes on from the newest checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Becomes {
    /// It goes on: a source from its offsets, a durable operator from its state, an output from its progress.
    Reused,
    /// It begins.
    New,
    /// The checkpoint has it, and the program does not.
    Gone,
}

/// Something that would end a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct Problem {
    /// The part of the job that has the problem: `store`, `source 'orders'`.
    pub part: String,
    /// The exit code with which a run would end.
    pub code: u8,
    /// What is wrong, and what a person can do.
    pub what: String,
}

/// The option by which a command ends when its standard input does.
const END_WITH_STDIN: &str = "--end-with-stdin";

/// The option by which a check reads what references to secrets stand for from the first line of its standard input.
const SECRETS_ON_STDIN: &str = "--secrets-on-stdin";

/// Between two looks whether a check that has printed everything has ended.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long it is waited for the rest of what a check has printed, once it has ended.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// How many checks run at the same time. Those of a job that does not reach its broker take long, and must not hold up all others.
const MOST_AT_ONCE: usize = 12;
/// The most that is read of what a check prints, in bytes.
const MOST_PRINTED: u64 = 8 << 20;

/// How the checks of a job that was submitted are made.
#[derive(Clone, Debug)]
pub(crate) struct Apart {
    /// How its processes are kept apart.
    pub(crate) isolation: Arc<Isolation>,
    /// What each of its processes may use.
    pub(crate) limits: Limits,
    /// The job's own options. The node resolves the references among them.
    pub(crate) options: Vec<String>,
}

/// How checks are made.
#[derive(Clone, Debug)]
pub struct Checks {
    /// The program to start.
    pub program: PathBuf,
    /// Its arguments, which make it check and print a [`Verdict`].
    pub arguments: Vec<OsString>,
    /// How checks are kept apart from this process, and what each of them may use, if they are of a job that was submitted.
    pub(crate) apart: Option<Apart>,
    /// How long a check may take.
    pub within: Duration,
    /// The time between two checks while all is well.
    pub while_ready: Duration,
    /// The time after the first check that failed. It doubles with each further one, up to six times
    /// this: what was unreachable may be there again.
    pub while_unready: Duration,
}

impl Checks {
    /// The checks of this copy, whose arguments were `arguments`: the command `run`, which a program may have after words of its
    /// own, and its options.
    ///
    /// # Errors
    /// The path of this binary is unknown.
    pub fn of_this_copy(arguments: impl IntoIterator<Item = OsString>) -> std::io::Result<Self> {
        let mut arguments: Vec<_> = arguments.into_iter().filter(|argument| argument != END_WITH_STDIN).collect();
        if let Some(command) = arguments.iter_mut().find(|argument| *argument == "run") {
            *command = "check".into();
        }
        Ok(Self::of_program(std::env::current_exe()?, arguments))
    }

    /// The checks of a job's program, whose command `check` has these arguments.
    #[must_use]
    pub fn of_program(program: PathBuf, mut arguments: Vec<OsString>) -> Self {
        arguments.extend(["--json", END_WITH_STDIN].map(OsString::from));
        Self {
            program,
            arguments,
            apart: None,
            within: Duration::from_secs(90),
            // Each check lists the journal, which costs as much as a write: more often, ten idle copies would cost more than
            // the job that they run.
            while_ready: Duration::from_secs(1800),
            while_unready: Duration::from_secs(5),
        }
    }
}

/// Checks of this copy, again and again, until this is dropped.
#[derive(Debug)]
pub struct Readiness {
    /// Whoever holds this is waited for by the thread. A message asks for a check at once.
    again: Sender<()>,
}

impl Readiness {
    /// Begins to check; `tell` gets the reason why this copy could not run the job now, or `None`, after the first check and
    /// whenever that has changed.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start(checks: Checks, tell: impl FnMut(Option<String>) + Send + 'static) -> std::io::Result<Self> {
        Self::start_and_draw(checks, tell, |_| {})
    }

    /// The same; `draw` gets the job's graph from each check that can build the job.
    ///
    /// # Errors
    /// The host has no more threads.
    pub fn start_and_draw(
        checks: Checks,
        tell: impl FnMut(Option<String>) + Send + 'static,
        draw: impl FnMut(Graph) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (again, asked) = channel();
        let work = move || watch(&checks, &asked, tell, draw);
        std::thread::Builder::new().name("readiness".to_owned()).spawn(work)?;
        Ok(Self { again })
    }

    /// Asks for a check at once: something has changed.
    pub fn check_again(&self) {
        // It fails only after a panic of the thread, which has said more.
        let _ = self.again.send(());
    }
}

fn watch(checks: &Checks, asked: &Receiver<()>, mut tell: impl FnMut(Option<String>), mut draw: impl FnMut(Graph)) {
    let mut told: Option<Option<String>> = None;
    let mut pause = checks.while_unready;
    loop {
        let (unready, graph) = check(checks, asked);
        graph.into_iter().for_each(&mut draw);
        let wait = if unready.is_none() { checks.while_ready } else { pause };
        pause = if unready.is_none() { checks.while_unready } else { (pause * 2).min(checks.while_unready * 6) };
        if told.as_ref() != Some(&unready) {
            tell(unready.clone());
            told = Some(unready);
        }
        match asked.recv_timeout(wait) {
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {}
            // Whoever asks wants an answer, if it is the same again.
            Ok(()) => told = None,
        }
    }
}

/// One of the few places for checks that run at the same time. A node that starts checks the programs of all jobs.
struct Place;

/// How many places are taken, and who waits for one.
static TAKEN: (Mutex<usize>, Condvar) = (Mutex::new(0), Condvar::new());

impl Place {
    fn wait_for() -> Self {
        let (taken, freed) = &TAKEN;
        let taken = taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut taken = freed.wait_while(taken, |taken| *taken >= MOST_AT_ONCE).unwrap_or_else(PoisonError::into_inner);
        *taken += 1;
        Self
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (taken, freed) = &TAKEN;
        *taken.lock().unwrap_or_else(PoisonError::into_inner) -= 1;
        freed.notify_one();
    }
}

/// Makes one check. Returns why this copy could not run the job now, if it could not, and the job's graph.
fn check(checks: &Checks, asked: &Receiver<()>) -> (Option<String>, Option<Graph>) {
    let _place = Place::wait_for();
    // Requests that have come before this check begins are answered by it.
    while asked.try_recv().is_ok() {}
    match verdict(checks) {
        Ok(verdict) => (unready(&verdict), verdict.graph),
        Err(why) => (Some(shortened(why)), None),
    }
}

/// Makes one check, which blocks this thread until it has ended.
///
/// # Errors
/// There is no verdict: the program could not be started, has printed something else, or has not ended in time.
pub fn verdict(checks: &Checks) -> Result<Verdict, String> {
    let resolved = checks.apart.as_ref().map(|apart| apart.isolation.resolve(&apart.options)).transpose();
    let secrets = resolved?.filter(|secrets| !secrets.is_empty());
    let started = start(checks, secrets.as_ref());
    let cannot = |error| format!("cannot start '{}' to check the job: {error}", checks.program.display());
    // What is left in the group ends when this returns.
    let (mut child, _group) = started.map_err(cannot)?;
    let (out, err) = (read(child.stdout.take()), read(child.stderr.take()));
    let until = Instant::now() + checks.within;
    let printed = out.recv_timeout(until.saturating_duration_since(Instant::now()));
    if printed == Err(RecvTimeoutError::Timeout) {
        // An error here means that it is gone already.
        let _ = kill(&mut child).and_then(|()| child.wait().map(drop));
        return Err(format!("a check of the job did not end within {} s", checks.within.as_secs()));
    }
    let status = end_of(&mut child, until);
    serde_json::from_str(&printed.unwrap_or_default()).map_err(|_| {
        // Whoever holds the stream open has been killed.
        let said = err.recv_timeout(LAST_WORDS).unwrap_or_default();
        // What follows the error itself is how to use the command.
        let mut lines = said.lines().rev().filter(|line| !line.trim().is_empty());
        let last = lines.clone().find(|line| line.starts_with("error:")).or_else(|| lines.next());
        let last = last.unwrap_or("it printed nothing");
        let status = status.map_or_else(|error| error.to_string(), |status| status.to_string());
        format!("a check of the job failed ({status}): {last}")
    })
}

/// Why this copy is not ready, if it is not.
fn unready(verdict: &Verdict) -> Option<String> {
    let problems = verdict.problems.iter().map(|problem| format!("{}: {}", problem.part, problem.what));
    let problems: Vec<_> = problems.collect();
    if verdict.ready { None } else { Some(shortened(problems.join("; "))) }
}

fn start(checks: &Checks, secrets: Option<&Secrets>) -> std::io::Result<(Child, Option<AttemptGroup>)> {
    let mut arguments = checks.arguments.clone();
    arguments.extend(secrets.map(|_| SECRETS_ON_STDIN.into()));
    let group = checks.apart.as_ref().map_or(Ok(None), |apart| apart.isolation.check())?;
    let limits = checks.apart.as_ref().map(|apart| apart.limits).unwrap_or_default();
    let process = group.as_ref().map(|group| group.process(0, &limits)).transpose()?;
    let mut command = match &checks.apart {
        Some(apart) => apart.isolation.command_of(&checks.program, "check of a job", &arguments),
        None => {
            let mut command = Command::new(&checks.program);
            command.args(&arguments);
            command
        }
    };
    if checks.apart.is_some() {
        for name in secrets::variables() {
            command.env_remove(name);
        }
    }
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A group of its own: Ctrl-C is for the node.
    let mut child = command.process_group(0).spawn()?;
    if checks.apart.is_some() {
        let moved = process.as_ref().map_or(Ok(()), |process| process.put(child.id()));
        let goes = moved.and_then(|()| child.stdin.as_mut().map_or(Ok(()), |stdin| stdin.write_all(stage::GO)));
        if let Err(error) = goes {
            // It waits for a word that does not come.
            let _ = kill(&mut child).and_then(|()| child.wait().map(drop));
            return Err(error);
        }
    }
    if let (Some(secrets), Some(stdin)) = (secrets, &mut child.stdin) {
        // If it does not read them, it says why.
        let _ = write_line(stdin, secrets);
    }
    Ok((child, group))
}

/// How a check ends that has printed everything; what it has started ends with it.
fn end_of(child: &mut Child, until: Instant) -> std::io::Result<ExitStatus> {
    let has_exited = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT | WaitIdOptions::NOHANG;
    while waitid(WaitId::Pid(Pid::from_child(child)), has_exited)?.is_none() && Instant::now() < until {
        std::thread::sleep(LOOK_EVERY);
    }
    kill(child)?;
    child.wait()
}

/// Kills a check and its process group. It has not been collected yet, so the group is its own.
fn kill(child: &mut Child) -> std::io::Result<()> {
    // Where its group is empty there is nothing to kill.
    let _ = kill_process_group(Pid::from_child(child), Signal::KILL);
    child.kill()
}

/// Reads a stream to its end on a thread of its own; the text is sent once.
fn read(stream: Option<impl Read + Send + 'static>) -> Receiver<String> {
    let (tell, text) = channel();
    let read = move || {
        let mut bytes = Vec::new();
        if let Some(stream) = stream {
            // What was read before an error is all that there is.
            let _ = stream.take(MOST_PRINTED).read_to_end(&mut bytes);
        }
        let _ = tell.send(String::from_utf8_lossy(&bytes).into_owned());
    };
    // Without the thread the sender is dropped, and there is no text.
    let _ = std::thread::Builder::new().name("readiness-output".to_owned()).spawn(read);
    text
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    const MOST: Duration = Duration::from_secs(20);

    #[test]
    fn few_checks_run_at_the_same_time() {
        let folder = tempfile::tempdir().unwrap();
        // Each says how many there are while it runs.
        let script = r#"mkdir "$1.$$"; ls -d "$1".* | wc -l >>"$1"; sleep 0.1; rmdir "$1.$$"; exit 1"#;
        let file = folder.path().join("counts");
        let (tell, told) = channel();
        let started: Vec<_> = (0..3 * MOST_AT_ONCE)
            .map(|_| {
                let (tell, checks) = (tell.clone(), Checks { while_unready: MOST, ..checks(script, &file) });
                let told = move |_| {
                    // The test may be over.
                    let _ = tell.send(());
                };
                Readiness::start(checks, told).unwrap()
            })
            .collect();
        for _ in &started {
            told.recv_timeout(MOST).unwrap();
        }
        let counts = std::fs::read_to_string(&file).unwrap();
        let most = counts.lines().map(|count| count.trim().parse::<usize>().unwrap()).max().unwrap();
        assert!((2..=MOST_AT_ONCE).contains(&most), "{counts}");
    }

    /// Checks that a shell makes: `script` gets a file as its first argument.
    fn checks(script: &str, file: &std::path::Path) -> Checks {
        Checks {
            program: "sh".into(),
            arguments: ["-c", script, "sh", file.to_str().unwrap()].map(OsString::from).to_vec(),
            apart: None,
            within: MOST,
            while_ready: Duration::from_millis(50),
            while_unready: Duration::from_millis(10),
        }
    }

    fn verdict(ready: bool, problems: &[(&str, &str)]) -> String {
        let problem =
            |(part, what): &(&str, &str)| Problem { part: (*part).to_owned(), code: 2, what: (*what).to_owned() };
        let problems = problems.iter().map(problem).collect();
        serde_json::to_string(&Verdict { ready, problems, ..Verdict::default() }).unwrap()
    }

    fn started(checks: Checks) -> (Readiness, Receiver<Option<String>>) {
        let (tell, told) = channel();
        (Readiness::start(checks, move |unready| drop(tell.send(unready))).unwrap(), told)
    }

    #[test]
    fn what_checks_say_is_told_when_it_changes() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        let says = |verdict: &str| {
            let new = folder.path().join("new");
            std::fs::write(&new, verdict).unwrap();
            std::fs::rename(new, &said).unwrap();
        };
        says(&verdict(false, &[("store", "it is full"), ("sink", "it is gone")]));
        let (readiness, told) = started(checks("cat \"$1\"; exit 7", &said));
        assert_eq!(told.recv_timeout(MOST).unwrap().unwrap(), "store: it is full; sink: it is gone");
        says(&verdict(true, &[]));
        assert_eq!(told.recv_timeout(MOST).unwrap(), None, "what is ready has no reason");
        says("no verdict");
        let failed = told.recv_timeout(MOST).unwrap().unwrap();
        assert!(failed.contains("exit status: 7") && failed.contains("it printed nothing"), "{failed}");
        drop(readiness);
        assert_eq!(told.recv_timeout(MOST), Err(RecvTimeoutError::Disconnected), "it goes on checking");
    }

    #[test]
    fn a_check_that_panics_that_cannot_start_or_that_hangs_is_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let unready = |checks: Checks| started(checks).1.recv_timeout(MOST).unwrap().unwrap();
        let panics = unready(checks("echo 'error: it panicked' >&2; kill -9 $$", folder.path()));
        assert!(panics.contains("signal: 9") && panics.ends_with("error: it panicked"), "{panics}");
        let usage = unready(checks("printf 'error: no such option\\n\\nUsage: a\\n' >&2; exit 2", folder.path()));
        assert!(usage.ends_with("error: no such option"), "{usage}");
        let gone = Checks { program: folder.path().join("gone"), ..checks("", folder.path()) };
        assert!(unready(gone).contains("cannot start"));
        let hangs = Checks { within: Duration::from_millis(100), ..checks("exec sleep 1000", folder.path()) };
        assert!(unready(hangs).contains("did not end within"));
    }

    /// A check reads its standard input to learn of the end of its node.
    #[test]
    fn a_check_can_tell_by_its_standard_input_that_its_node_is_there() {
        let folder = tempfile::tempdir().unwrap();
        let script = format!("read line && exit 1; echo '{}'", verdict(true, &[]));
        let waits = Checks { within: Duration::from_millis(500), ..checks(&script, folder.path()) };
        let (_readiness, told) = started(waits);
        assert!(told.recv_timeout(MOST).unwrap().unwrap().contains("did not end within"), "its input has ended");
    }

    #[test]
    fn a_request_is_answered_by_a_check_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let said = folder.path().join("said");
        std::fs::write(&said, verdict(true, &[])).unwrap();
        let seldom = Checks { while_ready: Duration::from_secs(3600), ..checks("cat \"$1\"", &said) };
        let (readiness, told) = started(seldom);
        assert_eq!(told.recv_timeout(MOST).unwrap(), None);
        std::fs::write(&said, verdict(false, &[("store", "it is full")])).unwrap();
        for _ in 0..2 {
            readiness.check_again();
            assert_eq!(told.recv_timeout(MOST).unwrap().unwrap(), "store: it is full");
        }
    }

    #[test]
    fn the_checks_of_a_copy_have_its_own_options() {
        let run = "one-of-several-jobs run --end-with-stdin --name run".split(' ');
        let checks = Checks::of_this_copy(run.map(OsString::from)).unwrap();
        let check = "one-of-several-jobs check --name run --json --end-with-stdin";
        assert_eq!(checks.arguments, check.split(' ').collect::<Vec<_>>());
        assert!(checks.while_unready < checks.while_ready);
    }
}
