//! The graph of jobs, and what a worker's meter counts while it runs one.

#![allow(clippy::unwrap_used)]

use std::sync::{Arc, Mutex};
use std::time::Duration;

use differential_dataflow::operators::Iterate;
use fluvial_connector::format::Text;
use fluvial_connector::{Offset, Output as _};
use fluvial_memory::Memory;
use fluvial_node::status::{Graph, GraphNode, NodeKind, SplitFigures};
use fluvial_protocol::journal::SplitNumber;
use timely::dataflow::InputHandleVec;

use super::*;
use crate::durable::Durables;
use crate::job::output::{End, OutputQueue, collect};
use crate::runtime::Build;
use crate::runtime::plan::plan;
use crate::stream::{Origin, Stream};
use crate::{Count, Job, Table};

fn graph(build: impl for<'s> Fn(&mut Job<'s>) -> anyhow::Result<()> + Send + Sync + 'static) -> Graph {
    let build: Build = Arc::new(build);
    plan(&build).unwrap().graph
}

/// The edges as text.
fn edges(graph: &Graph) -> Vec<String> {
    graph.edges.iter().map(|edge| format!("{} -> {}", edge.from, edge.to)).collect()
}

#[test]
fn a_graph_has_the_named_parts_of_a_job_and_the_operators_between_them() {
    let graph = graph(|job| {
        let memory = Memory::new();
        let words = job.source("lines", memory.source("in")).format(Text).stream::<String>();
        let counts = words.filter(|word| word != "a").key_by(String::clone).aggregate("counts", Count);
        let lengths = counts.clone().map(|(word, count)| (word.len() as u64, count)).aggregate("lengths", Count);
        job.output(memory.upsert("counts", 1)).format(Text).write(counts);
        job.output(memory.upsert("lengths", 1)).format(Text).write(lengths);
        Ok(())
    });
    let expected = [
        "source:lines -> operator:filter",
        "operator:filter -> operator:map",
        "operator:map -> durable:counts",
        "durable:counts -> operator:FlatMap",
        "durable:counts -> output:counts",
        "operator:FlatMap -> operator:lengths",
        "operator:lengths -> output:lengths",
    ];
    assert_eq!(edges(&graph), expected);
    let node = |id: &str| graph.nodes.iter().find(|node| node.id == id).unwrap();
    let stateful: Vec<_> = graph.nodes.iter().filter(|node| node.stateful).map(|node| node.id.as_str()).collect();
    assert_eq!(stateful, ["durable:counts", "operator:lengths"]);
    assert!(node("output:counts").about.as_ref().unwrap().starts_with("Upsert"), "{graph:?}");
    assert!(node("source:lines").about.is_some() && node("durable:counts").about.is_none());
    assert_eq!(node("durable:counts").kind, NodeKind::Durable);
}

#[test]
fn equal_names_get_numbers_and_a_loop_is_one_node_with_state() {
    let graph = graph(|job| {
        let memory = Memory::new();
        let words = job.source("in", memory.source("in")).format(Text).stream::<String>();
        let kept = words.map(|word| word).map(|word| word).keep_all("kept");
        let shortened = kept.iterate(|scope, words| {
            let _ = scope;
            words.map(|word: String| word[..word.len().min(1)].to_owned()).distinct()
        });
        job.output(memory.upsert("out", 1)).format(Text).write(shortened.map(|word| (word.clone(), word)));
        Ok(())
    });
    let ids: Vec<_> = graph.nodes.iter().map(|node| node.id.as_str()).collect();
    assert_eq!(ids[..4], ["source:in", "operator:map", "operator:map-2", "durable:kept"]);
    let scope = graph.nodes.iter().find(|node| node.name == "Iterate").unwrap_or_else(|| panic!("{ids:?}"));
    assert!(scope.stateful, "it has an arrangement for `distinct`");
    let place = |id: &str| graph.nodes.iter().position(|node| node.id == id).unwrap();
    assert!(graph.edges.iter().all(|edge| place(&edge.from) < place(&edge.to)), "{:?}", edges(&graph));
}

/// Sends words through a dataflow that counts them, and returns its graph and what its meter has counted.
fn count(words: usize, distinct: usize) -> (Graph, Vec<Counts>, Vec<u64>) {
    timely::execute_directly(move |worker| {
        let samples = Arc::new(Mutex::new(Samples::default()));
        let mut meter = Meter::listen(worker, Arc::clone(&samples));
        let durables = Durables::new(0, 1, None);
        let mut input = InputHandleVec::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let stream = input.to_stream(scope);
            durables.note_node(&stream, NodeKind::Source, "words", None);
            let words = Stream::<(String, ())>::from_source(stream, &durables);
            let counts = words.aggregate("counts", Count);
            let joined = counts.clone().join(counts).map(|(word, (count, _))| (word, count));
            let spec = Memory::new().upsert("out", 1).spec();
            let queue = Rc::new(RefCell::new(OutputQueue::default()));
            let end = End { spec: &spec, partitions: 1, skip_through: None, queue, durables: &durables };
            collect(joined, end, Text);
        });
        meter.built(worker, &durables.nodes());
        let origin = |offset| Origin { split: SplitNumber(0), index: 0, offset: Offset(offset) };
        input.advance_to(1);
        for word in 0..words {
            input.send(((format!("word {}", word % distinct), ()), origin(word as u64)));
        }
        input.advance_to(2);
        // The upper bound only keeps a failure from hanging.
        for _ in 0..1000 {
            worker.step();
        }
        meter.told = meter.told.checked_sub(Duration::from_secs(2)).unwrap();
        meter.tell();
        let samples = samples.lock().unwrap();
        let measured = samples.measured().unwrap();
        (samples.graph().clone(), measured.newest.counts.clone(), measured.newest.edges.clone())
    })
}

