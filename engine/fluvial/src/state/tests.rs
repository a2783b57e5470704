//! State files: what is written is read, by any number of workers, merged or not; what is damaged is refused.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use fluvial_connector::{ErrorKind, Tick};
use fluvial_protocol::manifest::{OperatorKind, OperatorState, StateFile};
use fluvial_store::Store;
use object_store::memory::InMemory;
use object_store::{ObjectStore, ObjectStoreExt};
use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::hash_owner;
use super::rows::{HashRange, Part, encode_keyed, encode_plain, plain_parts, read_keyed};
use super::{RowSchema, StateError, StateStore, merge, merge_due};
use fluvial_node::job_store::JobStore;

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Group {
    region: String,
    product: Option<u16>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Totals {
    orders: u64,
    revenue_cents: i64,
}

type Rows = Vec<(Group, Option<Totals>)>;

/// `None` is a key that is gone.
fn part<K, V>(all: impl IntoIterator<Item = (K, Option<V>)>) -> Part<K, V> {
    let mut part = Part { rows: Vec::new(), gone: Vec::new() };
    for (key, row) in all {
        match row {
            Some(row) => part.rows.push((key, row)),
            None => part.gone.push(key),
        }
    }
    part
}

struct Folder {
    objects: Arc<InMemory>,
    store: StateStore,
    runtime: tokio::runtime::Runtime,
    written: u32,
}

impl Folder {
    fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let objects = Arc::new(InMemory::new());
        let job = JobStore::new(Store::over(Arc::clone(&objects) as Arc<dyn ObjectStore>, "memory"), "job");
        Self { store: StateStore::new(job, runtime.handle().clone()), objects, runtime, written: 0 }
    }

    fn put(&mut self, file: &super::EncodedFile) -> StateFile {
        self.written += 1;
        self.store.put(&format!("state/groups/{}.parquet", self.written), file).unwrap()
    }

    fn write(&mut self, rows: Rows) -> StateFile {
        let file = encode_keyed("groups", &kind(), &schema(), Tick(1), vec![part(rows)]).unwrap();
        self.put(&file)
    }

    fn read(&self, files: &[StateFile], workers: u32) -> BTreeMap<Group, Totals> {
        let mut all = BTreeMap::new();
        for worker in 0..workers {
            for file in files {
                read_keyed(
                    &self.store,
                    file,
                    &kind(),
                    &schema(),
                    Some(HashRange::of(worker, workers)),
                    |hash, key, row| {
                        assert_eq!(hash_owner(hash, workers), worker);
                        match row {
                            Some(row) => all.insert(key, row),
                            None => all.remove(&key),
                        };
                    },
                )
                .unwrap();
            }
        }
        all
    }

    fn bytes(&self, file: &StateFile) -> Vec<u8> {
        let path = format!("job/{}", file.object).into();
        self.runtime.block_on(async { self.objects.get(&path).await.unwrap().bytes().await.unwrap() }).to_vec()
    }

    fn damage(&self, file: &StateFile, bytes: Vec<u8>) {
        let path = format!("job/{}", file.object).into();
        self.runtime.block_on(self.objects.put(&path, bytes.into())).unwrap();
    }
}

fn schema() -> RowSchema {
    RowSchema::keyed::<Group, Totals>()
}

fn kind() -> OperatorKind {
    OperatorKind { operator: "aggregate".to_owned(), schema: schema().describe() }
}

fn group(n: u32) -> Group {
    Group { region: format!("r{}", n % 7), product: (!n.is_multiple_of(3)).then_some(n as u16) }
}

fn rows() -> impl Strategy<Value = Rows> {
    let row = (0u32..60, proptest::option::weighted(0.8, (any::<u64>(), any::<i64>())));
    proptest::collection::btree_map((0u32..60).prop_map(group), row.prop_map(|(_, row)| row), 0..60).prop_map(|rows| {
        let totals = |(orders, revenue_cents)| Totals { orders, revenue_cents };
        rows.into_iter().map(|(key, row)| (key, row.map(totals))).collect()
    })
}

