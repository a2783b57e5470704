//! The bytes of small objects (records of journals, manifests): one header line, then JSON.
//!
//! ```text
//! fluvial journal 1 5d41402a        <- kind, version of the format, crc32 of the rest in hexadecimal
//! {"incarnation":"…",…}
//! ```
//!
//! People can read them with `tail -n +2 FILE | jq`.

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// A kind of small object and the newest version of it that this code writes and reads.
#[derive(Clone, Copy, Debug)]
pub struct Format {
    /// The kind, as the header names it.
    pub kind: &'static str,
    /// The version, as the header gives it.
    pub version: u32,
}

/// The reason for which an object is refused. The caller adds the name of the object.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The object does not begin with a header of this kind.
    #[error(
        "it is damaged or was not written by fluvial: it does not begin like a {expected} object; restore it from a \
         copy of the store"
    )]
    Foreign {
        /// The kind that was expected.
        expected: &'static str,
    },
    /// The object was written by a newer binary.
    #[error(
        "its format is version {found}, this binary knows up to {known}: run the binary that wrote it, or a newer one"
    )]
    Newer {
        /// The version of the object's format.
        found: u32,
        /// The newest version that this binary knows.
        known: u32,
    },
    /// The checksum does not match the content.
    #[error("it is damaged: its checksum does not match its content; restore it from a copy of the store")]
    Damaged,
    /// The checksum matches, but the content cannot be parsed.
    #[error("its content cannot be parsed")]
    Content(#[source] serde_json::Error),
}

/// Encodes `content`.
///
/// # Errors
/// The content cannot be encoded as JSON.
pub fn encode<T: Serialize>(format: Format, content: &T) -> Result<Bytes, serde_json::Error> {
    let body = serde_json::to_vec(content)?;
    let mut bytes = format!("fluvial {} {} {:08x}\n", format.kind, format.version, crc32fast::hash(&body)).into_bytes();
    bytes.extend_from_slice(&body);
    Ok(bytes.into())
}

/// Decodes the content of `bytes`.
///
/// # Errors
/// [`FrameError`], if the bytes are not a valid object of this kind.
pub fn decode<T: DeserializeOwned>(format: Format, bytes: &[u8]) -> Result<T, FrameError> {
    let foreign = || FrameError::Foreign { expected: format.kind };
    let end = bytes.iter().position(|&b| b == b'\n').ok_or_else(foreign)?;
    let header = std::str::from_utf8(&bytes[..end]).map_err(|_| foreign())?;
    let mut words = header.split(' ');
    if words.next() != Some("fluvial") || words.next() != Some(format.kind) {
        return Err(foreign());
    }
    let version: u32 = words.next().and_then(|w| w.parse().ok()).filter(|&v| v > 0).ok_or_else(foreign)?;
    if version > format.version {
        return Err(FrameError::Newer { found: version, known: format.version });
    }
    let checksum = words.next().and_then(|w| u32::from_str_radix(w, 16).ok()).ok_or_else(foreign)?;
    let body = &bytes[end + 1..];
    if crc32fast::hash(body) != checksum {
        return Err(FrameError::Damaged);
    }
    serde_json::from_slice(body).map_err(FrameError::Content)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const JOURNAL: Format = Format { kind: "journal", version: 1 };
    const MANIFEST: Format = Format { kind: "manifest", version: 1 };

    #[test]
    fn what_was_written_is_read() {
        let bytes = encode(JOURNAL, &vec![1u64, u64::MAX]).unwrap();
        assert_eq!(decode::<Vec<u64>>(JOURNAL, &bytes).unwrap(), vec![1, u64::MAX]);
    }

    #[test]
    fn every_flipped_bit_is_noticed() {
        let bytes = encode(JOURNAL, &vec![1u64, 2]).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            // A digit of the checksum may change its case; nothing else may pass.
            let passed = decode::<Vec<u64>>(JOURNAL, &damaged).is_ok();
            assert!(!passed || damaged.eq_ignore_ascii_case(&bytes), "bit {bit}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let bytes = encode(MANIFEST, &vec![1u64, 2]).unwrap();
        for length in 0..bytes.len() {
            assert!(decode::<Vec<u64>>(MANIFEST, &bytes[..length]).is_err());
        }
    }

    #[test]
    fn a_newer_version_is_refused_as_such() {
        let bytes = encode(Format { kind: "journal", version: 2 }, &0).unwrap();
        assert!(matches!(decode::<u64>(JOURNAL, &bytes), Err(FrameError::Newer { found: 2, known: 1 })));
    }
}
