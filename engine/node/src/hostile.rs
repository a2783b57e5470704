//! Input that nobody meant, for tests of decoders: valid input, changed at random.
//!
//! Whatever a stranger, a job's process, another node or the store sends is decoded or refused. It causes no panic, takes no more memory
//! than a bound, whatever it says of its own length, and no more time than a bound. Each decoder has a test beside its code that hands
//! valid input to [`decode_changed`].
//!
//! The seed is fixed, so that a run of all tests does the same each time. To look for more, with another seed and as many cases as there is
//! time for:
//!
//! ```text
//! PROPTEST_CASES=1000000 PROPTEST_RNG_SEED=$RANDOM cargo test --release -p fluvial-node --lib -- hostile
//! ```

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};

/// How many inputs a decoder gets, if nothing is said.
const CASES: u32 = 400;
/// How long one of them may take: far more than any of them needs, also on a busy machine.
const DECODED_WITHIN: Duration = Duration::from_secs(10);
/// What is written over input or into it: limits of numbers, and what means something in JSON, HTTP and PEM.
const TOKENS: [&[u8]; 22] = [
    &[0xff; 4],
    &[0xff; 8],
    &[0; 8],
    &[0, 0, 0, 0x80],
    &[0xff, 0xff, 0xff, 0x7f],
    b"18446744073709551616",
    b"-1",
    b"1e308",
    b"0",
    b"null",
    b"true",
    b"[[[[[[[[[[[[[[[[[[[[",
    b"{\"a\":{\"a\":{\"a\":",
    b"\"",
    b"\\ud800",
    b"\0",
    b"\n",
    b"\r\n\r\n",
    b"-----BEGIN ",
    b"..",
    b"\xc3\x28",
    b",",
];

