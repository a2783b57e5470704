//! What the nodes of a cluster know together of all jobs and of themselves.

use std::sync::Arc;

use fluvial_protocol::group::GroupRecord;

use super::report::Views;
use super::{MemberReport, Report, View};
use crate::trust::Trust;

/// The state of a cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct ClusterReport {
    /// The jobs; `None` if the coordinator does not answer: what other nodes know of jobs may be old.
    pub jobs: Option<Vec<Report>>,
    /// The nodes that the coordinator hears; if it does not answer, the node that was asked.
    pub nodes: Vec<MemberReport>,
}

/// Asks the coordinator, and then all nodes that it hears, for what they know of the cluster.
pub async fn gather_cluster(own: Arc<View>, trust: &Trust) -> ClusterReport {
    let cluster = own.job.clone();
    let views = Views::ask(own, trust, None).await;
    let record = views.coordinator().and_then(|view| view.record.as_ref());
    let mut nodes = views.report(&cluster, false).members;
    if let Some(record) = record {
        nodes.iter_mut().for_each(|node| node.slots_used = Some(slots_used(record, &node.node)));
    }
    ClusterReport { jobs: record.map(|record| record.jobs.keys().map(|job| views.report(job, false)).collect()), nodes }
}

/// The workers that are placed on the node at an address.
fn slots_used(record: &GroupRecord, address: &str) -> u32 {
    let attempts = record.jobs.values().filter(|job| job.outcome.is_none()).filter_map(|job| job.attempt.as_ref());
    let placed = attempts.flat_map(|attempt| {
        let on_node = attempt.placement.places.iter().filter(|(node, _)| node.address == address);
        on_node.map(|(_, processes)| processes * attempt.placement.threads)
    });
    placed.sum()
}
