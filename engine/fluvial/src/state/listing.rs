//! What a store holds of a job's state, for people.

use std::collections::BTreeMap;

use fluvial_connector::{Error, Generation, Tick};
use serde::Serialize;

use crate::journal::{Entry, JobStore};

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
    /// Rows in its runs; a key that changed since the last merge is in several.
    pub rows: u64,
    /// The runs' size.
    pub bytes: u64,
    /// Where its Parquet files are, oldest first.
    pub runs: Vec<String>,
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
            rows: operator.runs.iter().map(|run| run.rows).sum(),
            bytes: operator.runs.iter().map(|run| run.bytes).sum(),
            runs: operator.runs.iter().map(|run| store.describe(&run.object)).collect(),
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