#[test]
fn a_meter_counts_what_goes_through_operators_and_what_they_hold() {
    let (graph, counts, sent) = count(10_000, 100);
    let of = |id: &str| counts[graph.nodes.iter().position(|node| node.id == id).unwrap()];
    assert_eq!((of("source:words").records_in, of("source:words").records_out), (0, 10_000));
    let aggregate = of("durable:counts");
    assert_eq!((aggregate.records_in, aggregate.records_out, aggregate.rows), (10_000, 100, Some(100)));
    assert!(aggregate.bytes > Some(1000) && aggregate.busy > Duration::ZERO, "{aggregate:?}");
    assert_eq!((of("output:out").records_in, of("output:out").rows), (100, None));
    let arranged: Vec<_> =
        graph.nodes.iter().zip(&counts).filter(|(node, _)| node.name.starts_with("Arrange")).collect();
    assert!(!arranged.is_empty() && arranged.iter().all(|(_, counts)| counts.rows == Some(100)), "{arranged:?}");
    let of_edge = |from: &str| graph.edges.iter().zip(&sent).find(|(edge, _)| edge.from == from).unwrap().1;
    assert_eq!((*of_edge("source:words"), *of_edge("durable:counts")), (10_000, 100));
}

#[test]
fn records_count_as_received_on_the_worker_that_gets_them() {
    let run = |worker: &mut Worker| {
        let samples = Arc::new(Mutex::new(Samples::default()));
        let mut meter = Meter::listen(worker, Arc::clone(&samples));
        let durables = Durables::new(worker.index() as u32, 2, None);
        let mut input = InputHandleVec::new();
        worker.dataflow::<u64, _, _>(|scope| {
            let words = Stream::<(u64, ())>::from_source(input.to_stream(scope), &durables);
            let _ = words.aggregate("counts", Count);
        });
        meter.built(worker, &durables.nodes());
        let origin = |offset| Origin { split: SplitNumber(0), index: 0, offset: Offset(offset) };
        // Only the first worker reads.
        for key in (0..1000).filter(|_| worker.index() == 0) {
            input.send(((key, ()), origin(key)));
        }
        input.close();
        while worker.step_or_park(None) {}
        meter.told = meter.told.checked_sub(Duration::from_secs(2)).unwrap();
        meter.tell();
        let samples = samples.lock().unwrap();
        let counts = samples.measured().unwrap().newest.counts.clone();
        (counts[0].records_out, counts[1].records_in, counts[1].rows.unwrap())
    };
    let guards = timely::execute(timely::Config::process(2), run).unwrap();
    let counted: Vec<_> = guards.join().into_iter().map(|counts| counts.unwrap()).collect();
    let [(sent, in_0, rows_0), (not_sent, in_1, rows_1)] = counted[..] else { panic!("{counted:?}") };
    assert_eq!((sent, not_sent, in_0 + in_1), (1000, 0, 1000));
    assert!(in_0 > 0 && in_1 > 0, "{counted:?}");
    assert_eq!((rows_0, rows_1), (in_0, in_1), "each key has one record");
}

#[test]
fn what_a_process_tells_is_bounded_and_the_larger_it_is_the_more_rarely_it_is_told() {
    let meters = Meters::new(4, 2);
    let nodes = 2000;
    for worker in 0..2 {
        let mut samples = meters.samples(worker).lock().unwrap();
        let node = |number: u64| GraphNode {
            id: format!("operator:{number}"),
            name: number.to_string(),
            kind: NodeKind::Operator,
            stateful: false,
            about: None,
        };
        samples.begin(Graph { nodes: (0..nodes).map(node).collect(), edges: Vec::new() });
        samples.add(ambient::instant(), |sample| {
            let busy = |number| Counts { busy: Duration::from_secs(number), ..Counts::default() };
            sample.counts = (0..nodes).map(busy).collect();
        });
    }
    let splits = (0..1000).map(|split| SplitFigures {
        source: "in".to_owned(),
        split: split.to_string(),
        lag_records: Some(split),
        ..SplitFigures::default()
    });
    meters.of_leader(LeaderFigures { splits: splits.collect(), ..LeaderFigures::default() });
    let told = meters.due().unwrap();
    assert_eq!((told.operators.len(), told.splits.len(), told.omitted), (512, 512, 2000 - 512 + 1000 - 512));
    assert_eq!(told.operators[0].id, "operator:1488", "the busiest are told");
    assert_eq!(told.operators[0].workers.iter().map(|worker| worker.worker).collect::<Vec<_>>(), [4, 5]);
    let lags: Vec<_> = told.splits.iter().map(|split| split.lag_records.unwrap()).collect();
    assert_eq!(lags, (488..1000).collect::<Vec<_>>(), "those that lag most are told, in their order");
    assert!(told.memory_bytes > Some(1 << 20) && told.cpu_ms.is_some());
    assert!(serde_json::to_vec(&told).unwrap().len() < 400_000);
    assert!(meters.due().is_none(), "so much is not told again at once");
    assert!(Meters::new(0, 1).due().is_some_and(|told| told.operators.is_empty()), "no worker has begun");
}
