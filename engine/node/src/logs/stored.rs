//! The logs in the store: `.cluster/logs/{job}/{attempt}/{process}.jsonl.gz`, a line of JSON for each line, after one that says
//! what the log is of.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Read, Write};
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use fluvial_store::Store;
use object_store::path::Path;
use object_store::{ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};

use super::Line;
use super::held::Process;

/// The attempts of a job whose logs are kept.
pub(super) const MOST_ATTEMPTS: usize = 20;
/// The version of the format.
const VERSION: u32 = 1;
/// The longest content of an object: what was damaged must not fill the memory.
const LONGEST: u64 = 16 << 20;
/// How long a call to the store may take.
const CALL_WITHIN: Duration = Duration::from_secs(10);

/// The first line of an object.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    kind: String,
    version: u32,
    job: String,
    /// Whether these are the last lines of the process.
    ended: bool,
}

/// The log of a process, as it is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredLog {
    /// Its lines.
    pub lines: Vec<Line>,
    /// Whether these are the last lines of the process.
    pub ended: bool,
}

/// The logs of a cluster's jobs in its store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct StoredLogs {
    store: Store,
    /// The folder of the cluster in the store.
    folder: String,
}

impl StoredLogs {
    /// Those of the cluster whose objects are in `folder`.
    #[must_use]
    pub fn new(store: Store, folder: &str) -> Self {
        Self { store, folder: folder.to_owned() }
    }

    fn of_job(&self, job: &str) -> Path {
        self.store.path(&format!("{}/logs/{job}", self.folder))
    }

    fn name(&self, job: &str, (attempt, process): Process) -> Path {
        self.store.path(&format!("{}/logs/{job}/{attempt:020}/{process:05}.jsonl.gz", self.folder))
    }

    /// Writes the lines of a process in the place of those that were written before.
    ///
    /// # Errors
    /// The store does not take them.
    pub async fn write(&self, job: &str, process: Process, lines: Vec<Line>, ended: bool) -> anyhow::Result<()> {
        let head = Head { kind: "log".to_owned(), version: VERSION, job: job.to_owned(), ended };
        let content = tokio::task::spawn_blocking(move || encode(&head, &lines)).await??;
        let name = self.name(job, process);
        let objects = self.store.objects();
        let put = async { objects.put(&name, PutPayload::from_bytes(Bytes::from(content))).await.map(drop) };
        within(async { put.await.map_err(|error| self.store.failed("write", &name, error).into()) }).await
    }

    /// The lines of a process, if it has any in the store.
    ///
    /// # Errors
    /// The store does not answer, or the object is damaged.
    pub async fn read(&self, job: &str, process: Process) -> anyhow::Result<Option<StoredLog>> {
        let name = self.name(job, process);
        let failed = |error| anyhow::Error::from(self.store.failed("read", &name, error));
        let read = async {
            match self.store.objects().get(&name).await {
                Ok(found) => found.bytes().await.map(Some).map_err(failed),
                Err(object_store::Error::NotFound { .. }) => Ok(None),
                Err(error) => Err(failed(error)),
            }
        };
        let Some(content) = within(read).await? else { return Ok(None) };
        let decoded = tokio::task::spawn_blocking(move || decode(&content)).await?;
        decoded.map(Some).with_context(|| format!("'{}' is damaged", self.store.describe_object(&name)))
    }

    /// The processes whose lines are in the store, by attempt.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn list(&self, job: &str) -> anyhow::Result<BTreeMap<u64, BTreeSet<u32>>> {
        let mut found = BTreeMap::<u64, BTreeSet<u32>>::new();
        for (attempt, process, _) in self.names(job).await? {
            found.entry(attempt).or_default().insert(process);
        }
        Ok(found)
    }

    async fn names(&self, job: &str) -> anyhow::Result<Vec<(u64, u32, Path)>> {
        let folder = self.of_job(job);
        let names = within(async { Ok(self.store.list(&folder, None).await?) }).await?;
        let parse = |name: Path| {
            let process = name.filename()?.strip_suffix(".jsonl.gz")?.parse().ok()?;
            let attempt = name.as_ref().rsplit('/').nth(1)?.parse().ok()?;
            Some((attempt, process, name))
        };
        Ok(names.into_iter().filter_map(parse).collect())
    }

    /// Deletes the logs of all attempts of a job but the newest.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn prune(&self, job: &str, most: usize) -> anyhow::Result<()> {
        let names = self.names(job).await?;
        let attempts: BTreeSet<_> = names.iter().map(|(attempt, ..)| *attempt).collect();
        let kept: BTreeSet<_> = attempts.into_iter().rev().take(most).collect();
        for (_, _, name) in names.iter().filter(|(attempt, ..)| !kept.contains(attempt)) {
            within(async { Ok(self.store.delete(name).await?) }).await?;
        }
        Ok(())
    }
}

