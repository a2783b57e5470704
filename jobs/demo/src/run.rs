//! The demo from its beginning to the verdict.
//!
//! ```text
//!  broker, job, consumers ─► first probes visible ─► records ─► last probes visible ─► job told to stop ─► verdict
//! ```

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use fluvial_kafka::progress_topic;
use fluvial_kafka_embedded::{Broker, Config};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use crate::child::Job;
use crate::feeder::{Feed, Feeder};
use crate::figures::{count, millis};
use crate::folder::Folder;
use crate::probes::Probes;
use crate::screen::Screen;
use crate::verdict::{self, Run};
use crate::viewer::Viewer;
use crate::watcher::Watcher;
use crate::{Demo, DemoOptions};

/// The partitions of the input, and of each output.
const PARTITIONS: u32 = 4;
/// How long the job may take for the first output, for any more of it, and for its end.
const PATIENCE: Duration = Duration::from_secs(60);
/// How often the screen is drawn.
const DRAW: Duration = Duration::from_millis(200);
/// How often a thing is looked at that has no event.
const LOOK: Duration = Duration::from_millis(10);

/// What the demo's threads tell it.
pub(crate) enum Event {
    /// Ctrl-C or SIGTERM.
    Signal,
    /// The job's process has ended.
    JobEnded,
    /// The generator has ended; all that it made is in the input.
    Fed(anyhow::Result<()>),
    /// A consumer cannot go on.
    Failed(anyhow::Error),
}

/// Runs a demo. The exit code is 0 if its outputs are right, else 1.
///
/// # Errors
/// Something went wrong before there was a verdict.
pub fn run(demo: &'static dyn Demo, options: &DemoOptions) -> anyhow::Result<ExitCode> {
    let (events, inbox) = channel();
    watch_signals(&events)?;
    let folder = Folder::new(&format!("{}-demo-", demo.job()))?;
    let broker = Broker::start(Config::default())?;
    broker.create_topic(demo.input(), PARTITIONS as i32)?;
    let job = Job::start(arguments(demo, options, &broker, &folder), &folder, &events)?;
    let screen = Screen::new(options.lasting)?;
    screen.say(&format!("the job starts, on an embedded broker at {}", broker.bootstrap()));
    let mut course = Course { demo, options, broker: &broker, job, screen, inbox, events };
    match course.run() {
        Ok(Some(run)) => {
            drop(course);
            verdict::give(demo, &broker, &run)
        }
        Ok(None) => bail!("interrupted before there was any input"),
        Err(error) => {
            let words = course.job.last_words(demo.job());
            bail!("{error:#}; the demo has failed. The job may say why: {words}")
        }
    }
}

/// Ctrl-C and SIGTERM are events; the second ends the demo at once, and job and folder go by themselves.
fn watch_signals(events: &Sender<Event>) -> anyhow::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot watch for signals")?;
    let events = events.clone();
    let watch = move || {
        for (number, signal) in signals.forever().enumerate() {
            if number > 0 || events.send(Event::Signal).is_err() {
                std::process::exit(128 + signal);
            }
        }
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(watch).context("cannot watch for signals")?;
    Ok(())
}

fn arguments(
    demo: &dyn Demo,
    options: &DemoOptions,
    broker: &Broker,
    folder: &Folder,
) -> impl Iterator<Item = std::ffi::OsString> {
    let mut arguments = vec!["--store".into(), folder.path().join("store").into()];
    let workers = options.workers.to_string();
    let partitions = PARTITIONS.to_string();
    let brokers = broker.bootstrap();
    let texts =
        ["--brokers", &brokers, "--name", demo.job(), "--workers", &workers, "--output-partitions", &partitions];
    arguments.extend(texts.map(Into::into));
    arguments.into_iter()
}

/// The demo while it runs.
struct Course<'a> {
    demo: &'static dyn Demo,
    options: &'a DemoOptions,
    broker: &'a Broker,
    job: Job,
    screen: Screen,
    inbox: Receiver<Event>,
    events: Sender<Event>,
}

