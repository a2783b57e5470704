//! Each check of the conformance kit finds a connector that breaks its contract, and passes one that does not.
#![allow(clippy::unwrap_used)]

mod model;
mod sink;
mod source;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fluvial_connector::conformance::{self, Check};
use model::Bug;

/// How long a check waits in vain on a broken connector.
const SHORT: Duration = Duration::from_secs(2);

/// How long a check may wait on a connector that is right.
const LONG: Duration = Duration::from_secs(30);

/// Which check finds which bug, and a part of what it says.
type Finding = (Bug, &'static str, &'static str);

const OF_A_SOURCE: &[Finding] = &[
    (Bug::DescribesNoSplit, "an_input_and_its_splits_can_be_described", "does not name split 'left'"),
    (Bug::MissingInputIsRetried, "an_input_that_does_not_exist_is_a_configuration_error", "Configuration"),
    (Bug::EndIsTheLastRecord, "splits_tell_where_they_begin_and_end", "is not after the last record"),
    (Bug::StatusCountsEverything, "splits_tell_where_they_begin_and_end", "although nothing was appended to it"),
    (Bug::AbsentValueIsEmpty, "reading_again_from_any_offset_gives_equal_records", "not read as they were appended"),
    (Bug::TextOnly, "reading_again_from_any_offset_gives_equal_records", "not read as they were appended"),
    (Bug::SourceOfItsOwn, "reading_again_from_any_offset_gives_equal_records", "a second reader reads something else"),
    (Bug::OffsetsCountFromTheStart, "reading_again_from_any_offset_gives_equal_records", "the records are others"),
    (Bug::NewestFirst, "offsets_ascend_within_a_split", "comes after offset"),
    (Bug::IgnoresMost, "poll_hands_out_no_more_than_it_was_asked_for", "asked for 1 records and handed out 40"),
    (Bug::CountsTooMany, "poll_hands_out_no_more_than_it_was_asked_for", "poll returns how many"),
    (Bug::PollWaits, "poll_does_not_wait", "did not return within"),
    (Bug::NoWaker, "the_waker_is_called_for_records_that_come_after_an_empty_poll", "the waker was not called"),
    (Bug::WakesOnce, "the_waker_is_called_for_records_that_come_after_an_empty_poll", "the waker was not called"),
    (
        Bug::WakesForTheFirstSplitOnly,
        "the_waker_is_called_for_records_that_come_after_an_empty_poll",
        "the waker was not called",
    ),
    (Bug::NoWakerOnCommit, "the_waker_is_called_when_a_transaction_commits", "the waker was not called"),
    (Bug::DeliversOpen, "only_committed_records_are_delivered", "more records than were appended"),
    (Bug::DeliversAborted, "only_committed_records_are_delivered", "more records than were appended"),
    (Bug::OpenMovesTheEnd, "only_committed_records_are_delivered", "moved the end"),
    (Bug::DeliversParts, "a_partly_written_record_is_not_delivered", "more records than were appended"),
    (Bug::SkipsParts, "a_partly_written_record_is_not_delivered", "where the record begins"),
    (Bug::SkipsWhatIsGone, "an_offset_that_is_gone_is_a_data_error", "records were delivered"),
    (Bug::GoneIsRetried, "an_offset_that_is_gone_is_a_data_error", "Data"),
    (Bug::GoneNamesNothing, "an_offset_that_is_gone_is_a_data_error", "does not name 'right'"),
    (Bug::WaitsBeyondTheEnd, "an_offset_beyond_the_end_is_a_data_error", "no error came"),
    (Bug::PositionIsTheLastRecord, "reading_goes_on_from_the_position", "is not past the record"),
    (Bug::PositionAheadOfDelivery, "reading_goes_on_from_the_position", "has its start as its position"),
    (Bug::PositionStopsAtMarkers, "the_position_passes_what_is_never_delivered", "the position reaches the end"),
    (Bug::IgnoresPause, "a_paused_split_delivers_nothing_until_it_is_resumed", "a paused split delivered records"),
    (Bug::DropsWhatIsPaused, "a_paused_split_delivers_nothing_until_it_is_resumed", "of a paused split moved"),
    (Bug::StartsOnce, "a_split_can_be_started_again", "the position of a split that was started again"),
    (Bug::OneSlotForAll, "several_splits_of_one_reader_come_as_their_slots", "in its middle"),
    (Bug::AnySplitExists, "a_split_that_does_not_exist_delivers_nothing", "does not exist, and delivered"),
    (Bug::OnlyTheNewestReaderIsWoken, "readers_on_several_threads_are_woken_each", "did not read"),
    (Bug::UnavailableIsAnError, "an_unavailable_split_holds_up_no_other", "an input that exists has splits"),
    (Bug::UnavailableHoldsUpOthers, "an_unavailable_split_holds_up_no_other", "the waker was not called"),
    (Bug::InputKeepsItsIdentity, "a_recreated_input_has_another_identity", "before and after"),
    (Bug::ReportsAcknowledge, "reporting_committed_positions_changes_nothing", "a report changed what can be read"),
];

