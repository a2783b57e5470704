//! `fluvial cluster-key`: makes cluster keys, and replaces one in the file of a node.
//!
//! A key is replaced in three steps: `add`, `rotate`, `retire`. Each of them is done on all hosts before the next one; `status` says
//! how far the nodes are.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, fchown};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, bail, ensure};
use clap::Subcommand;
use fluvial_node::http::api::{KeyReport, NodeKeys};
use fluvial_node::trust::{ClusterKey, ClusterKeys, of_users};

use crate::client::Client;
use crate::connection::ConnectionOptions;
use crate::jobs::{plain_table, show, text_of};

/// A command.
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Print a new key. Put it into a file that only the user of the nodes can read
    New,
    /// Print the fingerprint by which `fluvial login` recognises the cluster that has the key of --cluster-key-file; of several keys,
    /// one on each line, the one in use first
    Fingerprint,
    /// Step 1 of replacing the key, on each host: let --cluster-key-file hold another key, which its nodes accept from then on
    Add {
        /// A file with the new key, which `cluster-key new` prints; it is the same on all hosts
        new: PathBuf,
    },
    /// Step 2, when all nodes accept the new key: let the nodes of --cluster-key-file use the next one of its keys
    Rotate,
    /// Step 3, when all nodes use the new key: let --cluster-key-file hold that one alone. Whoever has only the old one gets nothing
    /// from then on, and logins that have not been used since step 1 have to be made again
    Retire,
    /// Show which keys the nodes have
    Status {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs a command.
pub(crate) fn run(connection: &ConnectionOptions, command: KeyCommand) -> anyhow::Result<ExitCode> {
    match command {
        KeyCommand::New => println!("{}", ClusterKey::new().to_text()),
        KeyCommand::Fingerprint => {
            for authority in ClusterKeys::read(file(connection)?)?.authorities() {
                println!("{}", of_users::fingerprint(&authority));
            }
        }
        KeyCommand::Add { new } => {
            let next = ClusterKeys::read(&new)?;
            let what = "now `fluvial cluster-key add` it on the other hosts; when `fluvial cluster-key status` says that all nodes \
                        accept it, `fluvial cluster-key rotate` on each";
            change(file(connection)?, what, |mut keys| {
                ensure!(
                    next.all().len() == 1,
                    "'{}' holds several keys: give a file with the new one alone",
                    new.display()
                );
                ensure!(!keys.contains(next.first()), "the file holds this key already");
                keys.push(next.first().clone());
                Ok(keys)
            })?;
        }
        KeyCommand::Rotate => {
            let what = "now `fluvial cluster-key rotate` on the other hosts; when `fluvial cluster-key status` says that all nodes \
                        use it, `fluvial cluster-key retire` on each";
            change(file(connection)?, what, |mut keys| {
                ensure!(
                    keys.len() > 1,
                    "the file holds one key: `fluvial cluster-key add` the next one first, on all hosts"
                );
                keys.rotate_left(1);
                Ok(keys)
            })?;
        }
        KeyCommand::Retire => {
            change(file(connection)?, "whoever has another key gets nothing of this node", |mut keys| {
                ensure!(keys.len() > 1, "the file holds one key");
                keys.truncate(1);
                Ok(keys)
            })?;
        }
        KeyCommand::Status { json } => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let report: KeyReport = runtime.block_on(Client::new(connection.resolve()?)?.get("keys"))?;
            show(json, &report, || table_of(&report.nodes))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn file(connection: &ConnectionOptions) -> anyhow::Result<&Path> {
    connection.cluster_key_file.as_deref().context("say by --cluster-key-file where the key is")
}

/// Changes the keys of a file, and prints what the file holds then and what is to be done next.
fn change(
    file: &Path,
    next: &str,
    change: impl FnOnce(Vec<ClusterKey>) -> anyhow::Result<Vec<ClusterKey>>,
) -> anyhow::Result<()> {
    let keys = change(ClusterKeys::read(file)?.all().to_vec())?;
    let Some(keys) = ClusterKeys::of(keys) else {
        bail!("the file would hold too many keys: retire the old ones first")
    };
    replace(file, &keys.to_text()).with_context(|| format!("cannot write '{}'", file.display()))?;
    for (key, what) in keys.all().iter().zip(std::iter::once("in use").chain(std::iter::repeat("accepted"))) {
        println!("{} {what}", key.fingerprint());
    }
    eprintln!("running nodes read the file within a second; {next}");
    Ok(())
}

/// Replaces a file as a whole by one of the same owner and mode.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    // Behind a link there may be a file that something else manages; its place is kept.
    let file = file.canonicalize()?;
    let before = file.metadata()?;
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = file.with_file_name(name);
    let written = (|| {
        let mode = before.mode() & 0o700;
        let mut opened = std::fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        // Nobody but root can give a file away; whoever owns it keeps it.
        if opened.metadata()?.uid() != before.uid() || opened.metadata()?.gid() != before.gid() {
            fchown(&opened, Some(before.uid()), Some(before.gid()))?;
        }
        opened.set_permissions(before.permissions())?;
        opened.write_all(text.as_bytes())?;
        opened.sync_all()?;
        std::fs::rename(&new, &file)
    })();
    if written.is_err() {
        // What could not be written holds a key.
        let _ = std::fs::remove_file(&new);
    }
    written
}

fn table_of(nodes: &[NodeKeys]) -> String {
    let mut table = plain_table();
    table.set_header(["NODE", "USES", "ACCEPTS BESIDES"]);
    for NodeKeys { node, uses, accepts } in nodes {
        let accepts = if accepts.is_empty() { "-".to_owned() } else { accepts.join(" ") };
        table.add_row([node.clone(), uses.clone().unwrap_or_else(|| "unknown".to_owned()), accepts]);
    }
    text_of(&table)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_is_added_used_and_retired_and_its_file_stays_closed_to_others() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let write = |name: &str, key: &ClusterKey| {
            std::fs::write(path(name), key.to_text()).unwrap();
            std::fs::set_permissions(path(name), std::fs::Permissions::from_mode(0o400)).unwrap();
        };
        let (old, new) = (ClusterKey::new(), ClusterKey::new());
        write("key", &old);
        write("new", &new);
        std::os::unix::fs::symlink(path("key"), path("link")).unwrap();
        let options = ConnectionOptions { cluster_key_file: Some(path("link")), ..ConnectionOptions::default() };
        let run = |command| run(&options, command).map(drop).map_err(|error| error.to_string());
        let keys = || ClusterKeys::read(&path("key")).unwrap().all().to_vec();
        assert!(run(KeyCommand::Rotate).unwrap_err().contains("holds one key"));
        run(KeyCommand::Add { new: path("new") }).unwrap();
        assert_eq!(keys(), [old.clone(), new.clone()]);
        assert!(run(KeyCommand::Add { new: path("new") }).unwrap_err().contains("already"));
        run(KeyCommand::Rotate).unwrap();
        assert_eq!(keys(), [new.clone(), old]);
        run(KeyCommand::Retire).unwrap();
        assert_eq!(keys(), [new]);
        assert!(run(KeyCommand::Retire).unwrap_err().contains("holds one key"));
        assert_eq!(path("key").metadata().unwrap().mode() & 0o777, 0o400);
        assert!(path("link").symlink_metadata().unwrap().is_symlink());
        let mut names: Vec<_> = folder.path().read_dir().unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["key", "link", "new"]);
    }
}
