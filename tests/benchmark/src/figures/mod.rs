//! The figures: what is measured, beside what, and what it is to be.

mod cluster;
mod count;
mod footprint;
mod hosts;
mod idle;
mod latency;
mod memory;
mod mesh;
mod partitions;
mod peers;
mod requests;
mod restart;
mod stages;
mod strings;
mod throughput;
mod versions;

use std::fmt;

use anyhow::Context;

use crate::report::Report;

/// What can be measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Figure {
    /// CPU of a durable keyed count from memory, beside a bare hash table and count_total
    Count,
    /// Rate from Kafka to Kafka, beside a bare loop of librdkafka
    Throughput,
    /// The same with texts as keys and JSON of six fields, by how often a checkpoint is made
    Strings,
    /// The newest row of ten fields of each key, five of them texts, and a grouped aggregate on top, beside a bare loop
    RowsOfTexts,
    /// The same job on Apache Flink and on Kafka Streams, once all are warm; not among all: it needs a JDK
    Peers,
    /// From produce to visible, beside a bare pass-through
    Latency,
    /// The same with texts as keys and a checkpoint each second, beside the same pass-through
    LatencyOfTexts,
    /// From kill -9 of a process to the next committed output
    Restart,
    /// Resident memory with many keys, beside a bare hash table
    Memory,
    /// Resident memory with many texts as keys and a checkpoint each second, beside a bare hash map
    MemoryOfTexts,
    /// What a job costs that has nothing to do
    Idle,
    /// How long a job of many partitions takes to open, and what it costs without input
    Partitions,
    /// What an idle job and a busy one ask of a store on S3's protocol, and what that costs
    Requests,
    /// Rate from Kafka to Kafka by SASL over TLS, beside plain; not among all: it needs a build with --features tls
    Secured,
    /// Threads, connections, files and memory of a process by its workers
    Footprint,
    /// Time to visible and CPU of a busy job by its workers
    Workers,
    /// CPU of a busy job that measures its operators, beside the same without
    Metrics,
    /// CPU of a keyed count in two processes over TLS, beside plain TCP and one process
    Mesh,
    /// This build beside the one in the folder that FLUVIAL_JOB_BINARIES names; not among all
    Versions,
    /// Pauses of a group of copies when a process, a host or the coordinator is lost and when copies come and go; not among
    /// all: it makes network namespaces, which root may do
    Hosts,
    /// A cluster of three nodes: submit to running, the API and the coordinator with 100 jobs, and what the store is asked; not among
    /// all: it makes network namespaces, which root may do
    Cluster,
    /// Pauses of a job of a cluster when it is rescaled and upgraded, and a power cut of a node with 20 jobs; not among all, as above
    ClusterChanges,
}

impl Figure {
    pub(crate) const ALL: [Self; 16] = [
        Self::Count,
        Self::Throughput,
        Self::Strings,
        Self::RowsOfTexts,
        Self::Latency,
        Self::LatencyOfTexts,
        Self::Restart,
        Self::Memory,
        Self::MemoryOfTexts,
        Self::Idle,
        Self::Partitions,
        Self::Requests,
        Self::Footprint,
        Self::Workers,
        Self::Metrics,
        Self::Mesh,
    ];

    /// Measures it.
    pub(crate) fn measure(self) -> anyhow::Result<Report> {
        let measure = match self {
            Self::Count => count::measure,
            Self::Throughput => throughput::measure,
            Self::Strings => strings::measure,
            Self::RowsOfTexts => strings::measure_rows,
            Self::Peers => peers::measure,
            Self::Latency => latency::measure,
            Self::LatencyOfTexts => latency::measure_texts,
            Self::Restart => restart::measure,
            Self::Memory => memory::measure,
            Self::MemoryOfTexts => memory::measure_texts,
            Self::Idle => idle::measure,
            Self::Partitions => partitions::measure,
            Self::Requests => requests::measure,
            Self::Secured => throughput::measure_secured,
            Self::Footprint => footprint::measure,
            Self::Workers => latency::measure_workers,
            Self::Metrics => latency::measure_metrics,
            Self::Mesh => mesh::measure,
            Self::Versions => versions::measure,
            Self::Hosts => hosts::measure,
            Self::Cluster => cluster::measure,
            Self::ClusterChanges => cluster::measure_changes,
        };
        measure().with_context(|| format!("measure {self}"))
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "count",
            Self::Throughput => "throughput",
            Self::Strings => "strings",
            Self::RowsOfTexts => "rows-of-texts",
            Self::Peers => "peers",
            Self::Latency => "latency",
            Self::LatencyOfTexts => "latency-of-texts",
            Self::Restart => "restart",
            Self::Memory => "memory",
            Self::MemoryOfTexts => "memory-of-texts",
            Self::Idle => "idle",
            Self::Partitions => "partitions",
            Self::Requests => "requests",
            Self::Secured => "secured",
            Self::Footprint => "footprint",
            Self::Workers => "workers",
            Self::Metrics => "metrics",
            Self::Mesh => "mesh",
            Self::Versions => "versions",
            Self::Hosts => "hosts",
            Self::Cluster => "cluster",
            Self::ClusterChanges => "cluster-changes",
        })
    }
}

/// The value below which a share `quantile` of the sorted values lies.
fn quantile(sorted: &[u64], quantile: f64) -> u64 {
    let index = (sorted.len() as f64 * quantile) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0)
}