async fn within<T>(call: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    match tokio::time::timeout(CALL_WITHIN, call).await {
        Ok(answer) => answer,
        Err(_) => bail!("the store did not answer within {} s", CALL_WITHIN.as_secs()),
    }
}

fn encode(head: &Head, lines: &[Line]) -> anyhow::Result<Vec<u8>> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    serde_json::to_writer(&mut gzip, head)?;
    for line in lines {
        gzip.write_all(b"\n")?;
        serde_json::to_writer(&mut gzip, line)?;
    }
    gzip.write_all(b"\n")?;
    Ok(gzip.finish()?)
}

fn decode(content: &[u8]) -> anyhow::Result<StoredLog> {
    let mut lines = BufReader::new(GzDecoder::new(content).take(LONGEST)).lines();
    let head: Head = serde_json::from_str(&lines.next().context("it is empty")??)?;
    ensure!(head.kind == "log" && head.version == VERSION, "it is a {} of version {}", head.kind, head.version);
    let lines = lines.map(|line| Ok(serde_json::from_str(&line?)?)).collect::<anyhow::Result<_>>()?;
    Ok(StoredLog { lines, ended: head.ended })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::sync::Arc;

    use object_store::memory::InMemory;

    use super::*;
    use crate::logs::Stream;

    fn lines(texts: &[&str]) -> Vec<Line> {
        let line = |(number, text): (usize, &&str)| Line {
            time_ms: 7,
            node: "a".to_owned(),
            attempt: 3,
            process: 1,
            stream: Stream::Stderr,
            number: number as u64,
            text: (*text).to_owned(),
        };
        texts.iter().enumerate().map(line).collect()
    }

    #[tokio::test]
    async fn what_is_written_is_read_again_and_replaced() {
        let stored = StoredLogs::new(Store::over(Arc::new(InMemory::new()), "memory"), ".cluster");
        assert_eq!(stored.read("orders", (3, 1)).await.unwrap(), None);
        stored.write("orders", (3, 1), lines(&["a"]), false).await.unwrap();
        stored.write("orders", (3, 1), lines(&["a", "\"b\"\u{1}"]), true).await.unwrap();
        let found = stored.read("orders", (3, 1)).await.unwrap().unwrap();
        assert_eq!(found, StoredLog { lines: lines(&["a", "\"b\"\u{1}"]), ended: true });
        stored.store.delete(&stored.name("orders", (3, 1))).await.unwrap();
        stored.store.create(&stored.name("orders", (3, 1)), Bytes::from_static(b"x")).await.unwrap();
        let error = format!("{:#}", stored.read("orders", (3, 1)).await.unwrap_err());
        assert!(error.contains("00001.jsonl.gz' is damaged"), "{error}");
    }

    #[test]
    fn hostile_logs_are_read_or_refused_also_one_that_unpacks_to_more_than_there_is_memory() {
        let head = Head { kind: "log".to_owned(), version: VERSION, job: "orders".to_owned(), ended: true };
        let valid = encode(&head, &lines(&["a", "b"])).unwrap();
        crate::hostile::decode_changed(&[valid], 64 << 20, |input| drop(decode(input)));
        // A long line, and many short ones.
        for content in [vec![b' '; 1 << 20], b"{}\n".repeat(1 << 18)] {
            let mut gzip = GzEncoder::new(Vec::new(), Compression::best());
            serde_json::to_writer(&mut gzip, &head).unwrap();
            gzip.write_all(b"\n").unwrap();
            (0..256).for_each(|_| gzip.write_all(&content).unwrap());
            let bomb = gzip.finish().unwrap();
            assert!(bomb.len() < 1 << 21);
            crate::hostile::within_bounds(64 << 20, || assert!(decode(&bomb).is_err())).unwrap();
        }
    }

    #[tokio::test]
    async fn the_newest_attempts_of_a_job_are_kept_and_those_of_others_are_left_alone() {
        let stored = StoredLogs::new(Store::over(Arc::new(InMemory::new()), "memory"), ".cluster");
        for (job, attempt, process) in [("a", 9, 0), ("a", 10, 0), ("a", 10, 1), ("a", 11, 0), ("ab", 1, 0)] {
            stored.write(job, (attempt, process), lines(&["x"]), true).await.unwrap();
        }
        stored.prune("a", 2).await.unwrap();
        assert_eq!(stored.list("a").await.unwrap(), BTreeMap::from([(10, [0, 1].into()), (11, [0].into())]));
        stored.prune("a", 0).await.unwrap();
        assert!(stored.list("a").await.unwrap().is_empty());
        assert_eq!(stored.list("ab").await.unwrap().len(), 1);
    }
}
