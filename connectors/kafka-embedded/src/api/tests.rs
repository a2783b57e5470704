#![allow(clippy::unwrap_used)]
use kafka_protocol::messages::add_partitions_to_txn_request::AddPartitionsToTxnTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::fetch_request::{FetchPartition, FetchTopic};
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_commit_request::{OffsetCommitRequestPartition, OffsetCommitRequestTopic};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};

use super::*;
use crate::state::batch::samples::plain;
use crate::{Broker, Config};

#[test]
fn every_version_that_is_offered_can_be_decoded() {
    for (api, min, max) in SERVED {
        let valid = api.valid_versions();
        let first = if *api == ApiKey::Produce { FIRST_PRODUCE } else { *min };
        assert!(valid.min <= first && *max <= valid.max, "{api:?}: {valid}");
    }
}

#[test]
fn a_client_from_the_future_is_told_in_version_0() {
    let Answer::Bytes(bytes) = step_down(&Config::default(), 7).ok().unwrap() else { panic!("no answer") };
    let mut body = bytes.slice(8..);
    let response = ApiVersionsResponse::decode(&mut body, 0).unwrap();
    assert_eq!(response.error_code, ResponseError::UnsupportedVersion.code());
    assert_eq!(response.api_keys.len(), SERVED.len());
}

/// A broker with topic `t` of two partitions, and a runtime to ask it.
struct Asked {
    broker: Broker,
    runtime: tokio::runtime::Runtime,
}

impl Asked {
    fn new() -> Self {
        let broker = Broker::start(Config::default()).unwrap();
        broker.create_topic("t", 2).unwrap();
        Self { broker, runtime: tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap() }
    }

    /// Asks in every version that is served; each answer must be whole, and is given to `check`.
    fn each<R: Request>(&self, make: impl Fn(i16) -> R, check: impl Fn(i16, R::Response)) {
        let api = ApiKey::try_from(R::KEY).unwrap();
        let (_, min, max) = SERVED.iter().find(|(key, _, _)| *key == api).unwrap();
        for version in (*min..=*max).filter(|version| serves(&Config::default(), api, *version)) {
            let mut body = BytesMut::new();
            make(version).encode(&mut body, version).unwrap();
            let call = Call {
                shared: self.broker.shared(),
                api,
                version,
                correlation_id: 7,
                client_id: "c",
                host: "/127.0.0.1",
                now: Now::read(),
                forced: None,
                old_end: None,
                no_brokers: false,
                reader: &Arc::default(),
            };
            let answered = self.runtime.block_on(answer(&call, &mut body.freeze()));
            let Answer::Bytes(bytes) = answered.unwrap() else { panic!("{api:?} {version}: no answer") };
            let mut body = bytes.slice(4..);
            let header = ResponseHeader::decode(&mut body, R::Response::header_version(version)).unwrap();
            assert_eq!(header.correlation_id, 7);
            let response = R::Response::decode(&mut body, version).unwrap();
            assert!(body.is_empty(), "{api:?} {version}: bytes are left");
            check(version, response);
        }
    }
}

fn name() -> TopicName {
    topic_name("t")
}

fn group() -> GroupId {
    GroupId(text("g"))
}

#[test]
fn records_are_produced_found_and_fetched_in_every_version() {
    let asked = Asked::new();
    asked.each(
        |_| {
            let data = PartitionProduceData::default().with_records(Some(plain(1).1));
            let topic = TopicProduceData::default().with_name(name()).with_partition_data(vec![data]);
            ProduceRequest::default().with_acks(-1).with_topic_data(vec![topic])
        },
        |version, response| {
            let answer = &response.responses[0].partition_responses[0];
            assert_eq!((answer.error_code, answer.base_offset), (0, i64::from(version - FIRST_PRODUCE)));
        },
    );
    let end = asked.broker.end_offsets("t")[0];
    let id = asked.broker.shared().state().topics.iter().next().unwrap().1.id;
    asked.each(
        |version| {
            let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
            let topic = FetchTopic::default().with_partitions(vec![partition]);
            let topic = if version >= 13 { topic.with_topic_id(id) } else { topic.with_topic(name()) };
            FetchRequest::default().with_max_bytes(1 << 20).with_isolation_level(1).with_topics(vec![topic])
        },
        |_, response| {
            let data = &response.responses[0].partitions[0];
            assert_eq!((data.error_code, data.high_watermark, data.last_stable_offset), (0, end, end));
            assert_eq!(data.records.as_ref().unwrap().len(), plain(1).1.len() * end as usize);
        },
    );
    asked.each(
        |_| {
            let partitions = vec![ListOffsetsPartition::default().with_timestamp(-1)];
            let topic = ListOffsetsTopic::default().with_name(name()).with_partitions(partitions);
            ListOffsetsRequest::default().with_replica_id((-1).into()).with_topics(vec![topic])
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].offset, end),
    );
}

