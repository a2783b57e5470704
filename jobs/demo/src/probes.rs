//! When each probe was sent, and when it was seen.
//!
//! Probes of one input partition keep their order all the way, so the count of them that an output shows says which
//! they are: the first ones.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The probes that are on their way, and how long the others took.
pub(crate) struct Probes(Mutex<Inner>);

struct Inner {
    lanes: Vec<Lane>,
    /// How long each probe took that counts, in microseconds: four bytes for each of about two hundred a second.
    times: Vec<u32>,
    last: Option<Instant>,
    fault: Option<String>,
}

/// The probes of one input partition.
#[derive(Default)]
struct Lane {
    /// Those that were sent and not seen: when, or nothing where the time is not to be counted.
    under_way: VecDeque<Option<Instant>>,
    seen: u64,
}

/// How long probes took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Latency {
    pub(crate) probes: u64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
}

impl Probes {
    pub(crate) fn new(partitions: u32) -> Self {
        let lanes = (0..partitions).map(|_| Lane::default()).collect();
        Self(Mutex::new(Inner { lanes, times: Vec::new(), last: None, fault: None }))
    }

    /// A probe is about to be handed to the producer. `at` is its time, if it counts.
    pub(crate) fn sent(&self, partition: u32, at: Option<Instant>) {
        self.lock().lanes[partition as usize].under_way.push_back(at);
    }

    /// A consumer of the output has been told, `at` this moment, that the first `count` probes of a partition are in.
    pub(crate) fn seen(&self, partition: u32, count: u64, at: Instant) {
        let inner = &mut *self.lock();
        let Some(lane) = inner.lanes.get_mut(partition as usize) else {
            inner.fault.get_or_insert_with(|| format!("the output shows probes of input partition {partition}"));
            return;
        };
        let sent = lane.seen + lane.under_way.len() as u64;
        if count < lane.seen || count > sent {
            let what = format!(
                "the output shows {count} probes of input partition {partition} after {}, and {sent} were sent",
                lane.seen
            );
            inner.fault.get_or_insert(what);
            return;
        }
        for sent in lane.under_way.drain(..(count - lane.seen) as usize).flatten() {
            let micros = at.saturating_duration_since(sent).as_micros();
            inner.times.push(u32::try_from(micros).unwrap_or(u32::MAX));
        }
        if count > lane.seen {
            inner.last = Some(at);
        }
        lane.seen = count;
    }

    /// How many were seen.
    pub(crate) fn seen_count(&self) -> u64 {
        self.lock().lanes.iter().map(|lane| lane.seen).sum()
    }

    /// When the last of those was seen.
    pub(crate) fn last_seen(&self) -> Option<Instant> {
        self.lock().last
    }

    /// How many were sent and not seen.
    pub(crate) fn under_way(&self) -> usize {
        self.lock().lanes.iter().map(|lane| lane.under_way.len()).sum()
    }

    /// How long those took that count; nothing if there are none.
    pub(crate) fn latency(&self) -> Option<Latency> {
        let mut times = self.lock().times.clone();
        times.sort_unstable();
        // The smallest time within which this share of the probes was seen.
        let within = |percent: usize| {
            let micros = times.get((times.len() * percent).div_ceil(100).checked_sub(1)?)?;
            Some(Duration::from_micros(u64::from(*micros)))
        };
        Some(Latency { probes: times.len() as u64, p50: within(50)?, p99: within(99)? })
    }

    /// What an output said about probes that cannot be.
    pub(crate) fn fault(&self) -> Option<String> {
        self.lock().fault.clone()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(start: Instant, ms: u64) -> Instant {
        start + Duration::from_millis(ms)
    }

    #[test]
    fn a_count_tells_which_probes_are_visible() {
        let (probes, start) = (Probes::new(2), Instant::now());
        for ms in [0, 10, 20] {
            probes.sent(0, Some(at(start, ms)));
        }
        probes.sent(1, Some(at(start, 5)));
        probes.seen(0, 2, at(start, 30)); // 30 and 20 ms
        assert_eq!((probes.seen_count(), probes.under_way()), (2, 2));
        probes.seen(0, 2, at(start, 500)); // nothing new
        probes.seen(1, 1, at(start, 1005)); // 1000 ms
        probes.seen(0, 3, at(start, 40)); // 20 ms
        let latency = probes.latency().unwrap();
        assert_eq!((latency.probes, probes.under_way(), probes.fault()), (4, 0, None));
        assert_eq!(probes.last_seen(), Some(at(start, 40)));
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        assert!((ms(latency.p50) - 20.0).abs() < 0.1, "{latency:?}");
        assert!((ms(latency.p99) - 1000.0).abs() < 2.0, "{latency:?}");
    }

    #[test]
    fn probes_that_warm_up_do_not_count() {
        let (probes, start) = (Probes::new(1), Instant::now());
        probes.sent(0, None);
        probes.sent(0, Some(start));
        probes.seen(0, 1, at(start, 900));
        assert_eq!(probes.latency(), None);
        probes.seen(0, 2, at(start, 7));
        assert_eq!(probes.latency().unwrap().probes, 1);
    }

    #[test]
    fn a_probe_that_is_doubled_or_taken_back_is_a_fault() {
        for counts in [vec![2], vec![1, 0], vec![1, 2]] {
            let probes = Probes::new(1);
            probes.sent(0, None);
            counts.iter().for_each(|count| probes.seen(0, *count, Instant::now()));
            assert!(probes.fault().is_some(), "{counts:?}");
        }
        let probes = Probes::new(1);
        probes.seen(1, 0, Instant::now());
        assert!(probes.fault().is_some());
    }
}
