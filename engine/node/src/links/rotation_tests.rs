//! Links while the cluster key is replaced.

#![allow(clippy::unwrap_used)]

use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;

use super::connection::{Answer, Connection};
use super::tests::{Copy, ended, hello, status};
use crate::trust::{ClusterKey, TrustOptions};

#[tokio::test]
async fn who_has_only_a_key_that_was_removed_is_disconnected_and_the_others_go_on() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, keys: &[&ClusterKey]| {
        let (path, new) = (folder.path().join(name), folder.path().join("new"));
        let text: String = keys.iter().map(|key| key.to_text() + "\n").collect();
        std::fs::write(&new, text).unwrap();
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::rename(new, &path).unwrap();
        path
    };
    let open = |path| TrustOptions { cluster_key_file: Some(path), ..TrustOptions::default() }.open().unwrap();
    let (old, new) = (ClusterKey::new(), ClusterKey::new());
    let names = ["a", "b", "holder"];
    let trusts = names.map(|name| Arc::new(open(write(name, &[&old]))));
    let store = tempfile::tempdir().unwrap();
    let (mut a, mut b) = (Copy::new(1, &trusts[0], &store), Copy::new(2, &trusts[1], &store));
    // Of a node that is not told of the new key.
    let holder = Copy::new(3, &trusts[2], &store);
    for copy in [&a, &b, &holder] {
        copy.links.shared.proof.is_shown().await;
    }
    let (mut of_holder, answer) = hello(&holder.me, &b.me, &trusts[2]).await;
    assert!(matches!(answer, Answer::Welcome), "{answer:?}");
    let mut number = 0;
    for keys in [[&old, &new].as_slice(), &[&new, &old], &[&new]] {
        for (at, name) in names.iter().enumerate().take(2) {
            write(name, keys);
            // As the node does by itself, within a second.
            drop(trusts[at].tls());
            number += 1;
            // The link that a removal has ended may take the message with it; a node sends one each second.
            let (sent, arrived) = (status(number), async |from: &Copy, to: &mut Copy| {
                loop {
                    from.send(&to.me, status(number));
                    let received = tokio::time::timeout(std::time::Duration::from_millis(200), to.received()).await;
                    if let Ok(received) = received {
                        return received;
                    }
                }
            });
            while arrived(&a, &mut b).await != sent {}
            while arrived(&b, &mut a).await != sent {}
        }
    }
    ended(&mut of_holder).await;
    // A client learns only by the first answer that it was refused.
    let answered = match Connection::open(&b.me.address, &trusts[2]).await {
        Ok(mut connection) => connection.read::<Answer>().await.is_ok_and(|answer| answer.is_some()),
        Err(_) => false,
    };
    assert!(!answered, "who has only the old key is answered");
}