#[test]
fn topics_are_made_shown_and_deleted_in_every_version() {
    let asked = Asked::new();
    asked.each(
        |version| {
            let name = topic_name(format!("made-{version}"));
            let topic = CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1);
            CreateTopicsRequest::default().with_topics(vec![topic])
        },
        |version, response| assert_eq!(response.topics[0].error_code, 0, "{version}"),
    );
    asked.each(
        |_| {
            let topics = ["t", "none"].map(|name| MetadataRequestTopic::default().with_name(Some(topic_name(name))));
            MetadataRequest::default().with_topics(Some(topics.to_vec()))
        },
        |version, response| {
            let seen: Vec<_> = response.topics.iter().map(|t| (t.error_code, t.partitions.len())).collect();
            assert_eq!(seen, [(0, 2), (ResponseError::UnknownTopicOrPartition.code(), 0)]);
            assert_eq!(response.topics[0].topic_id.is_nil(), version < 10);
        },
    );
    asked.each(
        |_| {
            let topic = DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text("t"));
            DescribeConfigsRequest::default().with_resources(vec![topic]).with_include_synonyms(true)
        },
        |_, response| assert!(!response.results[0].configs.is_empty()),
    );
    asked.each(
        |version| {
            let name = topic_name(format!("made-{}", version + 1));
            let request = DeleteTopicsRequest::default();
            match version {
                6 => request.with_topics(vec![DeleteTopicState::default().with_name(Some(name))]),
                _ => request.with_topic_names(vec![name]),
            }
        },
        |version, response| assert_eq!(response.responses[0].error_code, 0, "{version}"),
    );
    asked.each(|_| DescribeClusterRequest::default(), |_, response| assert_eq!(response.brokers.len(), 1));
    asked.each(
        |version| match version {
            0..4 => FindCoordinatorRequest::default().with_key(text("g")),
            _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]),
        },
        |version, response| {
            let node = if version < 4 { response.node_id } else { response.coordinators[0].node_id };
            assert_eq!(node, NODE);
        },
    );
}

