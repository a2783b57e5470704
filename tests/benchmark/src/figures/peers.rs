//! The same work on Apache Flink and on Kafka Streams: sales counted and summed by account, from Kafka to Kafka, exactly once, each
//! update written.
//!
//! The JVM compiles hot code while it runs, so only the second half of each run is measured. That half begins and ends with what a
//! consumer sees, which with Flink and Kafka Streams changes at each checkpoint and commit. Kafka Streams keeps its state in RocksDB,
//! as it does by default, Flink on the heap, and Fluvial in memory.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fluvial_kafka_apache::child::Folder;
use fluvial_kafka_apache::{LIBRARIES, fetch, workspace};

use crate::kafka::{self, feed, view::Ends};
use crate::report::{Aim, Report, Value};
use crate::running::{Running, pause};
use crate::subject::job;

/// How many keys there are.
const KEYS: u64 = 1_000_000;
/// The length of a key.
const KEY_BYTES: usize = 7;
/// How many records lie ready.
const RECORDS: u64 = 12_000_000;
/// How many threads Flink and Kafka Streams have: with one they take about as much processor time for a record, and longer.
const THREADS: &str = "2";
/// The polling interval.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// The longest that the output may stand still.
const STUCK: Duration = Duration::from_secs(90);
/// The heap of each virtual machine.
const HEAP: &str = "-Xmx2g";

/// A program of a peer.
struct Program {
    class: &'static str,
    sources: [(&'static str, &'static str); 2],
    project: &'static str,
}

const SALE: (&str, &str) = ("Sale.java", include_str!("../../peers/Sale.java"));
const FLINK: Program = Program {
    class: "Flink",
    sources: [SALE, ("Flink.java", include_str!("../../peers/Flink.java"))],
    project: include_str!("../../peers/flink.pom.xml"),
};
const STREAMS: Program = Program {
    class: "Streams",
    sources: [SALE, ("Streams.java", include_str!("../../peers/Streams.java"))],
    project: include_str!("../../peers/streams.pom.xml"),
};

/// What the second half of a run came to, and the most memory of all of it.
struct Half {
    rate: f64,
    cpu_per_million: f64,
    peak_bytes: u64,
}

pub(crate) fn measure() -> Result<Report> {
    let (flink, streams) = (FLINK.compiled()?, STREAMS.compiled()?);
    let kafka = kafka::start()?;
    let brokers = kafka.bootstrap();
    kafka::make_topic(brokers, kafka::INPUT)?;
    eprintln!("  producing {} M records", RECORDS / 1_000_000);
    feed::load_sales(brokers, 0..RECORDS, KEYS, KEY_BYTES)?;
    let mut report = Report::new(format!(
        "Kafka to Kafka, count and sum over {} M keys of {KEY_BYTES} bytes, JSON of 200 bytes: Fluvial, Flink, Kafka Streams",
        KEYS / 1_000_000
    ));
    let mut compare = |what: &str, ours: &Half, theirs: &Half, aim| {
        let cpu = |half: &Half| Value::CpuPerMillion(half.cpu_per_million);
        report.compare(format!("CPU, beside {what}"), cpu(ours), cpu(theirs), aim);
        report.compare(format!("rate, beside {what}"), Value::Rate(ours.rate), Value::Rate(theirs.rate), Aim::None);
        let memory = |half: &Half| Value::Bytes(half.peak_bytes);
        report.compare(format!("most memory, beside {what}"), memory(ours), memory(theirs), Aim::None);
    };
    for seconds in ["1", "10"] {
        let ours = engine(brokers, &format!("ours-{seconds}"), &format!("{seconds}s"))?;
        let theirs = peer(&flink, &FLINK, brokers, &format!("flink-{seconds}"), &format!("{seconds}000"))?;
        compare(&format!("Flink, a checkpoint each {seconds} s"), &ours, &theirs, Aim::AtMost(0.25));
        if seconds == "1" {
            let theirs = peer(&streams, &STREAMS, brokers, "streams", "100")?;
            compare("Kafka Streams, a commit each 100 ms", &ours, &theirs, Aim::None);
        }
    }
    report.note(format!(
        "of each the second {} M of {} M records; Flink's state on the heap; Fluvial has one worker, the others {THREADS} threads",
        RECORDS / 2_000_000,
        RECORDS / 1_000_000
    ));
    Ok(report)
}

