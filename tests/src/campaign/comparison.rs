//! The output of a job that has read its whole input, beside what it must be.

use std::fmt;

use anyhow::{Context, Result};

use crate::client::Isolation;
use crate::history::{self, Verdict, bank_is_consistent, compare};
use crate::journal::Journal;
use crate::stage::Stage;
use crate::subject::Subject;

/// What comparing an output came to.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// The output against the job's own replay.
    pub replayed: Verdict,
    /// The output against the naive model.
    pub modelled: Verdict,
    /// What the reader of consistent cuts gives against what headers say.
    pub cut: Verdict,
}

impl Comparison {
    /// Compares the output of the job on a stage. All runs must have had `--keep-journal --tick-header`.
    ///
    /// # Errors
    /// Something cannot be read, or a cut through the bank's output does not add up.
    pub fn of(stage: &Stage, subject: Subject, journal: &Journal) -> Result<Self> {
        let input = stage.endpoint().read(&stage.input(), Isolation::Committed)?;
        let seen = stage.seen()?;
        let cut = history::seen_in_cuts(stage.endpoint(), stage.name(), &stage.outputs())?;
        let expected = stage.expected(journal, &input)?;
        let replayed = stage.replay("--workers 3")?;
        if subject == Subject::Bank {
            let prefix = format!("{}.", stage.name());
            bank_is_consistent(&prefix, journal, &input, &seen).context("cut by headers")?;
            bank_is_consistent(&prefix, journal, &input, &cut).context("cut by progress")?;
        }
        Ok(Self { replayed: compare(&replayed, &seen), modelled: compare(&expected, &seen), cut: compare(&seen, &cut) })
    }

    /// Whether the output is what it must be.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.verdicts().iter().all(|verdict| verdict.is_clean())
    }

    pub(super) fn verdicts(&self) -> [&Verdict; 3] {
        [&self.replayed, &self.modelled, &self.cut]
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "against replay: {}", self.replayed)?;
        writeln!(f, "against the model: {}", self.modelled)?;
        write!(f, "consistent cuts against headers: {}", self.cut)
    }
}
