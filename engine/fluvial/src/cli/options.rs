//! The options of the commands that every job has.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fluvial_connector::Tick;
use fluvial_node::check_job_name;
use fluvial_protocol::group::Workers;
use fluvial_protocol::{GoBack, Layout};

use super::join::JoinOptions;
use crate::fail_point::Doom;
use crate::job::OnMalformed;
use crate::runtime::config::{ReplayConfig, RunConfig};

/// A size as people write it: `64MiB`, `1GB`, `4096`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bytes(pub u64);

impl FromStr for Bytes {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let number: u64 =
            text[..digits].parse().map_err(|_| format!("'{text}' is not a size; write 64MiB, 1GB or 4096"))?;
        let unit: u64 = match text[digits..].trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            other => return Err(format!("'{other}' is not a unit of size; use B, KiB, MiB, GiB, kB, MB or GB")),
        };
        number.checked_mul(unit).map(Self).ok_or_else(|| format!("'{text}' is too large"))
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            n if n >= 1 << 30 && n % (1 << 30) == 0 => write!(f, "{}GiB", n >> 30),
            n if n >= 1 << 20 && n % (1 << 20) == 0 => write!(f, "{}MiB", n >> 20),
            n => write!(f, "{n}B"),
        }
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|e| format!("{e}; write 10ms, 5s or 2m"))
}

/// The format of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people to read
    Text,
    /// One JSON object per line
    Json,
}

/// The options that say where the job's journal, checkpoints and state are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StoreOptions {
    /// The store, which keeps the job's journal, checkpoints and state: a folder, or a URL such as file:///var/lib/fluvial,
    /// s3://bucket/prefix, gs://bucket/prefix or az://container/prefix. Credentials, region and endpoint come from the
    /// environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_REGION, AWS_ENDPOINT_URL), or from the instance's metadata
    #[arg(long, value_name = "URL")]
    pub store: String,

    /// The job's name. The job's folder in the store and its progress topic are named after it [default: the name in the
    /// job's code]
    #[arg(long, value_parser = job_name)]
    pub name: Option<String>,

    /// The format of log lines. The environment variable RUST_LOG selects which are logged, as in RUST_LOG=warn
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

impl StoreOptions {
    /// The job's name: the one in its code, `job`, unless another is given.
    #[must_use]
    pub(super) fn job(&self, job: &str) -> String {
        self.name.clone().unwrap_or_else(|| job.to_owned())
    }
}

fn job_name(text: &str) -> Result<String, String> {
    check_job_name(text).map(|()| text.to_owned())
}

/// The most workers of a job.
const MOST_WORKERS: i64 = 1024;

fn workers(text: &str) -> Result<Workers, String> {
    match text.parse() {
        _ if text == "auto" => Ok(Workers::Auto),
        Ok(workers @ 1..=1024) => Ok(Workers::Fixed(workers)),
        _ => Err(format!("give a number from 1 to {MOST_WORKERS}, or auto")),
    }
}

fn program_hash(text: &str) -> Result<String, String> {
    let fits = text.len() == 32 && text.chars().all(|c| c.is_ascii_hexdigit());
    if fits { Ok(text.to_lowercase()) } else { Err("the hash of a program has 32 hexadecimal digits".to_owned()) }
}

