//! Single records: what they carry, how large they may be, and that none comes twice.

use anyhow::{Context, Result};

use super::{Check, Notes, Observations};
use crate::client::{Endpoint, Isolation, Message, unique};

pub(crate) const CHECKS: &[Check] = &[
    Check {
        name: "an_idempotent_producer_writes_each_record_once_and_in_order",
        run: idempotent,
        expected: &["deliveries: 3000 in order: true", "read: 3000 in order: true", "first and end: 0 3000"],
    },
    Check {
        name: "a_record_keeps_key_value_headers_and_time",
        run: whole,
        expected: &[
            "0: key k value v at 1790000000000 headers a=1 a=2 b=",
            "1: key null value v at 1790000000001 headers",
            "2: key k value null at 1790000000002 headers",
            "3: key  value  at 1790000000003 headers",
        ],
    },
    Check {
        name: "every_codec_is_read_back",
        run: codecs,
        expected: &["none: 200", "gzip: 200", "snappy: 200", "lz4: 200", "zstd: 200"],
    },
    Check {
        name: "a_record_of_5_mb_passes_where_the_topic_allows_it",
        run: large,
        expected: &["5 MB where 6 MB are allowed: equal", "5 MB where 1 MB is allowed: MessageSizeTooLarge"],
    },
];

fn idempotent(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("idempotent"));
    broker.create_topic(&topic, 1, &[])?;
    // Small batches, five under way: many requests whose sequence numbers must fit.
    let writer = broker.writer(&[("batch.num.messages", "20"), ("linger.ms", "0")])?;
    let numbers: Vec<_> = (0..3_000).map(|number| number.to_string()).collect();
    for number in &numbers {
        writer.send(&Message::text(&topic, 0, "k", number))?;
    }
    let delivered = writer.flush()?;
    let strayed = delivered.iter().enumerate().find(|(at, delivered)| **delivered != Ok((0, *at as i64)));
    let in_order = strayed.map_or_else(|| "true".to_owned(), |(at, other)| format!("not at {at}: {other:?}"));
    notes.note("deliveries", format!("{} in order: {in_order}", delivered.len()));
    let seen = broker.read(&topic, Isolation::Committed)?;
    let in_order = seen.iter().zip(&numbers).all(|(seen, number)| seen.value.as_deref() == Some(number.as_bytes()));
    notes.note("read", format!("{} in order: {in_order}", seen.len()));
    let (low, high) = broker.watermarks(&topic, 0, Isolation::Uncommitted)?;
    notes.note("first and end", format!("{low} {high}"));
    notes.all()
}

fn whole(broker: &Endpoint) -> Result<Observations> {
    let (mut notes, topic) = (Notes::default(), unique("whole"));
    broker.create_topic(&topic, 1, &[])?;
    let headers: &[(&str, &[u8])] = &[("a", b"1"), ("a", b"2"), ("b", b"")];
    let at =
        |offset: i64| Message { timestamp_ms: Some(1_790_000_000_000 + offset), ..Message::text(&topic, 0, "k", "v") };
    let records = [
        Message { headers, ..at(0) },
        Message { key: None, ..at(1) },
        Message { value: None, ..at(2) },
        Message { key: Some(b""), value: Some(b""), ..at(3) },
    ];
    broker.writer(&[])?.write(&records)?;
    for seen in broker.read(&topic, Isolation::Committed)? {
        let text = |bytes: &Option<Vec<u8>>| match bytes {
            Some(bytes) => String::from_utf8_lossy(bytes).into_owned(),
            None => "null".to_owned(),
        };
        let headers = seen.headers.iter().map(|(name, value)| format!(" {name}={}", text(value)));
        let (key, value, time) = (text(&seen.key), text(&seen.value), seen.timestamp_ms.unwrap_or(-1));
        let line = format!("key {key} value {value} at {time} headers{}", headers.collect::<String>());
        notes.note(&seen.offset.to_string(), line);
    }
    notes.all()
}

fn codecs(broker: &Endpoint) -> Result<Observations> {
    let mut notes = Notes::default();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = unique(codec);
        broker.create_topic(&topic, 1, &[])?;
        let values: Vec<_> = (0..200).map(|number| format!("a value that compresses well {number:>100}")).collect();
        let writer = broker.writer(&[("compression.codec", codec), ("linger.ms", "50")])?;
        writer.write(&values.iter().map(|value| Message::text(&topic, 0, "k", value)).collect::<Vec<_>>())?;
        let seen = broker.read(&topic, Isolation::Committed)?;
        let right = seen.iter().zip(&values).filter(|(seen, v)| seen.value.as_deref() == Some(v.as_bytes()));
        notes.note(codec, right.count());
    }
    notes.all()
}

fn large(broker: &Endpoint) -> Result<Observations> {
    let mut notes = Notes::default();
    // Bytes that no codec makes smaller, from a multiplicative generator.
    let mut state = 1_u64;
    let value: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 56) as u8
    })
    .take(5 << 20)
    .collect();
    let allowed = unique("large");
    broker.create_topic(&allowed, 1, &[("max.message.bytes", "6291456")])?;
    let refused = unique("small");
    broker.create_topic(&refused, 1, &[])?;
    let writer = broker.writer(&[("message.max.bytes", "8000000")])?;
    writer.write(&[Message { value: Some(&value), ..Message::text(&allowed, 0, "k", "") }])?;
    let seen = broker.read(&allowed, Isolation::Committed)?;
    let equal = seen.len() == 1 && seen[0].value.as_deref() == Some(&value);
    notes.note("5 MB where 6 MB are allowed", if equal { "equal" } else { "different" });
    writer.send(&Message { value: Some(&value), ..Message::text(&refused, 0, "k", "") })?;
    let answer = writer.flush()?.pop().context("no answer")?;
    notes.note("5 MB where 1 MB is allowed", answer.map_or_else(|code| code, |at| format!("{at:?}")));
    notes.all()
}
