//! The list of a job's checkpoints in the store, for the command `state`.

use std::collections::BTreeMap;

use fluvial_connector::{Error, Generation, Tick};
use fluvial_protocol::journal::Entry;
use serde::Serialize;

use fluvial_node::job_store::JobStore;

/// A complete checkpoint, as `state --json` prints it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ListedCheckpoint {
    /// The tick that it is a snapshot of.
    pub tick: Tick,
    /// The generation that took it.
    pub generation: Generation,
    /// The location of its manifest.
    pub manifest: String,
    /// The durable operators in it.
    pub operators: Vec<ListedOperator>,
}

/// A durable operator in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ListedOperator {
    /// The name of the operator.
    pub name: String,
    /// The kind of the operator, such as `aggregate count`.
    pub operator: String,
    /// The types of its keys and values.
    pub schema: String,
    /// The number of keys that have a row; `None` for operators without keys, whose rows all count.
    pub live_keys: Option<u64>,
    /// The number of rows in its state files. A key that changed since the last merge has rows in several files, and a deleted
    /// key may still have one.
    pub rows: u64,
    /// The total size of its state files.
    pub bytes: u64,
    /// The locations of its state files, oldest first.
    pub files: Vec<String>,
}

impl ListedOperator {
    /// Returns the DuckDB query for the operator's rows as of the checkpoint: the newest row of each key, unless the key is
    /// deleted. `None` if the operator has no state file yet.
    pub(crate) fn sql(&self) -> Option<String> {
        if self.files.is_empty() {
            return None;
        }
        let quoted = self.files.iter().map(|file| {
            let path = file.strip_prefix("file://").unwrap_or(file);
            format!("  '{}'", path.replace('\'', "''"))
        });
        let files = quoted.collect::<Vec<_>>().join(",\n");
        Some(match self.live_keys {
            None => format!("SELECT value\nFROM read_parquet([\n{files}\n]);\n"),
            Some(_) => format!(
                "SELECT key, value\nFROM read_parquet([\n{files}\n])\nQUALIFY row_number() OVER (PARTITION BY hash, key \
                 ORDER BY tick DESC) = 1 AND NOT deleted;\n"
            ),
        })
    }
}

/// How many times the store is read if all checkpoints are deleted between the reading of the journal and that of their
/// manifests: a running job has then completed a newer one.
const READINGS: usize = 5;

/// Returns the complete checkpoints whose manifests have not been deleted, oldest first.
///
/// # Errors
/// The store cannot be reached, or an object in it is damaged or of a newer format.
pub(crate) async fn list(store: &JobStore) -> Result<Vec<ListedCheckpoint>, Error> {
    for _ in 1..READINGS {
        let (named, listed) = list_once(store).await?;
        if named == 0 || !listed.is_empty() {
            return Ok(listed);
        }
    }
    Ok(list_once(store).await?.1)
}

/// Returns how many checkpoints the journal names, and those of them whose manifests still exist.
async fn list_once(store: &JobStore) -> Result<(usize, Vec<ListedCheckpoint>), Error> {
    let records = store.get_records(store.list_journal(None).await?).await?;
    // A record of the journal is what makes a manifest a checkpoint.
    let named: BTreeMap<Tick, String> = records
        .into_iter()
        .filter_map(|(_, record)| record)
        .flat_map(|record| record.entries)
        .filter_map(|entry| match entry {
            Entry::Checkpoint { tick, manifest, .. } => Some((tick, manifest)),
            _ => None,
        })
        .collect();
    let (count, mut listed) = (named.len(), Vec::new());
    for object in named.into_values() {
        let Some(manifest) = store.get_manifest(&object).await? else { continue };
        let operators = manifest.operators.into_iter().map(|operator| ListedOperator {
            name: operator.name,
            operator: operator.kind.operator,
            schema: operator.kind.schema,
            live_keys: operator.keys,
            rows: operator.files.iter().map(|file| file.rows).sum(),
            bytes: operator.files.iter().map(|file| file.bytes).sum(),
            files: operator.files.iter().map(|file| store.describe(&file.object)).collect(),
        });
        listed.push(ListedCheckpoint {
            tick: manifest.tick,
            generation: manifest.generation,
            operators: operators.collect(),
            manifest: store.describe(&object),
        });
    }
    Ok((count, listed))
}