/// The options of `run`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunOptions {
    /// The options for the store and the job's name.
    #[command(flatten)]
    pub store: StoreOptions,

    /// The number of workers (threads that run the dataflow) in all processes together, a multiple of --processes; or `auto`,
    /// for as many as there are --slots [default: one for each process]. With --join, in all copies together: with fewer slots
    /// there are fewer workers, copies that are not needed stand by, and the default is auto
    #[arg(long, value_name = "N|auto", value_parser = workers)]
    pub workers: Option<Workers>,

    /// The number of workers that this host can run [default: the cores that the process may use, by its affinity and the CPU
    /// quota of its control group]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=MOST_WORKERS))]
    pub slots: Option<u32>,

    /// The number of processes on this host that the workers run in. Each has its own connections to the brokers and commits
    /// its own transactions
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub processes: u32,

    /// End when a generation ends, even if a restart could succeed
    #[arg(long)]
    pub no_restart: bool,

    /// The minimum time between two ticks, the batches in which input is processed. Ticks that are less than --append-every
    /// apart are written to the journal together
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = duration)]
    pub tick: Duration,

    /// A soft limit on the records of one tick. A tick may exceed it by what each worker reads at once, and each worker reads
    /// up to twice as many records ahead
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub tick_records: u64,

    /// The minimum time between two appends to the journal, by which output waits at most: a store on the network charges for
    /// each [default: 4ms on a folder, 100ms on the network]
    #[arg(long, value_name = "TIME", value_parser = duration)]
    pub append_every: Option<Duration>,

    /// The time between two checkpoints. Without new input they are rarer
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub checkpoint_every: Duration,

    /// End once all input that existed at the start, up to the last stable offsets, is processed and committed. The job first
    /// waits for partitions that are unavailable, because it has to know where they end
    #[arg(long)]
    pub stop_at_end: bool,

    /// How long to wait for an unreachable broker or store. If the cluster answers and only a partition of the input is
    /// unavailable, the job waits for it without a limit, and goes on with the other partitions
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub patience: Duration,

    /// The maximum time for the last commit and checkpoint after the job was told to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub stop_within: Duration,

    /// The maximum size of input that has been read and belongs to no tick yet. Ticks that are not committed may hold as much
    /// again
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub in_flight: Bytes,

    /// Keep the whole journal, so that the job can be replayed from its beginning
    #[arg(long)]
    pub keep_journal: bool,

    /// Accept the input, the outputs and the job's logic as they are now, although they differ from before: read upsert
    /// outputs back and correct them, which deletes rows that the job does not compute; fill new outputs; and write recreated
    /// ones again. This applies to the run until its first checkpoint is complete; restarts after that do not repeat it
    #[arg(long)]
    pub reconcile: bool,

    /// Approve the program with this hash, as the refusal of a changed program and `check` print it: if this is the program, and
    /// another one wrote the outputs, correct upsert outputs and fill new ones as --reconcile does, but compare the input with
    /// what was read before. With the hash of any other program, and after the first checkpoint, the option has no effect
    #[arg(long, value_name = "HASH", value_parser = program_hash)]
    pub upgrade: Option<String>,

    /// Go back to this savepoint, once for each --go-back-id: a node of a cluster gives these options
    #[arg(long, hide = true, value_name = "SAVEPOINT", requires = "go_back_id")]
    pub go_back: Option<String>,

    /// Tells one request to go back from another
    #[arg(long, hide = true, value_name = "NUMBER", default_value_t = 0)]
    pub go_back_id: u64,

    /// With --go-back: correct upsert outputs that have moved on since
    #[arg(long, hide = true)]
    pub correct_outputs: bool,

    /// With --reconcile or --upgrade: leave the records of append outputs, and of outputs that are written from a stream, as
    /// they are, because they cannot be corrected, and append to them. Without it, --upgrade has no effect on a job with such
    /// outputs
    #[arg(long)]
    pub leave_append_outputs: bool,

    /// How long an object of the store is kept after nothing refers to it any more. A process whose loop makes no step for
    /// this time ends
    #[arg(long, hide = true, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub deletion_grace: Duration,

    /// End at once when standard input ends, so that a program which starts the job never leaves it running
    #[arg(long, hide = true)]
    pub end_with_stdin: bool,

    /// For measuring what metrics cost: do not measure what operators do
    #[arg(long, hide = true)]
    pub without_metrics: bool,

    /// The options of a copy that runs the job together with others.
    #[command(flatten)]
    pub join: JoinOptions,

    /// For tests: the place at which the processes of the first generation end or are paused
    #[arg(long, hide = true, value_name = "NAME[:N]=FATE")]
    pub fail_point: Option<Doom>,
}

