//! Mistakes in how a job is put together, which are all reported at once, before anything is opened.

use std::collections::BTreeSet;
use std::fmt;

use super::Declared;
use crate::durable::Durables;
use crate::state::StateError;

impl Declared {
    /// Looks for everything that is wrong with how the job is put together.
    pub(crate) fn check(&self, durables: &Durables) -> Result<(), Mistakes> {
        let mut mistakes = Vec::new();
        let not_read = |source_name: &String| Mistake::NotRead { source_name: source_name.clone() };
        mistakes.extend(self.begun.sources.iter().map(not_read));
        let not_written = |output: &String| Mistake::NotWritten { output: output.clone() };
        mistakes.extend(self.begun.outputs.iter().map(not_written));
        let mut sources = BTreeSet::new();
        for source in self.sources.iter().filter(|source| !sources.insert(&source.name)) {
            mistakes.push(Mistake::SourceTwice { source_name: source.name.clone() });
        }
        mistakes.extend(durables.refused().into_iter().map(Mistake::from));
        let mut outputs = BTreeSet::new();
        for output in self.outputs.iter().filter(|output| !outputs.insert(&output.spec.name)) {
            mistakes.push(Mistake::OutputTwice { output: output.spec.name.clone() });
        }
        let appended = |(output, by): &(String, &'static str)| Mistake::ChangesAppended { output: output.clone(), by };
        mistakes.extend(self.changes_appended.iter().map(appended));
        let systems: Vec<String> = self.outputs.iter().map(|output| output.sink.identity()).collect();
        match systems.first() {
            None => mistakes.push(Mistake::NoOutput),
            Some(first) => {
                if let Some(second) = systems.iter().find(|system| *system != first) {
                    mistakes.push(Mistake::TwoSinks { first: first.clone(), second: second.clone() });
                }
            }
        }
        for source in self.sources.iter().map(|source| &source.source) {
            let is_written = |(system, name): (String, String)| {
                self.outputs
                    .iter()
                    .zip(&systems)
                    .any(|(output, of_output)| output.spec.name == name && *of_output == system)
            };
            if source.as_output().is_some_and(is_written) {
                mistakes.push(Mistake::OwnInput { described: source.describe() });
            }
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }
}

/// A mistake in how a job is put together.
#[derive(Debug, thiserror::Error)]
enum Mistake {
    /// Two collections or streams go to one output.
    #[error(
        "output '{output}' is written twice: concatenate the collections, combine the streams with `union`, or name another output"
    )]
    OutputTwice {
        /// The output.
        output: String,
    },
    /// The job writes to two systems, which cannot commit together.
    #[error("the job writes to '{first}' and to '{second}': all outputs of a job must be in one system")]
    TwoSinks {
        /// One of them.
        first: String,
        /// The other.
        second: String,
    },
    /// The job writes nothing.
    #[error(
        "the job writes nothing: end at least one collection with `job.output(…).format(…).write(…)`, or one stream with `….write_stream(…)`"
    )]
    NoOutput,
    /// Changes go to an append output.
    #[error(
        "output '{output}' is an append output, and `{by}` writes what replaces earlier records: write to an upsert output, \
         or a collection with `write`, or a stream with `write_stream`"
    )]
    ChangesAppended {
        /// The output.
        output: String,
        /// The call that writes it.
        by: &'static str,
    },
    /// The job would read what it writes.
    #[error("the job reads {described} and writes it: give the output a topic of its own")]
    OwnInput {
        /// The source.
        described: String,
    },
    /// Two sources have one name.
    #[error("source '{source_name}' is declared twice: give each source a name of its own")]
    SourceTwice {
        /// The name.
        source_name: String,
    },
    /// A source's builder was dropped before its last call.
    #[error(
        "source '{source_name}' is not read: end it with `stream`, `keyed`, `changelog` or `stream_with`, or remove it"
    )]
    NotRead {
        /// Its name.
        source_name: String,
    },
    /// An output's builder was dropped before its last call.
    #[error(
        "output '{output}' is not written: end it with `write`, `write_changes`, `write_stream` or `write_changelog`, or remove it"
    )]
    NotWritten {
        /// Its name.
        output: String,
    },
    /// The name of a durable operator is invalid, or is used twice.
    #[error(transparent)]
    Operator(#[from] StateError),
}

/// All mistakes in the definition of a job, found before anything is opened.
#[derive(Debug)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.0[..] {
            return only.fmt(f);
        }
        write!(f, "the definition of the job has {} mistakes", self.0.len())?;
        self.0.iter().enumerate().try_for_each(|(place, mistake)| write!(f, "; ({}) {mistake}", place + 1))
    }
}

impl std::error::Error for Mistakes {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        // A chain of causes can belong to one mistake only.
        if let [only] = &self.0[..] { only.source() } else { None }
    }
}
