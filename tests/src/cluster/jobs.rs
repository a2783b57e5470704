//! The jobs of a cluster, their input, and whether their output is what it must be.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{Cluster, SMALL_PARTITIONS, WITHIN};
use crate::campaign::{Comparison, Feeder, Gauge};
use crate::job::binary;
use crate::stage::Stage;
use crate::subject::Subject;

/// How many partitions the input of a large job has.
const LARGE_PARTITIONS: i32 = 6;
/// How often the small jobs get input, and how many records.
const TRICKLES_EVERY: Duration = Duration::from_millis(800);
const DROPS: u64 = 8;
/// The longest pause between two batches of input of a large job.
const BATCH_EVERY_MS: u64 = 250;
/// What every job is told besides: the journal is kept, so that the output can be compared tick by tick.
const OPTIONS: &str = "--keep-journal --tick-header --checkpoint-every 2s --patience 20s";

/// A job of a cluster.
pub struct Tenant {
    stage: Arc<Stage>,
    subject: Subject,
    /// What consumers of committed records see.
    output: Gauge,
    /// Writes a large job's input.
    feeder: Option<Feeder>,
}

impl Tenant {
    /// Its topics.
    #[must_use]
    pub fn stage(&self) -> &Stage {
        &self.stage
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.stage.name()
    }

    /// What a consumer of its output sees.
    #[must_use]
    pub fn output(&self) -> &Gauge {
        &self.output
    }

    /// The binary that it was submitted with first.
    ///
    /// # Errors
    /// As [`binary`].
    pub fn program(&self) -> Result<PathBuf> {
        binary(self.subject.binary())
    }

    /// The options of the job that a user gives: the cluster says where the store is, and how the job is named.
    #[must_use]
    pub fn own_args(&self) -> Vec<OsString> {
        own_args(&self.stage)
    }

    /// The words of a submission.
    #[must_use]
    pub fn submission(&self, program: &Path, workers: u32) -> Vec<OsString> {
        submission(&self.stage, program, workers)
    }
}

/// The words by which the job of a stage is submitted.
#[must_use]
pub fn submission(stage: &Stage, program: &Path, workers: u32) -> Vec<OsString> {
    let mut args: Vec<OsString> = vec!["submit".into(), program.into(), "--name".into(), stage.name().into()];
    args.extend(["--workers".into(), workers.to_string().into(), "--detach".into(), "--".into()]);
    args.extend(own_args(stage));
    args
}

/// The options of the job of a stage that a user gives.
#[must_use]
pub fn own_args(stage: &Stage) -> Vec<OsString> {
    let mut args = stage.common_args();
    for option in ["--store", "--name"] {
        if let Some(at) = args.iter().position(|arg| arg == option) {
            args.drain(at..at + 2);
        }
    }
    args.extend(OPTIONS.split(' ').map(OsString::from));
    args
}

/// Jobs whose input is written while they run.
pub struct Fleet<'a> {
    cluster: &'a Cluster,
    tenants: Vec<Tenant>,
    trickle: Trickle,
    /// Another build of each program.
    others: BTreeMap<Subject, PathBuf>,
    /// The jobs that run it.
    run_other: BTreeSet<usize>,
}

/// Writes the input of the small jobs, a little at a time, until it is dropped.
struct Trickle {
    stages: Arc<Mutex<Vec<Arc<Stage>>>>,
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Trickle {
    fn start() -> Self {
        let stages: Arc<Mutex<Vec<Arc<Stage>>>> = Arc::default();
        let fed = Arc::clone(&stages);
        let (stop, stopped) = mpsc::channel::<()>();
        let thread = std::thread::spawn(move || {
            let mut next = 0;
            while stopped.recv_timeout(TRICKLES_EVERY) == Err(RecvTimeoutError::Timeout) {
                let stages = fed.lock().unwrap_or_else(PoisonError::into_inner).clone();
                for stage in stages {
                    // The broker may be unavailable. What has arrived is input like any other.
                    let _ = stage.feed(next..next + DROPS);
                }
                next += DROPS;
            }
        });
        Self { stages, stop: Some(stop), thread: Some(thread) }
    }

    fn add(&self, stage: &Arc<Stage>) {
        self.stages.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(stage));
    }