const OF_A_SINK: &[Finding] = &[
    (Bug::PartitionOutOfRange, "every_key_has_its_partition", "has partition"),
    (Bug::PartitionOfCalls, "every_key_has_its_partition", "changed its partition"),
    (Bug::IdentityOfEachValue, "sinks_of_one_system_have_one_identity", "different identities"),
    (Bug::ConnectCreatesNothing, "connecting_creates_what_is_missing", "is missing in"),
    (Bug::LookCreates, "looking_creates_nothing", "a look has changed what exists"),
    (Bug::ConnectEmpties, "a_reopened_sink_has_everything_that_was_committed", "a second session sees something else"),
    (
        Bug::ProgressOfTheSession,
        "a_reopened_sink_has_everything_that_was_committed",
        "a second session sees something else",
    ),
    (Bug::OneProgressForAllJobs, "jobs_do_not_share_progress", "has the progress of another"),
    (Bug::ProgressOfTheProcess, "the_processes_of_a_job_share_its_progress", "has another progress"),
    (Bug::WaitsStay, "a_call_that_returned_waits_for_nothing", "after prepare"),
    (Bug::NamesNoOutput, "an_output_that_is_read_as_an_input_names_its_sink", "the output's name"),
    (Bug::LosesUpdates, "several_threads_share_a_session", "two threads committed at once"),
    (Bug::OutputKeepsItsIdentity, "an_output_that_is_recreated_has_another_identity", "before and after"),
    (Bug::NamesItself, "other_jobs_that_write_an_output_are_named", "named as another writer"),
    (Bug::FenceLeavesOpen, "fencing_aborts_what_was_left_open", "an open transaction holds it up"),
    (Bug::FenceCommits, "fencing_aborts_what_was_left_open", "records of an aborted transaction are seen"),
    (Bug::OldWriterPrepares, "a_fenced_writer_can_neither_prepare_nor_commit", "prepare of an older writer"),
    (Bug::OldWriterCommits, "a_fenced_writer_can_neither_prepare_nor_commit", "commit of an older writer"),
    (Bug::FencedIsUnknown, "a_fenced_writer_can_neither_prepare_nor_commit", "must be fenced"),
    (Bug::FencesTheSessionOnly, "fencing_reaches_other_sessions_and_threads", "another session has fenced"),
    (Bug::FencesAllWriters, "fencing_leaves_other_writers_alone", "disturbed another writer"),
    (Bug::ProgressWaitsForEver, "progress_is_seen_while_another_transaction_is_open", "did not return within"),
    (
        Bug::ProgressAsOfTheOpenTransaction,
        "progress_is_seen_while_another_transaction_is_open",
        "progress while another transaction is open",
    ),
    (Bug::ProgressOfTheGreatestSlot, "the_newest_progress_wins_whichever_writer_wrote_it", "progress by slot 0"),
    (Bug::ReadStopsAtOpen, "records_are_seen_behind_an_open_transaction", "committed behind an open transaction"),
    (Bug::ReadWaitsForEver, "records_are_seen_behind_an_open_transaction", "did not return within"),
    (Bug::PartitionsInTheirOwnOrder, "several_partitions_are_read_side_by_side", "with others beside it"),
    (Bug::SkipsTheFirstRecord, "an_output_can_be_read_from_any_offset", "read from offset"),
    (Bug::ReadsNothingFromTheMiddle, "an_output_can_be_read_from_any_offset", "read from offset"),
    (Bug::AbortedIsNotTold, "an_aborted_record_before_the_offset_is_told", "does not say that the records before"),
    (Bug::BeginsAtItsEnd, "several_partitions_are_read_side_by_side", "is said to begin at"),
    (Bug::EndIsTheLastOutputRecord, "the_end_is_between_earlier_and_later_records", "is not after the last record"),
    (Bug::EndBeforeOpen, "the_end_is_between_earlier_and_later_records", "differ"),
    (Bug::RecordsBeforeTheCommit, "what_is_prepared_is_invisible", "records are seen before the commit"),
    (Bug::ProgressBeforeTheCommit, "what_is_prepared_is_invisible", "progress is seen before the commit"),
    (Bug::ProgressOfTheFirstWrite, "records_and_progress_are_committed_in_one_step", "each partition has progress"),
    (Bug::ProgressAfterTheRecords, "an_observer_never_sees_one_without_the_other", "and progress says"),
    (Bug::EndsInOrderOfPartitions, "ends_come_in_the_order_of_the_writes", "is after that of"),
    (Bug::DeletionIsEmpty, "every_record_is_read_back_as_it_was_written", "not read back as they were written"),
    (Bug::FirstPartOnly, "every_record_is_read_back_as_it_was_written", "not read back as they were written"),
    (Bug::LargeTransactionsInDisorder, "many_records_keep_their_order", "did not come back in their order"),
    (Bug::OneGeneration, "progress_says_what_was_written", "who wrote"),
    (Bug::DigestOf64Bits, "progress_says_what_was_written", "the digest and the end"),
    (Bug::OneEndForAllTicks, "progress_says_what_was_written", "read from the end"),
    (Bug::TicksAreComplete, "a_tick_may_be_committed_in_parts", "of a part of a tick"),
    (Bug::NoProgressWithoutRecords, "progress_may_come_without_records", "progress without records"),
    (Bug::EarlierTicksAreDropped, "earlier_ticks_come_first", "earlier ticks, and then the own"),
    (Bug::BeginsWhereItEnds, "earlier_ticks_come_first", "the begin that the write says"),
    (Bug::OneTurn, "writers_take_turns", "prepared"),
    (Bug::DropWaits, "a_writer_that_is_dropped_is_gone_at_once", "dropping a writer with an open transaction took"),
    (
        Bug::CrashBetweenRecordsAndProgress,
        "a_crash_leaves_all_of_a_transaction_or_nothing",
        "before step 1 of the commit: the tick that",
    ),
    (
        Bug::PreparedIsCommittedByReopening,
        "a_crash_leaves_all_of_a_transaction_or_nothing",
        "was committed that was only prepared",
    ),
    (Bug::CommitForgottenByReopening, "a_crash_leaves_all_of_a_transaction_or_nothing", "before step 1 of the commit"),
];

