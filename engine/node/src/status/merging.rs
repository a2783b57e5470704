//! Puts together what the processes of a job say of its parts.

use std::collections::BTreeMap;

use super::figures::{
    Bucket, EdgeFigures, Figures, Histogram, OperatorReport, OutputFigures, ProcessFigures, ProcessUse, WorkerFigures,
};

/// What one process has said, and how long ago.
#[derive(Clone, Copy, Debug)]
pub(super) struct Of<'a> {
    pub(super) process: u32,
    pub(super) node: &'a str,
    pub(super) age_ms: u64,
    pub(super) figures: &'a ProcessFigures,
}

impl Of<'_> {
    /// What the process uses.
    pub(super) fn used(&self) -> ProcessUse {
        let ProcessFigures { memory_bytes, cpu_ms, cpu_share, .. } = *self.figures;
        let (process, node, age_ms) = (self.process, self.node.to_owned(), self.age_ms);
        ProcessUse { process, node, memory_bytes, cpu_ms, cpu_share, age_ms }
    }
}

impl Figures {
    /// What several processes say together. Nothing of a process is counted twice.
    pub(super) fn of(processes: &[Of<'_>]) -> Self {
        let mut merged = Self { processes: processes.iter().map(Of::used).collect(), ..Self::default() };
        let mut operators: BTreeMap<&str, usize> = BTreeMap::new();
        let mut edges: BTreeMap<(&str, &str), usize> = BTreeMap::new();
        let mut outputs: BTreeMap<&str, OutputFigures> = BTreeMap::new();
        let all = processes.iter().map(|process| process.figures);
        for figures in all.clone() {
            for operator in &figures.operators {
                let place = *operators.entry(&operator.id).or_insert_with(|| {
                    merged.operators.push(OperatorReport { id: operator.id.clone(), ..OperatorReport::default() });
                    merged.operators.len() - 1
                });
                let of_all = &mut merged.operators[place];
                of_all.stored_bytes = of_all.stored_bytes.or(operator.stored_bytes);
                of_all.workers.extend(operator.workers.iter().cloned());
            }
            for edge in &figures.edges {
                let place = *edges.entry((&edge.from, &edge.to)).or_insert_with(|| {
                    let (from, to) = (edge.from.clone(), edge.to.clone());
                    merged.edges.push(EdgeFigures { from, to, ..EdgeFigures::default() });
                    merged.edges.len() - 1
                });
                merged.edges[place].records += edge.records;
                merged.edges[place].records_per_s += edge.records_per_s;
            }
            for output in &figures.outputs {
                let of_all = outputs.entry(&output.output).or_default();
                of_all.output.clone_from(&output.output);
                of_all.records += output.records;
                of_all.records_per_s += output.records_per_s;
            }
            merged.splits.extend(figures.splits.iter().cloned());
            merged.commits.add(&figures.commits);
            merged.checkpoint = merged.checkpoint.or(figures.checkpoint);
            merged.omitted += figures.omitted;
        }
        merged.outputs = outputs.into_values().collect();
        for operator in &mut merged.operators {
            operator.add_up();
            // What an output sends is what is committed.
            let written = operator.id.strip_prefix("output:");
            if let Some(output) = written.and_then(|name| merged.outputs.iter().find(|output| output.output == name)) {
                (operator.records_out, operator.records_out_per_s) = (output.records, output.records_per_s);
            }
        }
        merged
    }
}

impl OperatorReport {
    /// Adds up what the workers say.
    fn add_up(&mut self) {
        let workers = &mut self.workers;
        workers.sort_by_key(|worker| worker.worker);
        let sum = |of: fn(&WorkerFigures) -> f64| workers.iter().map(of).sum::<f64>();
        let known = |of: fn(&WorkerFigures) -> Option<u64>| {
            workers.iter().filter_map(of).reduce(|one, other| one.saturating_add(other))
        };
        self.records_in = workers.iter().map(|worker| worker.records_in).sum();
        self.records_out = workers.iter().map(|worker| worker.records_out).sum();
        self.records_in_per_s = sum(|worker| worker.records_in_per_s);
        self.records_out_per_s = sum(|worker| worker.records_out_per_s);
        self.busy_share = sum(|worker| worker.busy_share) / workers.len().max(1) as f64;
        self.busy_skew = skew(workers, |worker| worker.busy_share);
        self.records_skew = skew(workers, |worker| worker.records_in as f64);
        self.rows = known(|worker| worker.rows);
        self.state_bytes = known(|worker| worker.state_bytes);
    }
}

/// The maximum divided by the mean; `None` if all are 0.
fn skew(workers: &[WorkerFigures], of: impl Fn(&WorkerFigures) -> f64) -> Option<f64> {
    let sum: f64 = workers.iter().map(&of).sum();
    let most = workers.iter().map(&of).fold(0.0, f64::max);
    (sum > 0.0).then(|| most * workers.len() as f64 / sum)
}

impl Histogram {
    /// Adds what another one has counted. Those of one version of the engine have the same limits.
    fn add(&mut self, other: &Self) {
        self.count += other.count;
        self.sum_ms += other.sum_ms;
        if self.buckets.is_empty() {
            self.buckets.clone_from(&other.buckets);
            return;
        }
        for (bucket, Bucket { le_ms, count }) in self.buckets.iter_mut().zip(&other.buckets) {
            bucket.count += if bucket.le_ms == *le_ms { *count } else { 0 };
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::super::{OperatorFigures, SplitFigures};
    use super::*;

    /// What a process says whose only worker has received so many records and is so busy.
    fn process(worker: u32, records_in: u64, busy_share: f64) -> ProcessFigures {
        let of_worker = WorkerFigures { worker, records_in, busy_share, rows: Some(10), ..WorkerFigures::default() };
        let operator = |id: &str| OperatorFigures {
            id: id.to_owned(),
            stored_bytes: (worker == 0).then_some(7),
            workers: vec![of_worker.clone()],
        };
        let output = OutputFigures { output: "rows".to_owned(), records: 3, records_per_s: 0.5 };
        let edge = EdgeFigures { from: "a".to_owned(), to: "b".to_owned(), records: 4, records_per_s: 1.0 };
        let buckets = vec![Bucket { le_ms: 1, count: 1 }, Bucket { le_ms: 5, count: 2 }];
        ProcessFigures {
            operators: vec![operator("durable:rows"), operator("output:rows")],
            edges: vec![edge],
            outputs: vec![output],
            splits: if worker == 0 { vec![SplitFigures::default()] } else { Vec::new() },
            commits: Histogram { count: 2, sum_ms: 3.0, buckets },
            memory_bytes: Some(100),
            ..ProcessFigures::default()
        }
    }

    #[test]
    fn the_figures_of_a_job_are_the_sums_over_its_processes_and_the_skew_between_their_workers() {
        let (one, other) = (process(0, 300, 0.75), process(1, 100, 0.25));
        let of = |process, figures| Of { process, node: "a", age_ms: 1, figures };
        let figures = Figures::of(&[of(1, &other), of(0, &one)]);
        let rows = &figures.operators[0];
        assert_eq!((rows.id.as_str(), rows.records_in, rows.rows), ("durable:rows", 400, Some(20)));
        assert_eq!((rows.busy_share, rows.busy_skew, rows.records_skew), (0.5, Some(1.5), Some(1.5)));
        assert_eq!(rows.stored_bytes, Some(7), "process 0 knows it");
        assert_eq!(rows.workers.iter().map(|worker| worker.worker).collect::<Vec<_>>(), [0, 1]);
        assert_eq!((figures.edges[0].records, figures.edges.len()), (8, 1));
        assert_eq!((figures.outputs[0].records, figures.outputs[0].records_per_s), (6, 1.0));
        assert_eq!(figures.operators[1].records_out, 6, "an output sends what is committed");
        assert_eq!((figures.commits.count, figures.commits.buckets[1].count), (4, 4));
        assert_eq!((figures.splits.len(), figures.processes.len()), (1, 2));
    }

    #[test]
    fn an_idle_operator_has_no_skew() {
        let idle = process(0, 0, 0.0);
        let figures = Figures::of(&[Of { process: 0, node: "a", age_ms: 1, figures: &idle }]);
        assert_eq!((figures.operators[0].busy_skew, figures.operators[0].records_skew), (None, None));
        assert_eq!(Figures::of(&[]), Figures::default());
    }
}
