//! Topics, their settings and partitions, and what becomes of old records.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use rdkafka::Offset;
use rdkafka::consumer::Consumer as _;

use super::{Check, Notes, Observations};
use crate::client::{Endpoint, Isolation, Message, PATIENCE, code, unique};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "a_topic_is_made_once_and_removed_once",
        run: made_once,
        expected: &[
            "create: ok",
            "create again: TopicAlreadyExists",
            "without partitions: InvalidPartitions",
            "with a name that is not allowed: InvalidTopic",
            "partitions: 3",
            "remove: ok",
            "remove again: UnknownTopicOrPartition",
            "recreated, its records: 0/0 b=2",
        ],
    },
    Check {
        name: "settings_are_kept_shown_and_replaced",
        run: settings,
        expected: &[
            "given: cleanup.policy=compact retention.ms=1234567 max.message.bytes=1048588",
            "replace: ok",
            "replaced: cleanup.policy=delete retention.ms=7654321 max.message.bytes=1048588",
            "after a wrong value: cleanup.policy=delete retention.ms=7654321 max.message.bytes=1048588",
            "of an unknown topic: 0",
        ],
    },
    Check {
        name: "partitions_can_be_added_and_never_taken_away",
        run: partitions,
        expected: &["to three: ok", "to two: InvalidPartitions", "partitions: 3", "records: 0/0 a=1, 2/0 b=2"],
    },
    Check {
        name: "deleted_records_are_gone_and_their_offsets_stay",
        run: delete_records,
        expected: &[
            "delete before 6: 6",
            "delete before 4: 6",
            "delete beyond the end: OffsetOutOfRange",
            "first and end: 6 10",
            "records: 0/6 k6=v, 0/7 k7=v, 0/8 k8=v, 0/9 k9=v",
            "delete all: 10",
            "first and end: 10 10",
        ],
    },
    Check {
        name: "an_offset_that_is_gone_or_not_yet_there_is_an_error",
        run: lost_offsets,
        expected: &["gone: AutoOffsetReset", "beyond the end: AutoOffsetReset", "at the end: nothing"],
    },
    Check {
        name: "offsets_are_found_by_time",
        run: times,
        expected: &["at 0: 0", "at 1500: 1", "at 3000: 2", "at 3001: end"],
    },
    Check {
        name: "unknown_topics_and_partitions_are_errors",
        run: unknown,
        expected: &[
            "partitions of an unknown topic: 0",
            "produce to an unknown topic: UnknownTopicOrPartition",
            "produce to an unknown partition: UnknownPartition",
            "consume an unknown partition: UnknownPartition",
        ],
    },
];

pub(crate) const COMPACTION: Check = Check {
    name: "compaction_keeps_the_newest_record_of_each_key",
    run: compaction,
    expected: &["keys in the compacted part, each once: true", "the newest of each key is there: true"],
};

fn made_once(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("topic"));
    notes.note("create", broker.try_create_topic(&topic, 3, &[])?);
    broker.wait_for_partitions(&topic, 3)?;
    notes.note("create again", broker.try_create_topic(&topic, 3, &[])?);
    notes.note("without partitions", broker.try_create_topic(&unique("none"), 0, &[])?);
    notes.note("with a name that is not allowed", broker.try_create_topic("two words", 1, &[])?);
    notes.note("partitions", broker.partitions(&topic)?);
    broker.writer(&[])?.write(&[Message::text(&topic, 0, "a", "1")])?;
    notes.note("remove", broker.delete_topic(&topic)?);
    broker.wait_for_partitions(&topic, 0)?;
    notes.note("remove again", broker.delete_topic(&topic)?);
    broker.create_topic(&topic, 1, &[])?;
    broker.writer(&[])?.write(&[Message::text(&topic, 0, "b", "2")])?;
    notes.list("recreated, its records", &broker.lines(&topic, Isolation::Committed)?);
    notes.all()
}

fn settings(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("settings"));
    let shown = || -> Result<String> {
        let all = broker.topic_settings(&topic)?;
        let some = ["cleanup.policy", "retention.ms", "max.message.bytes"];
        let some = some.map(|name| format!("{name}={}", all.get(name).map_or("?", String::as_str)));
        Ok(some.join(" "))
    };
    broker.create_topic(&topic, 1, &[("cleanup.policy", "compact"), ("retention.ms", "1234567")])?;
    notes.note("given", shown()?);
    notes.note("replace", broker.alter_topic(&topic, &[("retention.ms", "7654321")])?);
    // A broker may answer before each of its parts has heard of the change.
    let start = Instant::now();
    while !shown()?.contains("7654321") && start.elapsed() < PATIENCE {}
    notes.note("replaced", shown()?);
    // rdkafka drops the error that the broker answers with: what can be seen is that nothing has changed.
    broker.alter_topic(&topic, &[("retention.ms", "long")])?;
    notes.note("after a wrong value", shown()?);
    notes.note("of an unknown topic", broker.topic_settings(&unique("nowhere"))?.len());
    notes.all()
}

fn partitions(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("growing"));
    broker.create_topic(&topic, 1, &[])?;
    broker.writer(&[])?.write(&[Message::text(&topic, 0, "a", "1")])?;
    notes.note("to three", broker.add_partitions(&topic, 3)?);
    broker.wait_for_partitions(&topic, 3)?;
    notes.note("to two", broker.add_partitions(&topic, 2)?);
    notes.note("partitions", broker.partitions(&topic)?);
    broker.writer(&[])?.write(&[Message::text(&topic, 2, "b", "2")])?;
    notes.list("records", &broker.lines(&topic, Isolation::Committed)?);
    notes.all()
}