    fn end(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for Trickle {
    fn drop(&mut self) {
        self.end();
    }
}

impl<'a> Fleet<'a> {
    /// No jobs yet.
    #[must_use]
    pub fn new(cluster: &'a Cluster) -> Self {
        Self {
            cluster,
            tenants: Vec::new(),
            trickle: Trickle::start(),
            others: BTreeMap::new(),
            run_other: BTreeSet::new(),
        }
    }

    /// The bank and the orders with two workers each, and so many small jobs with one worker, all of which run.
    ///
    /// # Errors
    /// They do not.
    pub fn start(cluster: &'a Cluster, small: usize, seed: u64) -> Result<Self> {
        let mut fleet = Self::new(cluster);
        for subject in [Subject::Bank, Subject::Orders] {
            let tenant = fleet.add_large(subject, seed)?;
            fleet.submit(tenant, &binary(subject.binary())?, 2)?;
        }
        fleet.submit_small(small)?;
        Ok(fleet)
    }

    /// So many small jobs, all of which run.
    ///
    /// # Errors
    /// They do not.
    pub fn start_small(cluster: &'a Cluster, small: usize) -> Result<Self> {
        let mut fleet = Self::new(cluster);
        fleet.submit_small(small)?;
        Ok(fleet)
    }

    fn submit_small(&mut self, small: usize) -> Result<()> {
        for _ in 0..small {
            let tenant = self.add_small()?;
            self.submit(tenant, &binary("orders")?, 1)?;
        }
        self.wait_until_all_run()
    }

    /// The topics of a job with much input. Returns its number.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub fn add_large(&mut self, subject: Subject, seed: u64) -> Result<usize> {
        let stage = self.cluster.stage(subject, LARGE_PARTITIONS)?;
        let (input, pause_ms) = (stage.input(), BATCH_EVERY_MS);
        let feeder = Feeder::paced(stage.endpoint(), &input, LARGE_PARTITIONS, subject, seed, pause_ms)?;
        self.add(stage, subject, Some(feeder))
    }

    /// The topics of a job whose input holds records before the job is submitted, and grows from then on. Returns its number.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub fn add_filled(&mut self, partitions: i32, fill: impl FnOnce(&Stage) -> Result<()>) -> Result<usize> {
        let stage = self.cluster.stage(Subject::Orders, partitions)?;
        fill(&stage)?;
        let feeder = Feeder::start(stage.endpoint(), &stage.input(), partitions, Subject::Orders, 1)?;
        self.add(stage, Subject::Orders, Some(feeder))
    }

