//! A job's kept journal, read as anyone may read it: one header line, then JSON, one object a record.
//!
//! Of it only what the tests need: which input belongs to which tick, and how often the job was opened, its
//! checkpoints were completed, and its input was to be taken as it is.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

/// What the journal says.
#[derive(Clone, Debug, Default)]
pub struct Journal {
    /// The ticks, ascending, each with its input.
    pub ticks: Vec<TickInput>,
    /// How many generations were opened.
    pub generations: usize,
    /// How many checkpoints were completed.
    pub checkpoints: usize,
    /// The tick of the last one.
    pub checkpoint: Option<u64>,
    /// For each generation but the first, whether it began at a checkpoint that held all ticks of the earlier ones.
    pub begin_at_checkpoint: Vec<bool>,
    /// How often the input was to be taken as it is, or as compaction has left it.
    pub reconciliations: usize,
}

/// The input of a tick.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TickInput {
    /// The tick.
    pub tick: u64,
    /// What belongs to it, in the engine's order of the splits.
    pub ranges: Vec<InputRange>,
}

/// A stretch of one partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InputRange {
    /// The partition.
    pub partition: i32,
    /// The first offset.
    pub from: i64,
    /// The offset after the last.
    pub to: i64,
    /// How many records were read there.
    pub count: u64,
}

#[derive(Deserialize)]
struct Record {
    entries: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Opened {},
    Binding(Binding),
    SplitStarted { number: u32, split: String },
    SinkStarted {},
    SinkStopped {},
    Checkpoint { tick: u64 },
    Reconciled {},
    Compacted {},
    Upgraded {},
}

#[derive(Deserialize)]
struct Binding {
    tick: u64,
    ranges: Vec<Range>,
}

#[derive(Deserialize)]
struct Range {
    split: u32,
    from: i64,
    to: i64,
    count: u64,
}

impl Journal {
    /// Reads the journal of `job` in the local store `store`.
    ///
    /// # Errors
    /// It is not there, not whole, or not understood.
    pub fn read(store: &Path, job: &str) -> Result<Self> {
        let folder = store.join(job).join("journal");
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
            let path = entry?.path();
            let seq = path.file_stem().and_then(|stem| stem.to_str()?.parse::<u64>().ok());
            // Other names are those of objects that were being written when a process was killed.
            if let (Some(seq), Some("json")) = (seq, path.extension().and_then(|extension| extension.to_str())) {
                files.insert(seq, path);
            }
        }
        let first = files.keys().next().copied().context("the journal is empty")?;
        let mut journal = Self::default();
        let mut partitions = BTreeMap::new();
        for (expected, (seq, path)) in (first..).zip(&files) {
            if expected != *seq {
                bail!("the journal in {} has no record {expected}, but a later one", folder.display());
            }
            let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            let (_header, body) = text.split_once('\n').with_context(|| format!("{} has no header", path.display()))?;
            let record: Record = serde_json::from_str(body).with_context(|| format!("read {}", path.display()))?;
            for entry in record.entries {
                journal.take(entry, &mut partitions).with_context(|| format!("read {}", path.display()))?;
            }
        }
        Ok(journal)
    }

    /// How many records of the input have a tick.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.ticks.iter().flat_map(|tick| &tick.ranges).map(|range| range.count).sum()
    }

    /// Whether the last checkpoint holds all ticks.
    #[must_use]
    pub fn is_checkpointed(&self) -> bool {
        self.ticks.last().map(|last| last.tick) <= self.checkpoint
    }

    fn take(&mut self, entry: Entry, partitions: &mut BTreeMap<u32, i32>) -> Result<()> {
        match entry {
            Entry::Opened {} => {
                if self.generations > 0 {
                    self.begin_at_checkpoint.push(self.is_checkpointed());
                }
                self.generations += 1;
            }
            Entry::Checkpoint { tick } => {
                self.checkpoints += 1;
                self.checkpoint = Some(tick);
            }
            Entry::SplitStarted { number, split } => {
                let partition = split.parse().with_context(|| format!("split {split} is no partition's number"))?;
                partitions.insert(number, partition);
            }
            Entry::Binding(mut binding) => {
                if self.ticks.last().is_some_and(|last| last.tick >= binding.tick) {
                    bail!("tick {} does not come after the one before it", binding.tick);
                }
                binding.ranges.sort_by_key(|range| range.split);
                let mut ranges = Vec::new();
                for Range { split, from, to, count } in binding.ranges {
                    let partition = partitions.get(&split).copied();
                    let partition = partition.with_context(|| format!("split {split} was never started"))?;
                    ranges.push(InputRange { partition, from, to, count });
                }
                self.ticks.push(TickInput { tick: binding.tick, ranges });
            }
            Entry::Reconciled {} | Entry::Compacted {} | Entry::Upgraded {} => self.reconciliations += 1,
            Entry::SinkStarted {} | Entry::SinkStopped {} => {}
        }
        Ok(())
    }
}
