//! The newest lines of one process.

use std::collections::VecDeque;

use super::Stream;

/// The bytes of lines that are kept of one process.
pub(super) const MOST_BYTES: usize = 1 << 20;
/// What a line takes besides its text.
const BESIDES: usize = 48;

/// A line without what all lines of its process have in common.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) time_ms: u64,
    pub(super) stream: Stream,
    pub(super) text: Box<str>,
}

/// The newest lines, of which the oldest make room for new ones.
#[derive(Debug, Default)]
pub(super) struct Ring {
    entries: VecDeque<Entry>,
    bytes: usize,
    /// The number of the next line.
    next: u64,
}

impl Ring {
    /// Adds a line that was read at `time_ms`, or when the line before was, if the clock was set back.
    pub(super) fn push(&mut self, time_ms: u64, stream: Stream, text: String) {
        let time_ms = self.entries.back().map_or(time_ms, |last| last.time_ms.max(time_ms));
        self.bytes += text.len() + BESIDES;
        self.entries.push_back(Entry { time_ms, stream, text: text.into_boxed_str() });
        self.next += 1;
        while self.bytes > MOST_BYTES
            && let Some(oldest) = self.entries.pop_front()
        {
            self.bytes -= oldest.text.len() + BESIDES;
        }
    }

    /// The number of the next line.
    pub(super) fn next(&self) -> u64 {
        self.next
    }

    /// The bytes that it takes.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The lines from number `from` on that are still there, with their numbers.
    pub(super) fn from(&self, from: u64) -> Vec<(u64, &Entry)> {
        let first = self.next - self.entries.len() as u64;
        let skipped = from.saturating_sub(first).min(self.entries.len() as u64);
        let entries = self.entries.range(usize::try_from(skipped).unwrap_or(usize::MAX)..);
        (first + skipped..self.next).zip(entries).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_keeps_the_newest_lines_within_its_bytes_and_their_numbers() {
        let mut ring = Ring::default();
        let line = "x".repeat(1000);
        (0..5000).for_each(|time_ms| ring.push(time_ms, Stream::Stdout, line.clone()));
        assert!(ring.bytes() <= MOST_BYTES && ring.bytes() > MOST_BYTES - 2000, "{}", ring.bytes());
        assert_eq!(ring.next(), 5000);
        let kept: Vec<_> = ring.from(0).into_iter().map(|(number, entry)| (number, entry.time_ms)).collect();
        assert_eq!(kept.len(), MOST_BYTES / (1000 + BESIDES));
        assert!(kept.iter().all(|(number, time_ms)| number == time_ms));
        assert_eq!(ring.from(4998).into_iter().map(|(number, _)| number).collect::<Vec<_>>(), [4998, 4999]);
        assert_eq!(ring.from(6000).len(), 0);
        // Lines without text take memory, too.
        (0..100_000).for_each(|_| ring.push(0, Stream::Stderr, String::new()));
        assert!(ring.from(0).len() <= MOST_BYTES / BESIDES);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_change_the_order() {
        let mut ring = Ring::default();
        [5, 3, 7].into_iter().for_each(|time_ms| ring.push(time_ms, Stream::Stdout, String::new()));
        assert_eq!(ring.from(0).into_iter().map(|(_, entry)| entry.time_ms).collect::<Vec<_>>(), [5, 5, 7]);
    }
}
