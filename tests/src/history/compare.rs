//! Two histories, record by record.

use std::collections::BTreeMap;
use std::fmt;

use super::Emitted;

/// In which way a record is not what it must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Difference {
    /// It should be there and is not.
    Lost,
    /// It is there more often than it should be.
    Twice,
    /// It should not be there at all: another value, another tick, another key.
    Wrong,
    /// It is right and comes in the wrong place: ticks that go back, keys out of order.
    Misplaced,
}

impl Difference {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lost, Self::Twice, Self::Wrong, Self::Misplaced];

    /// In a word.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::Twice => "twice",
            Self::Wrong => "wrong",
            Self::Misplaced => "misplaced",
        }
    }
}

/// How one history differs from what it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many records were compared.
    pub records: usize,
    /// What is not as it must be, once for each record, with the record's tick.
    pub differences: Vec<(Difference, u64)>,
    /// The first few of them, in words.
    pub examples: Vec<String>,
}

const EXAMPLES: usize = 10;

impl Verdict {
    /// Whether there is no difference.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.differences.is_empty()
    }

    /// How often there is this difference.
    #[must_use]
    pub fn count(&self, difference: Difference) -> usize {
        self.differences.iter().filter(|(found, _)| *found == difference).count()
    }

    fn note(&mut self, difference: Difference, emitted: &Emitted, times: usize) {
        self.differences.extend(std::iter::repeat_n((difference, emitted.tick), times));
        self.example(difference.name(), emitted);
    }

    fn example(&mut self, what: &str, emitted: &Emitted) {
        if self.examples.len() < EXAMPLES {
            let Emitted { output, partition, tick, key, value } = emitted;
            let value = value.as_deref().unwrap_or("null");
            self.examples.push(format!("{what}: {output}/{partition} tick {tick} {key} = {value}"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let found = Difference::ALL.map(|difference| format!("{} {}", self.count(difference), difference.name()));
        write!(f, "{} records: {}", self.records, found.join(", "))?;
        self.examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
    }
}

/// Compares what was seen with what must be there, partition by partition and tick by tick.
#[must_use]
pub fn compare(expected: &[Emitted], seen: &[Emitted]) -> Verdict {
    let mut verdict = Verdict { records: expected.len(), ..Verdict::default() };
    // How often each record is expected, and how often it has been seen.
    let mut counts: BTreeMap<&Emitted, (usize, usize)> = BTreeMap::new();
    for emitted in expected {
        counts.entry(emitted).or_default().0 += 1;
    }
    for emitted in seen {
        counts.entry(emitted).or_default().1 += 1;
    }
    for (emitted, (expected, seen)) in counts {
        if seen < expected {
            verdict.note(Difference::Lost, emitted, expected - seen);
        } else if seen > expected && expected > 0 {
            verdict.note(Difference::Twice, emitted, seen - expected);
        } else if seen > expected {
            verdict.note(Difference::Wrong, emitted, seen);
        }
    }
    if verdict.is_clean() {
        // The same records: then they must come in the same order.
        let (expected, seen) = (by_partition(expected), by_partition(seen));
        for (place, expected) in expected {
            let seen = seen.get(&place).map_or(&[][..], Vec::as_slice);
            for (expected, seen) in expected.iter().zip(seen).filter(|(expected, seen)| expected != seen) {
                verdict.note(Difference::Misplaced, seen, 1);
                verdict.example("  expected there", expected);
            }
        }
    }
    verdict
}

fn by_partition(history: &[Emitted]) -> BTreeMap<(&str, i32), Vec<&Emitted>> {
    let mut partitions: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for emitted in history {
        partitions.entry((emitted.output.as_str(), emitted.partition)).or_default().push(emitted);
    }
    partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    fn emitted(partition: i32, tick: u64, key: &str, value: &str) -> Emitted {
        Emitted { output: "o".to_owned(), partition, tick, key: key.to_owned(), value: Some(value.to_owned()) }
    }

    fn history() -> Vec<Emitted> {
        vec![emitted(0, 1, "a", "1"), emitted(0, 1, "b", "1"), emitted(1, 1, "c", "1"), emitted(0, 2, "a", "2")]
    }

    /// What is found when the history has been changed in one way: lost, twice, wrong, misplaced.
    fn found(change: impl FnOnce(&mut Vec<Emitted>)) -> [usize; 4] {
        let mut seen = history();
        change(&mut seen);
        let verdict = compare(&history(), &seen);
        Difference::ALL.map(|difference| verdict.count(difference))
    }

    #[test]
    fn the_same_history_is_clean_however_its_partitions_are_interleaved() {
        assert_eq!(found(|_| {}), [0, 0, 0, 0]);
        assert_eq!(found(|seen| seen.swap(1, 2)), [0, 0, 0, 0]);
    }

    #[test]
    fn a_lost_record_is_found() {
        assert_eq!(found(|seen| drop(seen.remove(1))), [1, 0, 0, 0]);
        assert_eq!(found(|seen| drop(seen.pop())), [1, 0, 0, 0]);
    }

    #[test]
    fn a_doubled_record_is_found() {
        assert_eq!(found(|seen| seen.push(seen[3].clone())), [0, 1, 0, 0]);
    }

    #[test]
    fn a_wrong_value_is_found() {
        assert_eq!(found(|seen| seen[0].value = Some("2".to_owned())), [1, 0, 1, 0]);
        assert_eq!(found(|seen| seen[0].value = None), [1, 0, 1, 0]);
    }

    #[test]
    fn a_record_at_another_tick_or_in_another_partition_is_found() {
        assert_eq!(found(|seen| seen[3].tick = 3), [1, 0, 1, 0]);
        assert_eq!(found(|seen| seen[2].partition = 0), [1, 0, 1, 0]);
    }

    #[test]
    fn a_record_that_nobody_asked_for_is_found() {
        assert_eq!(found(|seen| seen.push(emitted(0, 3, "z", "1"))), [0, 0, 1, 0]);
    }

    #[test]
    fn ticks_and_keys_out_of_order_are_found() {
        assert_eq!(found(|seen| seen.swap(0, 3)), [0, 0, 0, 2]);
        assert_eq!(found(|seen| seen.swap(0, 1)), [0, 0, 0, 2]);
    }

    #[test]
    fn the_verdict_says_what_is_wrong() {
        let verdict = compare(&history(), &history()[1..]);
        let expected = "4 records: 1 lost, 0 twice, 0 wrong, 0 misplaced\n  lost: o/0 tick 1 a = 1";
        assert_eq!(verdict.to_string(), expected);
    }
}
