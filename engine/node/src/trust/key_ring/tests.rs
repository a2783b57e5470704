//! A key is replaced by another while nodes and users connect.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;

use super::super::tests::{between, seen_by_user};
use super::super::{Shown, Trust, TrustKind, TrustOptions};
use super::*;

/// The file of a node.
struct File(tempfile::TempDir);

impl File {
    fn new(keys: &[&ClusterKey]) -> Self {
        let file = Self(tempfile::tempdir().unwrap());
        file.write(keys);
        file
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("key")
    }

    fn write(&self, keys: &[&ClusterKey]) {
        let text: String = keys.iter().map(|key| key.to_text() + "\n").collect();
        let new = self.0.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    fn open(&self) -> Trust {
        TrustOptions { cluster_key_file: Some(self.path()), ..TrustOptions::default() }.open().unwrap()
    }
}

#[test]
fn while_a_key_is_replaced_all_accept_each_other_and_afterwards_the_old_key_gets_nothing() {
    let (old, new) = (ClusterKey::new(), ClusterKey::new());
    let files = [File::new(&[&old]), File::new(&[&old])];
    let [one, two] = files.each_ref().map(File::open);
    let holder = Trust::of_cluster_key(&old).unwrap();
    for keys in [[&old, &new].as_slice(), &[&new, &old], &[&new]] {
        for file in &files {
            file.write(keys);
            between(&one, &two).unwrap();
            between(&two, &one).unwrap();
            assert!(one.fits(&two.shown()) && two.fits(&one.shown()));
            // Somebody who knows what the cluster had at the step before.
            let known = if keys.len() == 1 { &new } else { &old };
            for node in [&one, &two] {
                seen_by_user(&[known.authority()], "any-name", node).unwrap();
            }
            if keys.len() == 2 {
                // Who has not been told of the new key accepts only who uses the old one.
                assert_eq!(between(&one, &holder).is_ok(), keys[0] == &old);
                assert_eq!(between(&holder, &one).is_ok(), keys[0] == &old);
                assert!(one.is_root_token(&old.root_token().hash()));
            }
        }
    }
    assert_eq!(one.shown(), Shown { trust: TrustKind::ClusterKey(new.fingerprint()), accepts: Vec::new() });
    for node in [&one, &two] {
        between(&holder, node).unwrap_err();
        between(node, &holder).unwrap_err();
        seen_by_user(&[old.authority()], "any-name", node).unwrap_err();
        assert!(!node.is_root_token(&old.root_token().hash()) && node.is_root_token(&new.root_token().hash()));
        assert!(!node.fits(&holder.shown()) && !holder.fits(&node.shown()));
        assert_eq!(node.authorities(), [new.authority()]);
    }
}

#[test]
fn a_login_sees_the_authority_in_use_at_the_end_of_the_chain() {
    let (old, new) = (ClusterKey::new(), ClusterKey::new());
    for keys in [[&old, &new], [&new, &old]] {
        let ring = KeyRing::open(&File::new(&keys).path()).unwrap();
        let users = ring.now().authorities.clone();
        assert_eq!(users, [keys[0].authority(), keys[1].authority()]);
        let authority = Authority::of(&keys[0].derive(NODES));
        let crossed = Authority::of(&keys[1].derive(NODES)).vouches_for(&authority);
        let mut chain = authority.server_identity(NODE).chain;
        chain.insert(1, crossed);
        assert_eq!(of_users::authority_of(&chain, "any:1"), Some(keys[0].authority()));
    }
}

#[test]
fn a_node_keeps_its_keys_when_the_file_is_no_good_or_would_let_it_use_a_key_that_others_may_not_know() {
    let (old, new) = (ClusterKey::new(), ClusterKey::new());
    let file = File::new(&[&old]);
    let trust = file.open();
    let before = trust.shown();
    for keys in [[].as_slice(), &[&new], &[&new, &old], &[&old, &old]] {
        file.write(keys);
        assert_eq!(trust.shown(), before);
    }
    file.write(&[&old, &new]);
    assert_eq!(trust.shown().accepts, [new.fingerprint()]);
    std::fs::remove_file(file.path()).unwrap();
    assert_eq!(trust.shown().accepts, [new.fingerprint()]);
}

#[tokio::test]
async fn only_the_removal_of_a_key_withdraws_what_was_agreed_upon() {
    let (old, new) = (ClusterKey::new(), ClusterKey::new());
    let file = File::new(&[&old]);
    let trust = Arc::new(file.open());
    let (mut withdrawn, changed) = (trust.withdrawn(), trust.changed());
    trust.watch_files(&tokio::runtime::Handle::current());
    file.write(&[&old, &new]);
    // Nobody connects meanwhile.
    changed.await;
    let changed = trust.changed();
    file.write(&[&new, &old]);
    changed.await;
    assert!(!withdrawn.has_happened());
    file.write(&[&new]);
    withdrawn.happens().await;
    assert!(withdrawn.has_happened() && !trust.withdrawn().has_happened());
}
