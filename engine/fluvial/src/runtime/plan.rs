//! What a job consists of, found by building it once without running it.

use std::collections::BTreeSet;
use std::sync::Arc;

use fluvial_connector::{OutputSpec, Sink, Source};

use super::Build;
use crate::durable::Durables;
use crate::job::{Job, JobError, Situation};

/// The parts of a job that have names.
pub(crate) struct Topology {
    /// The sources, by name.
    pub sources: Vec<(String, Arc<dyn Source>)>,
    /// The durable operators' names.
    pub operators: Vec<String>,
    /// The outputs.
    pub outputs: Vec<OutputSpec>,
    /// The one system that all outputs lie in.
    pub sink: Arc<dyn Sink>,
}

/// Builds the job on a worker of its own, which is thrown away.
///
/// # Errors
/// The closure refuses the options, or the job is put together wrongly.
pub(crate) fn plan(build: &Build) -> anyhow::Result<Topology> {
    let build = Arc::clone(build);
    timely::execute::execute_directly(move |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            let durables = Durables::planning();
            let situation = Situation { partitions: Box::new(|_| 1), skip_through: None };
            let mut job = Job::new(scope, durables.clone(), situation);
            build(&mut job)?;
            let declared = job.finish();
            durables.built()?;
            let mut names = BTreeSet::new();
            for source in &declared.sources {
                if !names.insert(source.name.clone()) {
                    return Err(JobError::SourceTwice { source_name: source.name.clone() }.into());
                }
            }
            let mut sinks: Vec<Arc<dyn Sink>> = Vec::new();
            for output in &declared.outputs {
                if sinks.iter().all(|s| s.identity() != output.sink.identity()) {
                    sinks.push(Arc::clone(&output.sink));
                }
            }
            if sinks.len() > 1 {
                return Err(JobError::TwoSinks { first: sinks[0].identity(), second: sinks[1].identity() }.into());
            }
            for source in declared.sources.iter().map(|source| &source.source) {
                let written = source.as_output();
                let is_written = |(system, name)| {
                    declared.outputs.iter().any(|o| o.spec.name == name && o.sink.identity() == system)
                };
                if written.is_some_and(is_written) {
                    return Err(JobError::OwnInput { described: source.describe() }.into());
                }
            }
            Ok(Topology {
                sources: declared.sources.into_iter().map(|s| (s.name, s.source)).collect(),
                operators: durables.names(),
                outputs: declared.outputs.into_iter().map(|o| o.spec).collect(),
                sink: sinks.pop().ok_or(JobError::NoOutput)?,
            })
        })
    })
}

impl Topology {
    /// The job's parts as lines of text.
    #[must_use]
    pub(crate) fn graph(&self) -> String {
        let mut text = String::new();
        for (name, source) in &self.sources {
            text.push_str(&format!("source    {name}  ({})\n", source.describe()));
        }
        for name in &self.operators {
            text.push_str(&format!("durable   {name}\n"));
        }
        for output in &self.outputs {
            text.push_str(&format!("output    {}  ({:?}, {})\n", output.name, output.envelope, self.sink.identity()));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::format::{json, text};
    use fluvial_memory::Memory;

    use super::*;
    use crate::Count;

    #[test]
    fn two_operators_of_one_name_are_refused_before_anything_begins() {
        let check = |names: [&'static str; 2]| {
            let build: Build = Arc::new(move |job: &mut Job<'_>| {
                let memory = Memory::new();
                memory.create_topic("in", 1);
                let words = job.source("in", memory.source("in"), text::value).map(|word| (word, ()));
                for (name, output) in names.into_iter().zip(["first", "second"]) {
                    let counts = words.clone().aggregate(name, Count);
                    job.write(&memory.upsert(output, 1), json::Json, counts)?;
                }
                Ok(())
            });
            plan(&build).map(|topology| topology.operators).map_err(|error| error.to_string())
        };
        assert_eq!(check(["a", "b"]).unwrap(), ["a", "b"]);
        assert!(check(["same", "same"]).unwrap_err().contains("two durable operators are named 'same'"));
    }
}
