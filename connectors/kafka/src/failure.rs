//! What Kafka's errors mean for the engine.

use fluvial_connector::{CommitError, Error, ErrorKind, Offset, describe_offsets};

use crate::native::Code;

/// An error with the kind that its code has; `what` names operation and object.
pub(crate) fn error(code: Code, what: impl Into<String>) -> Error {
    Error::caused(kind(code), what, code)
}

/// Whether the error passes by itself, so that a bounded wait is worth while.
pub(crate) fn passes(code: Code) -> bool {
    kind(code) == ErrorKind::Retry
}

/// Whether the code says that something is unknown to whoever answered, be it librdkafka or a broker. That is not to say
/// that it does not exist: what the metadata of the cluster says decides.
pub(crate) fn is_unknown(code: Code) -> bool {
    use Code::{UnknownPartition, UnknownTopic, UnknownTopicId, UnknownTopicOrPartition};
    matches!(code, UnknownPartition | UnknownTopic | UnknownTopicId | UnknownTopicOrPartition)
}

/// The metadata of the cluster has said again and again that there is no such object.
pub(crate) fn missing(object: &str, brokers: &str) -> Error {
    let what = format!("{object} does not exist on {brokers}: create it, or check its name");
    Error::new(ErrorKind::Configuration, what)
}

/// The cluster has answered, and something of it stayed unavailable; `what` says what, and why. There is no code in it:
/// whoever reads it must not be told that the cluster cannot be reached.
pub(crate) fn unavailable(what: impl Into<String>) -> Error {
    Error::new(ErrorKind::Retry, what)
}

/// What the caller should do.
pub(crate) fn kind(code: Code) -> ErrorKind {
    match code {
        Code::BrokerTransportFailure
        | Code::AllBrokersDown
        | Code::OperationTimedOut
        | Code::TimedOutQueue
        | Code::MessageTimedOut
        | Code::RequestTimedOut
        | Code::Resolve
        | Code::WaitingForCoordinator
        | Code::WaitCache
        | Code::InProgress
        | Code::PreviousInProgress
        | Code::Retry
        | Code::Outdated
        | Code::UnknownBroker
        | Code::LeaderNotAvailable
        | Code::OffsetNotAvailable
        | Code::NotLeaderForPartition
        | Code::BrokerNotAvailable
        | Code::ReplicaNotAvailable
        | Code::NetworkException
        | Code::CoordinatorLoadInProgress
        | Code::CoordinatorNotAvailable
        | Code::NotCoordinator
        | Code::NotController
        | Code::NotEnoughReplicas
        | Code::NotEnoughReplicasAfterAppend
        | Code::ConcurrentTransactions
        | Code::KafkaStorageError
        | Code::FencedLeaderEpoch
        | Code::UnknownLeaderEpoch
        | Code::StaleBrokerEpoch
        | Code::BrokerDestroy
        | Code::DestroyBroker
        // Not to be believed: see `is_unknown`.
        | Code::UnknownPartition
        | Code::UnknownTopic
        | Code::UnknownTopicId
        | Code::UnknownTopicOrPartition => ErrorKind::Retry,
        Code::Fenced | Code::InvalidProducerEpoch | Code::ProducerFenced => ErrorKind::Fenced,
        Code::Authentication
        | Code::SaslAuthenticationFailed
        | Code::UnsupportedSASLMechanism
        | Code::IllegalSASLState
        | Code::SecurityDisabled
        | Code::SSL
        | Code::TopicAuthorizationFailed
        | Code::GroupAuthorizationFailed
        | Code::ClusterAuthorizationFailed
        | Code::TransactionalIdAuthorizationFailed
        | Code::InvalidTopic
        | Code::InvalidPartitions
        | Code::InvalidReplicationFactor
        | Code::InvalidConfig
        | Code::InvalidTransactionTimeout
        | Code::InvalidTimestamp
        | Code::PolicyViolation
        | Code::UnsupportedVersion
        | Code::UnsupportedFeature
        | Code::UnsupportedForMessageFormat
        | Code::UnsupportedCompressionType
        | Code::MessageSizeTooLarge
        | Code::MessageBatchTooLarge
        | Code::InvalidRecord
        | Code::CriticalSystemResource
        | Code::NotConfigured => ErrorKind::Configuration,
        Code::AutoOffsetReset | Code::OffsetOutOfRange | Code::LogTruncation => ErrorKind::Data,
        Code::InvalidArgument | Code::State | Code::Conflict | Code::NotImplemented => ErrorKind::Bug,
        _ => ErrorKind::Restart,
    }
}