/// A change of an input.
#[derive(Clone, Debug)]
enum Change {
    Flip(Index, u8),
    Write(Index, &'static [u8]),
    Insert(Index, &'static [u8]),
    Noise(Index, Vec<u8>),
    Cut(Index),
    Remove(Index, usize),
    Repeat(Index, usize, usize),
    /// What follows comes from another valid input.
    Join(Index, Index, Index),
    /// Another number stands where one was.
    Number(Index, &'static [u8]),
}

fn changes() -> impl Strategy<Value = Vec<Change>> {
    let at = any::<Index>;
    let token = || select(TOKENS.to_vec());
    let change = prop_oneof![
        (at(), 0..8_u8).prop_map(|(at, bit)| Change::Flip(at, bit)),
        (at(), token()).prop_map(|(at, token)| Change::Write(at, token)),
        (at(), token()).prop_map(|(at, token)| Change::Insert(at, token)),
        (at(), vec(any::<u8>(), 1..40)).prop_map(|(at, noise)| Change::Noise(at, noise)),
        at().prop_map(Change::Cut),
        (at(), 1..100_usize).prop_map(|(at, length)| Change::Remove(at, length)),
        (at(), 1..60_usize, 2..200_usize).prop_map(|(at, length, times)| Change::Repeat(at, length, times)),
        (at(), at(), at()).prop_map(|(at, other, from)| Change::Join(at, other, from)),
        (at(), select(TOKENS[5..9].to_vec())).prop_map(|(at, number)| Change::Number(at, number)),
    ];
    vec(change, 0..6)
}

fn apply(change: &Change, to: &mut Vec<u8>, valid: &[Vec<u8>]) {
    if to.is_empty() {
        return;
    }
    let whole = to.len();
    match change {
        Change::Flip(at, bit) => to[at.index(whole)] ^= 1 << bit,
        Change::Write(at, token) => {
            let at = at.index(whole);
            to.splice(at..whole.min(at + token.len()), token.iter().copied());
        }
        Change::Insert(at, token) => drop(to.splice(at.index(whole)..at.index(whole), token.iter().copied())),
        Change::Noise(at, noise) => drop(to.splice(at.index(whole)..at.index(whole), noise.iter().copied())),
        Change::Cut(at) => to.truncate(at.index(whole)),
        Change::Remove(at, length) => drop(to.drain(at.index(whole)..whole.min(at.index(whole) + length))),
        Change::Repeat(at, length, times) => {
            let at = at.index(whole);
            let part = to[at..whole.min(at + length)].repeat(*times);
            to.splice(at..at, part);
        }
        Change::Join(at, other, from) => {
            let other = &valid[other.index(valid.len())];
            to.truncate(at.index(whole));
            to.extend(other.iter().skip(from.index(other.len().max(1))));
        }
        Change::Number(at, number) => {
            let from = at.index(whole);
            if let Some(begin) = (from..whole).find(|at| to[*at].is_ascii_digit()) {
                let end = (begin..whole).find(|at| !to[*at].is_ascii_digit()).unwrap_or(whole);
                to.splice(begin..end, number.iter().copied());
            }
        }
    }
}

/// Hands changed input to a decoder, which may hold `most_bytes` of memory at a time.
#[track_caller]
pub(crate) fn decode_changed(valid: &[Vec<u8>], most_bytes: u64, decode: impl Fn(&[u8])) {
    let environment = Config::default();
    let given = |name| std::env::var_os(name).is_some();
    let config = Config {
        cases: if given("PROPTEST_CASES") { environment.cases } else { CASES },
        rng_seed: if given("PROPTEST_RNG_SEED") { environment.rng_seed } else { RngSeed::Fixed(14) },
        failure_persistence: None,
        ..environment
    };
    let valid_one = (any::<Index>(), changes());
    let ran = TestRunner::new(config).run(&valid_one, |(which, changes)| {
        let mut input = valid[which.index(valid.len())].clone();
        changes.iter().for_each(|change| apply(change, &mut input, valid));
        within_bounds(most_bytes, || decode(&input))
            .map_err(|why| TestCaseError::fail(format!("{why}: {}", String::from_utf8_lossy(&input))))
    });
    if let Err(failed) = ran {
        panic!("{failed}");
    }
}

/// Runs a decoder, and says which bound it has not kept.
pub(crate) fn within_bounds(most_bytes: u64, decode: impl FnOnce()) -> Result<(), String> {
    let begun = Instant::now();
    let mut ended = Ok(());
    // A panic must not pass through the counter, which would count for good.
    let took = allocation_counter::measure(|| ended = catch_unwind(AssertUnwindSafe(decode)));
    if let Err(panic) = ended {
        let said = panic.downcast_ref::<String>().map(String::as_str).or(panic.downcast_ref::<&str>().copied());
        return Err(format!("it has panicked: {}", said.unwrap_or_default()));
    }
    if took.bytes_max > most_bytes {
        return Err(format!("it has taken {} bytes of memory, and may take {most_bytes}", took.bytes_max));
    }
    let elapsed = begun.elapsed();
    if elapsed > DECODED_WITHIN { Err(format!("it has taken {elapsed:?}")) } else { Ok(()) }
}

mod tests {
    #![allow(clippy::unwrap_used)]

    use fluvial_protocol::Savepoint;
    use fluvial_protocol::group::GroupRecord;
    use fluvial_protocol::journal::JournalRecord;
    use fluvial_store::frame::{Format, decode, encode};
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    use super::*;
    use crate::access::{AuditEntry, Role, Token, TokenRecord};
    use crate::group::Specification;
    use crate::labels::parse_label;
    use crate::logs::Positions;
    use crate::status::{Graph, Report, View, made_up};
    use crate::trust::{AttemptAuthority, ClusterKey, MeshCertificate, of_users};

    const MANY: u64 = 16 << 20;

    #[test]
    fn hostile_changes_reach_every_decoder_with_valid_and_with_broken_input() {
        let (whole, broken) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        decode_changed(&[br#"{"a":[1,2,3],"b":"text"}"#.to_vec()], MANY, |input| {
            let of = if serde_json::from_slice::<serde_json::Value>(input).is_ok() { &whole } else { &broken };
            of.set(of.get() + 1);
        });
        assert!(whole.get() > 20 && broken.get() > 20, "{} {}", whole.get(), broken.get());
    }

    /// The bounds that every other test here relies on.
    #[test]
    fn hostile_input_that_takes_too_much_memory_or_panics_is_found() {
        let believes_a_length = |input: &[u8]| {
            let length = input.first_chunk().map_or(0, |length| u32::from_le_bytes(*length));
            drop(std::hint::black_box(vec![0_u8; length as usize % (64 << 20)]));
        };
        let found = |decode: &dyn Fn(&[u8])| {
            catch_unwind(AssertUnwindSafe(|| decode_changed(&[vec![1, 0, 0, 0, 7]], MANY, decode)))
        };
        let memory = *found(&believes_a_length).unwrap_err().downcast::<String>().unwrap();
        assert!(memory.contains("bytes of memory, and may take"), "{memory}");
        assert!(found(&|input: &[u8]| assert!(!input.contains(&0xff))).is_err());
        found(&|_: &[u8]| ()).unwrap();
    }

    /// An object of the store, and its content alone: a change of the object is found by its checksum.
    fn in_the_store<T: Serialize + DeserializeOwned>(kind: &'static str, valid: &[T]) {
        let format = Format { kind, version: 9 };
        let framed: Vec<_> = valid.iter().map(|valid| encode(format, valid).unwrap().to_vec()).collect();
        framed.iter().for_each(|bytes| drop(decode::<T>(format, bytes).unwrap()));
        decode_changed(&framed, MANY, |bytes| drop(decode::<T>(format, bytes)));
        let content: Vec<_> = valid.iter().map(|valid| serde_json::to_vec(valid).unwrap()).collect();
        decode_changed(&content, MANY, |content| drop(serde_json::from_slice::<T>(content)));
    }

    #[test]
    fn hostile_objects_in_the_store_are_decoded_or_refused() {
        in_the_store::<GroupRecord>("group", &[made_up::record()]);
        let specification = Specification { job: "orders".into(), arguments: vec!["--x".into()], ..Default::default() };
        in_the_store("specification", &[specification]);
        let (name, by) = ("anna".to_owned(), "the cluster key".to_owned());
        let token = TokenRecord { name, role: Role::Viewer, created_ms: 1, expires_ms: Some(2), by: by.clone() };
        in_the_store("token", &[token]);
        let (method, path, node) = ("POST".to_owned(), "/v1/jobs".to_owned(), "a:1".to_owned());
        in_the_store("audit", &[AuditEntry { at_ms: 1, by, method, path, status: 200, node }]);
        let graph = r#"{"nodes":[{"id":"source:a","name":"a","kind":"source","stateful":false}],"edges":[{"from":"a","to":"a"}]}"#;
        in_the_store::<Graph>("graph", &[serde_json::from_str(graph).unwrap()]);
        let record = r#"{"incarnation":"00000000-0000-0000-0000-000000000001","generation":3,"nonce":7,"entries":[
            {"opened":{"program":"p","workers":2,"processes":1,"turns":2}},
            {"checkpoint":{"tick":10,"manifest":"m","floor":1}}]}"#;
        in_the_store::<JournalRecord>("journal", &[serde_json::from_str(record).unwrap()]);
        let savepoint = r#"{"name":"a","taken_ms":1,"checkpoint":"c","manifest":{
            "incarnation":"00000000-0000-0000-0000-000000000001","generation":3,"program":"p","tick":10,"splits":[],"sinks":[],
            "outputs":[],"operators":[{"name":"counts","kind":{"operator":"aggregate","schema":"s"},"keys":1,
            "files":[{"object":"o","rows":1,"bytes":2,"crc32":7}]}],"most_slots":1,"most_turns":2}}"#;
        in_the_store::<Savepoint>("savepoint", &[serde_json::from_str(savepoint).unwrap()]);
    }

    #[test]
    fn hostile_views_and_reports_of_other_nodes_are_decoded_or_refused() {
        let view = made_up::view();
        let report = Report::of_store("orders".to_owned(), String::new(), None);
        decode_changed(&[serde_json::to_vec(&view).unwrap()], MANY, |input| {
            drop(serde_json::from_slice::<View>(input))
        });
        decode_changed(&[serde_json::to_vec(&report).unwrap()], MANY, |input| {
            drop(serde_json::from_slice::<Report>(input));
        });
    }

    #[test]
    fn hostile_texts_of_tokens_keys_positions_and_labels_are_read_or_refused() {
        let texts =
            [Token::random().to_text(), ClusterKey::new().to_text(), "3.0.7_3.1.9".to_owned(), "zone=a".to_owned()];
        decode_changed(&texts.map(String::into_bytes), MANY, |input| {
            let text = String::from_utf8_lossy(input);
            drop(text.parse::<Token>());
            drop(text.parse::<crate::secret::Secret>());
            // What is read is written as a text that is read again.
            if let Ok(positions) = text.parse::<Positions>() {
                assert_eq!(positions.to_string().parse(), Ok(positions));
            }
            drop(parse_label(&text));
            drop(crate::check_job_name(&text));
        });
    }

    #[test]
    fn hostile_certificates_and_keys_are_read_or_refused() {
        let key = ClusterKey::new();
        let pem = of_users::to_pem(&[key.authority()]).into_bytes();
        decode_changed(&[pem], MANY, |input| {
            let Ok(found) = of_users::certificates(&String::from_utf8_lossy(input)) else { return };
            drop(of_users::client(&found));
            drop(of_users::authority_of(&found, "127.0.0.1:1"));
        });
        let mesh = serde_json::to_vec(&AttemptAuthority::new().certificate(1)).unwrap();
        decode_changed(&[mesh], MANY, |input| {
            drop(serde_json::from_slice::<MeshCertificate>(input).map(|certificate| certificate.tls()));
        });
        let der = key.authority().to_vec();
        decode_changed(&[der], MANY, |input| {
            let certificate = rustls::pki_types::CertificateDer::from(input.to_vec());
            assert!(!MeshCertificate::is_of(&certificate, 1));
        });
    }
}
