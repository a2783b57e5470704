//! Transactions that commit and abort: what a reader sees, and when.

use anyhow::Result;

use super::{Check, Notes, Observations};
use crate::client::{Endpoint, Isolation, Message, unique};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "a_transaction_is_visible_when_it_has_committed",
        run: commit,
        expected: &[
            "committed, while it is open: ",
            "all, while it is open: 0/0 a=1, 1/0 b=2",
            "commit: ok",
            "committed: 0/0 a=1, 1/0 b=2",
            "the record after the marker: 0/0 a=1, 0/2 c=3, 1/0 b=2",
        ],
    },
    Check {
        name: "an_aborted_transaction_is_never_visible",
        run: abort,
        expected: &[
            "abort: ok",
            "committed: ",
            "all: 0/0 a=1, 0/1 b=2",
            "commit of the next: ok",
            "committed: 0/3 c=3",
        ],
    },
    Check {
        name: "an_open_transaction_holds_back_what_comes_after_it",
        run: last_stable_offset,
        expected: &[
            "end for read_committed: 1",
            "end for read_uncommitted: 3",
            "committed, while it is open: 0/0 before=0",
            "committed, after its end: 0/0 before=0, 0/1 in=1, 0/2 after=2",
            "end for read_committed: 4",
        ],
    },
    Check {
        name: "of_two_interleaved_transactions_only_the_committed_one_is_visible",
        run: interleaved,
        expected: &[
            "committed, one aborted and one open: ",
            "committed, both ended: 0/1 kept0=v, 0/3 kept1=v, 0/5 kept2=v",
            "all: 6",
            "end: 8",
        ],
    },
    Check {
        name: "a_transaction_over_several_topics_is_one_step",
        run: several_topics,
        expected: &["committed: 0 0 0", "committed after the commit: 20 20 20", "after an abort: 20 20 20"],
    },
    Check {
        name: "an_empty_transaction_commits_and_aborts",
        run: empty,
        expected: &["commit: ok", "abort: ok", "commit without begin: State", "begin twice: State"],
    },
    Check {
        name: "a_refused_record_is_cured_by_an_abort",
        run: refused_record,
        expected: &[
            "the record: MessageSizeTooLarge",
            "commit: MessageSizeTooLarge requires-abort",
            "abort: ok",
            "commit of the next: ok",
            "committed: 0/0 b=2",
        ],
    },
    Check {
        name: "a_hundred_transactions_in_a_row_leave_nothing_behind",
        run: many,
        expected: &["committed: 50", "in order: true"],
    },
];

fn commit(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("commit"));
    broker.create_topic(&topic, 2, &[])?;
    let writer = broker.transactional(&unique("id"), &[])?;
    writer.begin()?;
    writer.write(&[Message::text(&topic, 0, "a", "1"), Message::text(&topic, 1, "b", "2")])?;
    notes.list("committed, while it is open", &broker.lines(&topic, Isolation::Committed)?);
    notes.list("all, while it is open", &broker.lines(&topic, Isolation::Uncommitted)?);
    notes.result("commit", &writer.commit());
    broker.settle(&topic)?;
    notes.list("committed", &broker.lines(&topic, Isolation::Committed)?);
    broker.writer(&[])?.write(&[Message::text(&topic, 0, "c", "3")])?;
    notes.list("the record after the marker", &broker.lines(&topic, Isolation::Committed)?);
    notes.all()
}

fn abort(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("abort"));
    broker.create_topic(&topic, 1, &[])?;
    let writer = broker.transactional(&unique("id"), &[])?;
    writer.begin()?;
    writer.write(&[Message::text(&topic, 0, "a", "1"), Message::text(&topic, 0, "b", "2")])?;
    notes.result("abort", &writer.abort());
    broker.settle(&topic)?;
    notes.list("committed", &broker.lines(&topic, Isolation::Committed)?);
    notes.list("all", &broker.lines(&topic, Isolation::Uncommitted)?);
    writer.begin()?;
    writer.write(&[Message::text(&topic, 0, "c", "3")])?;
    notes.result("commit of the next", &writer.commit());
    broker.settle(&topic)?;
    notes.list("committed", &broker.lines(&topic, Isolation::Committed)?);
    notes.all()
}

fn last_stable_offset(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("stable"));
    broker.create_topic(&topic, 1, &[])?;
    let plain = broker.writer(&[])?;
    plain.write(&[Message::text(&topic, 0, "before", "0")])?;
    let writer = broker.transactional(&unique("id"), &[])?;
    writer.begin()?;
    writer.write(&[Message::text(&topic, 0, "in", "1")])?;
    plain.write(&[Message::text(&topic, 0, "after", "2")])?;
    let end = |isolation| broker.watermarks(&topic, 0, isolation).map(|(_, high)| high);
    notes.note("end for read_committed", end(Isolation::Committed)?);
    notes.note("end for read_uncommitted", end(Isolation::Uncommitted)?);
    notes.list("committed, while it is open", &broker.lines(&topic, Isolation::Committed)?);
    writer.commit()?;
    broker.settle(&topic)?;
    notes.list("committed, after its end", &broker.lines(&topic, Isolation::Committed)?);
    notes.note("end for read_committed", end(Isolation::Committed)?);
    notes.all()
}