impl Program {
    /// The folder of its classes and of what they need, made once.
    fn compiled(&self) -> Result<PathBuf> {
        let text: String = self.sources.iter().map(|(_, source)| *source).chain([self.project]).collect();
        let name = format!("peer-{}-{:08x}", self.class.to_lowercase(), crc32fast::hash(text.as_bytes()));
        workspace::made_once(&name, |folder| {
            fetch(folder, self.project, &[]).with_context(|| format!("fetch what {} needs", self.class))?;
            for (name, source) in self.sources {
                fs::write(folder.join(name), source)?;
            }
            let mut compiler = Command::new("javac");
            compiler.args(["-cp", &format!("{LIBRARIES}/*"), "-d", "."]).args(self.sources.map(|(name, _)| name));
            let output = compiler.current_dir(folder).output();
            let output = output.context("run javac: `apt-get install openjdk-17-jdk-headless`")?;
            if !output.status.success() {
                bail!("javac: {}", String::from_utf8_lossy(&output.stderr));
            }
            Ok(())
        })
    }
}

fn peer(classes: &Path, program: &Program, brokers: &str, output: &str, every_ms: &str) -> Result<Half> {
    eprintln!("  {} each {every_ms} ms", program.class);
    kafka::make_topic(brokers, output)?;
    let folder = Folder::new("fluvial-benchmark-")?;
    let state = folder.path().join("state");
    fs::create_dir(&state)?;
    let classpath = format!("{0}:{0}/{LIBRARIES}/*", classes.display());
    let opened = ["java.base/java.util=ALL-UNNAMED", "java.base/java.lang=ALL-UNNAMED"];
    let mut arguments: Vec<String> = vec![HEAP.to_owned(), "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn".to_owned()];
    arguments.extend(opened.map(|package| format!("--add-opens={package}")));
    arguments.extend(
        ["-cp", &classpath, program.class, brokers, kafka::INPUT, output, every_ms, THREADS].map(str::to_owned),
    );
    arguments.push(state.display().to_string());
    let running = Running::start_program("java".into(), Vec::new(), program.class, &arguments, folder.path())?;
    second_half(brokers, output, &running)
}

fn engine(brokers: &str, output: &str, checkpoint_every: &str) -> Result<Half> {
    eprintln!("  ours, a checkpoint each {checkpoint_every}");
    let folder = Folder::new("fluvial-benchmark-")?;
    let mut arguments = job::arguments_of(job::SALES, folder.path(), brokers, output, RECORDS, checkpoint_every);
    arguments.extend(["--name", output].map(str::to_owned));
    second_half(brokers, output, &Running::start(job::SALES, &arguments, folder.path(), "info")?)
}

/// What the second half of the output costs. Each input record gives one output record, except where several records of a key belong to
/// one tick of ours.
fn second_half(brokers: &str, output: &str, running: &Running) -> Result<Half> {
    let ends = loop {
        match Ends::new(brokers, output).and_then(|ends| ends.sum().map(|_| ends)) {
            Ok(ends) => break ends,
            // A job of ours makes its topic itself.
            Err(_) => running.check()?,
        }
        pause(LOOK_EVERY);
    };
    let (mut end, mut moved, mut half, mut last) = (0, Instant::now(), None, None);
    let mut peak_bytes = 0;
    // The markers of transactions count as records, too, so the end is where nothing more comes.
    while last.is_none_or(|_| moved.elapsed() < Duration::from_secs(15)) {
        running.check()?;
        ensure!(moved.elapsed() < STUCK, "the output of {output} stands still at {end}");
        let now = ends.sum()? as u64;
        if now > end {
            (end, moved) = (now, Instant::now());
            let seen = (now, moved, running.cpu());
            if half.is_none() && now >= RECORDS / 2 {
                half = Some(seen);
            }
            if now >= RECORDS * 9 / 10 {
                last = Some(seen);
            }
        }
        peak_bytes = peak_bytes.max(running.resident_bytes());
        pause(LOOK_EVERY);
    }
    let ((from, began, cpu_before), (to, ended, cpu_after)) = half.zip(last).context("the output has no end")?;
    // Costs are per input record.
    let records = (to - from) as f64 * RECORDS as f64 / end as f64;
    Ok(Half {
        rate: records / (ended - began).as_secs_f64(),
        cpu_per_million: (cpu_after - cpu_before).as_secs_f64() / (records / 1e6),
        peak_bytes,
    })
}
