//! Collections beside users who submit, in every order of their steps.

#![allow(clippy::unwrap_used)]

use std::sync::atomic::{AtomicU64, Ordering};

use fluvial_protocol::group::{AttemptNumber, JobRecord, NodeId, StoreCall, Term, Wanted};
use fluvial_store::Store;
use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;

use super::*;
use crate::elf::made_up;
use crate::group::programs::{Kept, Previous, hash};

/// A cluster's store in which everything is old that was written before `grow_old`, and a collector of it.
struct Place {
    shelf: Shelf,
    collector: Collector,
    /// The newest entity tag of what is old: this store counts them.
    old: Arc<AtomicU64>,
}

fn tag(object: &ObjectMeta) -> u64 {
    object.e_tag.as_ref().unwrap().trim_matches('"').parse().unwrap()
}

impl Place {
    fn new() -> Self {
        let store = Store::over(Arc::new(InMemory::new()), "memory");
        let shelf = Shelf::new(store, CLUSTER, String::new(), "cache".into());
        let old = Arc::new(AtomicU64::new(0));
        let until = Arc::clone(&old);
        let mut collector = Collector::new(shelf.clone(), CollectionOptions::default());
        collector.is_old = Arc::new(move |object, _| tag(object) < until.load(Ordering::Relaxed));
        Self { shelf, collector, old }
    }

    /// What has been written so far is old from now on.
    async fn grow_old(&self) {
        let name = self.shelf.store().path("clock");
        self.shelf.store().objects().put(&name, "".into()).await.unwrap();
        let written = self.shelf.store().objects().head(&name).await.unwrap();
        self.old.store(tag(&written), Ordering::Relaxed);
    }

    async fn upload(&self) -> String {
        let program = made_up::program();
        let mut file = tempfile::tempfile().unwrap();
        std::io::Write::write_all(&mut file, &program).unwrap();
        self.shelf.put_binary(&hash(&program), file).await.unwrap();
        hash(&program)
    }

    /// Writes a record in which jobs run these versions.
    async fn write(&self, position: u64, jobs: &[(&str, &str)]) {
        let job = |(name, version): &(&str, &str)| {
            let (version, require) = ((*version).to_owned(), BTreeMap::new());
            let ends_at_once = AttemptNumber(0);
            let wanted = Some(Wanted { revision: 1, version, workers: 1, run: true, require, ends_at_once });
            ((*name).to_owned(), JobRecord { wanted, ..JobRecord::new(1) })
        };
        let record = GroupRecord {
            nonce: position,
            term: Term(1),
            coordinator: NodeId { address: "a".to_owned(), start: 1 },
            jobs: jobs.iter().map(job).collect(),
            draining: BTreeSet::new(),
            clock_ms: 0,
            removing: BTreeMap::new(),
        };
        self.collector.journal.call(&StoreCall::Put(position, Arc::new(record))).await.unwrap();
    }

    async fn names(&self, folder: &str) -> Vec<String> {
        self.collector.list(folder, "").await.unwrap().into_keys().collect()
    }
}

fn specification(job: &str, binary: &str) -> Specification {
    Specification { job: job.to_owned(), binary: binary.to_owned(), ..Specification::default() }
}

/// The rules, each of which can be left out.
#[derive(Clone, Copy)]
struct Rules {
    age: bool,
    announce: bool,
    look_again: bool,
    look_last: bool,
}

const ALL: Rules = Rules { age: true, announce: true, look_again: true, look_last: true };

