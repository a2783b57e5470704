//! The requests that the broker serves, and the way from a frame to its answer.
//!
//! Owns the table of versions. Versions go as far as KIP-890's second part and KIP-848, which the broker does not have.

mod configs;
mod fetch;
mod groups;
mod metadata;
mod offsets;
mod produce;
mod topics;
mod transactions;

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};
use tokio::sync::Notify;

use crate::broker::Shared;
use crate::clock::Now;
use crate::config::Config;
use crate::connection::Broken;

/// The only broker's id.
const NODE: BrokerId = BrokerId(1);

/// What is served, from which version to which.
///
/// Produce is said to begin at 0, as Apache Kafka 4 says: older librdkafka turns compression off otherwise (KAFKA-18659).
const SERVED: &[(ApiKey, i16, i16)] = &[
    (ApiKey::Produce, 0, 11),
    (ApiKey::Fetch, 4, 16),
    (ApiKey::ListOffsets, 1, 7),
    (ApiKey::Metadata, 0, 12),
    (ApiKey::OffsetCommit, 2, 9),
    (ApiKey::OffsetFetch, 1, 9),
    (ApiKey::FindCoordinator, 0, 4),
    (ApiKey::JoinGroup, 0, 9),
    (ApiKey::Heartbeat, 0, 4),
    (ApiKey::LeaveGroup, 0, 5),
    (ApiKey::SyncGroup, 0, 5),
    (ApiKey::DescribeGroups, 0, 5),
    (ApiKey::ListGroups, 0, 5),
    (ApiKey::ApiVersions, 0, 3),
    (ApiKey::CreateTopics, 2, 7),
    (ApiKey::DeleteTopics, 1, 6),
    (ApiKey::DeleteRecords, 0, 2),
    (ApiKey::InitProducerId, 0, 4),
    (ApiKey::OffsetForLeaderEpoch, 2, 4),
    (ApiKey::AddPartitionsToTxn, 0, 3),
    (ApiKey::AddOffsetsToTxn, 0, 3),
    (ApiKey::EndTxn, 0, 3),
    (ApiKey::TxnOffsetCommit, 0, 3),
    (ApiKey::DescribeConfigs, 1, 4),
    (ApiKey::AlterConfigs, 0, 2),
    (ApiKey::CreatePartitions, 0, 3),
    (ApiKey::DeleteGroups, 0, 2),
    (ApiKey::IncrementalAlterConfigs, 0, 1),
    (ApiKey::OffsetDelete, 0, 0),
    (ApiKey::DescribeCluster, 0, 1),
];

/// Produce requests before this version carry formats that Kafka 4 does not take either.
const FIRST_PRODUCE: i16 = 3;

/// The APIs that are served.
pub(crate) fn served() -> impl Iterator<Item = ApiKey> {
    SERVED.iter().map(|(api, _, _)| *api)
}

/// The last version of an API in which a topic has no id, as brokers before Kafka 2.8 know it.
const fn last_without_ids(api: ApiKey) -> i16 {
    match api {
        ApiKey::Metadata => 9,
        ApiKey::Fetch => 12,
        ApiKey::CreateTopics => 6,
        ApiKey::DeleteTopics => 5,
        _ => i16::MAX,
    }
}

/// The APIs that a broker with this configuration offers, each with its first and its last version.
fn offered(config: &Config) -> impl Iterator<Item = (ApiKey, i16, i16)> {
    let ids = config.topic_ids;
    SERVED.iter().map(move |&(api, min, max)| (api, min, if ids { max } else { max.min(last_without_ids(api)) }))
}

/// Whether a broker with this configuration serves a version of an API.
pub(crate) fn serves(config: &Config, api: ApiKey, version: i16) -> bool {
    let offered = offered(config).any(|(key, min, max)| key == api && (min..=max).contains(&version));
    offered && (api != ApiKey::Produce || version >= FIRST_PRODUCE)
}

/// One request and where it came from.
pub(crate) struct Call<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: &'a str,
    /// The client's address as Kafka writes it.
    pub(crate) host: &'a str,
    pub(crate) now: Now,
    /// A fault: the error to answer with, in place of doing anything.
    pub(crate) forced: Option<ResponseError>,
    /// A fault: the offset after which no partition ends, as far as the answer says.
    pub(crate) old_end: Option<i64>,
    /// A fault: this broker has not heard of any broker.
    pub(crate) no_brokers: bool,
    /// Wakes the connection's long poll.
    pub(crate) reader: &'a Arc<Notify>,
}

impl Call<'_> {
    /// Whether the request may be carried out; each part of a request asks before it does anything.
    fn permit(&self) -> Result<(), ResponseError> {
        self.forced.map_or(Ok(()), Err)
    }
}

/// What goes back.
pub(crate) enum Answer {
    /// This frame.
    Bytes(Bytes),
    /// Nothing: the client wants no answer.
    Nothing,
    /// Nothing, and the connection is closed.
    Close,
}

