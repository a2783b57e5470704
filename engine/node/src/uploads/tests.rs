#![allow(clippy::unwrap_used)]

use bytes::Bytes;
use fluvial_store::Store;
use object_store::memory::InMemory;

use super::*;
use crate::elf::made_up;
use crate::group::hash;

fn shelf(cache: &Path) -> Shelf {
    Shelf::new(Store::over(Arc::new(InMemory::new()), "memory"), ".cluster", String::new(), cache.to_owned())
}

fn pieces(content: &[u8]) -> impl Stream<Item = Result<Bytes, String>> + Unpin {
    futures::stream::iter(content.chunks(100).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect::<Vec<_>>())
}

/// The same, and then the connection is lost.
fn cut(content: &[u8]) -> impl Stream<Item = Result<Bytes, String>> + Unpin {
    let lost = futures::stream::iter([Err("reset".to_owned())]);
    futures::StreamExt::chain(pieces(content), lost)
}

use futures::Stream;

#[test]
fn of_two_nodes_with_one_cache_the_second_is_refused_as_long_as_the_first_runs() {
    let folder = tempfile::tempdir().unwrap();
    let first = Uploads::open(shelf(folder.path()), Bounds::default()).unwrap();
    let refused = Uploads::open(shelf(folder.path()), Bounds::default()).unwrap_err().to_string();
    assert!(refused.contains("another node uses") && refused.contains("--cache"), "{refused}");
    drop(first);
    Uploads::open(shelf(folder.path()), Bounds::default()).unwrap();
}

#[tokio::test]
async fn an_upload_goes_on_from_what_has_arrived_also_when_the_node_was_started_again() {
    let folder = tempfile::tempdir().unwrap();
    let (program, shelf) = (made_up::program(), shelf(folder.path()));
    let (name, all) = (hash(&program), program.len() as u64);
    let uploads = Uploads::open(shelf.clone(), Bounds::default()).unwrap();
    assert_eq!(uploads.begin(&name, all).unwrap(), Progress { offset: 0, bytes: all, busy: false });
    let lost = uploads.receive(&name, 0).unwrap().all(cut(&program[..150])).await.unwrap_err();
    assert!(matches!(lost, UploadError::Lost(_)), "{lost}");
    assert_eq!(uploads.progress(&name).unwrap().offset, 150);
    let early = uploads.finish(&name).await.unwrap_err();
    assert!(matches!(early, UploadError::Incomplete { offset: 150, .. }), "{early}");
    for wrong in [0, 149, 151] {
        let refused = uploads.receive(&name, wrong).unwrap_err();
        assert!(matches!(refused, UploadError::Elsewhere { offset: 150 }), "{refused}");
    }
    std::fs::write(uploads.folder().join("no upload"), "").unwrap();
    drop(uploads);
    let uploads = Uploads::open(shelf.clone(), Bounds::default()).unwrap();
    assert_eq!(uploads.begin(&name, all).unwrap().offset, 150);
    assert!(!uploads.folder().join("no upload").exists());
    let progress = uploads.receive(&name, 150).unwrap().all(pieces(&program[150..])).await.unwrap();
    assert_eq!(progress, Progress { offset: all, bytes: all, busy: false });
    uploads.finish(&name).await.unwrap();
    let kept = shelf.store().path(&format!(".cluster/binaries/{name}"));
    let kept = object_store::ObjectStoreExt::get(shelf.store().objects(), &kept).await.unwrap().bytes().await.unwrap();
    assert!(kept == program, "{} of {all} bytes are in the store", kept.len());
    assert!(uploads.progress(&name).is_none() && std::fs::read_dir(uploads.folder()).unwrap().next().is_none());
}