/// A user submits a job whose binary has been there for long, while a collector is at work. The order says whose step is next. Returns
/// whether the job was submitted, and whether all is there that it needs.
async fn run(order: &[bool], rules: Rules) -> (bool, bool) {
    let mut place = Place::new();
    let binary = place.upload().await;
    // It ran before.
    let specification = specification("orders", &binary);
    place.shelf.put(&specification).await.unwrap();
    place.write(0, &[]).await;
    place.grow_old().await;
    if !rules.age {
        place.collector.is_old = Arc::new(|_, _| true);
    }
    let (mut steps_of_user, mut steps_of_collector) = (0, 0);
    let (mut refused, mut submitted) = (false, false);
    let (mut first, mut announcement, mut record, mut second) = (BTreeSet::new(), None, None, BTreeSet::new());
    for is_user in order {
        if *is_user {
            match steps_of_user {
                0 => drop(place.shelf.put(&specification).await.unwrap()),
                1 => refused |= rules.announce && place.shelf.is_collected(&specification).await.unwrap(),
                2 => refused |= rules.look_last && place.shelf.is_there(&specification).await.unwrap() != Kept::Whole,
                _ if refused => {}
                _ => {
                    place.write(1, &[("orders", &specification.version())]).await;
                    submitted = true;
                }
            }
            steps_of_user += 1;
            continue;
        }
        let collector = &mut place.collector;
        match steps_of_collector {
            0 => {
                let (_, record) = collector.journal.newest().await.unwrap().unwrap();
                let look = collector.look().await.unwrap();
                first = collector.unused(&record, &look, 0).await.unwrap();
            }
            _ if first.is_empty() => {}
            1 => announcement = collector.announce(first.clone()).await.unwrap(),
            2 => record = collector.journal.newest().await.unwrap(),
            3 if rules.look_again => {
                let look = collector.look().await.unwrap();
                second = collector.unused(&record.take().unwrap().1, &look, 0).await.unwrap();
            }
            3 => second.clone_from(&first),
            4 => collector.delete(announcement.as_ref().unwrap(), &second).await.unwrap(),
            _ => announcement.take().unwrap().end(place.shelf.store()).await.unwrap(),
        }
        steps_of_collector += 1;
    }
    (submitted, place.shelf.is_there(&specification).await.unwrap() == Kept::Whole)
}

const STEPS_OF_USER: u32 = 4;
const STEPS_OF_COLLECTOR: u32 = 6;

/// In how many orders the job is submitted, and in how many of these it lacks something.
async fn all_orders(rules: Rules) -> (usize, usize) {
    let steps = STEPS_OF_USER + STEPS_OF_COLLECTOR;
    let (mut all, mut lacking) = (0, 0);
    for bits in (0_u32..1 << steps).filter(|bits| bits.count_ones() == STEPS_OF_USER) {
        let order: Vec<_> = (0..steps).map(|step| bits & (1 << step) != 0).collect();
        let (submitted, is_there) = run(&order, rules).await;
        all += usize::from(submitted);
        lacking += usize::from(submitted && !is_there);
    }
    (all, lacking)
}

#[tokio::test]
async fn a_job_that_is_submitted_during_a_collection_has_all_that_it_needs() {
    let (submitted, lacking) = all_orders(ALL).await;
    assert!(submitted > 50 && lacking == 0, "{lacking} of {submitted}");
}

/// Each rule is needed: without it some order loses a program.
#[tokio::test]
async fn without_one_of_the_rules_a_job_would_lose_its_program() {
    for (what, rules) in [
        ("age", Rules { age: false, ..ALL }),
        ("the announcement", Rules { announce: false, ..ALL }),
        ("the second look", Rules { look_again: false, ..ALL }),
        ("the last look of the user", Rules { look_last: false, ..ALL }),
    ] {
        let (submitted, lacking) = all_orders(rules).await;
        assert!(lacking > 0, "without {what} nothing is lost in {submitted} orders");
    }
}