/// Carries out a request whose version [`serves`] allows.
pub(crate) async fn answer(call: &Call<'_>, body: &mut Bytes) -> Result<Answer, Broken> {
    /// Decodes a request, hands it to its handler, and encodes what that gives.
    macro_rules! by {
        ($request:ty, $handler:expr) => {{
            let request: $request = decode(call, body)?;
            encode::<$request>(call, &$handler(call, request))
        }};
        ($request:ty, $handler:expr, later) => {{
            let request: $request = decode(call, body)?;
            encode::<$request>(call, &$handler(call, request).await)
        }};
    }
    match call.api {
        ApiKey::Produce => {
            let request: ProduceRequest = decode(call, body)?;
            let silent = request.acks == 0;
            let response = produce::produce(call, request);
            if !silent {
                return encode::<ProduceRequest>(call, &response);
            }
            let failed = response.responses.iter().flat_map(|t| &t.partition_responses).any(|p| p.error_code != 0);
            Ok(if failed { Answer::Close } else { Answer::Nothing })
        }
        ApiKey::Fetch => by!(FetchRequest, fetch::fetch, later),
        ApiKey::ListOffsets => by!(ListOffsetsRequest, offsets::list_offsets),
        ApiKey::OffsetForLeaderEpoch => by!(OffsetForLeaderEpochRequest, offsets::offset_for_leader_epoch),
        ApiKey::OffsetCommit => by!(OffsetCommitRequest, offsets::commit),
        ApiKey::OffsetFetch => by!(OffsetFetchRequest, offsets::fetch),
        ApiKey::OffsetDelete => by!(OffsetDeleteRequest, offsets::delete),
        ApiKey::TxnOffsetCommit => by!(TxnOffsetCommitRequest, offsets::commit_in_transaction),
        ApiKey::Metadata => by!(MetadataRequest, metadata::metadata),
        ApiKey::DescribeCluster => by!(DescribeClusterRequest, metadata::describe_cluster),
        ApiKey::FindCoordinator => by!(FindCoordinatorRequest, metadata::find_coordinator),
        ApiKey::ApiVersions => {
            by!(ApiVersionsRequest, |call: &Call<'_>, _| api_versions(&call.shared.config, call.forced))
        }
        ApiKey::JoinGroup => by!(JoinGroupRequest, groups::join, later),
        ApiKey::SyncGroup => by!(SyncGroupRequest, groups::sync, later),
        ApiKey::Heartbeat => by!(HeartbeatRequest, groups::heartbeat),
        ApiKey::LeaveGroup => by!(LeaveGroupRequest, groups::leave),
        ApiKey::DescribeGroups => by!(DescribeGroupsRequest, groups::describe),
        ApiKey::ListGroups => by!(ListGroupsRequest, groups::list),
        ApiKey::DeleteGroups => by!(DeleteGroupsRequest, groups::delete),
        ApiKey::CreateTopics => by!(CreateTopicsRequest, topics::create),
        ApiKey::DeleteTopics => by!(DeleteTopicsRequest, topics::delete),
        ApiKey::CreatePartitions => by!(CreatePartitionsRequest, topics::create_partitions),
        ApiKey::DeleteRecords => by!(DeleteRecordsRequest, topics::delete_records),
        ApiKey::DescribeConfigs => by!(DescribeConfigsRequest, configs::describe),
        ApiKey::AlterConfigs => by!(AlterConfigsRequest, configs::alter),
        ApiKey::IncrementalAlterConfigs => by!(IncrementalAlterConfigsRequest, configs::alter_incrementally),
        ApiKey::InitProducerId => by!(InitProducerIdRequest, transactions::init_producer_id),
        ApiKey::AddPartitionsToTxn => by!(AddPartitionsToTxnRequest, transactions::add_partitions),
        ApiKey::AddOffsetsToTxn => by!(AddOffsetsToTxnRequest, transactions::add_offsets),
        ApiKey::EndTxn => by!(EndTxnRequest, transactions::end),
        _ => Err(Broken::NotServed { api: call.api as i16, version: call.version }),
    }
}

/// The answer to an `ApiVersions` request newer than the broker: an older client's, which tells the client what to use.
pub(crate) fn step_down(config: &Config, correlation_id: i32) -> Result<Answer, Broken> {
    let response = api_versions(config, Some(ResponseError::UnsupportedVersion));
    frame::<ApiVersionsRequest>(ApiKey::ApiVersions, 0, correlation_id, &response)
}

fn api_versions(config: &Config, error: Option<ResponseError>) -> ApiVersionsResponse {
    let range = |(api, min, max): (ApiKey, i16, i16)| {
        ApiVersion::default().with_api_key(api as i16).with_min_version(min).with_max_version(max)
    };
    ApiVersionsResponse::default()
        .with_error_code(error.map_or(0, |e| e.code()))
        .with_api_keys(offered(config).map(range).collect())
}

fn decode<R: Decodable>(call: &Call<'_>, body: &mut Bytes) -> Result<R, Broken> {
    R::decode(body, call.version).map_err(|source| Broken::Decode { api: call.api, version: call.version, source })
}

fn encode<R: Request>(call: &Call<'_>, response: &R::Response) -> Result<Answer, Broken> {
    frame::<R>(call.api, call.version, call.correlation_id, response)
}

fn frame<R: Request>(api: ApiKey, version: i16, correlation_id: i32, response: &R::Response) -> Result<Answer, Broken> {
    let failed = |source| Broken::Encode { api, version, source };
    let header = ResponseHeader::default().with_correlation_id(correlation_id);
    let room = 16 + response.compute_size(version).map_err(failed)?;
    let mut bytes = BytesMut::with_capacity(room);
    bytes.put_i32(0);
    header.encode(&mut bytes, R::Response::header_version(version)).map_err(failed)?;
    response.encode(&mut bytes, version).map_err(failed)?;
    let length = (bytes.len() - 4) as i32;
    bytes[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Answer::Bytes(bytes.freeze()))
}

/// The code that stands for a result.
fn code<T>(result: &Result<T, ResponseError>) -> i16 {
    result.as_ref().err().map_or(0, ResponseError::code)
}

/// A string to send.
fn text(string: impl Into<String>) -> StrBytes {
    StrBytes::from_string(string.into())
}

/// A topic's name to send.
fn topic_name(name: impl Into<String>) -> TopicName {
    TopicName(text(name))
}

#[cfg(test)]
mod tests;