/// The options of `check`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct CheckOptions {
    /// The options of the run that is checked.
    #[command(flatten)]
    pub run: RunOptions,

    /// Print one JSON object instead of lines
    #[arg(long)]
    pub json: bool,

    /// Read what references to secrets stand for from the first line of standard input, as a node of a cluster writes it
    #[arg(long, hide = true)]
    pub secrets_on_stdin: bool,
}

impl RunOptions {
    /// The number of workers in all processes together.
    #[must_use]
    fn workers(&self) -> u32 {
        match self.workers {
            None => self.processes,
            Some(Workers::Fixed(workers)) => workers,
            // All processes have the same number.
            Some(Workers::Auto) => (self.slots() / self.processes).max(1) * self.processes,
        }
    }

    /// The number of workers that this host can run.
    #[must_use]
    pub(super) fn slots(&self) -> u32 {
        let cores = || std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        self.slots.unwrap_or_else(|| u32::try_from(cores().min(MOST_WORKERS as u64)).unwrap_or(1))
    }

    /// The numbers of workers and processes.
    #[must_use]
    pub(super) fn layout(&self) -> Layout {
        Layout { workers: self.workers(), processes: self.processes }
    }

    /// Converts the options to plain values for the runtime; `job` is the job's name unless `--name` gives another one,
    /// and `own_options` are the options that decide beside the binary what the job computes.
    #[must_use]
    pub(super) fn config(&self, job: &str, own_options: Vec<u8>) -> RunConfig {
        RunConfig {
            job: self.store.job(job),
            store: self.store.store.clone(),
            layout: self.layout(),
            tick: self.tick,
            tick_records: self.tick_records,
            append_every: self.append_every,
            checkpoint_every: self.checkpoint_every,
            stop_at_end: self.stop_at_end,
            patience: self.patience,
            stop_within: self.stop_within,
            in_flight_bytes: self.in_flight.0,
            keep_journal: self.keep_journal,
            reconcile: self.reconcile,
            upgrade: self.upgrade.clone(),
            go_back: self.go_back.clone().map(|savepoint| GoBack {
                id: self.go_back_id,
                savepoint,
                correct_outputs: self.correct_outputs,
            }),
            leave_append_outputs: self.leave_append_outputs,
            own_options,
            deletion_grace: self.deletion_grace,
            metrics: !self.without_metrics,
        }
    }

    /// Checks what clap cannot check for each option alone.
    ///
    /// # Errors
    /// A sentence for the user that says what is wrong.
    pub(super) fn check(&self) -> Result<(), String> {
        let (workers, processes) = (self.workers(), self.processes);
        if !self.join.join && workers % processes != 0 {
            return Err(format!(
                "{workers} workers cannot be shared evenly by {processes} processes: give --workers a multiple of --processes"
            ));
        }
        if self.leave_append_outputs && !self.reconcile && self.upgrade.is_none() {
            return Err("--leave-append-outputs requires --reconcile or --upgrade".to_owned());
        }
        let shortest = Duration::from_millis(1);
        if self.tick < shortest {
            return Err("--tick must be at least 1ms".to_owned());
        }
        if self.append_every.is_some_and(|every| every < shortest) {
            return Err("--append-every must be at least 1ms".to_owned());
        }
        if self.checkpoint_every < Duration::from_millis(100) {
            return Err("--checkpoint-every must be at least 100ms".to_owned());
        }
        if self.deletion_grace < Duration::from_secs(1) {
            return Err("--deletion-grace must be at least 1s".to_owned());
        }
        if self.in_flight.0 < 1 << 20 {
            return Err("--in-flight must be at least 1MiB".to_owned());
        }
        Ok(())
    }
}