#[tokio::test]
async fn what_nothing_refers_to_is_deleted_and_what_is_used_or_young_stays() {
    let mut place = Place::new();
    let binary = place.upload().await;
    let old = specification("gone", &hash(b"another"));
    let name = place.shelf.store().path(&format!("{CLUSTER}/binaries/{}", old.binary));
    place.shelf.store().objects().put(&name, "another".into()).await.unwrap();
    let previous = |specification: &Specification| Previous { version: specification.version(), savepoint: None };
    // Seven versions of a job, each after the one before.
    let mut versions: Vec<Specification> = vec![specification("orders", &binary)];
    for number in 1..7 {
        let before = versions.last().unwrap();
        let next =
            Specification { arguments: vec![number.to_string()], previous: Some(previous(before)), ..before.clone() };
        versions.push(next);
    }
    for specification in versions.iter().chain([&old]) {
        let version = place.shelf.put(specification).await.unwrap();
        let graph = place.shelf.store().path(&format!("{CLUSTER}/graphs/{version}.json"));
        place.shelf.store().objects().put(&graph, "".into()).await.unwrap();
    }
    place.collector.logs.write("gone", (1, 0), Vec::new(), true).await.unwrap();
    place.collector.logs.write("orders", (1, 0), Vec::new(), true).await.unwrap();
    place.write(0, &[("orders", &versions[6].version())]).await;
    place.collector.collect().await.unwrap();
    assert_eq!(
        (place.names("specifications").await.len(), place.names("binaries").await.len()),
        (8, 2),
        "all is young"
    );
    place.grow_old().await;
    place.collector.collect().await.unwrap();
    let mut kept: Vec<_> = versions[3..].iter().map(|specification| specification.version() + ".json").collect();
    kept.sort();
    assert_eq!(place.names("specifications").await, kept);
    assert_eq!((place.names("graphs").await, place.names("binaries").await), (kept, vec![binary]));
    assert!(place.collector.logs.list("gone").await.unwrap().is_empty());
    assert_eq!(place.collector.logs.list("orders").await.unwrap().len(), 1);
    assert!(!is_announced(place.shelf.store(), &[name]).await.unwrap());
    // A damaged specification may name anything.
    let used = place.shelf.store().path(&format!("{CLUSTER}/specifications/{}.json", versions[6].version()));
    place.collector.known.clear();
    place.shelf.store().objects().put(&used, "damaged".into()).await.unwrap();
    place.write(1, &[("orders", &versions[6].version())]).await;
    place.grow_old().await;
    assert!(place.collector.collect().await.is_err());
    assert_eq!(place.names("binaries").await.len(), 1);
}

/// It may be that of a collector that is at work.
#[tokio::test]
async fn nothing_is_deleted_while_another_announcement_is_there() {
    let mut place = Place::new();
    place.upload().await;
    place.write(0, &[]).await;
    place.grow_old().await;
    let other = place.collector.announce(BTreeSet::new()).await.unwrap().unwrap();
    place.collector.collect().await.unwrap();
    assert_eq!(place.names("binaries").await.len(), 1);
    other.end(place.shelf.store()).await.unwrap();
    place.collector.collect().await.unwrap();
    assert!(place.names("binaries").await.is_empty());
}

/// A job is submitted, or a specification is written again, after the announcement: the second look sees it.
#[tokio::test]
async fn an_object_that_is_referred_to_after_the_announcement_stays() {
    for is_submitted in [false, true] {
        let mut place = Place::new();
        let specification = specification("orders", &place.upload().await);
        place.shelf.put(&specification).await.unwrap();
        place.write(0, &[]).await;
        place.grow_old().await;
        let (_, record) = place.collector.journal.newest().await.unwrap().unwrap();
        let look = place.collector.look().await.unwrap();
        let first = place.collector.unused(&record, &look, 0).await.unwrap();
        assert_eq!(first.len(), 2, "the specification and its binary: {first:?}");
        let announcement = place.collector.announce(first).await.unwrap().unwrap();
        if is_submitted {
            place.write(1, &[("orders", &specification.version())]).await;
        } else {
            place.shelf.put(&specification).await.unwrap();
        }
        place.collector.sweep(&announcement).await.unwrap();
        assert_eq!(place.shelf.is_there(&specification).await.unwrap(), Kept::Whole, "{is_submitted}");
    }
}
