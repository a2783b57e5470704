//! Two histories, record by record.

use std::collections::BTreeMap;
use std::fmt;

use super::Emitted;

/// How one history differs from what it must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// How many records were compared.
    pub records: usize,
    /// Records that should be there and are not.
    pub lost: usize,
    /// Records that are there more often than they should be.
    pub twice: usize,
    /// Records that should not be there at all: another value, another tick, another key.
    pub wrong: usize,
    /// Records that are right and come in the wrong place: ticks that go back, keys out of order.
    pub misplaced: usize,
    /// The first few of them, in words.
    pub examples: Vec<String>,
}

const EXAMPLES: usize = 10;

impl Verdict {
    /// Whether there is no difference.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost + self.twice + self.wrong + self.misplaced == 0
    }

    fn note(&mut self, what: &str, emitted: &Emitted) {
        if self.examples.len() < EXAMPLES {
            let Emitted { output, partition, tick, key, value } = emitted;
            let value = value.as_deref().unwrap_or("null");
            self.examples.push(format!("{what}: {output}/{partition} tick {tick} {key} = {value}"));
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { records, lost, twice, wrong, misplaced, examples } = self;
        write!(f, "{records} records: {lost} lost, {twice} twice, {wrong} wrong, {misplaced} misplaced")?;
        examples.iter().try_for_each(|example| write!(f, "\n  {example}"))
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
            verdict.lost += expected - seen;
            verdict.note("lost", emitted);
        } else if seen > expected && expected > 0 {
            verdict.twice += seen - expected;
            verdict.note("twice", emitted);
        } else if seen > expected {
            verdict.wrong += seen;
            verdict.note("wrong", emitted);
        }
    }
    if verdict.is_clean() {
        // The same records: then they must come in the same order.
        let (expected, seen) = (by_partition(expected), by_partition(seen));
        for (place, expected) in expected {
            let seen = seen.get(&place).map_or(&[][..], Vec::as_slice);
            for (expected, seen) in expected.iter().zip(seen).filter(|(expected, seen)| expected != seen) {
                verdict.misplaced += 1;
                verdict.note("misplaced", seen);
                verdict.note("  expected there", expected);
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
        let Verdict { lost, twice, wrong, misplaced, .. } = compare(&history(), &seen);
        [lost, twice, wrong, misplaced]
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