/// The options of `replay`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReplayOptions {
    /// The options for the store and the job's name.
    #[command(flatten)]
    pub store: StoreOptions,

    /// The number of workers that replay
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,

    /// The last tick to replay [default: the last tick of the journal]
    #[arg(long, value_name = "TICK")]
    pub until: Option<u64>,

    /// Print each output partition's digest at the end instead of the records
    #[arg(long)]
    pub digest: bool,
}

impl ReplayOptions {
    /// Converts the options to plain values for the runtime; `job` is the job's name unless `--name` gives another one.
    #[must_use]
    pub(super) fn config(&self, job: &str) -> ReplayConfig {
        ReplayConfig {
            job: self.store.job(job),
            store: self.store.store.clone(),
            workers: self.workers,
            until: self.until.map(Tick),
            digest: self.digest,
        }
    }
}

/// `--on-malformed fail` and `skip`, for jobs that have it as an option.
impl clap::ValueEnum for OnMalformed {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Fail, Self::Skip]
    }

    fn to_possible_value(&self) -> Option<clap::builder::PossibleValue> {
        let (name, help) = match self {
            Self::Fail => ("fail", "End with an error that names topic, partition, offset and cause"),
            Self::Skip => ("skip", "Skip the record, count it and log it"),
        };
        Some(clap::builder::PossibleValue::new(name).help(help))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, bytes) in [("0", 0), ("4096", 4096), ("64MiB", 64 << 20), ("1 GB", 1_000_000_000), ("3kB", 3000)] {
            assert_eq!(text.parse(), Ok(Bytes(bytes)), "{text}");
        }
        for text in ["", "MiB", "1XB", "-1", "99999999999999999999", "99999999999GiB"] {
            assert!(text.parse::<Bytes>().is_err(), "{text}");
        }
    }

    #[derive(clap::Parser)]
    struct Run {
        #[command(flatten)]
        run: RunOptions,
    }

    #[test]
    fn workers_are_counted_or_as_many_as_the_slots_that_the_processes_share_evenly() {
        let layout = |options: &str| {
            let run = <Run as clap::Parser>::try_parse_from(format!("run --store x {options}").split_whitespace());
            run.ok().map(|run| run.run.layout()).map(|layout| (layout.workers, layout.processes))
        };
        for (options, expected) in [
            ("", Some((1, 1))),
            ("--processes 3", Some((3, 3))),
            ("--workers 4 --processes 2", Some((4, 2))),
            ("--workers auto --slots 5", Some((5, 1))),
            ("--workers auto --slots 5 --processes 2", Some((4, 2))),
            ("--workers auto --slots 1 --processes 2", Some((2, 2))),
            ("--workers 0", None),
            ("--workers 1025", None),
            ("--workers some", None),
            ("--slots 0", None),
        ] {
            assert_eq!(layout(options), expected, "{options}");
        }
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u32);
        assert_eq!(layout("--workers auto"), Some((cores, 1)));
    }

    #[test]
    fn the_records_of_append_outputs_are_left_only_where_something_is_corrected() {
        let check = |options: &str| {
            let run = <Run as clap::Parser>::try_parse_from(format!("run --store x {options}").split_whitespace());
            run.is_ok_and(|run| run.run.check().is_ok())
        };
        let hash = "0123456789abcdef0123456789ABCDEF";
        for (options, fits) in [
            ("--leave-append-outputs".to_owned(), false),
            ("--leave-append-outputs --reconcile".to_owned(), true),
            (format!("--leave-append-outputs --upgrade {hash}"), true),
            (format!("--upgrade {hash}0"), false),
            (format!("--upgrade {}", &hash[1..]), false),
        ] {
            assert_eq!(check(&options), fits, "{options}");
        }
    }

    #[test]
    fn a_job_name_is_safe_in_paths_and_topics() {
        for (name, fits) in
            [("orders", true), ("a.b-c_1", true), ("", false), ("../x", false), (".x", false), ("a b", false)]
        {
            assert_eq!(job_name(name).is_ok(), fits, "{name}");
        }
    }
}
