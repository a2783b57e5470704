//! A job on a broker: everything that a person does with a job binary, in seconds.
//!
//! ```text
//!   input written here ──► embedded broker (faults on request) ◄──► job binary ──► outputs ──► replay, model
//! ```
//!
//! The embedded broker lives in the test's process, so a test can break it, hold it back and end it at a chosen
//! moment. What only a real one does is shown on another ([`Stage::on`]).

mod bucket;
mod input;
mod run;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fluvial_kafka_embedded::{Broker, Config};
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use crate::child::{Folder, Spec};
use crate::client::{Endpoint, Isolation, PATIENCE, Seen, Writer, partitions_of, unique};
use crate::history::{self, History, Model, compare};
use crate::job::{Job, binary};
use crate::journal::Journal;
use crate::subject::Subject;

use bucket::Bucket;
pub use run::{Finished, Started};

/// How many partitions the outputs have.
pub const OUTPUT_PARTITIONS: i32 = 4;
/// How long a run that should end by itself may take.
pub const MOST: Duration = Duration::from_secs(60);

/// A broker, a store, an input topic, and a job to be run on them.
pub struct Stage {
    /// Before the broker, so that it is gone first.
    writer: OnceLock<Writer>,
    /// Held while records are under way: the writer tells of all at once.
    writing: Mutex<()>,
    broker: Option<Broker>,
    endpoint: Endpoint,
    /// The broker's address for jobs.
    jobs_see: String,
    subject: Subject,
    program: Option<PathBuf>,
    /// What starts the program, and its arguments before the program's own.
    launcher: Vec<OsString>,
    /// What every command of the job is told besides.
    options: Vec<OsString>,
    /// The store, if it is a bucket.
    bucket: Option<Bucket>,
    /// The folder of the store, if that is not the stage's own.
    shared: Option<PathBuf>,
    /// The store's URL, if it is somewhere else.
    elsewhere: Option<String>,
    folder: Folder,
    name: String,
    runs: AtomicUsize,
}

impl Stage {
    /// A stage whose input topic has so many partitions.
    ///
    /// # Errors
    /// The broker or the folder cannot be made.
    pub fn new(subject: Subject, input_partitions: i32) -> Result<Self> {
        Self::on_embedded(Config::default(), subject, input_partitions)
    }

    /// As [`Stage::new`], with an embedded broker of this configuration.
    ///
    /// # Errors
    /// As [`Stage::new`].
    pub fn on_embedded(config: Config, subject: Subject, input_partitions: i32) -> Result<Self> {
        let broker = Broker::start(config)?;
        let endpoint = Endpoint::new(broker.bootstrap());
        let jobs_see = broker.bootstrap().to_string();
        Ok(Self { broker: Some(broker), ..Self::on(&endpoint, &jobs_see, subject, input_partitions)? })
    }

    /// A stage on a broker that is somebody else's, which jobs reach at the address `jobs_see`.
    ///
    /// # Errors
    /// The topic or the folder cannot be made.
    pub fn on(endpoint: &Endpoint, jobs_see: &str, subject: Subject, input_partitions: i32) -> Result<Self> {
        let stage = Self::without_input(endpoint, jobs_see, subject)?;
        stage.endpoint.create_topic(&stage.input(), input_partitions, &[])?;
        Ok(stage)
    }

    /// As [`Stage::on`], and the input topic is for the test to create.
    ///
    /// # Errors
    /// The folder cannot be made.
    pub fn without_input(endpoint: &Endpoint, jobs_see: &str, subject: Subject) -> Result<Self> {
        let name = unique(subject.binary());
        let folder = Folder::new("fluvial-stage-")?;
        Ok(Self {
            writer: OnceLock::new(),
            writing: Mutex::new(()),
            broker: None,
            endpoint: endpoint.clone(),
            jobs_see: jobs_see.to_owned(),
            subject,
            program: None,
            launcher: Vec::new(),
            options: Vec::new(),
            bucket: None,
            shared: None,
            elsewhere: None,
            folder,
            name,
            runs: AtomicUsize::new(0),
        })
    }

    /// The same with another program that has the job's options.
    #[must_use]
    pub fn with_program(self, program: impl Into<PathBuf>) -> Self {
        Self { program: Some(program.into()), ..self }
    }

