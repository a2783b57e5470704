//! The named parts of a job, found by building the job once without running it.

use std::sync::Arc;

use anyhow::Context;
use fluvial_connector::{OutputSpec, Sink, Source};
use fluvial_node::status::{Graph, NodeKind};

use super::Build;
use super::meter::{Blueprint, Drawing};
use crate::durable::{Durables, Restore};
use crate::job::{Job, Situation};
use crate::state::StateError;

/// The parts of a job that have names.
pub(crate) struct Topology {
    /// The sources, by name.
    pub sources: Vec<(String, Arc<dyn Source>)>,
    /// The durable operators' names.
    pub operators: Vec<String>,
    /// The outputs.
    pub outputs: Vec<OutputSpec>,
    /// The sink of all outputs.
    pub sink: Arc<dyn Sink>,
    /// The whole dataflow.
    pub graph: Graph,
}

/// Builds the job on a temporary worker.
///
/// # Errors
/// The closure refuses the options, or the job is put together wrongly.
pub(crate) fn plan(build: &Build) -> anyhow::Result<Topology> {
    let build = Arc::clone(build);
    timely::execute::execute_directly(move |worker| {
        let blueprint = Blueprint::collect(worker);
        let durables = Durables::planning();
        let mut topology = worker.dataflow::<u64, _, _>(|scope| {
            let situation = Situation { partitions: Box::new(|_| 1), skip_through: None };
            let mut job = Job::new(scope, durables.clone(), situation);
            build(&mut job)?;
            let declared = job.finish();
            declared.check(&durables)?;
            anyhow::Ok(Topology {
                sources: declared.sources.into_iter().map(|s| (s.name, s.source)).collect(),
                operators: durables.names(),
                sink: declared.outputs.first().map(|output| Arc::clone(&output.sink)).context("a job has an output")?,
                outputs: declared.outputs.into_iter().map(|o| o.spec).collect(),
                graph: Graph::default(),
            })
        })?;
        if let Some(mut registry) = worker.log_register() {
            registry.flush();
        }
        topology.graph = Drawing::new(&blueprint.borrow(), &durables.nodes()).graph;
        topology.describe();
        Ok(topology)
    })
}

/// Builds the job on a temporary worker over a checkpoint, and returns what is wrong with its durable operators.
///
/// # Errors
/// The closure refuses the options.
pub(crate) fn check_operators(build: &Build, restore: Restore) -> anyhow::Result<Vec<StateError>> {
    let build = Arc::clone(build);
    timely::execute::execute_directly(move |worker| {
        worker.dataflow::<u64, _, _>(|scope| {
            let durables = Durables::checking(restore);
            let situation = Situation { partitions: Box::new(|_| 1), skip_through: None };
            let mut job = Job::new(scope, durables.clone(), situation);
            build(&mut job)?;
            drop(job.finish());
            Ok(durables.wrong())
        })
    })
}

impl Topology {
    /// Adds to the graph what the sources and the sink say of themselves.
    fn describe(&mut self) {
        for node in &mut self.graph.nodes {
            let source = self.sources.iter().find(|(name, _)| *name == node.name).map(|(_, source)| source.describe());
            let output = self.outputs.iter().find(|output| output.name == node.name);
            let output = output.map(|output| format!("{:?}, {}", output.envelope, self.sink.identity()));
            node.about = match node.kind {
                NodeKind::Source => source,
                NodeKind::Output => output,
                NodeKind::Durable | NodeKind::Operator => None,
            };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use fluvial_connector::format::Text;
    use fluvial_memory::Memory;

    use super::*;
    use crate::Count;

    /// The operators of a job with these sources, and with operators and the outputs that their counts go to.
    fn check(sources: &'static [&str], counts: &'static [(&str, &str)]) -> Result<Vec<String>, String> {
        let build: Build = Arc::new(move |job: &mut Job<'_>| {
            let memory = Memory::new();
            memory.create_topic("in", 1);
            for source in sources {
                let words = job.source(source, memory.source("in")).format(Text).stream::<String>();
                let words = words.map(|word| (word, ()));
                for (name, output) in counts {
                    let counts = words.clone().aggregate(name, Count);
                    job.output(memory.upsert(*output, 1)).format(Text).write(counts);
                }
            }
            Ok(())
        });
        plan(&build).map(|topology| topology.operators).map_err(|error| error.to_string())
    }

    #[test]
    fn mistakes_in_how_a_job_is_put_together_are_told_all_at_once_before_anything_is_opened() {
        assert_eq!(check(&["in"], &[("a", "first"), ("b", "second")]).unwrap(), ["a", "b"]);
        let twice = check(&["in"], &[("same", "first"), ("same", "second")]).unwrap_err();
        assert!(twice.starts_with("two durable operators are named 'same'"), "{twice}");
        assert!(check(&["in"], &[]).unwrap_err().starts_with("the job writes nothing"));
        let all = check(&["in", "in"], &[("a/b", "in")]).unwrap_err();
        let parts = [
            "the definition of the job has 6 mistakes; (1) source 'in' is declared twice",
            "; (2) 'a/b' is not a valid name for a durable operator",
            "; (4) output 'in' is written twice",
            "; (5) the job reads ",
        ];
        for part in parts {
            assert!(all.contains(part), "'{part}' is not in: {all}");
        }
    }

    #[test]
    fn a_source_or_an_output_that_is_begun_and_not_ended_is_a_mistake() {
        let build: Build = Arc::new(|job: &mut Job<'_>| {
            let memory = Memory::new();
            let _ = job.source("left", memory.source("in")).format(Text);
            let words = job.source("words", memory.source("in")).format(Text).stream::<String>().map(|word| (word, ()));
            job.output(memory.upsert("counts", 1)).format(Text).write(words.aggregate("counts", Count));
            let _ = job.output(memory.upsert("unused", 1));
            Ok(())
        });
        let mistakes = plan(&build).map(|_| ()).unwrap_err().to_string();
        assert!(mistakes.contains("has 2 mistakes; (1) source 'left' is not read: end it with"), "{mistakes}");
        assert!(mistakes.contains("; (2) output 'unused' is not written: end it with `write`"), "{mistakes}");
    }
}