/// Whether the cluster refused the client before it had asked for anything.
pub(crate) fn is_not_let_in(code: Code) -> bool {
    matches!(
        code,
        Code::Authentication
            | Code::SaslAuthenticationFailed
            | Code::UnsupportedSASLMechanism
            | Code::IllegalSASLState
            | Code::SSL
    )
}

/// Whether a code says that a newer producer has taken over, or that the cluster gave this one up.
///
/// An unknown mapping is one of them: the id may since belong to a zombie, so no new epoch may be asked for.
fn gave_up(code: Code) -> bool {
    kind(code) == ErrorKind::Fenced || code == Code::InvalidProducerIdMapping
}

/// Whether a transaction that fails with this code would fail again and again.
fn refuses(code: Code) -> bool {
    kind(code) == ErrorKind::Configuration
}

/// What a failed step of a transaction means; `what` names operation and object.
pub(crate) fn commit(code: Code, what: impl Into<String>) -> CommitError {
    let error = error(code, what);
    if gave_up(code) {
        CommitError::Fenced(error)
    } else if refuses(code) {
        CommitError::Refused(error)
    } else {
        CommitError::Unknown(error)
    }
}

/// What a person can do about a partition that stays unreadable from the offset `from` on, which is where the oldest open
/// transaction begins: Kafka 4.3 may forget one when the last broker of a partition dies (KAFKA-20734). What lies before
/// the offset `committed` is committed as far as the job knows.
pub(crate) fn how_to_end_a_hanging_transaction(topic: &str, partition: u32, from: u64, committed: u64) -> String {
    let follows = if from < committed {
        format!(
            "if the transaction is this job's own, records that the job has committed at {} are aborted with it: \
             then start the job with --reconcile, which writes the rows of an upsert output again (an append output \
             loses them for good)",
            describe_offsets(Offset(from), Offset(committed))
        )
    } else {
        "the job then writes the transaction's records again".to_owned()
    };
    format!(
        ". If this does not change, the partition has an open transaction that its coordinator has forgotten \
         (KAFKA-20734): `kafka-transactions.sh find-hanging --topic {topic} --partition {partition} \
         --max-transaction-timeout 1` shows it; stop the job and end the transaction with `kafka-transactions.sh \
         abort --topic {topic} --partition {partition} --start-offset {from}`; {follows}"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_producer_id_counts_as_fenced() {
        assert!(matches!(commit(Code::InvalidProducerIdMapping, "x"), CommitError::Fenced(_)));
        assert!(matches!(commit(Code::Fenced, "x"), CommitError::Fenced(_)));
    }

    #[test]
    fn an_outage_leaves_the_outcome_unknown() {
        let outages = [Code::BrokerTransportFailure, Code::MessageTimedOut, Code::OperationTimedOut, Code::Fatal];
        let unknown = [Code::UnknownPartition, Code::UnknownTopic, Code::UnknownTopicOrPartition];
        for code in outages.into_iter().chain(unknown) {
            assert!(matches!(commit(code, "x"), CommitError::Unknown(_)), "{code:?}");
        }
    }

    #[test]
    fn a_record_that_is_too_large_is_refused() {
        assert!(matches!(commit(Code::MessageSizeTooLarge, "x"), CommitError::Refused(_)));
    }
}
