//! The object by which a collector says what it is about to delete: `.cluster/collecting.json`.

use std::collections::BTreeSet;
use std::time::Duration;

use fluvial_connector::Error;
use fluvial_store::frame::Format;
use fluvial_store::{Created, Store};
use object_store::ObjectStoreExt as _;
use object_store::path::Path;

use super::{CLUSTER, Millis};

const COLLECTING: Format = Format { kind: "collecting", version: 1 };
/// The age from which on an announcement counts as left by a collector that died.
const LEFT_AFTER_MS: Millis = 3_600_000;

/// What a collector is about to delete.
#[derive(Debug)]
pub(super) struct Announcement {
    pub(super) what: BTreeSet<Path>,
    /// When it was made, by the store's clock.
    pub(super) made: Millis,
    /// The same by this host's time since it was started, which goes on while the host is suspended.
    pub(super) since: Duration,
}

fn name(store: &Store) -> Path {
    store.path(&format!("{CLUSTER}/collecting.json"))
}

impl Announcement {
    /// Announces. `None` if there is an announcement: another collector may be at work. One that was left is removed.
    pub(super) async fn make(store: &Store, what: BTreeSet<Path>) -> anyhow::Result<Option<Self>> {
        let (name, since) = (name(store), super::uptime());
        let names: BTreeSet<&str> = what.iter().map(Path::as_ref).collect();
        let created = store.create_framed(COLLECTING, &name, &names).await?;
        let head = store.objects().head(&name).await.map_err(|error| store.failed("look for", &name, error))?;
        if created == Created::Created {
            return Ok(Some(Self { what, made: head.last_modified.timestamp_millis(), since }));
        }
        if super::clock().saturating_sub(head.last_modified.timestamp_millis()) >= LEFT_AFTER_MS {
            store.delete(&name).await?;
        }
        Ok(None)
    }

    /// Everything is deleted that was to be.
    pub(super) async fn end(self, store: &Store) -> Result<(), Error> {
        store.delete(&name(store)).await
    }
}

/// Whether one of these objects is about to be deleted.
///
/// # Errors
/// The store fails.
pub(in crate::group) async fn is_announced(store: &Store, objects: &[Path]) -> Result<bool, Error> {
    let announced: Option<BTreeSet<String>> = store.get_framed(COLLECTING, &name(store)).await?;
    Ok(announced.is_some_and(|announced| objects.iter().any(|object| announced.contains(object.as_ref()))))
}