#[tokio::test]
async fn what_is_damaged_or_no_job_or_more_than_was_announced_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let (program, shelf) = (made_up::program(), shelf(folder.path()));
    let uploads = Uploads::open(shelf.clone(), Bounds::default()).unwrap();
    let mut damaged = program.clone();
    *damaged.last_mut().unwrap() ^= 1;
    for (name, content, why) in
        [(hash(&program), damaged, "was damaged"), (hash(b"#!/bin/sh"), b"#!/bin/sh".to_vec(), "no Linux program")]
    {
        uploads.begin(&name, content.len() as u64).unwrap();
        uploads.receive(&name, 0).unwrap().all(pieces(&content)).await.unwrap();
        let refused = uploads.finish(&name).await.unwrap_err().to_string();
        assert!(refused.contains(why), "{refused}");
        assert!(!shelf.has_binary(&name).await.unwrap() && uploads.progress(&name).is_none());
    }
    let name = hash(&program);
    uploads.begin(&name, program.len() as u64 - 1).unwrap();
    let more = uploads.receive(&name, 0).unwrap().all(pieces(&program)).await.unwrap_err();
    assert!(matches!(more, UploadError::TooMuch), "{more}");
    // Who announces another size begins again.
    assert_eq!(uploads.begin(&name, program.len() as u64).unwrap().offset, 0);
    uploads.receive(&name, 0).unwrap().all(pieces(&program)).await.unwrap();
    uploads.finish(&name).await.unwrap();
}

#[tokio::test]
async fn uploads_are_bounded_in_number_size_and_age_and_each_has_one_sender() {
    let folder = tempfile::tempdir().unwrap();
    let bounds = Bounds { largest: 100, most: 2, total: 150, kept: Duration::from_secs(3600) };
    let uploads = Uploads::open(shelf(folder.path()), bounds).unwrap();
    let there = || std::fs::read_dir(uploads.folder()).unwrap().count();
    assert!(matches!(uploads.begin("a", 101), Err(UploadError::TooLarge { bytes: 101, largest: 100 })));
    for (name, bytes) in [("a", 10), ("b", 10), ("c", 10)] {
        uploads.begin(name, bytes).unwrap();
    }
    assert!(uploads.progress("a").is_none() && there() == 2, "the oldest makes room");
    let receiving = uploads.receive("b", 0).unwrap();
    assert!(matches!(uploads.receive("b", 0), Err(UploadError::Busy)));
    assert!(matches!(uploads.remove("b"), Err(UploadError::Busy)));
    assert!(uploads.progress("b").unwrap().busy);
    uploads.begin("d", 100).unwrap();
    assert!(uploads.progress("c").is_none() && uploads.progress("b").is_some(), "what is being sent stays");
    let of_d = uploads.receive("d", 0).unwrap();
    assert!(matches!(uploads.begin("e", 1), Err(UploadError::TooMany)));
    drop(of_d);
    uploads.remove("d").unwrap();
    receiving.all(pieces(b"0123456789")).await.unwrap();
    // Those of a node that has been away for long.
    let file = uploads.path("b", 10);
    let then = now() - Duration::from_secs(3700);
    File::options().write(true).open(file).unwrap().set_modified(then).unwrap();
    drop(uploads);
    let uploads = Uploads::open(shelf(folder.path()), bounds).unwrap();
    assert_eq!(uploads.progress("b").unwrap().offset, 10);
    uploads.give_up_old();
    assert!(uploads.progress("b").is_none() && std::fs::read_dir(uploads.folder()).unwrap().next().is_none());
}

#[tokio::test]
async fn an_upload_whose_file_was_removed_is_unknown_and_begins_again() {
    let folder = tempfile::tempdir().unwrap();
    let (program, shelf) = (made_up::program(), shelf(folder.path()));
    let (name, all) = (hash(&program), program.len() as u64);
    let uploads = Uploads::open(shelf, Bounds::default()).unwrap();
    let file = folder.path().join(format!("uploads/{name}.{all}"));
    uploads.begin(&name, all).unwrap();
    std::fs::remove_file(&file).unwrap();
    let gone = uploads.receive(&name, 0).unwrap_err();
    assert!(matches!(gone, UploadError::Unknown) && uploads.progress(&name).is_none(), "{gone}");
    uploads.begin(&name, all).unwrap();
    uploads.receive(&name, 0).unwrap().all(pieces(&program)).await.unwrap();
    std::fs::remove_file(&file).unwrap();
    let gone = uploads.finish(&name).await.unwrap_err();
    assert!(matches!(gone, UploadError::Unknown) && uploads.progress(&name).is_none(), "{gone}");
    uploads.begin(&name, all).unwrap();
    uploads.receive(&name, 0).unwrap().all(pieces(&program)).await.unwrap();
    uploads.finish(&name).await.unwrap();
}