    /// The same with a program that starts the job: it gets the job and its arguments after its own.
    #[must_use]
    pub fn with_launcher(self, launcher: impl IntoIterator<Item: Into<OsString>>) -> Self {
        Self { launcher: launcher.into_iter().map(Into::into).collect(), ..self }
    }

    /// The same with options that every command of the job gets.
    #[must_use]
    pub fn with_options(self, options: impl IntoIterator<Item: Into<OsString>>) -> Self {
        Self { options: options.into_iter().map(Into::into).collect(), ..self }
    }

    /// The same with a store at this URL; the launcher gives jobs what they need to reach it.
    #[must_use]
    pub fn with_store_at(self, url: &str) -> Self {
        Self { elsewhere: Some(url.to_owned()), ..self }
    }

    /// The same with a folder as the store that other stages use, too.
    #[must_use]
    pub fn with_folder(self, folder: &Path) -> Self {
        Self { shared: Some(folder.to_owned()), ..self }
    }

    /// The embedded broker.
    ///
    /// # Panics
    /// When it has been ended, or is somebody else's.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        self.broker.as_ref().expect("the stage's own broker is there until the test ends it")
    }

    /// Ends the broker and all that it holds.
    pub fn end_the_broker(&mut self) {
        self.broker = None;
    }

    /// The broker as clients see it.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The job's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A temporary folder that lives as long as this.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The store, if it is a folder.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.shared.clone().unwrap_or_else(|| self.folder.path().join("store"))
    }

    /// The store, as jobs are told of it.
    #[must_use]
    pub fn store_url(&self) -> OsString {
        match (&self.bucket, &self.elsewhere) {
            (Some(bucket), _) => bucket.url().into(),
            (None, Some(url)) => url.into(),
            (None, None) => self.store().into_os_string(),
        }
    }

    /// What a program needs in its environment to reach the store.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, String)> {
        self.bucket.as_ref().map_or_else(Vec::new, Bucket::environment)
    }

    /// The input topic.
    #[must_use]
    pub fn input(&self) -> String {
        self.subject.input(&self.name)
    }

    /// The output topics.
    #[must_use]
    pub fn outputs(&self) -> Vec<String> {
        self.subject.outputs(&self.name)
    }

    /// What every command of the job is told.
    #[must_use]
    pub fn common_args(&self) -> Vec<OsString> {
        [self.subject.args(&self.jobs_see, &self.name, Path::new(&self.store_url())), self.options.clone()].concat()
    }

    /// Starts `run` with these options besides: as they are on a command line, separated by blanks.
    ///
    /// # Errors
    /// The binary cannot be built or started.
    pub fn start(&self, options: &str) -> Result<Started> {
        self.start_with(self.run_args(options))
    }

    /// As [`Stage::start`], by another launcher and with this environment besides.
    ///
    /// # Errors
    /// As [`Stage::start`].
    pub fn start_by(&self, launcher: &[OsString], env: &[(String, String)], options: &str) -> Result<Started> {
        self.spawn(launcher, env, self.run_args(options))
    }

    pub(crate) fn run_args(&self, options: &str) -> Vec<OsString> {
        let mut args = vec!["run".into()];
        args.extend(self.common_args());
        args.extend(options.split_whitespace().map(OsString::from));
        args
    }

    /// Starts the binary with these arguments alone, in a process group of its own, as a terminal's shell does.
    ///
    /// # Errors
    /// The binary cannot be built or started.
    pub fn start_with(&self, args: Vec<OsString>) -> Result<Started> {
        self.spawn(&self.launcher, &[], args)
    }

    pub(crate) fn spawn(
        &self,
        launcher: &[OsString],
        env: &[(String, String)],
        args: Vec<OsString>,
    ) -> Result<Started> {
        let number = self.runs.fetch_add(1, Ordering::Relaxed);
        let log = self.folder.path().join(format!("log-{number}"));
        let mut all = launcher.to_vec();
        all.push(self.program()?.into_os_string());
        all.extend(args);
        let name = self.subject.binary().to_owned();
        let env = [self.environment(), env.to_vec()].concat();
        let spec = Spec { name, program: "setsid".into(), args: all, env, log };
        Ok(Started::new(Job::of(spec)?))
    }

    fn program(&self) -> Result<PathBuf> {
        self.program.clone().map_or_else(|| binary(self.subject.binary()), Ok)
    }

    /// Runs with these options until it ends by itself, which must be with exit code 0.
    ///
    /// # Errors
    /// It does not, or not in a minute; the error holds the end of its log.
    pub fn complete(&self, options: &str) -> Result<Finished> {
        let finished = self.start(options)?.finish(MOST)?;
        ensure!(finished.code == Some(0), "run {options}: exit code {:?}:\n{}", finished.code, finished.said);
        Ok(finished)
    }

    /// Runs `command` of the binary with the job's options and these, and gives what it prints.
    ///
    /// # Errors
    /// It fails; the error holds what it said.
    pub fn ask(&self, command: &str, options: &str) -> Result<String> {
        self.ask_with(command, self.common_args(), options)
    }

    /// As [`Stage::ask`], with these arguments in place of the job's options.
    ///
    /// # Errors
    /// As [`Stage::ask`].
    pub fn ask_with(&self, command: &str, args: Vec<OsString>, options: &str) -> Result<String> {
        self.ask_by(&self.launcher, command, args, options)
    }

    /// As [`Stage::ask_with`], by another launcher.
    ///
    /// # Errors
    /// As [`Stage::ask`].
    pub fn ask_by(&self, launcher: &[OsString], command: &str, args: Vec<OsString>, options: &str) -> Result<String> {
        let mut words = launcher.to_vec();
        words.push(self.program()?.into_os_string());
        let mut asked = std::process::Command::new(&words[0]);
        asked.args(&words[1..]).arg(command).args(args).args(options.split_whitespace()).envs(self.environment());
        let output = asked.output().with_context(|| format!("run {command}"))?;
        if !output.status.success() {
            bail!("{command} {options}: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The kept journal.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn journal(&self) -> Result<Journal> {
        self.fetch("journal")?;
        Journal::read(&self.store(), &self.name)
    }

    /// How many records the outputs show to a `read_committed` consumer, markers included.
    ///
    /// # Errors
    /// The broker cannot be asked.
    pub fn visible(&self) -> Result<i64> {
        let consumer = self.endpoint.reader(Isolation::Committed)?;
        let mut sum = 0;
        for output in self.outputs() {
            for partition in 0..partitions_of(&consumer, &output)? {
                sum += match consumer.fetch_watermarks(&output, partition, PATIENCE) {
                    Ok((_, end)) => end,
                    // The job has just created the topic.
                    Err(error) if has_no_leader_yet(&error) => 0,
                    Err(error) => return Err(error.into()),
                };
            }
        }
        Ok(sum)
    }

    /// Waits until more records are visible than `before`.
    ///
    /// # Errors
    /// The job ends meanwhile, or it takes longer than a minute.
    pub fn wait_for_more_than(&self, before: i64, job: &Started) -> Result<()> {
        self.wait_until(job, "more output", || Ok(self.visible()? > before))
    }

    /// Waits until the outputs' table is what the whole input gives.
    ///
    /// # Errors
    /// The job ends meanwhile, or it takes longer than a minute.
    pub fn wait_until_caught_up(&self, job: &Started) -> Result<()> {
        let expected = self.table_of_input()?;
        self.wait_until(job, "the whole input's table", || {
            for output in self.outputs() {
                if self.endpoint.partitions(&output)? == 0 {
                    return Ok(false);
                }
            }
            Ok(self.table()? == expected)
        })
    }

    /// Waits for a condition while the job runs.
    ///
    /// # Errors
    /// The job ends meanwhile, the condition fails, or it takes longer than a minute.
    pub fn wait_until(&self, job: &Started, what: &str, mut condition: impl FnMut() -> Result<bool>) -> Result<()> {
        let start = Instant::now();
        while !condition()? {
            if let Some(status) = job.process().status() {
                bail!("the job ended ({status}) before {what}; its log ends with\n{}", job.process().log_end());
            }
            ensure!(start.elapsed() < MOST, "no {what} after {MOST:?}; the log ends with\n{}", job.process().log_end());
            // Returns early when the job ends; nothing else tells.
            let _ = job.process().wait(Duration::from_millis(10));
        }
        Ok(())
    }

    /// Waits until the journal says so. While a generation opens it has holes, and is not understood.
    ///
    /// # Errors
    /// As [`Stage::wait_until`].
    pub fn wait_for_journal(&self, job: &Started, what: &str, said: impl Fn(&Journal) -> bool) -> Result<()> {
        self.wait_until(job, what, || Ok(self.journal().is_ok_and(|journal| said(&journal))))
    }

    /// What a `read_committed` consumer sees in the outputs; the runs must have had `--tick-header`.
    ///
    /// # Errors
    /// The topics cannot be read.
    pub fn seen(&self) -> Result<History> {
        history::seen_in_topics(&self.endpoint, &self.outputs())
    }

    /// What the binary's `replay` gives of the kept journal.
    ///
    /// # Errors
    /// It fails.
    pub fn replay(&self, options: &str) -> Result<History> {
        history::printed_by_replay(&self.ask("replay", options)?)
    }

    /// Checks that the outputs hold exactly, record by record, what the journal's ticks give by `replay` and by a naive
    /// model, and that the journal binds the whole input. All runs must have had `--keep-journal --tick-header`.
    ///
    /// # Errors
    /// The first difference, in words.
    pub fn check(&self) -> Result<()> {
        let expected = self.expected(&self.journal()?, &self.committed_input()?)?;
        let seen = self.seen()?;
        let verdict = compare(&expected, &seen);
        ensure!(verdict.is_clean(), "against the model: {verdict}");
        let verdict = compare(&self.replay("--workers 3")?, &seen);
        ensure!(verdict.is_clean(), "against replay: {verdict}");
        Ok(())
    }

    /// What a naive model gives for the journal's ticks over the committed input, all of which they must bind.
    ///
    /// # Errors
    /// They do not, or not as the journal says.
    pub fn expected(&self, journal: &Journal, input: &[Seen]) -> Result<History> {
        let bound = journal.records();
        ensure!(bound == input.len() as u64, "the journal binds {bound} records, the input holds {}", input.len());
        let partitions = self.outputs().into_iter().map(|output| (output, OUTPUT_PARTITIONS)).collect();
        history::given_by_model(&mut *self.model(), journal, input, &partitions)
    }

    /// The table that the outputs hold, by topic and key.
    ///
    /// # Errors
    /// The topics cannot be read.
    pub fn table(&self) -> Result<BTreeMap<(String, String), String>> {
        let mut table = BTreeMap::new();
        for output in self.outputs() {
            for record in self.endpoint.read(&output, Isolation::Committed)? {
                let key = (output.clone(), String::from_utf8(record.key.unwrap_or_default())?);
                match record.value {
                    Some(value) => table.insert(key, String::from_utf8(value)?),
                    None => table.remove(&key),
                };
            }
        }
        Ok(table)
    }

    /// The rows of an upsert topic, as a consumer sees them.
    ///
    /// # Errors
    /// The topic cannot be read.
    pub fn table_of_topic(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let mut table = BTreeMap::new();
        for record in self.endpoint.read(topic, Isolation::Committed)? {
            let key = String::from_utf8(record.key.unwrap_or_default())?;
            match record.value {
                Some(value) => table.insert(key, String::from_utf8(value)?),
                None => table.remove(&key),
            };
        }
        Ok(table)
    }

    /// The table that the whole input gives, as the input is now. For orders, a key must lie in one partition only.
    ///
    /// # Errors
    /// The input cannot be read.
    pub fn table_of_input(&self) -> Result<BTreeMap<(String, String), String>> {
        let mut model = self.model();
        for record in self.committed_input()? {
            model.take(&record)?;
        }
        let rows = model.end_tick().into_iter();
        Ok(rows.filter_map(|(output, key, value)| Some(((output, key), value?))).collect())
    }

    fn committed_input(&self) -> Result<Vec<Seen>> {
        self.endpoint.read(&self.input(), Isolation::Committed)
    }

    fn model(&self) -> Box<dyn Model> {
        self.subject.model(&self.name)
    }
}

fn has_no_leader_yet(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{LeaderNotAvailable, NotLeaderForPartition};
    matches!(error.rdkafka_error_code(), Some(LeaderNotAvailable | NotLeaderForPartition))
}