impl Course<'_> {
    /// Runs all but the verdict; nothing comes of it when it is interrupted before there is any input.
    fn run(&mut self) -> anyhow::Result<Option<Run>> {
        let brokers = self.broker.bootstrap();
        let progress = progress_topic(self.demo.job());
        let outputs: Vec<&str> = self.demo.outputs().iter().copied().chain([progress.as_str()]).collect();
        if self.until("create its topics", |this| {
            let there = this.broker.topics();
            outputs.iter().all(|topic| there.contains_key(*topic))
        })? {
            return Ok(None);
        }
        let probes = Arc::new(Probes::new(PARTITIONS));
        let _watcher = Watcher::start(self.demo, &brokers, PARTITIONS, Arc::clone(&probes), self.events.clone())?;
        let viewer = Viewer::start(self.demo, &brokers, self.events.clone())?;
        let rate = self.options.rate;
        let feed = Feed {
            brokers,
            topic: self.demo.input(),
            partitions: PARTITIONS,
            rate,
            generator: self.demo.generator(self.options.seed, PARTITIONS),
            probes: Arc::clone(&probes),
        };
        let feeder = Feeder::start(feed, self.events.clone())?;
        let first = u64::from(PARTITIONS);
        if self.until("write its first output", |_| probes.seen_count() >= first)? {
            return Ok(None);
        }
        let lasting = humantime::format_duration(self.options.lasting);
        self.screen.say(&format!("{} {} each second, for {lasting}", count(u64::from(rate)), self.demo.records()));
        let began = Instant::now();
        feeder.go();
        self.watch(began, &feeder, &probes, &viewer)?;

        self.screen.say("the generator stops; waiting until all output is visible");
        drop(feeder);
        self.wait_for_output(&probes)?;
        let took = probes.last_seen().unwrap_or_else(Instant::now).saturating_duration_since(began);
        self.screen.say("the job is told to stop: it commits, and takes a checkpoint");
        self.stop_job()?;
        Ok(Some(Run { took, probes, seen: viewer.finish()? }))
    }

    /// The next event that is not a failure, or nothing in time.
    fn next(&self, wait: Duration) -> anyhow::Result<Option<Event>> {
        match self.inbox.recv_timeout(wait) {
            Ok(Event::Failed(error) | Event::Fed(Err(error))) => Err(error),
            Ok(event) => Ok(Some(event)),
            Err(RecvTimeoutError::Timeout) => Ok(None),
            Err(RecvTimeoutError::Disconnected) => bail!("all threads of the demo have ended"),
        }
    }

    /// Waits until something holds that has no event; true if that was interrupted.
    fn until(&mut self, what: &str, holds: impl Fn(&Self) -> bool) -> anyhow::Result<bool> {
        let began = Instant::now();
        while !holds(self) {
            match self.next(LOOK)? {
                Some(Event::Signal) => return Ok(true),
                Some(Event::JobEnded) => bail!("the job ended ({})", self.job.status()?),
                _ if began.elapsed() > PATIENCE => bail!("the job did not {what} within {PATIENCE:?}"),
                _ => {}
            }
        }
        Ok(false)
    }

    /// Shows what comes out, until the time is over or somebody has enough.
    fn watch(&mut self, began: Instant, feeder: &Feeder, probes: &Probes, viewer: &Viewer) -> anyhow::Result<()> {
        loop {
            let passed = began.elapsed();
            if passed >= self.options.lasting {
                return Ok(());
            }
            if self.screen.is_live() {
                let rate = feeder.records() as f64 / passed.as_secs_f64().max(0.001);
                let latency = probes.latency().map_or_else(String::new, |latency| {
                    format!(", produce to visible p50 {}, p99 {}", millis(latency.p50), millis(latency.p99))
                });
                let line = format!("{} in, {}/s{latency}", count(feeder.records()), count(rate as u64));
                self.screen.show(table(viewer), passed, line);
            }
            match self.next(DRAW.min(self.options.lasting - passed))? {
                Some(Event::Signal) => return Ok(()),
                Some(Event::JobEnded) => bail!("the job ended ({})", self.job.status()?),
                _ => {}
            }
        }
    }

    /// Waits until the generator is through and all that it made is in the output, as long as there is any progress.
    fn wait_for_output(&mut self, probes: &Probes) -> anyhow::Result<()> {
        let mut fed = false;
        let mut seen = (probes.seen_count(), Instant::now());
        while !fed || probes.under_way() > 0 {
            match self.next(LOOK)? {
                Some(Event::Fed(_)) => fed = true,
                Some(Event::JobEnded) => bail!("the job ended ({})", self.job.status()?),
                _ => {}
            }
            let now = probes.seen_count();
            if now != seen.0 {
                seen = (now, Instant::now());
            }
            if let Some(fault) = probes.fault() {
                bail!("{fault}: records were lost or doubled");
            }
            if seen.1.elapsed() > PATIENCE {
                bail!("{} probes have not come out, and no other for {PATIENCE:?}", probes.under_way());
            }
        }
        Ok(())
    }

    fn stop_job(&mut self) -> anyhow::Result<()> {
        self.job.stop()?;
        let began = Instant::now();
        loop {
            let left = PATIENCE.saturating_sub(began.elapsed());
            match self.next(left)? {
                Some(Event::JobEnded) => break,
                None => bail!("the job has not ended {PATIENCE:?} after it was told to"),
                _ => {}
            }
        }
        let status = self.job.status()?;
        if !status.success() {
            bail!("the job ended with an error when it was told to stop ({status})");
        }
        Ok(())
    }
}

/// The live table, with its tick.
fn table(viewer: &Viewer) -> String {
    let seen = viewer.seen();
    let Some(tick) = seen.tick else { return "no output yet".to_owned() };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let age = u64::try_from(now.as_millis()).unwrap_or(u64::MAX).saturating_sub(tick);
    format!("{}\nas of tick {tick}, {age} ms ago", seen.view.table())
}
