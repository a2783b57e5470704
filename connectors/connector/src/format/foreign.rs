//! What bytes that cannot be decoded look like, for the error that says so.

use serde_json::{Map, Value};

/// How many bytes are shown where they are no text.
const BYTES_SHOWN: usize = 16;
/// How many characters of a text are shown.
const CHARACTERS_SHOWN: usize = 64;

/// How formats begin that a topic may hold in place of JSON or text.
const BEGINNINGS: &[(&[u8], &str)] = &[
    (b"\xef\xbb\xbf", "UTF-8 with a byte order mark: write it without"),
    (b"\xff\xfe", "UTF-16: write UTF-8"),
    (b"\xfe\xff", "UTF-16: write UTF-8"),
    (b"\x1f\x8b", "gzip: let the producer's `compression.type` compress, which readers need not know of"),
    (b"\x28\xb5\x2f\xfd", "zstd: let the producer's `compression.type` compress, which readers need not know of"),
    (b"Obj\x01", "an Avro file: give the source a decoder of the job's own"),
    (b"\x03\x00", "the format of AWS Glue's schema registry: give the source a decoder of the job's own"),
    (b"\x03\x05", "the format of AWS Glue's schema registry: give the source a decoder of the job's own"),
];

/// The beginning of the bytes, and which foreign format they look like, if any.
pub(super) fn describe(bytes: &[u8]) -> String {
    let begins = beginning(bytes);
    looks_like(bytes).map_or_else(|| begins.clone(), |format| format!("{begins} (looks like {format})"))
}

/// Text as it stands, anything else in hexadecimal.
fn beginning(bytes: &[u8]) -> String {
    let text =
        std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(|c| !c.is_control() || c.is_whitespace()));
    match text {
        Some(text) if text.chars().nth(CHARACTERS_SHOWN).is_none() => format!("{text:?}"),
        Some(text) => format!("{:?}…", text.chars().take(CHARACTERS_SHOWN).collect::<String>()),
        None => {
            let shown: Vec<_> = bytes.iter().take(BYTES_SHOWN).map(|byte| format!("{byte:02x}")).collect();
            format!("{}{}", shown.join(" "), if bytes.len() > BYTES_SHOWN { " …" } else { "" })
        }
    }
}

fn looks_like(bytes: &[u8]) -> Option<String> {
    if let [0, a, b, c, d, payload @ ..] = bytes {
        let id = u32::from_be_bytes([*a, *b, *c, *d]);
        let format = if payload.first() == Some(&b'{') { "JSON Schema" } else { "Avro, Protobuf or JSON Schema" };
        return Some(format!(
            "{format} in Confluent's wire format, with the schema id {id} of a schema registry: write the topic as plain \
             JSON, or give the source a decoder of the job's own"
        ));
    }
    if let Some((_, format)) = BEGINNINGS.iter().find(|(begin, _)| bytes.starts_with(begin)) {
        return Some((*format).to_owned());
    }
    let Ok(Value::Object(fields)) = serde_json::from_slice(bytes) else { return None };
    let payload = fields.get("payload").filter(|_| fields.contains_key("schema"));
    if is_debezium(&fields) || payload.and_then(Value::as_object).is_some_and(is_debezium) {
        return Some(
            "a change event of Debezium: unwrap it with the transform ExtractNewRecordState, or decode its field `after`"
                .to_owned(),
        );
    }
    payload.map(|_| {
        "Kafka Connect's JSON with schemas: set `schemas.enable=false` of the JsonConverter, or decode its field `payload`"
            .to_owned()
    })
}

fn is_debezium(fields: &Map<String, Value>) -> bool {
    let has = |name: &str| fields.contains_key(name);
    has("op") && has("source") && (has("before") || has("after"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_formats_are_recognised_and_the_first_bytes_shown() {
        let check = |bytes: &[u8], begins: &str, format: Option<&str>| {
            let said = describe(bytes);
            assert!(said.starts_with(begins), "{said}");
            match format {
                Some(format) => assert!(said.contains(&format!("(looks like {format}")), "{said}"),
                None => assert!(!said.contains("looks like"), "{said}"),
            }
        };
        let confluent = "Avro, Protobuf or JSON Schema in Confluent's wire format, with the schema id 42 ";
        check(b"\0\0\0\0\x2a\x02\x06abc", "00 00 00 00 2a 02 06 61 62 63 (", Some(confluent));
        check(
            b"\0\0\0\x01\0{\"a\":1}",
            "00 00 00 01 00 7b 22 ",
            Some("JSON Schema in Confluent's wire format, with the schema id 256 "),
        );
        let event = r#"{"before":null,"after":{"id":1},"source":{"db":"shop"},"op":"c","ts_ms":1}"#;
        check(event.as_bytes(), r#""{\"before\":null,"#, Some("a change event of Debezium"));
        let with_schema = format!(r#"{{"schema":{{}},"payload":{event}}}"#);
        check(with_schema.as_bytes(), r#""{\"schema\""#, Some("a change event of Debezium"));
        check(br#"{"schema":{},"payload":{"id":1}}"#, r#""{\"schema\""#, Some("Kafka Connect's JSON with schemas"));
        check(b"\xef\xbb\xbf{}", "\"\\u{feff}", Some("UTF-8 with a byte order mark"));
        check(b"\x1f\x8b\x08\0", "1f 8b 08 00", Some("gzip"));
        check(b"Obj\x01\x04", "4f 62 6a 01 04", Some("an Avro file"));
        // Of these nothing is said: they may be anything.
        check(br#"{"payload":{"id":1}}"#, r#""{\"payload\""#, None);
        check(br#"{"op":"c","source":"x"}"#, r#""{\"op\""#, None);
        check(b"\0\0\0", "00 00 00", None);
        check(&[b'x'; 100], &format!("\"{}\"…", "x".repeat(64)), None);
        check(&[0xff; 20], &format!("{} …", ["ff"; 16].join(" ")), None);
    }
}
