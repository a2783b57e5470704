//! Consumer groups: who reads what, and offsets that are committed, alone and within a transaction.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Offset, TopicPartitionList};

use super::{Check, Notes, Observations};
use crate::client::{Endpoint, Isolation, Message, PATIENCE, unique};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "the_members_of_a_group_share_the_partitions",
        run: share,
        expected: &[
            "alone: 4",
            "the group: Stable, 1 members",
            "both: 2 2",
            "alone again: 4",
            "committed: 0=3 1=none",
            "a later member begins at: 3",
        ],
    },
    Check {
        name: "offsets_in_a_transaction_count_when_it_commits",
        run: offsets,
        expected: &[
            "put in: ok",
            "while it is open: 0=none 1=none",
            "commit: ok",
            "after the commit: 0=5 1=7",
            "after an abort: 0=5 1=7",
        ],
    },
    Check {
        name: "offsets_of_a_stale_generation_are_refused",
        run: stale,
        expected: &[
            "of a member that has left: UnknownMemberId requires-abort",
            "abort: ok",
            "of the member that is there: ok",
            "commit: ok",
            "committed: 0=9 1=none",
        ],
    },
];

fn member(broker: &Endpoint, group: &str) -> Result<BaseConsumer> {
    let mut config = broker.config();
    config.set("group.id", group).set("enable.auto.commit", "false").set("auto.offset.reset", "earliest");
    config.set("heartbeat.interval.ms", "300").set("session.timeout.ms", "10000");
    config.set("isolation.level", "read_committed");
    config.create().context("create a group's member")
}

/// Polls the members until they have so many partitions.
fn poll_until(members: &[&BaseConsumer], assigned: &[usize]) -> Result<()> {
    let start = Instant::now();
    loop {
        for member in members {
            let _ = member.poll(Duration::from_millis(20));
        }
        let now = members.iter().map(|member| Ok(member.assignment()?.count())).collect::<Result<Vec<_>>>()?;
        if now == assigned {
            return Ok(());
        }
        if start.elapsed() > PATIENCE {
            bail!("the members have {now:?} partitions, not {assigned:?}, after {PATIENCE:?}");
        }
    }
}

fn at(topic: &str, partition: i32, offset: i64) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    Ok(list)
}

/// The committed offsets of partitions 0 and 1: with a member's own client, which waits for offsets in open
/// transactions, or `as_it_is`.
fn committed(broker: &Endpoint, group: &str, topic: &str, as_it_is: bool) -> Result<String> {
    let isolation = if as_it_is { Isolation::Uncommitted } else { Isolation::Committed };
    let mut config = broker.config();
    config.set("group.id", group).set("isolation.level", isolation.name());
    let consumer: BaseConsumer = config.create()?;
    let mut asked = TopicPartitionList::new();
    asked.add_partition_range(topic, 0, 1);
    let found = consumer.committed_offsets(asked, PATIENCE)?;
    let shown = found.elements().into_iter().map(|element| match element.offset() {
        Offset::Offset(offset) => format!("{}={offset}", element.partition()),
        _ => format!("{}=none", element.partition()),
    });
    Ok(shown.collect::<Vec<_>>().join(" "))
}

fn share(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, group) = (Notes::default(), unique("shared"), unique("group"));
    broker.create_topic(&topic, 4, &[])?;
    let keys: Vec<_> = (0..5).map(|number| number.to_string()).collect();
    let records: Vec<_> = keys.iter().map(|key| Message::text(&topic, 0, key, "v")).collect();
    let first = member(broker, &group)?;
    first.subscribe(&[&topic])?;
    poll_until(&[&first], &[4])?;
    notes.note("alone", first.assignment()?.count());
    let groups = first.fetch_group_list(Some(&group), PATIENCE)?;
    let found = groups.groups().first().context("the group is not listed")?;
    notes.note("the group", format!("{}, {} members", found.state(), found.members().len()));
    let second = member(broker, &group)?;
    second.subscribe(&[&topic])?;
    poll_until(&[&first, &second], &[2, 2])?;
    notes.note("both", "2 2");
    drop(second);
    poll_until(&[&first], &[4])?;
    notes.note("alone again", first.assignment()?.count());
    first.commit(&at(&topic, 0, 3)?, CommitMode::Sync)?;
    drop(first);
    notes.note("committed", committed(broker, &group, &topic, false)?);
    broker.writer(&[])?.write(&records)?;
    let later = member(broker, &group)?;
    later.subscribe(&[&topic])?;
    let start = Instant::now();
    let offset = loop {
        match later.poll(Duration::from_millis(100)) {
            Some(message) => break rdkafka::Message::offset(&message?),
            None if start.elapsed() > PATIENCE => bail!("a later member gets no record"),
            None => {}
        }
    };
    notes.note("a later member begins at", offset);
    notes.all()
}

fn offsets(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, group) = (Notes::default(), unique("offsets"), unique("group"));
    broker.create_topic(&topic, 2, &[])?;
    let consumer = member(broker, &group)?;
    let metadata = consumer.group_metadata().context("no group metadata")?;
    let writer = broker.transactional(&unique("id"), &[])?;
    let mut moved = at(&topic, 0, 5)?;
    moved.add_partition_offset(&topic, 1, Offset::Offset(7))?;
    writer.begin()?;
    writer.write(&[Message::text(&topic, 0, "k", "v")])?;
    notes.result("put in", &writer.send_offsets(&moved, &metadata));
    notes.note("while it is open", committed(broker, &group, &topic, true)?);
    notes.result("commit", &writer.commit());
    notes.note("after the commit", committed(broker, &group, &topic, false)?);
    writer.begin()?;
    writer.send_offsets(&at(&topic, 0, 6)?, &metadata)?;
    writer.abort()?;
    notes.note("after an abort", committed(broker, &group, &topic, false)?);
    notes.all()
}

fn stale(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, group) = (Notes::default(), unique("stale"), unique("group"));
    broker.create_topic(&topic, 2, &[])?;
    let gone = member(broker, &group)?;
    gone.subscribe(&[&topic])?;
    poll_until(&[&gone], &[2])?;
    let old = gone.group_metadata().context("no group metadata")?;
    drop(gone);
    let there = member(broker, &group)?;
    there.subscribe(&[&topic])?;
    poll_until(&[&there], &[2])?;
    let writer = broker.transactional(&unique("id"), &[])?;
    writer.begin()?;
    notes.result("of a member that has left", &writer.send_offsets(&at(&topic, 0, 8)?, &old));
    notes.result("abort", &writer.abort());
    let new = there.group_metadata().context("no group metadata")?;
    writer.begin()?;
    notes.result("of the member that is there", &writer.send_offsets(&at(&topic, 0, 9)?, &new));
    notes.result("commit", &writer.commit());
    notes.note("committed", committed(broker, &group, &topic, false)?);
    notes.all()
}