fn interleaved(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("interleaved"));
    broker.create_topic(&topic, 1, &[])?;
    let (dropped, kept) = (broker.transactional(&unique("id"), &[])?, broker.transactional(&unique("id"), &[])?);
    dropped.begin()?;
    kept.begin()?;
    for number in 0..3 {
        dropped.write(&[Message::text(&topic, 0, &format!("dropped{number}"), "v")])?;
        kept.write(&[Message::text(&topic, 0, &format!("kept{number}"), "v")])?;
    }
    dropped.abort()?;
    notes.list("committed, one aborted and one open", &broker.lines(&topic, Isolation::Committed)?);
    kept.commit()?;
    broker.settle(&topic)?;
    notes.list("committed, both ended", &broker.lines(&topic, Isolation::Committed)?);
    notes.note("all", broker.read(&topic, Isolation::Uncommitted)?.len());
    notes.note("end", broker.watermarks(&topic, 0, Isolation::Committed)?.1);
    notes.all()
}

fn several_topics(broker: &Endpoint) -> Result<Observations> {
    let mut notes = Notes::default();
    let topics = [unique("one"), unique("two"), unique("three")];
    for topic in &topics {
        broker.create_topic(topic, 4, &[])?;
    }
    let counts = || -> Result<String> {
        let counts = topics.iter().map(|topic| Ok(broker.read(topic, Isolation::Committed)?.len().to_string()));
        Ok(counts.collect::<Result<Vec<_>>>()?.join(" "))
    };
    let writer = broker.transactional(&unique("id"), &[])?;
    let write = || -> Result<()> {
        writer.begin()?;
        let all = topics.iter().flat_map(|topic| (0..20).map(move |n| Message::text(topic, n % 4, "k", "v")));
        writer.write(&all.collect::<Vec<_>>())
    };
    write()?;
    notes.note("committed", counts()?);
    writer.commit()?;
    topics.iter().try_for_each(|topic| broker.settle(topic))?;
    notes.note("committed after the commit", counts()?);
    write()?;
    writer.abort()?;
    notes.note("after an abort", counts()?);
    notes.all()
}

fn empty(broker: &Endpoint) -> Result<Observations> {
    let mut notes = Notes::default();
    let writer = broker.transactional(&unique("id"), &[])?;
    writer.begin()?;
    notes.result("commit", &writer.commit());
    writer.begin()?;
    notes.result("abort", &writer.abort());
    notes.result("commit without begin", &writer.commit());
    writer.begin()?;
    notes.result("begin twice", &writer.begin());
    notes.all()
}

fn refused_record(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, small) = (Notes::default(), unique("refused"), unique("small"));
    broker.create_topic(&topic, 1, &[])?;
    broker.create_topic(&small, 1, &[("max.message.bytes", "1000")])?;
    let writer = broker.transactional(&unique("id"), &[])?;
    writer.begin()?;
    writer.send(&Message::text(&small, 0, "a", &"x".repeat(10_000)))?;
    let answer = writer.flush()?.pop();
    notes.note("the record", answer.and_then(Result::err).unwrap_or_else(|| "written".to_owned()));
    notes.result("commit", &writer.commit());
    broker.settle(&topic)?;
    notes.result("abort", &writer.abort());
    broker.settle(&topic)?;
    writer.begin()?;
    writer.write(&[Message::text(&topic, 0, "b", "2")])?;
    notes.result("commit of the next", &writer.commit());
    broker.settle(&topic)?;
    notes.list("committed", &broker.lines(&topic, Isolation::Committed)?);
    notes.all()
}

fn many(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("many"));
    broker.create_topic(&topic, 1, &[])?;
    let writer = broker.transactional(&unique("id"), &[])?;
    for number in 0..100 {
        writer.begin()?;
        writer.send(&Message::text(&topic, 0, "k", &number.to_string()))?;
        if number % 2 == 0 {
            writer.flush()?;
            writer.commit()?;
        } else {
            writer.abort()?;
        }
    }
    broker.settle(&topic)?;
    let seen = broker.read(&topic, Isolation::Committed)?;
    notes.note("committed", seen.len());
    let numbers: Vec<_> = seen.iter().filter_map(|record| record.value.clone()).collect();
    let expected: Vec<_> = (0..50).map(|number| (number * 2).to_string().into_bytes()).collect();
    notes.note("in order", numbers == expected);
    notes.all()
}
