//! One job, one plan, one verdict.

use std::cell::RefCell;
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail, ensure};

use super::{Blow, Comparison, Feeder, Gauge, Ground, Pauses, Plan, Report, Round, Struck, Subject, Whom, Witness};
use crate::job::{Job, binary};
use crate::stage::{OUTPUT_PARTITIONS, Stage, Started};

/// How long a job may take to show one more record, starts and restarts included.
const PROGRESS_WITHIN: Duration = Duration::from_secs(90);
/// How long it may take to end when it should.
const END_WITHIN: Duration = Duration::from_secs(120);
/// How often it is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// How long the other processes may outlive the first.
const FOLLOW_WITHIN: Duration = Duration::from_secs(10);
/// How long a fail point or the end of a transaction is waited for: then the blow has come to nothing.
const MET_WITHIN: Duration = Duration::from_secs(10);
/// How long an object stays that nothing names any more. A process ends that makes no step for so long; on a machine with
/// much to do that would be all that is seen if this were shorter.
const DELETION_GRACE_S: u64 = 3;

/// A job that is run and struck as a plan says.
pub struct Siege<'a> {
    subject: Subject,
    plan: Plan,
    ground: &'a Ground,
    stage: Stage,
    output: Gauge,
    input: Gauge,
    struck: RefCell<Vec<Struck>>,
}

impl<'a> Siege<'a> {
    /// Prepares topics and a store.
    ///
    /// # Errors
    /// The broker refuses.
    pub fn new(ground: &'a Ground, subject: Subject, plan: Plan) -> Result<Self> {
        // Built before there is input, which would pile up meanwhile.
        binary(subject.binary())?;
        let stage = Stage::on(ground.endpoint(), ground.jobs_see(), subject, plan.input_partitions)?;
        let stage = stage.with_options(ground.job_options());
        for output in stage.outputs() {
            ground.endpoint().create_topic(&output, OUTPUT_PARTITIONS, &[("cleanup.policy", "compact")])?;
        }
        let output = Gauge::start(ground.endpoint(), &stage.outputs())?;
        let input = Gauge::start(ground.endpoint(), &[stage.input()])?;
        Ok(Self { subject, plan, ground, stage, output, input, struck: RefCell::default() })
    }

    /// Runs it to its end and compares.
    ///
    /// # Errors
    /// The job does not do what it must at some point; the error says after which blow, and holds the end of its log.
    pub fn run(&self) -> Result<Report> {
        let Plan { seed, input_partitions, rounds, .. } = &self.plan;
        let context = || format!("seed {seed}, {:?}", self.subject);
        let endpoint = self.ground.endpoint();
        let witness = Witness::of(self.stage.store().join(self.stage.name()));
        let feeder = Feeder::start(endpoint, &self.stage.input(), *input_partitions, self.subject, *seed)?;
        for (number, round) in rounds.iter().enumerate() {
            let context = || format!("{}, round {number}: {round:?}", context());
            self.round(round, &feeder).with_context(context)?;
        }
        let written = feeder.stop()?;
        self.finish().with_context(context)?;
        self.compare(written, witness).with_context(context)
    }

    /// The blows that have fallen so far.
    #[must_use]
    pub fn struck(&self) -> Vec<Struck> {
        self.struck.borrow().clone()
    }

    /// Copies store and logs to a folder, for a person to look at.
    ///
    /// # Errors
    /// `cp` fails.
    pub fn keep_evidence(&self, folder: &Path) -> Result<()> {
        let copied = Command::new("cp").arg("-r").arg(self.stage.folder()).arg(folder).status().context("run cp")?;
        ensure!(copied.success(), "cp to {}: {copied}", folder.display());
        Ok(())
    }

    fn round(&self, round: &Round, feeder: &Feeder) -> Result<()> {
        let job = self.start(round)?;
        if let Some(blow) = round.at_point {
            let fell = self.strike(&job, blow).with_context(|| self.after(blow, &job))?;
            if fell && blow.ends_the_run() {
                return Ok(());
            }
        }
        for (records, pause, blow) in &round.blows {
            let before = || format!("before {}", self.after(*blow, &job));
            if !self.wait_for(&job, *records, feeder, round.at_point).with_context(before)? {
                return Ok(());
            }
            std::thread::sleep(*pause);
            self.strike(&job, *blow).with_context(|| self.after(*blow, &job))?;
        }
        Ok(())
    }

    fn after(&self, blow: Blow, job: &Started) -> String {
        format!("{blow:?}; the log ends with\n{}", job.process().log_end())
    }

    /// Strikes, and notes it; whether there was anything to strike.
    fn strike(&self, started: &Started, blow: Blow) -> Result<bool> {
        let at_ms = now_ms();
        let job = started.job();
        let (mut fell, mut pauses) = (true, None);
        match blow {
            Blow::Kill(Whom::One(index)) => fell = job.kill_peer(index)?,
            Blow::Kill(Whom::First) => job.kill_first(FOLLOW_WITHIN)?,
            Blow::Kill(Whom::All) => job.kill_all()?,
            Blow::KillAt(point, _, whom) => fell = kill_at(job, &point.name(), whom)?,
            Blow::EndTxn(fault) => fell = self.ground.proxy().is_some_and(|proxy| proxy.strike(fault, MET_WITHIN)),
            Blow::RestartBroker => pauses = Some(self.pauses(started, || self.ground.restart_a_broker())?),
            Blow::KillBroker => pauses = Some(self.pauses(started, || self.ground.kill_a_broker())?),
            Blow::Stop => {
                let status = Self::stop(started)?;
                // Stopped before it had taken over, it has nothing to commit and cannot say that everything is.
                let log = job.process().log_end();
                let before_open = ["error: stopped before the job was open", "error: stopped while waiting to restart"];
                let while_opening = status.code() == Some(8) && before_open.iter().any(|line| log.contains(line));
                ensure!(status.success() || while_opening, "{status}");
            }
        }
        if fell {
            self.struck.borrow_mut().push(Struck { blow, at_ms, pauses });
        }
        Ok(fell)
    }

