//! How nodes show each other that they see the same store and have the same trust.
//!
//! A node creates the object `{job}/group/nodes/{start}` when it starts. A node that it connects to looks for the object in its
//! own store. `start` is a random number, so an object of that name exists only in the store in which the node created it, or
//! in a copy that was made of that store later. The object says how its node authenticates others, so that a node which cannot make a
//! TLS connection to another one can tell a wrong cluster key from a stranger at the address.
//!
//! A node writes its object again each day, and when its cluster keys have changed. A node that starts deletes the objects that have not been written for a week. It
//! compares their times with that of its own object, so that only the store's clock counts.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use fluvial_protocol::group::NodeId;
use fluvial_store::Store;
use futures::{StreamExt as _, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStoreExt};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::trust::{self, Trust};

/// How often a node writes its object again.
const WRITTEN_EVERY: Duration = Duration::from_secs(24 * 3600);
/// The age, in seconds, at which the object of another node is deleted.
const DELETED_AFTER_S: i64 = 7 * 24 * 3600;
/// Before an attempt to write the object is repeated.
const AGAIN: Duration = Duration::from_secs(1);
/// How many objects are read at most to learn of all nodes.
const MOST_READ: usize = 1000;
/// How many of them are read at a time.
const READ_AT_ONCE: usize = 16;

/// What a node's object holds.
#[derive(Debug, Serialize, Deserialize)]
struct Shown {
    address: String,
    #[serde(flatten)]
    trust: trust::Shown,
}

/// The objects by which the nodes of a job show that they see the same store.
#[derive(Clone, Debug)]
pub struct StoreProof {
    store: Store,
    /// What the names of the objects begin with.
    nodes: Path,
    shown: watch::Sender<bool>,
}

impl StoreProof {
    /// The objects of a job's nodes in this store.
    #[must_use]
    pub fn new(store: Store, job: &str) -> Self {
        Self { nodes: store.path(&format!("{job}/group/nodes")), store, shown: watch::Sender::new(false) }
    }

    /// The store's location, for messages.
    pub(super) fn store(&self) -> &str {
        self.store.describe()
    }

    fn object(&self, node: &NodeId) -> Path {
        Path::from(format!("{}/{:016x}", self.nodes, node.start))
    }

    /// Keeps this node's object in the store, as long as the node runs.
    pub(super) async fn show(&self, me: &NodeId, trust: &Trust) {
        let mut said = false;
        loop {
            // A change after this is noticed, and one before it is part of what is shown.
            let changed = trust.changed();
            let shown = Shown { address: me.address.clone(), trust: trust.shown() };
            let shown = serde_json::to_vec(&shown).expect("strings can be written as JSON");
            let written = self.store.objects().put(&self.object(me), shown.clone().into()).await;
            match written {
                Ok(_) if !self.shown.send_replace(true) => self.clean(me).await,
                Ok(_) => {}
                Err(error) => {
                    if !std::mem::replace(&mut said, true) {
                        let error = self.store.failed("write", &self.object(me), error);
                        tracing::warn!(%error, "the other copies cannot see yet that this one uses the same store");
                    }
                    tokio::time::sleep(AGAIN).await;
                    continue;
                }
            }
            // It makes no difference which of the two it was.
            let _ = tokio::time::timeout(WRITTEN_EVERY, changed).await;
        }
    }

    /// Waits until this node's object is in the store.
    pub(super) async fn is_shown(&self) {
        // The sender is part of `self`, so there is no error.
        let _ = self.shown.subscribe().wait_for(|shown| *shown).await;
    }

