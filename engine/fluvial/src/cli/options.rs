//! What `run` can be told.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use fluvial_connector::Tick;
use fluvial_protocol::Layout;

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
            text[..digits].parse().map_err(|_| format!("'{text}' is no size; write 64MiB, 1GB or 4096"))?;
        let unit: u64 = match text[digits..].trim() {
            "" | "B" => 1,
            "kB" | "KB" => 1_000,
            "KiB" => 1 << 10,
            "MB" => 1_000_000,
            "MiB" => 1 << 20,
            "GB" => 1_000_000_000,
            "GiB" => 1 << 30,
            other => return Err(format!("'{other}' is no unit of size; use B, KiB, MiB, GiB, kB, MB or GB")),
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

/// How logs are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Where the job's durable things are.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StoreOptions {
    /// Where journal, state and checkpoints are kept: a folder, or a URL like file:///var/lib/fluvial
    #[arg(long, value_name = "URL")]
    pub store: String,

    /// The job's name, after which its folder in the store and its progress topic are named [default: the name in its code]
    #[arg(long, value_parser = job_name)]
    pub name: Option<String>,

    /// How logs are written; RUST_LOG chooses which, as in RUST_LOG=warn
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
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if text.is_empty() || text.len() > 100 || !text.chars().all(fits) || text.starts_with('.') {
        return Err(
            "a job's name has 1 to 100 letters, digits, '-', '_' or '.', and does not begin with '.'".to_owned()
        );
    }
    Ok(text.to_owned())
}

/// How a job runs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct RunOptions {
    /// Store and name.
    #[command(flatten)]
    pub store: StoreOptions,

    /// How many workers the job has, over all its processes [default: one a process]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: Option<u32>,

    /// How many processes the workers run in, on this host; each has its own connections to the brokers, and commits alone
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub processes: u32,

    /// End when a generation ends, also where a restart could mend it
    #[arg(long)]
    pub no_restart: bool,

    /// The least time between two ticks; those less than 4ms apart are made durable together
    #[arg(long, value_name = "TIME", default_value = "10ms", value_parser = duration)]
    pub tick: Duration,

    /// A soft limit of the records of one tick: it may exceed it by what each worker reads at once, and each worker reads
    /// twice as many ahead
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    pub tick_records: u64,

    /// The time between two checkpoints
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    pub checkpoint_every: Duration,

    /// End once all is processed and committed that the input held at the start, up to its last stable offset. Waits for
    /// partitions that are unavailable then, because where they end has to be known
    #[arg(long)]
    pub stop_at_end: bool,

    /// How long to wait for a broker or a store that is unreachable. A partition of the input that is unavailable in a
    /// cluster that answers is waited for without a limit, while the others go on
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = duration)]
    pub patience: Duration,

    /// How long to take at the most for the last commit and checkpoint when told to stop
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration)]
    pub stop_within: Duration,

    /// The most input that may wait for its tick; ticks that are not committed may hold as much again
    #[arg(long, value_name = "SIZE", default_value = "256MiB")]
    pub in_flight: Bytes,

    /// Keep the whole journal, so that the job can be replayed from its beginning
    #[arg(long)]
    pub keep_journal: bool,

    /// Take the input as it is now, although it or the output differs from before: correct upsert outputs by reading them
    /// back, and begin new ones. Rows of others in them are deleted, and outputs that were recreated are written again. It
    /// applies to this run until its first checkpoint is complete; later restarts do not repeat it
    #[arg(long)]
    pub reconcile: bool,

    /// With --reconcile: go on with append outputs after what they hold, which cannot be corrected
    #[arg(long, requires = "reconcile")]
    pub leave_append_outputs: bool,

    /// How long an object of the store stays after nothing names it any more, and the longest step that a process survives
    #[arg(long, hide = true, value_name = "TIME", default_value = "10m", value_parser = duration)]
    pub deletion_grace: Duration,

    /// End at once when standard input ends: for a program that starts the job and must not leave it behind
    #[arg(long, hide = true)]
    pub end_with_stdin: bool,

    /// Where the processes of the first generation end or stand still: for tests
    #[arg(long, hide = true, value_name = "NAME[:N]=FATE")]
    pub fail_point: Option<Doom>,
}

impl RunOptions {
    /// How many workers there are in all.
    #[must_use]
    fn workers(&self) -> u32 {
        self.workers.unwrap_or(self.processes)
    }

    /// The same as plain values; `job` is the job's name unless another is given.
    #[must_use]
    pub(super) fn config(&self, job: &str) -> RunConfig {
        RunConfig {
            job: self.store.job(job),
            store: self.store.store.clone(),
            layout: Layout { workers: self.workers(), processes: self.processes },
            tick: self.tick,
            tick_records: self.tick_records,
            checkpoint_every: self.checkpoint_every,
            stop_at_end: self.stop_at_end,
            patience: self.patience,
            stop_within: self.stop_within,
            in_flight_bytes: self.in_flight.0,
            keep_journal: self.keep_journal,
            reconcile: self.reconcile,
            leave_append_outputs: self.leave_append_outputs,
            deletion_grace: self.deletion_grace,
        }
    }

    /// What is wrong with the options taken together.
    ///
    /// # Errors
    /// One sentence.
    pub(super) fn check(&self) -> Result<(), String> {
        let (workers, processes) = (self.workers(), self.processes);
        if workers % processes != 0 {
            return Err(format!(
                "{workers} workers cannot be shared evenly by {processes} processes: give --workers a multiple of --processes"
            ));
        }
        let shortest = Duration::from_millis(1);
        if self.tick < shortest {
            return Err("--tick must be at least 1ms".to_owned());
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

/// How `replay` runs.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ReplayOptions {
    /// Store and name.
    #[command(flatten)]
    pub store: StoreOptions,

    /// How many workers replay
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub workers: u32,

    /// Replay through this tick and no further
    #[arg(long, value_name = "TICK")]
    pub until: Option<u64>,

    /// Print each output partition's digest at the end instead of the records
    #[arg(long)]
    pub digest: bool,
}

impl ReplayOptions {
    /// The same as plain values; `job` is the job's name unless another is given.
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
            Self::Skip => ("skip", "Leave the record out, count it and log it"),
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

    #[test]
    fn a_job_name_is_safe_in_paths_and_topics() {
        for (name, fits) in
            [("orders", true), ("a.b-c_1", true), ("", false), ("../x", false), (".x", false), ("a b", false)]
        {
            assert_eq!(job_name(name).is_ok(), fits, "{name}");
        }
    }
}
