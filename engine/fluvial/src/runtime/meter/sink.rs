//! What the writers of a process have committed, and how long that took.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use fluvial_connector::Transaction;
use fluvial_node::status::{Bucket, Histogram};

/// The limits of the histogram of commits.
const LIMITS_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 250, 500, 1000, 5000, 30_000];

/// What the writers of a process have committed. The threads of the writers add to it, no worker does.
#[derive(Debug, Default)]
pub(crate) struct SinkMeter(Mutex<Committed>);

/// What has been committed.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Committed {
    /// The records by output.
    pub(crate) records: BTreeMap<String, u64>,
    /// How many commits took at most as long as each limit and longer than the one before.
    buckets: [u64; LIMITS_MS.len()],
    count: u64,
    time: Duration,
}

impl SinkMeter {
    /// Takes note that transactions with these records have been committed, which has taken so long.
    pub(crate) fn committed(&self, records: &BTreeMap<String, u64>, took: Duration) {
        let mut committed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (output, records) in records {
            match committed.records.get_mut(output) {
                Some(before) => *before += records,
                None => drop(committed.records.insert(output.clone(), *records)),
            }
        }
        committed.count += 1;
        committed.time += took;
        let place = LIMITS_MS.iter().position(|limit| took <= Duration::from_millis(*limit));
        if let Some(place) = place {
            committed.buckets[place] += 1;
        }
    }

    /// What has been committed so far.
    pub(crate) fn so_far(&self) -> Committed {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Committed {
    /// How long the commits have taken.
    pub(crate) fn histogram(&self) -> Histogram {
        let mut count = 0;
        let bucket = |(le_ms, more): (u64, u64)| {
            count += more;
            Bucket { le_ms, count }
        };
        Histogram {
            count: self.count,
            sum_ms: self.time.as_secs_f64() * 1000.0,
            buckets: LIMITS_MS.into_iter().zip(self.buckets).map(bucket).collect(),
        }
    }
}

/// The number of records that a transaction has for each output.
pub(crate) fn records_of(transaction: &Transaction) -> BTreeMap<String, u64> {
    let mut records = BTreeMap::new();
    for write in &transaction.writes {
        *records.entry(write.at.output.clone()).or_default() += write.records.len() as u64;
    }
    records
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_counted_by_output_and_by_the_limits_that_they_keep() {
        let meter = SinkMeter::default();
        let records = |count| BTreeMap::from([("rows".to_owned(), count)]);
        for took_ms in [1, 2, 3, 60_000] {
            meter.committed(&records(10), Duration::from_millis(took_ms));
        }
        let committed = meter.so_far();
        assert_eq!(committed.records, records(40));
        let Histogram { count, sum_ms, buckets } = committed.histogram();
        assert_eq!((count, sum_ms), (4, 60_006.0));
        let counts: Vec<_> = buckets.iter().map(|bucket| (bucket.le_ms, bucket.count)).collect();
        assert_eq!(counts[..4], [(1, 1), (2, 2), (5, 3), (10, 3)]);
        assert_eq!(counts.last(), Some(&(30_000, 3)), "the longest is beyond all limits");
    }
}
