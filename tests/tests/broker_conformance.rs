//! Apache Kafka and the embedded broker do the same, and what they must.
#![allow(clippy::unwrap_used)]

use std::sync::OnceLock;

use fluvial_kafka_embedded::{Broker, Config};
use fluvial_tests::apache::ApacheKafka;
use fluvial_tests::client::Endpoint;
use fluvial_tests::conformance::{ALL, APACHE_ONLY, Check, Observations};

fn find(checks: &'static [&'static [Check]], name: &str) -> &'static Check {
    checks.iter().copied().flatten().find(|check| check.name == name).unwrap()
}

fn observe(check: &Check, broker: &str, bootstrap: &str) -> Observations {
    match (check.run)(&Endpoint::new(bootstrap)) {
        Ok(seen) => seen,
        Err(error) => panic!("{} on {broker}: {error:#}", check.name),
    }
}

/// The embedded broker that all checks share, as they share Apache Kafka.
fn embedded() -> String {
    static SHARED: OnceLock<Broker> = OnceLock::new();
    SHARED.get_or_init(|| Broker::start(Config::default()).unwrap()).bootstrap()
}

macro_rules! on_apache_kafka {
    ($($name:ident)*) => { $(
        #[test]
        fn $name() {
            let check = find(&[APACHE_ONLY], stringify!($name));
            let seen = observe(check, "Apache Kafka", ApacheKafka::shared().bootstrap());
            assert_eq!(seen, check.expected);
        }
    )* };
}

macro_rules! on_both {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                let check = find(ALL, stringify!($name));
                let (apache, embedded) = std::thread::scope(|both| {
                    // Most of a check is waiting.
                    let embedded = both.spawn(|| observe(check, "the embedded broker", &embedded()));
                    let apache = observe(check, "Apache Kafka", ApacheKafka::shared().bootstrap());
                    (apache, embedded.join().unwrap())
                });
                assert_eq!(apache, check.expected, "Apache Kafka");
                assert_eq!(embedded, apache, "the embedded broker does not do what Apache Kafka does");
            }
        )*
        #[test]
        fn every_check_is_run() {
            let run = [$(stringify!($name)),*];
            let all: Vec<_> = ALL.iter().copied().flatten().map(|check| check.name).collect();
            assert_eq!(run.as_slice(), all);
        }
    };
}

on_apache_kafka! {
    compaction_keeps_the_newest_record_of_each_key
}

on_both! {
    a_topic_is_made_once_and_removed_once
    settings_are_kept_shown_and_replaced
    partitions_can_be_added_and_never_taken_away
    deleted_records_are_gone_and_their_offsets_stay
    an_offset_that_is_gone_or_not_yet_there_is_an_error
    offsets_are_found_by_time
    unknown_topics_and_partitions_are_errors
    an_idempotent_producer_writes_each_record_once_and_in_order
    a_record_keeps_key_value_headers_and_time
    every_codec_is_read_back
    a_record_of_5_mb_passes_where_the_topic_allows_it
    a_transaction_is_visible_when_it_has_committed
    an_aborted_transaction_is_never_visible
    an_open_transaction_holds_back_what_comes_after_it
    of_two_interleaved_transactions_only_the_committed_one_is_visible
    a_transaction_over_several_topics_is_one_step
    an_empty_transaction_commits_and_aborts
    a_refused_record_is_cured_by_an_abort
    a_hundred_transactions_in_a_row_leave_nothing_behind
    a_newer_writer_fences_the_older_and_aborts_what_it_left_open
    a_fenced_writer_cannot_write_another_record
    a_writer_that_begins_after_it_was_fenced_changes_nothing
    a_transaction_that_takes_too_long_is_aborted_and_its_writer_fenced
    writers_of_different_ids_leave_each_other_alone
    the_members_of_a_group_share_the_partitions
    offsets_in_a_transaction_count_when_it_commits
    offsets_of_a_stale_generation_are_refused
}