    /// Asks a job to stop, and waits for its end. On a slow machine it reaches only on its way there the place at which it is
    /// told to stand still: then it is told to go on.
    fn stop(started: &Started) -> Result<ExitStatus> {
        let (job, start) = (started.job(), Instant::now());
        let mut ended = job.stop(LOOK_EVERY);
        while ended.is_err() && start.elapsed() < END_WITHIN {
            if job.process().log_holds("fail point") {
                job.resume()?;
            }
            ended = job.process().wait(LOOK_EVERY);
        }
        ended
    }

    /// Does something to the brokers, waits until there is output again, and says for how long there was none.
    fn pauses(&self, job: &Started, strike: impl FnOnce() -> Result<()>) -> Result<Pauses> {
        self.output.reset();
        self.input.reset();
        strike()?;
        let (start, before) = (Instant::now(), self.output.records());
        while self.output.records() == before {
            if let Some(status) = job.process().status() {
                bail!("the job ended by itself: {status}");
            }
            ensure!(start.elapsed() < PROGRESS_WITHIN, "no more output after {PROGRESS_WITHIN:?}");
            let _ = job.process().wait(Duration::from_millis(20));
        }
        Ok(Pauses { output: self.output.longest(), input: self.input.longest() })
    }

    /// Waits until so many more records are visible in the outputs.
    /// Returns whether the run goes on: on a slow machine, the place at which all of it is killed is reached meanwhile.
    fn wait_for(&self, job: &Started, records: u64, feeder: &Feeder, at_point: Option<Blow>) -> Result<bool> {
        let (start, records) = (Instant::now(), i64::try_from(records)?);
        let mut goal = None;
        // A broker that has just come back may not know yet where partitions end; the wait is bounded all the same.
        while !self.stage.visible().is_ok_and(|now| now >= *goal.get_or_insert(now + records)) {
            if let Some(status) = job.process().status() {
                bail!("the job ended by itself: {status}");
            }
            if let Some(blow @ Blow::KillAt(point, _, Whom::All)) = at_point
                && job.process().log_holds(&reached(&point.name()))
            {
                self.strike(job, blow)?;
                return Ok(false);
            }
            ensure!(!feeder.is_over(), "the input has ended");
            ensure!(start.elapsed() < PROGRESS_WITHIN, "no {records} more records after {PROGRESS_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(true)
    }

    fn start(&self, round: &Round) -> Result<Started> {
        let mut options = options(round.processes, round.workers);
        if let Some(Blow::KillAt(point, time, whom)) = round.at_point {
            // All are killed while the one that has reached the place stands still there.
            let fate = if whom == Whom::All { "stop" } else { "kill" };
            options.push_str(&format!(" --fail-point {}:{time}={fate}", point.name()));
        }
        self.stage.start(&options)
    }

    /// The last run: to the end of the input.
    fn finish(&self) -> Result<()> {
        let (processes, workers) = self.plan.last;
        let job = self.stage.start(&format!("{} --stop-at-end", options(processes, workers)))?;
        let finished = job.finish(END_WITHIN)?;
        ensure!(finished.code == Some(0), "the last run: {:?}; its log is\n{}", finished.code, finished.said);
        Ok(())
    }

    fn compare(&self, written: u64, witness: Witness) -> Result<Report> {
        let sightings = witness.asked();
        let journal = self.stage.journal()?;
        let compared = Comparison::of(&self.stage, self.subject, &journal)?;
        Ok(Report {
            struck: self.struck(),
            written,
            ticks: journal.ticks.len(),
            generations: journal.generations,
            checkpoints: journal.checkpoints,
            sightings,
            compared,
        })
    }
}

/// What `run` is told in every round.
fn options(processes: u32, workers: u32) -> String {
    let size = format!("--processes {processes} --workers {workers}");
    format!("{size} --keep-journal --tick-header --checkpoint-every 1s --deletion-grace {DELETION_GRACE_S}s")
}

/// Waits until a process has reached its fail point, and kills those that are to be killed. Whether one has: a place may
/// not be passed, or not so often.
fn kill_at(job: &Job, point: &str, whom: Whom) -> Result<bool> {
    let start = Instant::now();
    let reached = reached(point);
    while start.elapsed() < MET_WITHIN {
        if job.process().log_holds(&reached) {
            if whom == Whom::All {
                job.kill_all()?;
            }
            return Ok(true);
        }
        if let Some(status) = job.process().status() {
            bail!("the job ended by itself: {status}");
        }
        // Returns early when the job ends; nothing else tells.
        let _ = job.process().wait(Duration::from_millis(10));
    }
    Ok(false)
}

/// What the log says of a fail point that is reached.
fn reached(point: &str) -> String {
    format!("fail point {point} reached")
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
