//! Who the broker is, which topics it has, and who coordinates what: always itself.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    DescribeClusterRequest, DescribeClusterResponse, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest,
    MetadataResponse,
};

use super::{Call, NODE, code, text, topic_name};
use crate::state::settings::Settings;
use crate::state::topics::{Named, Partition, Topic, check_name};
use crate::state::{LEADER_EPOCH, State};

/// Describes the broker and the topics that were asked for; makes missing ones if it may.
pub(super) fn metadata(call: &Call<'_>, request: MetadataRequest) -> MetadataResponse {
    let shared = call.shared;
    let broker = MetadataResponseBroker::default()
        .with_node_id(NODE)
        .with_host(text(&*shared.host))
        .with_port(shared.port.into());
    let mut state = shared.state();
    let topics = match request.topics {
        // Version 0 has no way to ask for none.
        Some(asked) if call.version > 0 || !asked.is_empty() => {
            let create = shared.config.auto_create && (call.version < 4 || request.allow_auto_topic_creation);
            asked.iter().map(|topic| asked_for(call, &mut state, topic, create)).collect()
        }
        _ => state.topics.iter().map(|(name, topic)| describe(call, name, topic)).collect(),
    };
    let (brokers, controller) = if call.no_brokers { (Vec::new(), (-1).into()) } else { (vec![broker], NODE) };
    MetadataResponse::default()
        .with_brokers(brokers)
        .with_cluster_id(Some(text(&*shared.cluster_id)))
        .with_controller_id(controller)
        .with_topics(topics)
}

fn asked_for(call: &Call<'_>, state: &mut State, asked: &MetadataRequestTopic, create: bool) -> MetadataResponseTopic {
    let named = match &asked.name {
        Some(name) => Named::Name(name),
        None => Named::Id(asked.topic_id),
    };
    if let Named::Name(name) = named
        && create
        && call.forced.is_none()
        && state.topics.get(named).is_err()
    {
        // A refusal shows below, as the topic is still missing.
        let _ = state.topics.create(name, call.shared.config.default_partitions, Settings::default());
    }
    let found = call.permit().and_then(|()| state.topics.get(named));
    match found {
        Ok(topic) => describe(call, state.topics.name(topic.id).unwrap_or_default(), topic),
        Err(missing) => {
            let error = match named {
                Named::Name(name) if call.forced.is_none() => check_name(name).err().map_or(missing, |r| r.error),
                _ => missing,
            };
            MetadataResponseTopic::default()
                .with_error_code(error.code())
                .with_name(asked.name.clone())
                .with_topic_id(asked.topic_id)
        }
    }
}

fn describe(call: &Call<'_>, name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partition = |(index, partition): (usize, &Partition)| {
        let described = MetadataResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![NODE]);
        if partition.leaderless || call.no_brokers {
            described
                .with_error_code(ResponseError::LeaderNotAvailable.code())
                .with_leader_id((-1).into())
                .with_offline_replicas(vec![NODE])
        } else {
            described.with_leader_id(NODE).with_isr_nodes(vec![NODE])
        }
    };
    MetadataResponseTopic::default()
        .with_name(Some(topic_name(name)))
        .with_topic_id(topic.id)
        .with_partitions(topic.partitions.iter().enumerate().map(partition).collect())
}

/// Describes the cluster of one.
pub(super) fn describe_cluster(call: &Call<'_>, _request: DescribeClusterRequest) -> DescribeClusterResponse {
    let broker = DescribeClusterBroker::default()
        .with_broker_id(NODE)
        .with_host(text(&*call.shared.host))
        .with_port(call.shared.port.into());
    DescribeClusterResponse::default()
        .with_error_code(code(&call.permit()))
        .with_cluster_id(text(&*call.shared.cluster_id))
        .with_controller_id(NODE)
        .with_brokers(vec![broker])
}

/// Says that this broker coordinates it.
pub(super) fn find_coordinator(call: &Call<'_>, request: FindCoordinatorRequest) -> FindCoordinatorResponse {
    let known = if matches!(request.key_type, 0 | 1) { Ok(()) } else { Err(ResponseError::InvalidRequest) };
    let allowed = call.permit().and(known);
    let (node, host, port) = match allowed {
        Ok(()) => (NODE, &*call.shared.host, i32::from(call.shared.port)),
        Err(_) => ((-1).into(), "", -1),
    };
    if call.version < 4 {
        return FindCoordinatorResponse::default()
            .with_error_code(code(&allowed))
            .with_node_id(node)
            .with_host(text(host))
            .with_port(port);
    }
    let each = request.coordinator_keys.into_iter().map(|key| {
        Coordinator::default()
            .with_key(key)
            .with_error_code(code(&allowed))
            .with_node_id(node)
            .with_host(text(host))
            .with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(each.collect())
}
