//! A group that is struck blow after blow while records flow, and then compared with what must be there.

use std::fmt;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;

use super::{Blow, GROUP_MOST, Group, INPUT_PARTITIONS, Kafka, Store};
use crate::campaign::{Comparison, Feeder};
use crate::subject::Subject;

/// How many blows a siege of a campaign has.
const BLOWS: usize = 8;
/// A campaign that is shorter than this has no blows of a minute.
const LONG: Duration = Duration::from_secs(300);

/// A group whose job runs on all hosts, while input is written.
pub struct Siege<'a> {
    group: &'a Group,
    subject: Subject,
    feeder: Feeder,
    options: String,
    struck: Vec<(Blow, Duration)>,
}

impl<'a> Siege<'a> {
    /// Starts a copy on each host, and the input.
    ///
    /// # Errors
    /// The job does not run on all of them.
    pub fn start(group: &'a Group, subject: Subject, seed: u64, options: &str) -> Result<Self> {
        group.start_all(options)?;
        let siege = Self::feed(group, subject, seed)?;
        group.wait_until_on(&group.hosts().collect::<Vec<_>>())?;
        Ok(Self { options: options.to_owned(), ..siege })
    }

    /// Starts the input alone.
    ///
    /// # Errors
    /// The broker cannot be reached.
    pub fn feed(group: &'a Group, subject: Subject, seed: u64) -> Result<Self> {
        let stage = group.stage();
        let feeder = Feeder::start(stage.endpoint(), &stage.input(), INPUT_PARTITIONS, subject, seed)?;
        Ok(Self { group, subject, feeder, options: String::new(), struck: Vec::new() })
    }

    /// Strikes, and waits until the job runs on all hosts again.
    ///
    /// # Errors
    /// The group does not do what it must.
    pub fn strike(&mut self, blow: Blow) -> Result<()> {
        let start = Instant::now();
        self.group.output().reset();
        let after: Vec<_> = self.struck.iter().map(|(blow, _)| *blow).collect();
        blow.strike(self.group, &self.options).with_context(|| format!("{blow:?}, after {after:?}"))?;
        eprintln!(
            "{blow:?}: {:.1} s, the output paused for {:.1} s",
            start.elapsed().as_secs_f64(),
            self.group.output().longest().as_secs_f64()
        );
        self.struck.push((blow, self.group.output().longest()));
        Ok(())
    }

    /// Stops all copies, and compares the output with that of `replay`, with the model, and with consistent cuts.
    ///
    /// # Errors
    /// A copy does not end well, or the comparison is not possible.
    pub fn finish(self) -> Result<Report> {
        let Self { group, subject, feeder, struck, .. } = self;
        let stage = group.stage();
        let written = feeder.stop()?;
        group.stop_all()?;
        // What was written last may not have been read: the job ends where it is told to.
        let last = stage.start_by(&[], &[], "--keep-journal --tick-header --stop-at-end --workers 2")?;
        let finished = last.finish(GROUP_MOST)?;
        ensure!(finished.code == Some(0), "the last run: {:?}\n{}", finished.code, finished.said);
        let journal = stage.journal()?;
        let compared = Comparison::of(stage, subject, &journal)?;
        Ok(Report { struck, written, generations: journal.generations, compared })
    }
}

/// What came of a siege.
#[derive(Debug)]
pub struct Report {
    /// The blows, each with the longest time for which a consumer saw nothing new.
    pub struck: Vec<(Blow, Duration)>,
    /// What was written to the input, aborted records included.
    pub written: u64,
    /// Generations in the journal.
    pub generations: usize,
    /// The output beside what it must be.
    pub compared: Comparison,
}

impl Report {
    /// Whether the output is what it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.compared.is_clean()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} records in, {} generations", self.written, self.generations)?;
        for (blow, pause) in &self.struck {
            writeln!(f, "{blow:?}: the output paused for {:.1} s", pause.as_secs_f64())?;
        }
        write!(f, "{}", self.compared)
    }
}

/// Sieges of groups by random blows, until no more begin after `time`. Says of each what came of it; whether all was right.
pub fn campaign(hosts: u8, seed: u64, time: Duration) -> bool {
    seed_after_seed(seed, time, |seed, goes_on| {
        let report = one_of_a_campaign(hosts, seed, time < LONG, goes_on)?;
        Ok((report.to_string(), report.is_clean()))
    })
}

/// Runs `one` with seed after seed until `time` has passed, which it can ask whether it is to go on. It returns what came of the
/// seed, in words, and whether that was right. Returns whether all was.
pub(crate) fn seed_after_seed(
    first: u64,
    time: Duration,
    one: impl Fn(u64, &dyn Fn() -> bool) -> Result<(String, bool)>,
) -> bool {
    let start = Instant::now();
    let goes_on = || start.elapsed() < time;
    let mut clean = true;
    for seed in first.. {
        match one(seed, &goes_on) {
            Ok((came, is_right)) => {
                println!("seed {seed}: {came}\n");
                clean &= is_right;
            }
            Err(error) => {
                println!("seed {seed} FAILED: {error:#}\n");
                clean = false;
            }
        }
        if !goes_on() {
            break;
        }
    }
    clean
}

fn one_of_a_campaign(hosts: u8, seed: u64, in_a_hurry: bool, goes_on: impl Fn() -> bool) -> Result<Report> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let subject = if seed.is_multiple_of(2) { Subject::Bank } else { Subject::Orders };
    let store = if random.random() { Store::Folder } else { Store::Bucket };
    let group = Group::new(hosts, subject, &Kafka::Apache, store)?;
    let mut siege = Siege::start(&group, subject, seed, "")?;
    for _ in 0..BLOWS {
        if goes_on() {
            siege.strike(Blow::random(&mut random, store, hosts, in_a_hurry))?;
        }
    }
    siege.finish()
}
