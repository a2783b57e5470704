//! Cutting off a partition's log on disk: what a broker has that became the leader without the last records.

use std::fs::{self, File, OpenOptions};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use anyhow::{Context as _, Result};

/// How many bytes a batch of records begins with that say where it begins and how long it is.
const BATCH_HEADER: u64 = 12;
/// Where in a batch the number of its last record stands, counted from its first.
const LAST_OFFSET_DELTA: u64 = 23;

/// Removes every batch that reaches to `end` or beyond from a partition's folder, and all that is derived from the
/// log: the broker makes that again.
pub(crate) fn truncate(partition: &Path, end: u64) -> Result<()> {
    for entry in fs::read_dir(partition).with_context(|| format!("list {}", partition.display()))? {
        let path = entry?.path();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("log") => truncate_segment(&path, end).with_context(|| format!("truncate {}", path.display()))?,
            Some("index" | "timeindex" | "txnindex" | "snapshot") => fs::remove_file(&path)?,
            _ => {}
        }
    }
    Ok(())
}

fn truncate_segment(path: &Path, end: u64) -> Result<()> {
    let mut log = OpenOptions::new().read(true).write(true).open(path)?;
    let size = log.metadata()?.len();
    let mut at = 0;
    while at + BATCH_HEADER <= size {
        let first = u64::from_be_bytes(read(&mut log, at)?);
        let length = u64::from(u32::from_be_bytes(read(&mut log, at + 8)?));
        // A segment is made larger in advance, with nothing in it.
        if length == 0 {
            break;
        }
        let last = first + u64::from(u32::from_be_bytes(read(&mut log, at + LAST_OFFSET_DELTA)?));
        if last >= end {
            break;
        }
        at += BATCH_HEADER + length;
    }
    Ok(log.set_len(at)?)
}

fn read<const BYTES: usize>(log: &mut File, at: u64) -> Result<[u8; BYTES]> {
    let mut bytes = [0; BYTES];
    log.seek(SeekFrom::Start(at))?;
    log.read_exact(&mut bytes)?;
    Ok(bytes)
}
