//! The authorities that a login has pinned, while the cluster replaces its key.
//!
//! As long as the cluster accepts the key of which a login was made, its nodes show a certificate for which the authority of that key
//! vouches, too. Each answer names the authorities of all keys by their fingerprints. If these are not the pinned ones, the command
//! asks for them over that same connection, and the login has them from then on, in the place of the old ones. A login that is not
//! used between the first and the last step of the replacement has to be made again.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use fluvial_node::http::api::KeyReport;
use fluvial_node::trust::of_users;

use crate::contexts::Contexts;

/// What the login to an address has pinned.
#[derive(Clone, Debug)]
pub(crate) struct Pinned {
    /// The address of the login.
    pub(crate) addr: String,
    /// The authorities in PEM format.
    pub(crate) authorities: String,
}

fn fingerprints(authorities: &str) -> anyhow::Result<BTreeSet<String>> {
    Ok(of_users::certificates(authorities)?.iter().map(of_users::fingerprint).collect())
}

impl Pinned {
    /// Whether these are not all authorities that an answer names, or there are others.
    pub(crate) fn differs(&self, named: &str) -> bool {
        let named: BTreeSet<_> = named.split(',').map(str::to_owned).collect();
        fingerprints(&self.authorities).is_ok_and(|pinned| pinned != named)
    }

    /// Pins what a node has said, which has proved that it belongs to the cluster.
    ///
    /// # Errors
    /// It has said nothing of use, or the login cannot be written.
    pub(crate) fn renew(&self, said: &KeyReport) -> anyhow::Result<()> {
        let authorities: String = said.authorities.iter().map(|authority| authority.certificate.as_str()).collect();
        let found = fingerprints(&authorities).context("the node's answer")?;
        ensure!(found.len() == said.authorities.len(), "the node's answer names authorities that it does not hold");
        let mut contexts = Contexts::read()?;
        // Another command may have done it, or the user has logged in again.
        if let Some(context) = contexts.contexts.get_mut(&self.addr)
            && context.authorities == self.authorities
        {
            context.authorities = authorities;
            contexts.write()?;
            eprintln!(
                "the cluster replaces its key: the login to {} now trusts the authorities that it has named",
                self.addr
            );
        }
        Ok(())
    }
}
