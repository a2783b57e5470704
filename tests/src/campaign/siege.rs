//! One job, one plan, one verdict.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer as _};

use super::{Blow, Feeder, Plan, Round, Subject};
use crate::child::Folder;
use crate::client::{Endpoint, Isolation, PATIENCE, unique};
use crate::history::{self, Bank, Model, Orders, Verdict, bank_is_consistent, compare};
use crate::job::{Job, binary};
use crate::journal::Journal;

const OUTPUT_PARTITIONS: i32 = 4;
/// How long a job may take to show one more record, starts and restarts included.
const PROGRESS_WITHIN: Duration = Duration::from_secs(90);
/// How long it may take to end when it should.
const END_WITHIN: Duration = Duration::from_secs(120);
/// How long the other processes may outlive the first.
const FOLLOW_WITHIN: Duration = Duration::from_secs(10);

/// A job that is run and killed as a plan says.
#[derive(Debug)]
pub struct Siege {
    subject: Subject,
    plan: Plan,
    broker: Endpoint,
    input: String,
    prefix: String,
    name: String,
    folder: Folder,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Report {
    /// How often each kind of blow fell.
    pub blows: BTreeMap<&'static str, usize>,
    /// What was written to the input, aborted records included.
    pub written: u64,
    /// Ticks in the journal.
    pub ticks: usize,
    /// Generations in the journal.
    pub generations: usize,
    /// Checkpoints in the journal.
    pub checkpoints: usize,
    /// The output against the job's own replay.
    pub replayed: Verdict,
    /// The output against the naive model.
    pub modelled: Verdict,
    /// What the reader of consistent cuts gives against what headers say.
    pub cut: Verdict,
}

impl Report {
    /// Whether the output is what it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.replayed.is_clean() && self.modelled.is_clean() && self.cut.is_clean()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { blows, written, ticks, generations, checkpoints, replayed, modelled, cut } = self;
        writeln!(f, "{written} records in, {ticks} ticks, {generations} generations, {checkpoints} checkpoints")?;
        blows.iter().try_for_each(|(name, count)| writeln!(f, "{count} × {name}"))?;
        writeln!(f, "against replay: {replayed}")?;
        writeln!(f, "against the model: {modelled}")?;
        write!(f, "consistent cuts against headers: {cut}")
    }
}

