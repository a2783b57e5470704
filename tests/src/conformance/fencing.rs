//! One writer for each transactional id: what becomes of the older one, and of one that takes too long.

use std::time::Instant;

use anyhow::{Result, bail};

use super::{Check, Notes, Observations};
use crate::client::{Endpoint, Isolation, Message, PATIENCE, unique};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "a_newer_writer_fences_the_older_and_aborts_what_it_left_open",
        run: fenced,
        expected: &[
            "committed after the newer one's start: ",
            "commit of the older: Fenced fatal",
            "abort of the older: Fenced fatal",
            "commit of the newer: ok",
            "committed: b=2",
        ],
    },
    Check {
        name: "a_fenced_writer_cannot_write_another_record",
        run: fenced_write,
        expected: &["the record: refused", "commit: Fenced fatal", "committed: ", "all: "],
    },
    Check {
        name: "a_writer_that_begins_after_it_was_fenced_changes_nothing",
        run: fenced_idle,
        expected: &["commit of the older: Fenced fatal", "commit of the newer: ok", "committed: b=2"],
    },
    Check {
        name: "a_transaction_that_takes_too_long_is_aborted_and_its_writer_fenced",
        run: timeout,
        expected: &[
            "aborted by the broker: true",
            "commit: Fenced fatal",
            "committed: ",
            "a new writer of the same id: ok",
        ],
    },
    Check {
        name: "writers_of_different_ids_leave_each_other_alone",
        run: independent,
        expected: &["commit of one: ok", "commit of the other: ok", "committed: a=1, b=2"],
    },
];

/// The records without their offsets: how many markers there are before a record is not the same on every broker.
fn pairs(broker: &Endpoint, topic: &str, isolation: Isolation) -> Result<Vec<String>> {
    broker.settle(topic)?;
    let lines = broker.lines(topic, isolation)?;
    Ok(lines.iter().map(|line| line.split_once(' ').map_or("", |(_, pair)| pair).to_owned()).collect())
}

fn fenced(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, id) = (Notes::default(), unique("fenced"), unique("id"));
    broker.create_topic(&topic, 1, &[])?;
    let older = broker.transactional(&id, &[])?;
    older.begin()?;
    older.write(&[Message::text(&topic, 0, "a", "1")])?;
    let newer = broker.transactional(&id, &[])?;
    notes.list("committed after the newer one's start", &pairs(broker, &topic, Isolation::Committed)?);
    notes.result("commit of the older", &older.commit());
    notes.result("abort of the older", &older.abort());
    newer.begin()?;
    newer.write(&[Message::text(&topic, 0, "b", "2")])?;
    notes.result("commit of the newer", &newer.commit());
    notes.list("committed", &pairs(broker, &topic, Isolation::Committed)?);
    notes.all()
}

fn fenced_write(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, id) = (Notes::default(), unique("fenced-write"), unique("id"));
    broker.create_topic(&topic, 1, &[])?;
    let older = broker.transactional(&id, &[])?;
    older.begin()?;
    let _newer = broker.transactional(&id, &[])?;
    // Refused at once or in its delivery report, by how far the client is.
    let refused = match older.send(&Message::text(&topic, 0, "a", "1")) {
        Err(_) => true,
        Ok(()) => older.flush()?.iter().all(Result::is_err),
    };
    notes.note("the record", if refused { "refused" } else { "written" });
    notes.result("commit", &older.commit());
    notes.list("committed", &pairs(broker, &topic, Isolation::Committed)?);
    notes.list("all", &pairs(broker, &topic, Isolation::Uncommitted)?);
    notes.all()
}

fn fenced_idle(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, id) = (Notes::default(), unique("fenced-idle"), unique("id"));
    broker.create_topic(&topic, 1, &[])?;
    let older = broker.transactional(&id, &[])?;
    older.begin()?;
    older.write(&[Message::text(&topic, 0, "never", "0")])?;
    older.abort()?;
    let newer = broker.transactional(&id, &[])?;
    newer.begin()?;
    newer.write(&[Message::text(&topic, 0, "b", "2")])?;
    older.begin()?;
    let _ = older.send(&Message::text(&topic, 0, "a", "1"));
    let _ = older.flush();
    notes.result("commit of the older", &older.commit());
    notes.result("commit of the newer", &newer.commit());
    notes.list("committed", &pairs(broker, &topic, Isolation::Committed)?);
    notes.all()
}

fn timeout(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic, id) = (Notes::default(), unique("timeout"), unique("id"));
    broker.create_topic(&topic, 1, &[])?;
    let short = [("transaction.timeout.ms", "1000"), ("message.timeout.ms", "1000")];
    let writer = broker.transactional(&id, &short)?;
    writer.begin()?;
    writer.write(&[Message::text(&topic, 0, "a", "1")])?;
    let start = Instant::now();
    // The marker of the abort lets the end that a read_committed consumer sees move past the record.
    while broker.watermarks(&topic, 0, Isolation::Committed)?.1 < 2 {
        if start.elapsed() > PATIENCE {
            bail!("a transaction with a time-out of 1 s is still open after {PATIENCE:?}");
        }
        std::thread::park_timeout(std::time::Duration::from_millis(50));
    }
    notes.note("aborted by the broker", true);
    notes.result("commit", &writer.commit());
    notes.list("committed", &pairs(broker, &topic, Isolation::Committed)?);
    let again = broker.transactional(&id, &[]);
    notes.note("a new writer of the same id", again.map_or_else(|error| format!("{error:#}"), |_| "ok".to_owned()));
    notes.all()
}

fn independent(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("independent"));
    broker.create_topic(&topic, 1, &[])?;
    let one = broker.transactional(&unique("id"), &[])?;
    one.begin()?;
    one.write(&[Message::text(&topic, 0, "a", "1")])?;
    let other = broker.transactional(&unique("id"), &[])?;
    other.begin()?;
    other.write(&[Message::text(&topic, 0, "b", "2")])?;
    notes.result("commit of one", &one.commit());
    notes.result("commit of the other", &other.commit());
    notes.list("committed", &pairs(broker, &topic, Isolation::Committed)?);
    notes.all()
}
