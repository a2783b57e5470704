//! Progress: what a sink stores for each output partition in the same step as the records.
//!
//! A [`PartitionWrite`] carries the progress that the engine wants to store, except for what only the sink knows: the
//! offsets of the records. [`PartitionWrite::progress_at`] adds these, in the same way for every sink. If a system has
//! committed the records of a transaction without its progress, the engine finds these records after the newest
//! progress, does not write them again, and says in the next write where they end. A connector need not handle that
//! case.

use serde::{Deserialize, Serialize};

use crate::{Digest, Generation, Incarnation, Offset, PartitionWrite, Tick};

/// How much of a tick is committed. Of two positions in a tick, the later one is greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Position {
    /// This number of records, the first ones of the partition's output at the tick; more follow.
    Records(u64),
    /// All of the partition's output at the tick.
    Complete,
}

/// What a sink stores for each output partition in the same step as the records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The job that wrote.
    pub incarnation: Incarnation,
    /// The generation that wrote.
    pub generation: Generation,
    /// The tick that is committed.
    pub tick: Tick,
    /// How much of the tick is committed.
    pub position: Position,
    /// The running digest of the output through that position.
    pub digest: Digest,
    /// The `end` of the partition's previous progress. `ticks` says to which ticks the records from here on belong.
    pub begin: Offset,
    /// The offset after the last record.
    pub end: Offset,
    /// Where the records of each tick end, ascending, for the ticks that have records from `begin` on.
    pub ticks: Vec<TickEnd>,
}

/// Where a tick's records end in an output partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TickEnd {
    /// The tick.
    pub tick: Tick,
    /// The offset after its last record.
    pub end: Offset,
}

impl Progress {
    /// Progress of a partition to which nothing was written at `tick`, and whose records end at `end`: the tick is
    /// complete, and the digest is that of no output.
    #[must_use]
    pub fn complete(incarnation: Incarnation, generation: Generation, tick: Tick, end: Offset) -> Self {
        let (position, digest, ticks) = (Position::Complete, Digest::default(), Vec::new());
        Self { incarnation, generation, tick, position, digest, begin: end, end, ticks }
    }

    /// The key by which the progress of a partition is ordered: the newest progress has the greatest rank.
    #[must_use]
    pub fn rank(&self) -> (Tick, Position, Generation) {
        (self.tick, self.position, self.generation)
    }
}

impl PartitionWrite {
    /// The progress to store together with the records. `end_of` gives the offset after a record, by the index of the
    /// record in `records`. It is not called if there are no records.
    ///
    /// ```
    /// # use fluvial_connector::*;
    /// # fn check(write: PartitionWrite) {
    /// // The records lie one after the other from offset 100 on.
    /// let progress = write.progress_at(|index| Offset(100 + index as u64 + 1));
    /// # }
    /// ```
    pub fn progress_at(&self, end_of: impl Fn(usize) -> Offset) -> Progress {
        let mut progress = self.progress.clone();
        let own = self.ticks.iter().filter(|count| count.records > 0);
        progress.ticks.extend(own.map(|count| TickEnd { tick: count.tick, end: end_of(count.records - 1) }));
        if let Some(last) = self.records.len().checked_sub(1) {
            progress.end = end_of(last);
        }
        progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{OutputPartition, OutputRecord, TickCount};

    fn progress() -> Progress {
        Progress {
            incarnation: Incarnation(uuid::Uuid::nil()),
            generation: Generation(3),
            tick: Tick(12),
            position: Position::Records(2),
            digest: Digest(7),
            begin: Offset(40),
            end: Offset(44),
            ticks: vec![TickEnd { tick: Tick(10), end: Offset(44) }],
        }
    }

    fn write(records: usize, ticks: &[(u64, usize)]) -> PartitionWrite {
        let record = OutputRecord { key: vec![1], value: None };
        PartitionWrite {
            at: OutputPartition { output: "o".to_owned(), partition: 0 },
            records: vec![record; records].into(),
            ticks: ticks.iter().map(|(tick, records)| TickCount { tick: Tick(*tick), records: *records }).collect(),
            progress: progress(),
        }
    }

    #[test]
    fn progress_says_where_the_records_of_each_tick_end_after_those_that_were_there() {
        // Others write in between: offset 47 is not the job's.
        let ends = [46, 47, 49];
        let said = write(3, &[(11, 1), (12, 3)]).progress_at(|index| Offset(ends[index]));
        let end = |tick, end| TickEnd { tick: Tick(tick), end: Offset(end) };
        let expected = Progress { end: Offset(49), ticks: vec![end(10, 44), end(11, 46), end(12, 49)], ..progress() };
        assert_eq!(said, expected);
    }

    #[test]
    fn progress_without_records_says_that_the_partition_ends_where_it_did() {
        let said = write(0, &[]).progress_at(|index| panic!("there is no record {index}"));
        assert_eq!(said, progress());
    }

    #[test]
    fn a_complete_tick_comes_after_its_parts_and_a_newer_generation_after_an_older() {
        let part = progress();
        let more = Progress { position: Position::Records(10), ..part.clone() };
        let complete = Progress { position: Position::Complete, ..part.clone() };
        let next = Progress { tick: Tick(13), position: Position::Records(1), ..part.clone() };
        // A reconciliation gives a partition progress again, as of the tick that it has.
        let newer = Progress { generation: Generation(4), ..complete.clone() };
        let in_order = [&part, &more, &complete, &newer, &next].map(Progress::rank);
        assert!(in_order.is_sorted_by(|one, other| one < other), "{in_order:?}");
    }
}
