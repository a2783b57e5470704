//! Which timestamps a topic takes, and Kafka's words where it does not (its `LogValidator`).

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::records::RecordBatchDecoder;

use super::batch::Header;
use super::settings::Settings;

/// A record without a timestamp, which every topic takes.
const NONE: i64 = -1;

/// The records of a batch whose timestamps the topic does not take at this time: their places in the batch, and why. The
/// records are looked at only where the batch's header says that there is such a one.
///
/// # Errors
///
/// `CORRUPT_MESSAGE` for records that cannot be decoded.
pub(crate) fn refused(
    settings: &Settings,
    header: &Header,
    bytes: &Bytes,
    now_ms: i64,
) -> Result<Vec<(i32, String)>, ResponseError> {
    let (before, after) = settings.timestamp_limits_ms();
    let is_refused = |timestamp: i64| {
        timestamp != NONE && (now_ms.saturating_sub(timestamp) > before || timestamp.saturating_sub(now_ms) > after)
    };
    if !is_refused(header.base_timestamp) && !is_refused(header.max_timestamp) {
        return Ok(Vec::new());
    }
    let (from, to) = (now_ms.wrapping_sub(before), now_ms.wrapping_add(after));
    let why = |offset: i64, timestamp: i64| {
        format!(
            "Timestamp {timestamp} of message with offset {offset} is out of range. The timestamp should be within \
             [{from}, {to}]"
        )
    };
    let set = RecordBatchDecoder::decode(&mut bytes.clone()).map_err(|_| ResponseError::CorruptMessage)?;
    let records = (0..).zip(&set.records).filter(|(_, record)| is_refused(record.timestamp));
    Ok(records.map(|(place, record)| (place, why(record.offset, record.timestamp))).collect())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::state::batch::samples::plain;
    use crate::state::settings::Change;

    #[test]
    fn a_timestamp_is_refused_that_is_too_far_from_the_clock() {
        // All of them have the timestamp 1000.
        let (header, bytes) = plain(2);
        let mut settings = Settings::default();
        let at = |settings: &Settings, now_ms| refused(settings, &header, &bytes, now_ms).unwrap();
        assert!(at(&settings, 1_000 - 3_600_000).is_empty());
        let early = at(&settings, 999 - 3_600_000);
        assert_eq!((early.len(), early[1].0), (2, 1));
        assert!(early[1].1.starts_with("Timestamp 1000 of message with offset 0 is out of range."), "{early:?}");
        assert!(early[1].1.ends_with(", 999]"), "{early:?}");
        assert!(at(&settings, i64::MAX).is_empty());
        settings.change("message.timestamp.before.max.ms", Change::Set, Some("5")).unwrap();
        assert!(at(&settings, 1_005).is_empty());
        assert!(at(&settings, 1_006)[0].1.ends_with("should be within [1001, 3601006]"));
    }
}