#[test]
fn groups_work_in_every_version() {
    let asked = Asked::new();
    asked.each(
        |version| {
            let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
            JoinGroupRequest::default()
                .with_group_id(GroupId(text(format!("joined-{version}"))))
                .with_session_timeout_ms(10_000)
                .with_rebalance_timeout_ms(if version == 0 { -1 } else { 10_000 })
                .with_protocol_type(text("consumer"))
                .with_protocols(vec![protocol])
        },
        |version, response| {
            let asks_again = ResponseError::MemberIdRequired.code();
            assert_eq!(response.error_code, if version >= 4 { asks_again } else { 0 });
            assert!(!response.member_id.is_empty());
        },
    );
    let unknown = ResponseError::UnknownMemberId.code();
    asked.each(
        |_| SyncGroupRequest::default().with_group_id(group()).with_member_id(text("m")),
        |_, response| assert_eq!(response.error_code, unknown),
    );
    asked.each(
        |_| HeartbeatRequest::default().with_group_id(group()).with_member_id(text("m")),
        |_, response| assert_eq!(response.error_code, unknown),
    );
    asked.each(
        |version| {
            let request = LeaveGroupRequest::default().with_group_id(group());
            match version {
                0..3 => request.with_member_id(text("m")),
                _ => request.with_members(vec![MemberIdentity::default().with_member_id(text("m"))]),
            }
        },
        |version, response| {
            let code = if version < 3 { response.error_code } else { response.members[0].error_code };
            assert_eq!(code, unknown);
        },
    );
    asked.each(
        |_| {
            let partition = OffsetCommitRequestPartition::default().with_committed_offset(5);
            let topic = OffsetCommitRequestTopic::default().with_name(name()).with_partitions(vec![partition]);
            OffsetCommitRequest::default().with_group_id(group()).with_topics(vec![topic])
        },
        |_, response| assert_eq!(response.topics[0].partitions[0].error_code, 0),
    );
    asked.each(
        |version| {
            let (request, partitions) = (OffsetFetchRequest::default(), vec![0, 1]);
            if version < 8 {
                let topic = OffsetFetchRequestTopic::default().with_name(name()).with_partition_indexes(partitions);
                return request.with_group_id(group()).with_topics(Some(vec![topic]));
            }
            let topic = OffsetFetchRequestTopics::default().with_name(name()).with_partition_indexes(partitions);
            let asked = OffsetFetchRequestGroup::default().with_group_id(group()).with_topics(Some(vec![topic]));
            request.with_groups(vec![asked])
        },
        |version, response| {
            let offsets: Vec<i64> = match version {
                0..8 => response.topics[0].partitions.iter().map(|p| p.committed_offset).collect(),
                _ => response.groups[0].topics[0].partitions.iter().map(|p| p.committed_offset).collect(),
            };
            assert_eq!(offsets, [5, -1]);
        },
    );
    asked.each(
        |_| DescribeGroupsRequest::default().with_groups(vec![group(), GroupId(text("joined-0"))]),
        |_, response| {
            let states: Vec<_> = response.groups.iter().map(|g| (&*g.group_state, g.members.len())).collect();
            assert_eq!(states[0].0, "Empty");
            assert_eq!(states[1], ("CompletingRebalance", 1));
        },
    );
    asked.each(|_| ListGroupsRequest::default(), |_, response| assert!(response.groups.len() > 5));
}

#[test]
fn transactions_work_in_every_version() {
    let asked = Asked::new();
    let id = || TransactionalId(text("x"));
    let epoch = std::cell::Cell::new(0);
    asked.each(
        |_| {
            let request = InitProducerIdRequest::default().with_transactional_id(Some(id()));
            request.with_transaction_timeout_ms(60_000)
        },
        |_, response| {
            assert_eq!((response.error_code, *response.producer_id), (0, 0));
            epoch.set(response.producer_epoch);
        },
    );
    let fenced = |since: i16, version: i16| match version < since {
        true => ResponseError::InvalidProducerEpoch.code(),
        false => ResponseError::ProducerFenced.code(),
    };
    asked.each(
        |_| {
            let topic = AddPartitionsToTxnTopic::default().with_name(name()).with_partitions(vec![0]);
            AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(id())
                .with_v3_and_below_producer_epoch(epoch.get() - 1)
                .with_v3_and_below_topics(vec![topic])
        },
        |version, response| {
            let result = &response.results_by_topic_v3_and_below[0].results_by_partition[0];
            assert_eq!(result.partition_error_code, fenced(2, version));
        },
    );
    asked.each(
        |_| {
            let request = AddOffsetsToTxnRequest::default().with_transactional_id(id()).with_group_id(group());
            request.with_producer_epoch(epoch.get())
        },
        |_, response| assert_eq!(response.error_code, 0),
    );
    asked.each(
        |_| EndTxnRequest::default().with_transactional_id(id()).with_producer_epoch(epoch.get() - 1),
        |version, response| assert_eq!(response.error_code, fenced(2, version)),
    );
    asked.each(
        |_| EndTxnRequest::default().with_transactional_id(id()).with_producer_epoch(epoch.get()).with_committed(true),
        |_, response| assert_eq!(response.error_code, 0),
    );
}