    /// The topics of a job with little input. Returns its number.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub fn add_small(&mut self) -> Result<usize> {
        let stage = self.cluster.stage(Subject::Orders, SMALL_PARTITIONS)?;
        self.add(stage, Subject::Orders, None)
    }

    fn add(&mut self, stage: Stage, subject: Subject, feeder: Option<Feeder>) -> Result<usize> {
        let output = Gauge::start(stage.endpoint(), &stage.outputs())?;
        let stage = Arc::new(stage);
        if feeder.is_none() {
            self.trickle.add(&stage);
        }
        self.tenants.push(Tenant { stage, subject, output, feeder });
        Ok(self.tenants.len() - 1)
    }

    /// Another build of a job's program than the one that it runs: its own, or the one that all of its kind have in turn.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn other_build(&mut self, tenant: usize) -> Result<PathBuf> {
        let subject = self.tenants[tenant].subject;
        let own = binary(subject.binary())?;
        if self.run_other.remove(&tenant) {
            return Ok(own);
        }
        self.run_other.insert(tenant);
        if let Some(other) = self.others.get(&subject) {
            return Ok(other.clone());
        }
        let other = built_again(self.cluster, &own, &format!("other-{}", subject.binary()))?;
        self.others.insert(subject, other.clone());
        Ok(other)
    }

    /// Submits a job, again and again until it is there.
    ///
    /// # Errors
    /// It is refused.
    pub fn submit(&self, tenant: usize, program: &Path, workers: u32) -> Result<()> {
        self.cluster.tell_until(&self.tenants[tenant].submission(program, workers), |_| false).map(drop)
    }

    /// The cluster.
    #[must_use]
    pub fn cluster(&self) -> &'a Cluster {
        self.cluster
    }

    /// The jobs.
    #[must_use]
    pub fn tenants(&self) -> &[Tenant] {
        &self.tenants
    }

    /// Waits until all jobs run, on nodes that live, and a consumer of each output sees something new.
    ///
    /// # Errors
    /// They do not.
    pub fn wait_until_all_run(&self) -> Result<()> {
        self.cluster.wait_until("all jobs run", || {
            let jobs = self.cluster.jobs()?;
            let failed = jobs.values().find(|job| job["state"] == "failed");
            ensure!(failed.is_none(), "a job has failed: {failed:?}\n{}", self.cluster.logs());
            Ok(self.tenants.iter().all(|tenant| jobs.get(tenant.name()).is_some_and(|job| self.runs(job))))
        })?;
        let before: Vec<_> = self.tenants.iter().map(|tenant| tenant.output.records()).collect();
        for (tenant, before) in self.tenants.iter().zip(before) {
            let what = format!("more output of {}", tenant.name());
            self.cluster.wait_until(&what, || Ok(tenant.output.records() > before))?;
        }
        Ok(())
    }

    fn runs(&self, job: &serde_json::Value) -> bool {
        let processes = job["attempt"]["processes"].as_array().cloned().unwrap_or_default();
        let lives = |node: &str| self.cluster.host_of(node).is_some_and(|host| self.cluster.answers(host));
        job["state"] == "running"
            && !processes.is_empty()
            && processes.iter().all(|process| process["node"].as_str().is_some_and(lives))
            && job["wanted"]["version"] == job["attempt"]["version"]
    }

    /// The hosts on which a job runs.
    ///
    /// # Errors
    /// As [`Cluster::tell`].
    pub fn hosts_of(&self, name: &str) -> Result<BTreeSet<u8>> {
        let job = self.cluster.json(&format!("status {name}"))?;
        let processes = job["attempt"]["processes"].as_array().cloned().unwrap_or_default();
        Ok(processes.iter().filter_map(|process| self.cluster.host_of(process["node"].as_str()?)).collect())
    }

    /// The generation of each job: how often it was begun.
    ///
    /// # Errors
    /// As [`Cluster::tell`].
    pub fn generations(&self) -> Result<Vec<u64>> {
        let jobs = self.cluster.jobs()?;
        let generation = |tenant: &Tenant| jobs.get(tenant.name())?["attempt"]["generation"].as_u64();
        Ok(self.tenants.iter().map(|tenant| generation(tenant).unwrap_or_default()).collect())
    }

    /// Ends the input, stops all jobs, and compares the output of each, tick by tick, with what the journal's ticks give by `replay`
    /// and by a naive model.
    ///
    /// # Errors
    /// A job does not stop, or the comparison is not possible, or the outputs differ.
    pub fn finish(mut self) -> Result<()> {
        self.trickle.end();
        for tenant in &mut self.tenants {
            if let Some(feeder) = tenant.feeder.take() {
                feeder.stop()?;
            }
        }
        for tenant in &self.tenants {
            self.cluster.tell(&format!("stop {}", tenant.name()))?;
        }
        let failed: Vec<_> = self.tenants.iter().filter_map(|tenant| self.compare(tenant).err()).collect();
        if failed.is_empty() {
            return Ok(());
        }
        let failed: String = failed.iter().map(|error| format!("{error:#}\n")).collect();
        bail!("{failed}\n{}", self.cluster.logs())
    }

    fn compare(&self, tenant: &Tenant) -> Result<()> {
        let (stage, name) = (tenant.stage(), tenant.name());
        // What was written last may not have been read: the job ends where it is told to.
        let last = stage.start_by(&[], &[], &format!("{OPTIONS} --workers 1 --stop-at-end"))?.finish(WITHIN)?;
        ensure!(last.code == Some(0), "the last run of {name}: {:?}\n{}", last.code, last.said);
        let journal = stage.journal()?;
        let compared = Comparison::of(stage, tenant.subject, &journal).with_context(|| name.to_owned())?;
        ensure!(compared.is_clean(), "{name}: {compared}");
        Ok(())
    }
}

/// Makes another build of a program, in a folder of the cluster.
///
/// # Errors
/// It cannot be written.
pub fn built_again(cluster: &Cluster, program: &Path, name: &str) -> Result<PathBuf> {
    let copy = cluster.network().folder().join(name);
    crate::job::build_again(program, &copy)?;
    // Each one is another.
    let mut file = std::fs::File::options().append(true).open(&copy)?;
    std::io::Write::write_all(&mut file, name.as_bytes())?;
    Ok(copy)
}
