//! What came of a siege, and of many: how often each fault struck, and what it did to the output.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use super::{Blow, Comparison, Sightings};
use crate::history::Difference;

/// A blow that fell.
#[derive(Clone, Copy, Debug)]
pub struct Struck {
    /// The fault that was injected.
    pub blow: Blow,
    /// When, in milliseconds since the Unix epoch, as ticks are.
    pub at_ms: u64,
    /// The pauses that it made, if that was measured.
    pub pauses: Option<Pauses>,
}

/// The longest times for which a consumer of committed records saw nothing new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pauses {
    /// In the outputs.
    pub output: Duration,
    /// In the input, which is written by way of the same brokers.
    pub input: Duration,
}

/// What came of one siege.
#[derive(Clone, Debug)]
pub struct Report {
    /// The blows that fell, in order.
    pub struck: Vec<Struck>,
    /// What was written to the input, aborted records included.
    pub written: u64,
    /// Ticks in the journal.
    pub ticks: usize,
    /// Generations in the journal.
    pub generations: usize,
    /// Checkpoints in the journal.
    pub checkpoints: usize,
    /// What happened in the store.
    pub sightings: Sightings,
    /// The output beside what it must be.
    pub compared: Comparison,
}

impl Report {
    /// Whether the output is what it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.compared.is_clean()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { written, ticks, generations, checkpoints, sightings: Sightings { merges, deletions }, .. } = self;
        writeln!(f, "{written} records in, {ticks} ticks, {generations} generations")?;
        writeln!(f, "{checkpoints} checkpoints, {merges} merges, {deletions} objects deleted")?;
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        self.struck.iter().for_each(|struck| *counts.entry(struck.blow.name()).or_default() += 1);
        counts.iter().try_for_each(|(name, count)| writeln!(f, "{count} × {name}"))?;
        for (name, Pauses { output, input }) in self.struck.iter().filter_map(|s| Some((s.blow.name(), s.pauses?))) {
            let (output, input) = (output.as_secs_f64(), input.as_secs_f64());
            writeln!(f, "{name}: the output paused for {output:.1} s, the input for {input:.1} s")?;
        }
        write!(f, "{}", self.compared)
    }
}

/// What one fault did, over all its blows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// How often it struck.
    pub count: usize,
    /// Records lost.
    pub lost: usize,
    /// Records that came twice.
    pub twice: usize,
    /// Records that are wrong, or in the wrong place.
    pub wrong: usize,
    /// Sieges in which the job did not do what it must, this fault being the last that struck.
    pub failed: usize,
    /// The longest pause of the output that was measured.
    pub longest_pause: Duration,
}

impl Outcome {
    fn add(&mut self, difference: Difference, count: usize) {
        match difference {
            Difference::Lost => self.lost += count,
            Difference::Twice => self.twice += count,
            Difference::Wrong | Difference::Misplaced => self.wrong += count,
        }
    }
}

/// What many sieges came to, by fault.
#[derive(Clone, Debug, Default)]
pub struct Ledger(BTreeMap<String, Outcome>);

impl Ledger {
    /// Takes in what struck, and what was found afterwards. A difference is the fault's that struck nearest to its tick.
    pub fn enter(&mut self, report: &Report) {
        for struck in &report.struck {
            let outcome = self.of(Some(struck));
            outcome.count += 1;
            let pause = struck.pauses.map_or(Duration::ZERO, |pauses| pauses.output);
            outcome.longest_pause = outcome.longest_pause.max(pause);
        }
        // The verdicts see the same records: what is lost for two of them is lost once.
        let mut most: BTreeMap<(String, Difference), usize> = BTreeMap::new();
        for verdict in report.compared.verdicts() {
            let mut counts: BTreeMap<(String, Difference), usize> = BTreeMap::new();
            for (difference, tick) in &verdict.differences {
                let nearest = report.struck.iter().min_by_key(|struck| struck.at_ms.abs_diff(*tick));
                *counts.entry((name(nearest), *difference)).or_default() += 1;
            }
            for (key, count) in counts {
                let known = most.entry(key).or_default();
                *known = count.max(*known);
            }
        }
        for ((fault, difference), count) in most {
            self.0.entry(fault).or_default().add(difference, count);
        }
    }

    /// Takes in a siege in which the job did not do what it must.
    pub fn enter_failure(&mut self, struck: &[Struck]) {
        for struck in struck {
            self.of(Some(struck)).count += 1;
        }
        self.of(struck.last()).failed += 1;
    }

    /// The faults and what they did.
    pub fn rows(&self) -> impl Iterator<Item = (&str, Outcome)> {
        self.0.iter().map(|(fault, outcome)| (fault.as_str(), *outcome))
    }

    /// Whether nothing was lost, doubled, wrong or failed.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.0.values().all(|Outcome { lost, twice, wrong, failed, .. }| [lost, twice, wrong, failed] == [&0; 4])
    }

    fn of(&mut self, struck: Option<&Struck>) -> &mut Outcome {
        self.0.entry(name(struck)).or_default()
    }
}

fn name(struck: Option<&Struck>) -> String {
    struck.map_or_else(|| "nothing".to_owned(), |struck| struck.blow.name())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Verdict;

    fn report(differences: Vec<(Difference, u64)>) -> Report {
        let struck = [(Blow::Stop, 1_000), (Blow::KillBroker, 2_000), (Blow::Stop, 3_000)];
        let verdict = |differences| Verdict { records: 9, differences, examples: Vec::new() };
        Report {
            struck: struck.map(|(blow, at_ms)| Struck { blow, at_ms, pauses: None }).into(),
            written: 9,
            ticks: 3,
            generations: 1,
            checkpoints: 0,
            sightings: Sightings::default(),
            compared: Comparison {
                replayed: verdict(differences.clone()),
                modelled: verdict(differences),
                cut: verdict(Vec::new()),
            },
        }
    }

    #[test]
    fn a_difference_counts_once_and_is_the_fault_s_that_struck_nearest() {
        let mut ledger = Ledger::default();
        ledger.enter(&report(Vec::new()));
        assert!(ledger.is_clean());
        ledger.enter(&report(vec![
            (Difference::Lost, 1_900),
            (Difference::Lost, 1_950),
            (Difference::Misplaced, 3_100),
        ]));
        let rows: Vec<_> = ledger.rows().collect();
        let stop = Outcome { count: 4, wrong: 1, ..Outcome::default() };
        let broker = Outcome { count: 2, lost: 2, ..Outcome::default() };
        assert_eq!(rows, [("SIGTERM", stop), ("kill -9 of the broker", broker)]);
        assert!(!ledger.is_clean());
    }

    #[test]
    fn a_failure_is_the_last_fault_s() {
        let mut ledger = Ledger::default();
        ledger.enter_failure(&report(Vec::new()).struck[..2]);
        let rows: Vec<_> = ledger.rows().collect();
        assert_eq!(rows[1], ("kill -9 of the broker", Outcome { count: 1, failed: 1, ..Outcome::default() }));
        assert!(!ledger.is_clean());
    }
}