    /// Whether a node's object is in the store.
    ///
    /// # Errors
    /// The store does not answer, which proves nothing.
    pub(super) async fn sees(&self, node: &NodeId) -> Result<bool, fluvial_connector::Error> {
        match self.store.objects().head(&self.object(node)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.store.failed("read", &self.object(node), error)),
        }
    }

    /// How a node authenticates others, if its object is in the store and can be read now.
    pub(super) async fn trust_of(&self, node: &NodeId) -> Option<trust::Shown> {
        Some(self.read(&self.object(node)).await?.trust)
    }

    async fn read(&self, object: &Path) -> Option<Shown> {
        let object = self.store.objects().get(object).await.ok()?.bytes().await.ok()?;
        serde_json::from_slice(&object).ok()
    }

    /// How the nodes at these addresses authenticate others, as far as their objects say so: of several at one address, the one that
    /// was written last.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn trust_at(
        &self,
        addresses: &BTreeSet<String>,
    ) -> Result<BTreeMap<String, trust::Shown>, fluvial_connector::Error> {
        let failed = |error| self.store.failed("list", &self.nodes, error);
        let mut listed: Vec<_> = self.store.objects().list(Some(&self.nodes)).try_collect().await.map_err(failed)?;
        listed.sort_by_key(|object: &ObjectMeta| object.last_modified);
        let names = listed.into_iter().rev().take(MOST_READ).map(|object| object.location);
        let read = names.map(|name| async move { self.read(&name).await });
        let read: Vec<_> = futures::stream::iter(read).buffered(READ_AT_ONCE).collect().await;
        let of_addresses = read.into_iter().flatten().filter(|shown| addresses.contains(&shown.address));
        let mut found = BTreeMap::new();
        for Shown { address, trust } in of_addresses {
            found.entry(address).or_insert(trust);
        }
        Ok(found)
    }

    /// Deletes the objects of nodes that have been gone for a week. If it fails, the next node that starts does it.
    async fn clean(&self, me: &NodeId) {
        let cleaned = async {
            let listed: Vec<_> = self.store.objects().list(Some(&self.nodes)).try_collect().await?;
            for old in outdated(&listed, &self.object(me)) {
                self.store.objects().delete(old).await?;
            }
            Ok::<_, object_store::Error>(())
        };
        if let Err(error) = cleaned.await {
            tracing::debug!(%error, "could not delete the objects of copies that are gone");
        }
    }
}

/// The objects that are a week older than this node's own.
fn outdated<'a>(listed: &'a [ObjectMeta], own: &Path) -> Vec<&'a Path> {
    let Some(own) = listed.iter().find(|object| object.location == *own) else { return Vec::new() };
    let age_s = |object: &ObjectMeta| (own.last_modified - object.last_modified).num_seconds();
    listed.iter().filter(|object| age_s(object) > DELETED_AFTER_S).map(|object| &object.location).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::SystemTime;

    use super::*;
    use crate::trust::{ClusterKey, TrustKind};

    fn node(start: u64) -> NodeId {
        NodeId { address: format!("host-{start}:7401"), start }
    }

    #[tokio::test]
    async fn a_node_that_starts_deletes_the_objects_of_those_that_have_been_gone_for_a_week() {
        let folder = tempfile::tempdir().unwrap();
        let proof = || StoreProof::new(Store::open(folder.path().to_str().unwrap()).unwrap(), "job");
        let shows = |start| async move { (proof(), node(start)) };
        for start in 1..=3 {
            let (proof, node) = shows(start).await;
            let shown = tokio::spawn({
                let proof = proof.clone();
                async move { proof.show(&node, &Trust::of_cluster_key(&ClusterKey::new()).unwrap()).await }
            });
            proof.is_shown().await;
            shown.abort();
        }
        for (start, days) in [(1, 8), (2, 6)] {
            let file = folder.path().join(format!("job/group/nodes/{start:016x}"));
            let then = SystemTime::now() - Duration::from_secs(days * 24 * 3600);
            std::fs::File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
        }
        proof().clean(&node(3)).await;
        let mut sees = Vec::new();
        for start in 1..=4 {
            sees.push(proof().sees(&node(start)).await.unwrap());
        }
        assert_eq!(sees, [false, true, true, false]);
        let trust = proof().trust_of(&node(2)).await.unwrap();
        assert!(matches!(trust.trust, TrustKind::ClusterKey(_)), "{trust:?}");
        let at = proof().trust_at(&["host-1:7401", "host-2:7401"].map(str::to_owned).into()).await.unwrap();
        assert_eq!(at, BTreeMap::from([("host-2:7401".to_owned(), trust)]));
        assert_eq!(proof().trust_of(&node(1)).await, None);
    }
}
