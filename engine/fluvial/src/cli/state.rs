//! The command `state`, which lists a job's checkpoints and state files.

use std::io::Write;

use anyhow::bail;
use comfy_table::{CellAlignment, Table, presets};
use fluvial_store::Store;

use super::StoreOptions;
use crate::state::{ListedCheckpoint, list};
use fluvial_node::job_store::JobStore;

/// The options of `state`.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct StateOptions {
    /// The options for the store and the job's name.
    #[command(flatten)]
    pub(super) store: StoreOptions,

    /// Print JSON instead of tables
    #[arg(long)]
    pub(super) json: bool,

    /// Print a DuckDB query for the rows of this durable operator as of the newest checkpoint: the newest row of each key,
    /// without deleted ones. Run it with `duckdb -c "$(… state --sql OPERATOR)"`
    #[arg(long, value_name = "OPERATOR", conflicts_with = "json")]
    pub(super) sql: Option<String>,
}

/// Lists a job's checkpoints, oldest first, with each operator's rows, bytes and Parquet files.
pub(super) fn print(options: &StateOptions, job: &str) -> anyhow::Result<()> {
    let job = &options.store.job(job);
    let store = JobStore::new(Store::open(&options.store.store)?, job);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let checkpoints = runtime.block_on(list(&store))?;
    let mut out = std::io::stdout().lock();
    if options.json {
        serde_json::to_writer_pretty(&mut out, &checkpoints).map_err(std::io::Error::from)?;
        writeln!(out)?;
        return Ok(());
    }
    if checkpoints.is_empty() {
        bail!("'{}' holds no complete checkpoint of job '{job}'; are --store and --name right?", options.store.store);
    }
    if let Some(name) = &options.sql {
        let newest = checkpoints.last().map_or(&[][..], |newest| &newest.operators);
        let Some(operator) = newest.iter().find(|operator| operator.name == *name) else {
            let names: Vec<_> = newest.iter().map(|operator| operator.name.as_str()).collect();
            bail!("job '{job}' has no durable operator '{name}'; it has: {}", names.join(", "));
        };
        let Some(sql) = operator.sql() else { bail!("the durable operator '{name}' has no rows yet") };
        write!(out, "{sql}")?;
        return Ok(());
    }
    for checkpoint in &checkpoints {
        write!(out, "{}", describe(checkpoint))?;
    }
    Ok(())
}

fn describe(checkpoint: &ListedCheckpoint) -> String {
    let mut text = format!(
        "checkpoint of tick {} by generation {}: {}\n",
        checkpoint.tick, checkpoint.generation, checkpoint.manifest
    );
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["operator", "keeps", "live keys", "rows", "bytes", "parquet files"]);
    for operator in &checkpoint.operators {
        table.add_row([
            operator.name.clone(),
            operator.operator.clone(),
            operator.live_keys.map_or_else(|| "-".to_owned(), |keys| keys.to_string()),
            operator.rows.to_string(),
            operator.bytes.to_string(),
            operator.files.join("\n"),
        ]);
    }
    for column in [2, 3, 4] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    text.push_str(&table.to_string());
    text.push('\n');
    text
}