fn write_ten(broker: &Endpoint, topic: &str) -> Result<()> {
    broker.create_topic(topic, 1, &[])?;
    let keys: Vec<_> = (0..10).map(|number| format!("k{number}")).collect();
    broker.writer(&[])?.write(&keys.iter().map(|key| Message::text(topic, 0, key, "v")).collect::<Vec<_>>())
}

fn delete_records(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("deleted"));
    write_ten(broker, &topic)?;
    let ends = || broker.watermarks(&topic, 0, Isolation::Uncommitted).map(|(low, high)| format!("{low} {high}"));
    notes.note("delete before 6", broker.delete_records(&topic, 0, Offset::Offset(6))?);
    notes.note("delete before 4", broker.delete_records(&topic, 0, Offset::Offset(4))?);
    notes.note("delete beyond the end", broker.delete_records(&topic, 0, Offset::Offset(11))?);
    notes.note("first and end", ends()?);
    notes.list("records", &broker.lines(&topic, Isolation::Committed)?);
    notes.note("delete all", broker.delete_records(&topic, 0, Offset::End)?);
    notes.note("first and end", ends()?);
    notes.all()
}

fn lost_offsets(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("lost"));
    write_ten(broker, &topic)?;
    broker.delete_records(&topic, 0, Offset::Offset(5))?;
    let mut look = |what: &str, from: i64| {
        let seen = broker.read_from(&topic, Isolation::Committed, &[(0, Offset::Offset(from))]);
        let seen = match seen {
            Ok(records) if records.is_empty() => "nothing".to_owned(),
            Ok(records) => records[0].line(),
            Err(error) => match error.downcast_ref::<rdkafka::error::KafkaError>() {
                Some(error) => code(error),
                None => error.to_string(),
            },
        };
        notes.note(what, seen);
    };
    look("gone", 2);
    look("beyond the end", 100);
    look("at the end", 10);
    notes.all()
}

fn times(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("times"));
    // Records as old as these would be removed at once by the default retention.
    broker.create_topic(&topic, 1, &[("retention.ms", "-1")])?;
    let records =
        [1_000, 2_000, 3_000].map(|at| Message { timestamp_ms: Some(at), ..Message::text(&topic, 0, "k", "v") });
    broker.writer(&[])?.write(&records)?;
    let consumer = broker.reader(Isolation::Uncommitted)?;
    for at in [0, 1_500, 3_000, 3_001] {
        let mut times = rdkafka::TopicPartitionList::new();
        times.add_partition_offset(&topic, 0, Offset::Offset(at))?;
        let found = consumer.offsets_for_times(times, PATIENCE)?;
        let seen = match found.find_partition(&topic, 0).map(|element| element.offset()) {
            Some(Offset::Offset(offset)) => offset.to_string(),
            Some(Offset::End) => "end".to_owned(),
            other => format!("{other:?}"),
        };
        notes.note(&format!("at {at}"), seen);
    }
    notes.all()
}

fn unknown(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("known"));
    broker.create_topic(&topic, 1, &[])?;
    let nowhere = unique("nowhere");
    notes.note("partitions of an unknown topic", broker.partitions(&nowhere)?);
    let impatient = [("topic.metadata.propagation.max.ms", "500"), ("message.timeout.ms", "20000")];
    for (what, topic, partition) in [("topic", &nowhere, 0), ("partition", &topic, 7)] {
        let writer = broker.writer(&impatient)?;
        let seen = match writer.send(&Message::text(topic, partition, "k", "v")) {
            Err(error) => code(&error),
            Ok(()) => match writer.flush()?.pop() {
                Some(Err(code)) => code,
                other => format!("{other:?}"),
            },
        };
        notes.note(&format!("produce to an unknown {what}"), seen);
    }
    let consumer = broker.reader(Isolation::Committed)?;
    let mut assignment = rdkafka::TopicPartitionList::new();
    assignment.add_partition_offset(&topic, 7, Offset::Beginning)?;
    consumer.assign(&assignment)?;
    match consumer.poll(PATIENCE) {
        Some(Err(error)) => notes.note("consume an unknown partition", code(&error)),
        other => notes.note("consume an unknown partition", format!("{:?}", other.is_some())),
    }
    notes.all()
}

fn compaction(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("compacted"));
    let settings = [
        ("cleanup.policy", "compact"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("segment.ms", "100"),
        ("segment.bytes", "1048576"),
        ("delete.retention.ms", "100"),
    ];
    broker.create_topic(&topic, 1, &settings)?;
    let writer = broker.writer(&[])?;
    let start = Instant::now();
    let mut round = 0;
    // Each round begins a segment, which lets the cleaner at those before it; until it has been there.
    loop {
        round += 1;
        let value = round.to_string();
        let keys: Vec<_> = (0..10).map(|key| format!("k{key}")).collect();
        writer.write(&keys.iter().map(|key| Message::text(&topic, 0, key, &value)).collect::<Vec<_>>())?;
        let seen = broker.read(&topic, Isolation::Committed)?;
        let newest = seen.iter().filter(|record| record.value.as_deref() == Some(value.as_bytes())).count();
        if seen.len() < 10 * round as usize {
            // The oldest records that are left are those that the cleaner has kept: each key once.
            let mut first: Vec<_> = seen.iter().take(10).map(|record| record.key.clone()).collect();
            first.sort();
            first.dedup();
            notes.note("keys in the compacted part, each once", first.len() == 10);
            notes.note("the newest of each key is there", newest == 10);
            return notes.all();
        }
        if start.elapsed() > Duration::from_secs(90) {
            bail!("nothing was compacted in {round} rounds");
        }
        std::thread::park_timeout(Duration::from_millis(150));
    }
}