/// What files say together.
fn together<'a>(files: impl IntoIterator<Item = &'a Rows>) -> BTreeMap<Group, Totals> {
    let mut all = BTreeMap::new();
    for (key, row) in files.into_iter().flatten() {
        match row {
            Some(row) => all.insert(key.clone(), row.clone()),
            None => all.remove(key),
        };
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_number_of_workers_reads_what_was_written(files in proptest::collection::vec(rows(), 1..4), workers in 1u32..6) {
        let mut folder = Folder::new();
        let refs: Vec<StateFile> = files.iter().map(|rows| folder.write(rows.clone())).collect();
        prop_assert_eq!(folder.read(&refs, workers), together(&files));
    }

    #[test]
    fn a_merged_run_says_what_the_runs_said(files in proptest::collection::vec(rows(), 1..6), at in 0usize..6, len in 1usize..6) {
        let mut folder = Folder::new();
        let refs: Vec<StateFile> = files.iter().map(|rows| folder.write(rows.clone())).collect();
        let start = at % files.len();
        let which = start..(start + len).min(files.len());
        let operator = OperatorState { name: "groups".to_owned(), kind: kind(), files: refs.clone(), keys: None };
        let merged = merge(&folder.store, &operator, which.clone(), "state/groups/merged.parquet").unwrap();
        let keys: std::collections::BTreeSet<_> = files[which.clone()].iter().flatten().map(|(key, _)| key).collect();
        let expected = if start == 0 { together(&files[which.clone()]).len() } else { keys.len() };
        prop_assert_eq!(merged.rows as usize, expected);
        let mut now = refs;
        now.splice(which, [merged]);
        prop_assert_eq!(folder.read(&now, 2), together(&files));
    }

    #[test]
    fn the_number_of_runs_stays_small(mut sizes in proptest::collection::vec(1u64..1_000, 1..300), shrink in any::<bool>()) {
        if shrink {
            sizes.sort_unstable_by(|a, b| b.cmp(a));
        }
        let mut files: Vec<StateFile> = Vec::new();
        let mut written = 0;
        let total: u64 = sizes.iter().sum();
        for bytes in sizes {
            files.push(StateFile { object: String::new(), rows: 0, bytes, crc32: 0 });
            while let Some(which) = merge_due(&files, None, 1) {
                prop_assert!(which.len() >= 12 && which.end == files.len());
                let bytes = files[which.clone()].iter().map(|file| file.bytes).sum();
                written += bytes;
                files.splice(which, [StateFile { object: String::new(), rows: 0, bytes, crc32: 0 }]);
            }
            prop_assert!(files.len() <= 32, "{} files", files.len());
        }
        prop_assert!(written <= 4 * total, "{written} written of {total}");
    }
}

/// A changed byte is written a bounded number of times, the checkpoint's own write included, and the state is stored a bounded number
/// of times, whatever share of the keys changes between two checkpoints.
#[test]
fn checkpoints_each_second_are_not_rewritten_often_nor_stored_often() {
    const KEYS: f64 = 1e6;
    for (changed, most_written, most_stored) in [(0.01, 3.6, 2.0), (0.14, 1.8, 2.6), (0.45, 1.4, 4.1), (1.0, 1.3, 4.1)]
    {
        // The rows of a file are the distinct keys among so many that have changed at random.
        let file = |changes: f64| {
            let rows = if changes == KEYS { KEYS } else { KEYS * (1.0 - (-changes / KEYS).exp()) };
            let rows = rows as u64;
            StateFile { object: changes.to_string(), rows, bytes: 100 * rows, crc32: 0 }
        };
        let (mut files, mut first, mut written, mut stored) = (vec![file(1e9)], 0, 0, 0);
        for _ in 0..400 {
            let new = file(changed * KEYS);
            first += new.rows;
            written += new.rows;
            files.push(new);
            while let Some(which) = merge_due(&files, Some(KEYS as u64), 1) {
                let changes = files[which.clone()].iter().map(|file| file.object.parse::<f64>().unwrap()).sum::<f64>();
                let merged = file(changes.min(1e9));
                written += merged.rows;
                files.splice(which, [merged]);
            }
            stored = stored.max(files.iter().map(|file| file.rows).sum::<u64>());
        }
        let (written, stored) = (written as f64 / first as f64, stored as f64 / KEYS);
        assert!(written <= most_written, "{changed}: written {written:.2} times");
        assert!(stored <= most_stored, "{changed}: stored {stored:.2} times");
    }
}

/// The file was written when state files still had dictionaries and statistics, by a job that had counted 4,760 records of twelve
/// accounts. Its checksum is that of its manifest.
#[test]
fn a_state_file_of_an_earlier_version_is_read_and_merged_with_one_of_today() {
    let mut folder = Folder::new();
    let bytes = include_bytes!("../../tests/state_files/totals_with_dictionaries.parquet").to_vec();
    let old = folder.put(&super::EncodedFile { bytes: bytes.into(), rows: 12, crc32: 3_765_260_838 });
    let schema = RowSchema::keyed::<String, (u64, i64)>();
    let kind = OperatorKind { operator: "aggregate (count, sum of i64)".to_owned(), schema: schema.describe() };
    let read = |file: &StateFile, store: &StateStore| {
        let mut all = BTreeMap::new();
        let range = Some(HashRange::of(0, 1));
        read_keyed(store, file, &kind, &schema, range, |_, key: String, row: Option<(u64, i64)>| {
            all.insert(key, row.unwrap());
        })
        .unwrap();
        all
    };
    let mut expected = read(&old, &folder.store);
    assert_eq!(expected.len(), 12);
    assert_eq!(expected["9e3779b9-7f4a-4c15-87c1-000000000001"].0, 424);
    assert_eq!(expected.values().map(|(count, _)| count).sum::<u64>(), 4760);
    assert!(expected.values().all(|(count, sum)| *count as i64 == *sum), "each amount was 1");

    let newer = [("9e3779b9-7f4a-4c15-87c1-000000000001".to_owned(), (500, 500)), ("new".to_owned(), (1, 1))];
    let rows = newer.clone().map(|(key, row)| (key, Some(row)));
    let new = folder.put(&encode_keyed("totals", &kind, &schema, Tick(1_796_082_700_000), vec![part(rows)]).unwrap());
    let files = vec![old, new];
    let operator = OperatorState { name: "totals".to_owned(), kind: kind.clone(), files, keys: Some(13) };
    let merged = merge(&folder.store, &operator, 0..2, "state/totals/merged.parquet").unwrap();
    expected.extend(newer);
    assert_eq!(read(&merged, &folder.store), expected);
}

/// With as many workers as files that are merged at once, each checkpoint was merged by itself as soon as it was complete.
#[test]
fn the_files_that_many_workers_store_at_one_checkpoint_are_no_reason_to_merge() {
    let of_checkpoint = |bytes| (0..24).map(move |_| StateFile { object: String::new(), rows: 10, bytes, crc32: 0 });
    let files: Vec<StateFile> = [1000, 900, 1100, 1000].into_iter().flat_map(of_checkpoint).collect();
    for checkpoints in 1..4 {
        assert_eq!(merge_due(&files[..24 * checkpoints], Some(10_000), 24), None, "{checkpoints}");
    }
    assert_eq!(merge_due(&files, Some(10_000), 24), Some(0..96));
    assert_eq!(merge_due(&files[..12], Some(10_000), 1), Some(0..12));
    assert_eq!(merge_due(&files, Some(10_000), 1000), Some(0..96), "a restore opens all of them");
}

#[test]
fn runs_of_many_row_groups_are_read_and_merged_group_by_group() {
    let mut folder = Folder::new();
    let rows = |from: u32, to: u32, orders: u64| -> Vec<(u32, Option<Totals>)> {
        (from..to).map(|key| (key, (key % 10 > 0).then_some(Totals { orders, revenue_cents: -1 }))).collect()
    };
    let schema = RowSchema::keyed::<u32, Totals>();
    let kind = OperatorKind { operator: "aggregate".to_owned(), schema: schema.describe() };
    let files: Vec<StateFile> = [rows(0, 150_000, 1), rows(100_000, 250_000, 2)]
        .into_iter()
        .map(|rows| folder.put(&encode_keyed("groups", &kind, &schema, Tick(1), vec![part(rows)]).unwrap()))
        .collect();
    let operator = OperatorState { name: "groups".to_owned(), kind: kind.clone(), files, keys: None };
    let merged = merge(&folder.store, &operator, 0..2, "state/groups/merged.parquet").unwrap();
    assert_eq!(merged.rows, 225_000);
    for files in [&operator.files[..], std::slice::from_ref(&merged)] {
        let mut found = BTreeMap::new();
        for worker in 0..3 {
            for file in files {
                read_keyed::<u32, Totals>(
                    &folder.store,
                    file,
                    &kind,
                    &schema,
                    Some(HashRange::of(worker, 3)),
                    |_, key, row| {
                        found.insert(key, row);
                    },
                )
                .unwrap();
            }
        }
        found.retain(|_, row| row.is_some());
        assert_eq!(found.len(), 225_000);
        assert!(found.iter().all(|(key, row)| row.as_ref().unwrap().orders == if *key < 100_000 { 1 } else { 2 }));
    }
}

#[test]
fn records_without_keys_are_read_part_by_part_and_merged() {
    let mut folder = Folder::new();
    let schema = RowSchema::plain::<Group>();
    let kind = OperatorKind { operator: "keep_all".to_owned(), schema: schema.describe() };
    let write = |folder: &mut Folder, from: u32, to: u32| {
        let records: Vec<Group> = (from..to).map(group).collect();
        folder.put(&encode_plain("groups", &kind, &schema, &records).unwrap())
    };
    let files = vec![write(&mut folder, 0, 100_000), write(&mut folder, 100_000, 100_003), write(&mut folder, 0, 2)];
    let operator = OperatorState { name: "groups".to_owned(), kind: kind.clone(), files, keys: None };
    let merged = merge(&folder.store, &operator, 0..3, "state/groups/merged.parquet").unwrap();
    assert_eq!(merged.rows, 100_005);
    let parts = plain_parts(&folder.store, &merged, &kind, &schema).unwrap();
    assert!(parts.len() > 1);
    let mut found: Vec<Group> = parts.iter().flat_map(|part| part.read::<Group>().unwrap()).collect();
    let mut expected: Vec<Group> = (0..100_003).chain(0..2).map(group).collect();
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn every_damaged_bit_and_every_truncation_is_refused_with_the_objects_name() {
    let mut folder = Folder::new();
    let file = folder.write((0..40).map(|n| (group(n), None)).collect());
    let whole = folder.bytes(&file);
    let check = |bytes: Vec<u8>, what: &str| {
        folder.damage(&file, bytes);
        let read = read_keyed::<Group, Totals>(
            &folder.store,
            &file,
            &kind(),
            &schema(),
            Some(HashRange::of(0, 1)),
            |_, _, _| {},
        );
        let error = read.expect_err(what);
        assert_eq!(error.kind(), ErrorKind::Data, "{what}: {error}");
        assert!(error.to_string().contains("memory/job/state/groups/1.parquet"), "{what}: {error}");
    };
    for byte in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[byte] ^= 1 << (byte % 8);
        check(damaged, &format!("a bit of byte {byte} of {}", whole.len()));
    }
    for length in (0..whole.len()).step_by(7) {
        check(whole[..length].to_vec(), &format!("the first {length} bytes"));
    }
    folder.damage(&file, whole);
    assert!(folder.read(std::slice::from_ref(&file), 1).is_empty());
    folder.runtime.block_on(folder.objects.delete(&format!("job/{}", file.object).into())).unwrap();
    let read =
        read_keyed::<Group, Totals>(&folder.store, &file, &kind(), &schema(), Some(HashRange::of(0, 1)), |_, _, _| {});
    assert!(matches!(read, Err(StateError::Gone { .. })));
}

#[test]
fn a_file_that_is_not_ours_or_of_another_operator_is_refused() {
    let mut folder = Folder::new();
    let file = folder.write(vec![(group(1), None)]);
    let other = OperatorKind { operator: "latest".to_owned(), ..kind() };
    let read =
        read_keyed::<Group, Totals>(&folder.store, &file, &other, &schema(), Some(HashRange::of(0, 1)), |_, _, _| {});
    let error = read.unwrap_err();
    assert!(matches!(error, StateError::Changed { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Configuration);
    // A key or a value of another type is refused as well, though the operator is the same.
    let refused = |schema: &RowSchema, read: Result<(), StateError>| {
        let error = read.unwrap_err();
        assert!(matches!(error, StateError::Changed { .. }), "{error}");
        assert!(error.to_string().contains(&schema.describe()), "{error}");
    };
    let all = Some(HashRange::of(0, 1));
    let other = RowSchema::keyed::<u32, Totals>();
    let kind_of = |schema: &RowSchema| OperatorKind { schema: schema.describe(), ..kind() };
    refused(&other, read_keyed::<u32, Totals>(&folder.store, &file, &kind_of(&other), &other, all, |_, _, _| {}));
    let other = RowSchema::keyed::<Group, String>();
    refused(&other, read_keyed::<Group, String>(&folder.store, &file, &kind_of(&other), &other, all, |_, _, _| {}));

    let batch = arrow_array::RecordBatch::try_from_iter([("a", Arc::new(arrow_array::Int32Array::from(vec![1])) as _)])
        .unwrap();
    let mut foreign = Vec::new();
    let mut writer = parquet::arrow::ArrowWriter::try_new(&mut foreign, batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let crc32 = crc32fast::hash(&foreign);
    let foreign = folder.put(&super::EncodedFile { bytes: foreign.into(), rows: 1, crc32 });
    let read = read_keyed::<Group, Totals>(
        &folder.store,
        &foreign,
        &kind(),
        &schema(),
        Some(HashRange::of(0, 1)),
        |_, _, _| {},
    );
    assert!(read.unwrap_err().to_string().contains("not one of fluvial's"));
}

#[test]
fn the_parquet_files_have_the_users_own_fields() {
    let mut folder = Folder::new();
    let file = folder.write(vec![(group(1), Some(Totals { orders: 3, revenue_cents: -5 })), (group(3), None)]);
    let bytes = bytes::Bytes::from(folder.bytes(&file));
    let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
    let names: Vec<String> = reader.parquet_schema().columns().iter().map(|column| column.path().string()).collect();
    assert_eq!(names, ["hash", "key.region", "key.product", "value.orders", "value.revenue_cents", "deleted", "tick"],);
    let batches: Vec<_> = reader.build().unwrap().collect::<Result<_, _>>().unwrap();
    let nulls: usize = batches.iter().map(|batch| batch.column(2).null_count()).sum();
    assert_eq!((batches.iter().map(|batch| batch.num_rows()).sum::<usize>(), nulls), (2, 1));
}

#[test]
fn checkpoints_are_listed_with_operators_rows_bytes_and_files() {
    use fluvial_connector::{Generation, Incarnation};
    use fluvial_protocol::journal::{Entry, JournalRecord, Nonce, Seq};
    let mut folder = Folder::new();
    let file = folder.write(vec![(group(1), None)]);
    let incarnation = Incarnation(uuid::Uuid::nil());
    let manifest = fluvial_protocol::manifest::Manifest {
        incarnation,
        generation: Generation(3),
        program: String::new(),
        tick: Tick(17),
        gone_back_to: None,
        went_back: None,
        splits: Vec::new(),
        sinks: Vec::new(),
        outputs: Vec::new(),
        operators: vec![OperatorState {
            name: "groups".to_owned(),
            kind: kind(),
            files: vec![file.clone(), file.clone()],
            keys: Some(1),
        }],
        most_slots: 1,
        most_turns: 1,
    };
    let entries = vec![Entry::Checkpoint { tick: Tick(17), manifest: "checkpoints/17.json".to_owned(), floor: Seq(0) }];
    let record = JournalRecord { incarnation, generation: Generation(3), nonce: Nonce(1), entries };
    let listed = folder.runtime.block_on(async {
        let store = folder.store.job_store();
        store.put_manifest("checkpoints/17.json", &manifest).await.unwrap();
        store.put_manifest("checkpoints/never-recorded.json", &manifest).await.unwrap();
        store.put_record(Seq(4), &record).await.unwrap();
        super::list(store).await.unwrap()
    });
    let [checkpoint] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((checkpoint.tick, checkpoint.generation), (Tick(17), Generation(3)));
    let [operator] = &checkpoint.operators[..] else { panic!("{listed:?}") };
    assert_eq!((operator.rows, operator.bytes), (2, 2 * file.bytes));
    assert_eq!(operator.files[0], "memory/job/state/groups/1.parquet");
    assert_eq!(operator.schema, "key {region: Utf8, product: UInt16?}, value {orders: UInt64, revenue_cents: Int64}");
}

/// Only the first sixteen rows of a batch used to be read back: a value that was lost further on was noticed at the next
/// restore, or never.
#[test]
fn a_value_that_does_not_survive_is_refused_wherever_it_stands() {
    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    struct Sparse {
        id: u128,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    }
    #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
    enum Size {
        Small,
        #[serde(rename(serialize = "Big"))]
        Large,
    }
    fn check<V: Clone + PartialEq + Serialize + serde::de::DeserializeOwned>(good: V, bad: V) {
        let schema = RowSchema::keyed::<u32, V>();
        let kind = OperatorKind { operator: "latest".to_owned(), schema: schema.describe() };
        let mut rows: Vec<(u32, Option<V>)> = (0..5000).map(|key| (key, (key % 3 > 0).then(|| good.clone()))).collect();
        encode_keyed("values", &kind, &schema, Tick(1), vec![part(rows.clone())]).unwrap();
        rows[2500].1 = Some(bad);
        let error = encode_keyed("values", &kind, &schema, Tick(1), vec![part(rows)]).unwrap_err();
        let why = std::error::Error::source(&error).unwrap().to_string();
        assert!(why.contains("is not read as it was written"), "{why}");
    }
    check(Some(Some(7i64)), Some(None));
    check(vec![(1u8, Some(Some(1i32))), (2, None)], vec![(1, Some(None))]);
    check(Sparse { id: 1, note: Some(String::new()) }, Sparse { id: 1, note: None });
    check(Size::Small, Size::Large);
}

#[test]
fn keys_of_one_hash_stay_apart_when_runs_are_merged() {
    use super::file_writer::FileWriter;
    use arrow_array::{Array, ArrayRef, BooleanArray, Int64Array, UInt32Array, UInt64Array};
    let mut folder = Folder::new();
    let schema = RowSchema::keyed::<u32, i64>();
    let kind = OperatorKind { operator: "latest".to_owned(), schema: schema.describe() };
    // Whatever the keys, all hashes are 7; a row without a value is deleted.
    let mut write = |rows: &[(u32, Option<i64>)]| {
        let keys: UInt32Array = rows.iter().map(|(key, _)| Some(*key)).collect();
        let values: Int64Array = rows.iter().map(|(_, value)| *value).collect();
        let deleted: BooleanArray = values.iter().map(|value| Some(value.is_none())).collect();
        let (hashes, ticks) = (UInt64Array::from(vec![7; rows.len()]), UInt64Array::from(vec![1; rows.len()]));
        let columns: Vec<ArrayRef> =
            vec![Arc::new(hashes), Arc::new(keys), Arc::new(values), Arc::new(deleted), Arc::new(ticks)];
        let batch = arrow_array::RecordBatch::try_new(schema.arrow(), columns).unwrap();
        let mut writer = FileWriter::new(Vec::new(), "values", &kind, schema.arrow()).unwrap();
        writer.write(&batch, (7, 7)).unwrap();
        let written = writer.finish().unwrap();
        folder.put(&super::EncodedFile { bytes: written.to.into(), rows: written.rows, crc32: written.crc32 })
    };
    let files = vec![
        write(&[(1, Some(10)), (2, Some(20)), (3, Some(30))]),
        write(&[(4, Some(40)), (2, None)]),
        write(&[(3, Some(31)), (1, Some(11))]),
    ];
    let operator = OperatorState { name: "values".to_owned(), kind, files, keys: None };
    let merged = |folder: &Folder, which: std::ops::Range<usize>| -> Vec<(u32, Option<i64>)> {
        let file = merge(&folder.store, &operator, which, "state/values/merged.parquet").unwrap();
        let bytes = bytes::Bytes::from(folder.bytes(&file));
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap();
        let mut rows = Vec::new();
        for batch in reader.build().unwrap() {
            let batch = batch.unwrap();
            let keys = batch.column(1).as_any().downcast_ref::<UInt32Array>().unwrap().clone();
            let values = batch.column(2).as_any().downcast_ref::<Int64Array>().unwrap().clone();
            rows.extend(keys.iter().flatten().zip(values.iter()));
        }
        rows.sort_unstable();
        rows
    };
    assert_eq!(merged(&folder, 0..3), [(1, Some(11)), (3, Some(31)), (4, Some(40))]);
    assert_eq!(merged(&folder, 1..3), [(1, Some(11)), (2, None), (3, Some(31)), (4, Some(40))]);
}

#[test]
fn the_workers_ranges_of_hashes_leave_nothing_out() {
    for workers in 1..40 {
        let mut next = Some(0);
        for worker in 0..workers {
            let range = HashRange::of(worker, workers);
            assert_eq!(Some(range.first), next);
            assert_eq!((hash_owner(range.first, workers), hash_owner(range.last, workers)), (worker, worker));
            next = range.last.checked_add(1);
        }
        assert_eq!(next, None, "the last range ends with the greatest hash");
    }
}