/// How many broken connectors are checked at once; most of the time is waiting.
const AT_ONCE: usize = 8;

/// Every bug is found by the check that it is for, which says why; and every check finds some bug.
fn each_is_found<S: 'static>(checks: &[Check<S>], findings: &[Finding], broken: impl Fn(Bug) -> S + Sync) {
    let all: BTreeSet<_> = checks.iter().map(|check| check.name).collect();
    let proven: BTreeSet<_> = findings.iter().map(|(_, check, _)| *check).collect();
    assert_eq!(all, proven, "each check is shown to find a bug");
    let (next, missed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..AT_ONCE {
            threads.spawn(|| {
                while let Some((bug, name, says)) = findings.get(next.fetch_add(1, Ordering::SeqCst)) {
                    let check = checks.iter().find(|check| check.name == *name).unwrap();
                    match check.run(&mut broken(*bug)) {
                        Err(said) if said.contains(says) => {}
                        other => missed.lock().unwrap().push(format!("{bug:?} by {name}, which found {other:?}")),
                    }
                }
            });
        }
    });
    let missed = missed.into_inner().unwrap();
    assert!(missed.is_empty(), "these were not found:\n{}", missed.join("\n"));
}

#[test]
fn each_broken_source_is_found_by_the_check_for_what_it_breaks() {
    each_is_found(&conformance::source::checks(), OF_A_SOURCE, |bug| source::Input::new(Some(bug), SHORT));
}

#[test]
fn each_broken_sink_is_found_by_the_check_for_what_it_breaks() {
    each_is_found(&conformance::sink::checks(), OF_A_SINK, |bug| sink::Outputs::new(Some(bug), SHORT));
}

#[test]
fn a_source_that_is_right_passes_all_checks() {
    let report = conformance::source::all(|| source::Input::new(None, LONG));
    assert_eq!(report.skipped, [""; 0]);
}

#[test]
fn a_sink_that_is_right_passes_all_checks() {
    let report = conformance::sink::all(|| sink::Outputs::new(None, LONG));
    assert_eq!(report.skipped, [""; 0]);
}

#[test]
#[should_panic(expected = "poll_does_not_wait: the poll of a split without records")]
fn all_names_the_checks_that_failed() {
    conformance::source::all(|| source::Input::new(Some(Bug::PollWaits), Duration::from_millis(500)));
}