impl Siege {
    /// Prepares topics and a store.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn new(broker: &Endpoint, subject: Subject, plan: Plan) -> Result<Self> {
        // Built before there is input, which would pile up meanwhile.
        binary(subject.binary())?;
        let name = unique(subject.binary());
        let (input, prefix) = (format!("{name}.input"), format!("{name}."));
        let folder = Folder::new("fluvial-siege-")?;
        let siege = Self { subject, plan, broker: broker.clone(), input, prefix, name, folder };
        broker.create_topic(&siege.input, siege.plan.input_partitions, &[])?;
        for output in siege.outputs() {
            broker.create_topic(&output, OUTPUT_PARTITIONS, &[("cleanup.policy", "compact")])?;
        }
        Ok(siege)
    }

    /// Runs it to its end and compares.
    ///
    /// # Errors
    /// The job does not do what it must at some point; the error says after which blow, and holds the end of its log.
    pub fn run(&self) -> Result<Report> {
        let Plan { seed, input_partitions, rounds, .. } = &self.plan;
        let context = || format!("seed {seed}, {:?}", self.subject);
        let feeder = Feeder::start(&self.broker, &self.input, *input_partitions, self.subject, *seed)?;
        let mut ends = Ends::of(&self.broker, &self.outputs())?;
        let mut blows: BTreeMap<_, usize> = BTreeMap::new();
        for (number, round) in rounds.iter().enumerate() {
            let context = || format!("{}, round {number}: {round:?}", context());
            self.round(round, &mut ends, &feeder).with_context(context)?;
            for (_, _, blow) in &round.blows {
                *blows.entry(blow.name()).or_default() += 1;
            }
        }
        let written = feeder.stop()?;
        self.finish().with_context(context)?;
        self.compare(blows, written).with_context(context)
    }

    fn round(&self, round: &Round, ends: &mut Ends, feeder: &Feeder) -> Result<()> {
        let job = self.start(round.processes, round.workers, &[])?;
        for (records, pause, blow) in &round.blows {
            let reached = self.wait_for(&job, ends, *records, feeder);
            reached.with_context(|| format!("before {blow:?}; the log ends with\n{}", job.process().log_end()))?;
            std::thread::sleep(*pause);
            self.strike(&job, *blow).with_context(|| format!("{blow:?}"))?;
        }
        Ok(())
    }

    fn strike(&self, job: &Job, blow: Blow) -> Result<()> {
        match blow {
            // A blow may come while there is no such process; then it comes to nothing.
            Blow::KillPeer(index) => job.kill_peer(index).map(drop),
            Blow::KillFirst => job.kill_first(FOLLOW_WITHIN),
            Blow::KillAll => job.kill_all(),
            Blow::Stop => {
                let status = job.stop(END_WITHIN)?;
                let log = job.process().log_end();
                // Stopped before it had taken over, it has nothing to commit and cannot say that everything is.
                let while_opening = status.code() == Some(8) && log.contains("error: stopped while");
                ensure!(status.success() || while_opening, "{status}; the log ends with\n{log}");
                Ok(())
            }
        }
    }

    /// Waits until so many more records are visible in the outputs.
    fn wait_for(&self, job: &Job, ends: &mut Ends, records: u64, feeder: &Feeder) -> Result<()> {
        let (start, goal) = (Instant::now(), ends.sum()? + records);
        while ends.sum()? < goal {
            if let Some(status) = job.process().status() {
                bail!("the job ended by itself: {status}");
            }
            ensure!(!feeder.is_over(), "the input has ended");
            ensure!(start.elapsed() < PROGRESS_WITHIN, "no {records} more records after {PROGRESS_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }

    /// The last run: to the end of the input.
    fn finish(&self) -> Result<()> {
        let (processes, workers) = self.plan.last;
        let job = self.start(processes, workers, &["--stop-at-end"])?;
        let status = job.process().wait(END_WITHIN)?;
        ensure!(status.success(), "the last run: {status}; the log ends with\n{}", job.process().log_end());
        Ok(())
    }

    fn compare(&self, blows: BTreeMap<&'static str, usize>, written: u64) -> Result<Report> {
        let journal = Journal::read(&self.store(), &self.name)?;
        let input = self.broker.read(&self.input, Isolation::Committed)?;
        let bound: u64 = journal.ticks.iter().flat_map(|tick| &tick.ranges).map(|range| range.count).sum();
        ensure!(bound == input.len() as u64, "the journal binds {bound} records, the input holds {}", input.len());
        let seen = history::seen_in_topics(&self.broker, &self.outputs())?;
        let cut = history::seen_in_cuts(&self.broker, &self.name, &self.outputs())?;
        let partitions = self.outputs().into_iter().map(|output| (output, OUTPUT_PARTITIONS)).collect();
        let expected = history::given_by_model(&mut *self.model(), &journal, &input, &partitions)?;
        let replayed = self.replay()?;
        if self.subject == Subject::Bank {
            bank_is_consistent(&self.prefix, &journal, &input, &seen).context("cut by headers")?;
            bank_is_consistent(&self.prefix, &journal, &input, &cut).context("cut by progress")?;
        }
        Ok(Report {
            blows,
            written,
            ticks: journal.ticks.len(),
            generations: journal.generations,
            checkpoints: journal.checkpoints,
            replayed: compare(&replayed, &seen),
            modelled: compare(&expected, &seen),
            cut: compare(&seen, &cut),
        })
    }

    fn replay(&self) -> Result<history::History> {
        let mut replay = Command::new(binary(self.subject.binary())?);
        replay.args(["replay", "--workers", "3"]).args(self.common_args());
        let output = replay.output().context("run replay")?;
        if !output.status.success() {
            bail!("replay: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        history::printed_by_replay(&String::from_utf8(output.stdout)?)
    }

    fn start(&self, processes: u32, workers: u32, more: &[&str]) -> Result<Job> {
        let mut args: Vec<OsString> = vec!["run".into()];
        args.extend(self.common_args());
        args.extend([
            "--processes".into(),
            processes.to_string().into(),
            "--workers".into(),
            workers.to_string().into(),
        ]);
        args.extend(["--keep-journal", "--checkpoint-every", "1s", "--tick-header"].map(OsString::from));
        args.extend(more.iter().map(OsString::from));
        Job::start(self.subject.binary(), &args, &[], &self.folder.path().join("log"))
    }

    /// What `run` and `replay` are both told.
    fn common_args(&self) -> Vec<OsString> {
        let mut args: Vec<OsString> =
            ["--brokers", self.broker.bootstrap(), "--name", &self.name, "--input", &self.input]
                .map(OsString::from)
                .to_vec();
        args.extend(["--store".into(), self.store().into()]);
        args.extend(match self.subject {
            Subject::Orders => ["--output".into(), format!("{}revenue", self.prefix).into()],
            Subject::Bank => ["--prefix".into(), self.prefix.clone().into()],
        });
        args
    }

    fn store(&self) -> PathBuf {
        self.folder.path().join("store")
    }

    fn outputs(&self) -> Vec<String> {
        match self.subject {
            Subject::Orders => vec![format!("{}revenue", self.prefix)],
            Subject::Bank => Bank::OUTPUTS.iter().map(|output| format!("{}{output}", self.prefix)).collect(),
        }
    }

    fn model(&self) -> Box<dyn Model> {
        match self.subject {
            Subject::Orders => Box::new(Orders::new(format!("{}revenue", self.prefix))),
            Subject::Bank => Box::new(Bank::new(self.prefix.clone())),
        }
    }
}

/// The ends of the output topics as a `read_committed` consumer sees them; markers of transactions count as records.
struct Ends {
    consumer: BaseConsumer,
    partitions: Vec<(String, i32)>,
}

impl Ends {
    fn of(broker: &Endpoint, topics: &[String]) -> Result<Self> {
        let partitions = topics.iter().flat_map(|topic| (0..OUTPUT_PARTITIONS).map(|number| (topic.clone(), number)));
        let partitions = partitions.collect();
        Ok(Self { consumer: broker.reader(Isolation::Committed)?, partitions })
    }

    fn sum(&mut self) -> Result<u64> {
        let end = |(topic, partition): &(String, i32)| {
            let (_, end) = self.consumer.fetch_watermarks(topic, *partition, PATIENCE)?;
            anyhow::Ok(end.unsigned_abs())
        };
        self.partitions.iter().map(end).sum()
    }
}
