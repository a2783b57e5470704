//! What a store holds of a job's state, for people.

use std::collections::BTreeMap;

use fluvial_connector::{Error, Generation, Tick};
use fluvial_protocol::journal::Entry;
use serde::Serialize;

use crate::journal::JobStore;

/// A complete checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ListedCheckpoint {
    /// The tick that it is a snapshot of.
    pub tick: Tick,
    /// The generation that took it.
    pub generation: Generation,
    /// Where its manifest is.
    pub manifest: String,
    /// Its durable operators.
    pub operators: Vec<ListedOperator>,
}

/// A durable operator in a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ListedOperator {
    /// Its name.
    pub name: String,
    /// What it is: `aggregate count`.
    pub operator: String,
    /// The types that it keeps.
    pub schema: String,
    /// How many keys have a row; `None` where rows have no keys, and all of them count.
    pub live_keys: Option<u64>,
    /// Rows in its state files; a key that changed since the last merge is in several, and a deleted one may be.
    pub rows: u64,
    /// The state files' size.
    pub bytes: u64,
    /// Where its Parquet files are, oldest first.
    pub files: Vec<String>,
}

impl ListedOperator {
    /// The DuckDB query that gives the operator's rows as of the checkpoint: of each key the newest row, unless it is
    /// deleted. `None` when nothing has been stored, of which there is nothing to query.
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

/// The complete checkpoints whose manifests are still there, oldest first.
///
/// # Errors
/// The store cannot be reached, or has something that is damaged or of a newer format.
pub(crate) async fn list(store: &JobStore) -> Result<Vec<ListedCheckpoint>, Error> {
    let records = store.get_records(store.list_journal().await?).await?;
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
    let mut listed = Vec::new();
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
    Ok(listed)
}
