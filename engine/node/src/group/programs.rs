//! The programs of a cluster's jobs: what a node fetches, verifies and checks ahead of need.
//!
//! ```text
//!   store: specifications/{version}.json ─► binaries/{hash} ─► cache/{hash}, verified ─► the binary's own `check` ─► offer
//! ```
//!
//! Names are hashes of the content, so an object never changes, and what was damaged on the way is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::io::Seek as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, ensure};
use fluvial_store::Store;
use fluvial_store::frame::{self, Format};
use object_store::{ObjectStoreExt as _, PutPayload};
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;
use tokio::task::{JoinHandle, spawn_blocking};

use super::collection::is_announced;
use crate::check_job_name;
use crate::elf::{Glibc, ProgramFile};
use crate::fail_point::{FailPoint, reach};
use crate::group::binary_files::{Hashing, hash_of_file};
use crate::isolation::{Isolation, Limits};
use crate::job_store::JobStore;
use crate::keeper::Program;
use crate::readiness::{Apart, Checks, Readiness, Verdict, verdict};
use crate::status::Graph;

const SPECIFICATION: Format = Format { kind: "specification", version: 1 };
const GRAPH: Format = Format { kind: "graph", version: 1 };
/// How often a node tries to keep the graph of a version.
const GRAPH_TRIES: u32 = 12;
/// How many graphs a node keeps in memory.
const MOST_GRAPHS: usize = 64;
/// The time between two attempts to fetch a program.
const AGAIN: Duration = Duration::from_secs(5);
/// The time between two looks whether the file of a program is still in the cache.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// The bytes of binaries that a node keeps. Those that were used longest ago go first.
const MOST_CACHED: u64 = 4 << 30;

/// How many binaries are read as a whole at the same time.
const READERS: usize = 4;
/// What the name of a binary begins with while it is written.
const NEW: &str = "new.";
/// The age from which a file of such a name counts as left by a node that was killed.
const LEFT_AFTER: Duration = Duration::from_secs(3600);

/// What a job runs: the content of its name, the version.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Specification {
    /// The name of the job.
    pub job: String,
    /// The hash of its binary.
    pub binary: String,
    /// The job's own options, as its command `run` takes them.
    pub arguments: Vec<String>,
    /// The limits of each of its processes.
    #[serde(default, skip_serializing_if = "Limits::is_empty")]
    pub limits: Limits,
    /// The savepoint to which the job goes back with this, once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub go_back: Option<GoesBack>,
    /// The program that a person has approved to compute other output than the one before: the hash of the binary and of the job's
    /// own options.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved: Option<String>,
    /// What the job ran before, for the way back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Previous>,
}

/// A savepoint to which a job goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GoesBack {
    /// Its name.
    pub savepoint: String,
    /// Tells this request from any other.
    pub id: u64,
    /// Whether upsert outputs that have moved on since are corrected.
    pub correct_outputs: bool,
}

/// What a job ran before an upgrade.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Previous {
    /// The version of its specification.
    pub version: String,
    /// The savepoint that was taken before the upgrade; `None` if there was no checkpoint yet.
    pub savepoint: Option<String>,
}

/// The hash that names content: SHA-256, in hexadecimal digits.
#[must_use]
pub fn hash(content: &[u8]) -> String {
    let hashing = Hashing::default();
    hashing.update(content);
    hashing.finish()
}

impl Specification {
    /// Its name.
    #[must_use]
    pub fn version(&self) -> String {
        hash(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// The arguments by which the binary carries out `command` for this job, with a store at `location`.
    fn arguments(&self, command: &str, location: &str) -> Vec<OsString> {
        let own = [command, "--store", location, "--name", &self.job].map(OsString::from).into_iter();
        let mut arguments: Vec<OsString> = own.collect();
        if let Some(GoesBack { savepoint, id, correct_outputs }) = &self.go_back {
            arguments.extend(["--go-back", savepoint, "--go-back-id", &id.to_string()].map(OsString::from));
            arguments.extend(correct_outputs.then(|| "--correct-outputs".into()));
        }
        if let Some(program) = &self.approved {
            arguments.extend(["--upgrade", program, "--leave-append-outputs"].map(OsString::from));
        }
        arguments.extend(self.arguments.iter().map(OsString::from));
        arguments
    }
}

/// Whether a specification can be relied on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// It is there with its binary, and both stay.
    Whole,
    /// Its binary is not there.
    WithoutBinary,
    /// One of the two is being collected, or was a moment ago.
    IsCollected,
}

/// The specifications and binaries of a cluster in its store. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Shelf {
    store: Store,
    /// The folder of the cluster in the store.
    folder: String,
    /// The location of the store, as the job's processes are told.
    location: String,
    /// The folder of this host where binaries are kept.
    cache: PathBuf,
    /// How the processes of jobs are kept apart from this node, if they are.
    isolation: Option<Arc<Isolation>>,
    /// The store for what is in the folders of jobs, if these belong to another user.
    jobs: Option<Store>,
    /// Graphs that were read, by version.
    graphs: Arc<Mutex<BTreeMap<String, Graph>>>,
    /// Whoever reads a whole binary holds that of its hash. A node that starts prepares the programs of all jobs at once: without this
    /// it would hold a copy for each of them, and fetch the same one again and again.
    readers: Arc<[tokio::sync::Mutex<Verified>; READERS]>,
}

/// The binaries that were verified last, by their hashes.
type Verified = BTreeMap<String, (FileId, Instant)>;

/// What a file is known by while nobody replaces it: its inode and its length.
type FileId = (u64, u64);

impl Shelf {
    /// Those of the cluster whose objects are in `folder` of the store at `location`. Binaries are kept on this host in `cache`.
    #[must_use]
    pub fn new(store: Store, folder: &str, location: String, cache: PathBuf) -> Self {
        let (graphs, readers) = (Arc::default(), Arc::default());
        let (folder, isolation, jobs) = (folder.to_owned(), None, None);
        Self { store, folder, location, cache, isolation, jobs, graphs, readers }
    }

    /// The same on a node that keeps the processes of jobs apart.
    ///
    /// # Errors
    /// The store is a folder that cannot be opened.
    pub(crate) fn isolated(self, isolation: Arc<Isolation>) -> std::io::Result<Self> {
        let jobs = isolation.guarded(&self.store)?;
        Ok(Self { isolation: Some(isolation), jobs, ..self })
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    /// The folder of this host where binaries are kept.
    pub(crate) fn cache(&self) -> &Path {
        &self.cache
    }

    /// The objects of a job.
    #[must_use]
    pub fn job(&self, name: &str) -> JobStore {
        JobStore::new(self.jobs.as_ref().unwrap_or(&self.store).clone(), name)
    }

    /// Has a specification's binary check whether the job could be run with it on this host now.
    ///
    /// # Errors
    /// The binary cannot be fetched, or gives no verdict.
    pub async fn check(&self, specification: &Specification) -> anyhow::Result<Verdict> {
        let file = self.fetch(&specification.binary).await?;
        self.can_load(&specification.binary).await?;
        let checks = self.checks(specification, file);
        self.hand_over(&specification.job).await?;
        spawn_blocking(move || verdict(&checks)).await?.map_err(anyhow::Error::msg)
    }

    fn checks(&self, specification: &Specification, binary: PathBuf) -> Checks {
        let checks = Checks::of_program(binary, specification.arguments("check", &self.location));
        let Some(isolation) = &self.isolation else { return checks };
        let (isolation, limits) = (Arc::clone(isolation), specification.limits);
        Checks { apart: Some(Apart { isolation, limits, options: specification.arguments.clone() }), ..checks }
    }

    /// Lets the processes of a job have its folder in the store.
    async fn hand_over(&self, job: &str) -> anyhow::Result<()> {
        let Some(isolation) = self.isolation.clone() else { return Ok(()) };
        let job = job.to_owned();
        let handed_over = spawn_blocking(move || isolation.hand_over(&job)).await?;
        handed_over.context("cannot give the job its folder in the store")
    }

    fn binary(&self, hash: &str) -> object_store::path::Path {
        self.store.path(&format!("{}/binaries/{hash}", self.folder))
    }

    fn specification(&self, version: &str) -> object_store::path::Path {
        self.store.path(&format!("{}/specifications/{version}.json", self.folder))
    }

    fn graph_object(&self, version: &str) -> object_store::path::Path {
        self.store.path(&format!("{}/graphs/{version}.json", self.folder))
    }

    /// Keeps the graph of a version, as a check of it says. A later one of the same version is not needed.
    ///
    /// # Errors
    /// The store fails.
    pub async fn put_graph(&self, version: &str, graph: &Graph) -> anyhow::Result<()> {
        self.store.create_framed(GRAPH, &self.graph_object(version), graph).await?;
        Ok(())
    }

    /// The graph of a version, if a node has checked it.
    ///
    /// # Errors
    /// The store fails.
    pub async fn graph(&self, version: &str) -> anyhow::Result<Option<Graph>> {
        let known = || self.graphs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(graph) = known().get(version) {
            return Ok(Some(graph.clone()));
        }
        let found: Option<Graph> = self.store.get_framed(GRAPH, &self.graph_object(version)).await?;
        if let Some(graph) = &found {
            let mut known = known();
            if known.len() >= MOST_GRAPHS {
                known.clear();
            }
            known.insert(version.to_owned(), graph.clone());
        }
        Ok(found)
    }

    /// Whether a binary is there.
    ///
    /// # Errors
    /// The store fails.
    pub async fn has_binary(&self, hash: &str) -> anyhow::Result<bool> {
        let name = self.binary(hash);
        match self.store.objects().head(&name).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.store.failed("look for", &name, error).into()),
        }
    }

    /// Keeps a binary, whose hash must be this.
    ///
    /// # Errors
    /// Its content has another hash, it is no program of this system, or the store fails.
    pub async fn put_binary(&self, expected: &str, content: File) -> anyhow::Result<()> {
        let (found, content) = spawn_blocking(move || hash_of_file(&content).map(|found| (found, content))).await??;
        ensure!(
            found == expected,
            "what arrived has the hash {found} instead of {expected}: it was damaged on its way"
        );
        let content = spawn_blocking(move || {
            is_program(&content)?;
            // Its headers have been read.
            (&content).rewind()?;
            anyhow::Ok(content)
        });
        let content = content.await??;
        let name = self.binary(expected);
        reach(FailPoint::BeforeBinary);
        self.store.put_file(&name, content).await.map_err(|error| self.store.failed("create", &name, error))?;
        reach(FailPoint::AfterBinary);
        Ok(())
    }

    /// Keeps a specification. Returns its version. What is there already is written again, so that it is young: see the module
    /// `collection`.
    ///
    /// # Errors
    /// The store fails.
    pub async fn put(&self, specification: &Specification) -> anyhow::Result<String> {
        let (version, name) = (specification.version(), self.specification(&specification.version()));
        reach(FailPoint::BeforeSpecification);
        let bytes = frame::encode(SPECIFICATION, specification)?;
        let put = self.store.objects().put(&name, PutPayload::from_bytes(bytes)).await;
        put.map_err(|error| self.store.failed("write", &name, error))?;
        reach(FailPoint::AfterSpecification);
        Ok(version)
    }

    /// Whether a specification that has just been kept can be relied on, together with its binary.
    ///
    /// # Errors
    /// The store fails.
    pub async fn is_kept(&self, specification: &Specification) -> anyhow::Result<Kept> {
        if self.is_collected(specification).await? {
            return Ok(Kept::IsCollected);
        }
        self.is_there(specification).await
    }

    /// Whether a specification or its binary is about to be deleted.
    pub(super) async fn is_collected(&self, specification: &Specification) -> anyhow::Result<bool> {
        let names = [self.specification(&specification.version()), self.binary(&specification.binary)];
        Ok(is_announced(&self.store, &names).await?)
    }

    /// Whether a specification and its binary are there.
    pub(super) async fn is_there(&self, specification: &Specification) -> anyhow::Result<Kept> {
        let names = [self.specification(&specification.version()), self.binary(&specification.binary)];
        for (name, missing) in names.iter().zip([Kept::IsCollected, Kept::WithoutBinary]) {
            match self.store.objects().head(name).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => return Ok(missing),
                Err(error) => return Err(self.store.failed("look for", name, error).into()),
            }
        }
        Ok(Kept::Whole)
    }

    /// The specification of a version.
    ///
    /// # Errors
    /// It is not there, or the store fails.
    pub async fn get(&self, version: &str) -> anyhow::Result<Specification> {
        let name = self.specification(version);
        let found: Option<Specification> = self.store.get_framed(SPECIFICATION, &name).await?;
        let specification = found.with_context(|| format!("'{}' is missing", self.store.describe_object(&name)))?;
        ensure!(specification.version() == version, "'{}' is damaged", self.store.describe_object(&name));
        // It becomes a part of paths, and who writes to the store need not be the API.
        check_job_name(&specification.job).map_err(anyhow::Error::msg)?;
        Ok(specification)
    }

    /// Who may read a whole binary now.
    fn reader(&self, hash: &str) -> &tokio::sync::Mutex<Verified> {
        let first = hash.as_bytes().first().copied().unwrap_or_default();
        &self.readers[usize::from(first) % READERS]
    }

    /// The file of a binary in the cache, which is fetched if it is not there or was damaged.
    async fn fetch(&self, hash_of_it: &str) -> anyhow::Result<PathBuf> {
        let file = self.cache.join(hash_of_it);
        let mut verified = self.reader(hash_of_it).lock().await;
        let known = verified.get(hash_of_it).filter(|(_, when)| when.elapsed() < LOOK_EVERY).map(|(file, _)| *file);
        if known.is_none() || known != file_id(&file) {
            verified.remove(hash_of_it);
            self.read_and_fetch(&file, hash_of_it).await?;
            verified.extend(file_id(&file).map(|id| (hash_of_it.to_owned(), (id, Instant::now()))));
        }
        Ok(file)
    }

    /// The same, if the file was damaged a moment after it was verified.
    async fn fetch_damaged(&self, hash: &str) -> anyhow::Result<PathBuf> {
        self.reader(hash).lock().await.remove(hash);
        self.fetch(hash).await
    }

    async fn read_and_fetch(&self, file: &Path, hash_of_it: &str) -> anyhow::Result<()> {
        let (file, expected) = (file.to_owned(), hash_of_it.to_owned());
        let (cached, of_cached) = (file.clone(), expected.clone());
        if spawn_blocking(move || is_cached(&cached, &of_cached)).await? {
            return Ok(());
        }
        let name = self.binary(hash_of_it);
        let new = spawn_blocking({
            let cache = self.cache.clone();
            move || New::begin(&cache)
        });
        let (new, content) = new.await??;
        let hashing = Hashing::default();
        let each = hashing.clone();
        let fetched = self.store.get_to_file(&name, content, move |bytes| each.update(bytes)).await;
        fetched.map_err(|error| self.store.failed("read", &name, error))?;
        ensure!(hashing.finish() == expected, "'{}' is damaged", self.store.describe_object(&name));
        let kept = file.clone();
        spawn_blocking(move || new.keep(&kept)).await??;
        Ok(())
    }

    /// Whether this host could load a program of the cache.
    async fn can_load(&self, hash: &str) -> anyhow::Result<()> {
        let _alone = self.reader(hash).lock().await;
        let file = self.cache.join(hash);
        spawn_blocking(move || can_load(&file)).await?
    }
}

/// By what a file is known, if it is there.
fn file_id(file: &Path) -> Option<FileId> {
    std::fs::metadata(file).ok().map(|metadata| (metadata.ino(), metadata.len()))
}

/// Whether a file of the cache has the content of this hash.
fn is_cached(file: &Path, expected: &str) -> bool {
    File::open(file).and_then(|file| hash_of_file(&file)).is_ok_and(|found| found == expected)
}

/// A file of the cache that is being written. Dropping it deletes it.
#[derive(Debug)]
struct New {
    cache: PathBuf,
    path: PathBuf,
}

impl New {
    fn begin(cache: &Path) -> anyhow::Result<(Self, File)> {
        let failed = || format!("cannot keep the binary in '{}'", cache.display());
        std::fs::create_dir_all(cache).with_context(failed)?;
        forget_left(cache);
        let path = cache.join(format!("{NEW}{:016x}", rand::random::<u64>()));
        let file = File::create_new(&path).with_context(failed)?;
        Ok((Self { cache: cache.to_owned(), path }, file))
    }

    /// Puts it into the cache as a whole.
    fn keep(self, file: &Path) -> anyhow::Result<()> {
        let failed = || format!("cannot keep the binary in '{}'", self.cache.display());
        std::fs::set_permissions(&self.path, std::fs::Permissions::from_mode(0o755)).with_context(failed)?;
        std::fs::rename(&self.path, file).with_context(failed)?;
        prune(&self.cache, MOST_CACHED);
        Ok(())
    }
}

impl Drop for New {
    fn drop(&mut self) {
        // There is nothing of this name any more once it is kept.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Deletes what nodes have left in a cache that were killed while they wrote a binary.
fn forget_left(cache: &Path) {
    for entry in std::fs::read_dir(cache).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        let is_old = modified.is_ok_and(|then| then.elapsed().is_ok_and(|age| age > LEFT_AFTER));
        if is_old && entry.file_name().to_str().is_some_and(|name| name.starts_with(NEW)) {
            // An error means that another node of this host was faster.
            let _ = std::fs::remove_file(entry.path());
        }
    }
}

/// Whether a file is a job that can run on a node of this cluster with this CPU.
fn is_program(file: &File) -> anyhow::Result<ProgramFile> {
    let program = ProgramFile::read(file)?;
    program.fits_this_engine()?;
    program.fits_this_cpu()?;
    Ok(program)
}

/// Whether this host could load a program: the loader itself would say so in many words, and only once it is started.
fn can_load(file: &Path) -> anyhow::Result<()> {
    let opened = File::open(file).with_context(|| format!("cannot read '{}'", file.display()))?;
    is_program(&opened)?.fits_glibc(Glibc::of_this_host())
}

/// Whether a file of the cache's folder is a binary, or was to become one. Others are not ours.
fn is_own(name: &std::ffi::OsStr) -> bool {
    let hash = |name: &str| name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.to_str().is_some_and(|name| name.starts_with(NEW) || hash(name))
}

/// Deletes the files of a cache that were used longest ago while there are more than `most` bytes. A process that runs goes on, and
/// a file that is needed again is fetched again.
fn prune(cache: &Path, most: u64) {
    let Ok(entries) = std::fs::read_dir(cache) else { return };
    let mut files: Vec<_> = entries
        .filter(|entry| entry.as_ref().is_ok_and(|entry| is_own(&entry.file_name())))
        .filter_map(|entry| {
            let (entry, metadata) = entry.and_then(|entry| entry.metadata().map(|metadata| (entry, metadata))).ok()?;
            Some((metadata.modified().ok()?, metadata.len(), entry.path()))
        })
        .collect();
    files.sort();
    let mut total: u64 = files.iter().map(|(_, bytes, _)| bytes).sum();
    for (_, bytes, path) in files {
        if total <= most {
            return;
        }
        if let Err(error) = std::fs::remove_file(&path) {
            tracing::warn!(%error, file = %path.display(), "cannot delete an old binary from the cache");
        }
        total -= bytes;
    }
}

/// A version that was prepared.
#[derive(Debug)]
struct Prepared {
    program: Program,
    readiness: Readiness,
}

type AllPrepared = Arc<Mutex<BTreeMap<String, Prepared>>>;

/// Whether a version can run here: `None`, or the reason why it cannot.
type OnChecked = Arc<dyn Fn(&str, Option<String>) + Send + Sync>;

/// The programs that a node prepares.
pub(super) struct Programs {
    shelf: Shelf,
    runtime: Handle,
    checked: OnChecked,
    tasks: BTreeMap<String, JoinHandle<()>>,
    prepared: AllPrepared,
}

impl Programs {
    pub(super) fn new(shelf: Shelf, runtime: Handle, checked: OnChecked) -> Self {
        Self { shelf, runtime, checked, tasks: BTreeMap::new(), prepared: AllPrepared::default() }
    }

    /// Prepares these versions, and forgets all others.
    pub(super) fn prepare(&mut self, versions: &BTreeSet<String>) {
        self.tasks.retain(|version, task| {
            let keep = versions.contains(version);
            if !keep {
                task.abort();
            }
            keep
        });
        self.lock().retain(|version, _| versions.contains(version));
        for version in versions {
            if !self.tasks.contains_key(version) {
                let prepare = Preparing {
                    version: version.clone(),
                    shelf: self.shelf.clone(),
                    checked: Arc::clone(&self.checked),
                    prepared: Arc::clone(&self.prepared),
                };
                self.tasks.insert(version.clone(), self.runtime.spawn(prepare.run()));
            }
        }
    }

    /// Whether a version is among those that are wanted.
    pub(super) fn prepares(&self, version: &str) -> bool {
        self.tasks.contains_key(version)
    }

    /// The program of a version that was prepared.
    pub(super) fn program(&self, version: &str) -> anyhow::Result<Program> {
        let prepared = self.lock();
        let program = prepared.get(version).map(|prepared| prepared.program.clone());
        program.with_context(|| format!("version {version} has not been fetched"))
    }

    /// Fetches the binary of a version again if its file was damaged: a process of it has died.
    pub(super) fn repair(&self, version: &str) {
        let path = self.lock().get(version).map(|prepared| prepared.program.path.clone());
        let Some(hash) = path.as_deref().and_then(|path| path.file_name()?.to_str()).map(str::to_owned) else { return };
        let (shelf, version) = (self.shelf.clone(), version.to_owned());
        self.runtime.spawn(async move {
            if let Err(error) = shelf.fetch_damaged(&hash).await {
                tracing::warn!(
                    version,
                    error = format!("{error:#}"),
                    "cannot look whether a binary is what it must be"
                );
            }
        });
    }

    /// Checks a version at once.
    pub(super) fn check_again(&self, version: &str) {
        if let Some(prepared) = self.lock().get(version) {
            prepared.readiness.check_again();
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Prepared>> {
        self.prepared.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Programs {
    fn drop(&mut self) {
        self.tasks.values().for_each(JoinHandle::abort);
        self.lock().clear();
    }
}

/// One version that is being prepared.
struct Preparing {
    version: String,
    shelf: Shelf,
    checked: OnChecked,
    prepared: AllPrepared,
}

impl Preparing {
    async fn run(self) {
        loop {
            match self.prepare().await {
                Ok(file) => {
                    // Somebody may empty the cache. What is needed is the newest in it.
                    while std::fs::File::open(&file).is_ok_and(|file| file.set_modified(SystemTime::now()).is_ok()) {
                        tokio::time::sleep(LOOK_EVERY).await;
                    }
                }
                Err(error) => {
                    (self.checked)(&self.version, Some(format!("{error:#}")));
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// Keeps the first graph that a check says.
    fn draw(&self) -> impl FnMut(Graph) + Send + 'static {
        let (shelf, version, runtime, mut kept) = (self.shelf.clone(), self.version.clone(), Handle::current(), false);
        move |graph| {
            if std::mem::replace(&mut kept, true) {
                return;
            }
            let (shelf, version) = (shelf.clone(), version.clone());
            runtime.spawn(async move {
                for _ in 0..GRAPH_TRIES {
                    match shelf.put_graph(&version, &graph).await {
                        Ok(()) => return,
                        Err(error) => tracing::warn!(%error, version, "cannot keep the graph of a job"),
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            });
        }
    }

    /// Returns the file of the program.
    async fn prepare(&self) -> anyhow::Result<PathBuf> {
        reach(FailPoint::BeforeFetch);
        let specification = self.shelf.get(&self.version).await?;
        let path = self.shelf.fetch(&specification.binary).await?;
        reach(FailPoint::AfterFetch);
        self.shelf.can_load(&specification.binary).await?;
        let program = Program {
            path: path.clone(),
            name: specification.job.clone(),
            arguments: specification.arguments("run", &self.shelf.location),
            limits: specification.limits,
            options: specification.arguments.clone(),
        };
        self.shelf.hand_over(&specification.job).await?;
        let checks = self.shelf.checks(&specification, path.clone());
        let (checked, version) = (Arc::clone(&self.checked), self.version.clone());
        let draw = self.draw();
        // The lock is held, so that the program is there when the node offers the version.
        let mut all = self.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        let told = move |unready| {
            reach(FailPoint::AfterCheck);
            checked(&version, unready);
        };
        let readiness = Readiness::start_and_draw(checks, told, draw)?;
        all.insert(self.version.clone(), Prepared { program, readiness });
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use std::io::Write as _;

    use bytes::Bytes;
    use object_store::memory::InMemory;

    use super::*;
    use crate::elf::made_up;

    fn file_of(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        file.rewind().unwrap();
        file
    }

    fn shelf() -> Shelf {
        shelf_in("cache".into())
    }

    fn shelf_in(cache: PathBuf) -> Shelf {
        Shelf::new(Store::over(Arc::new(InMemory::new()), "memory"), ".cluster", String::new(), cache)
    }

    fn program() -> Bytes {
        Bytes::from(made_up::program())
    }

    #[test]
    fn a_host_says_which_glibc_is_missing() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), made_up::program()).unwrap();
        can_load(file.path()).unwrap();
        if let Some(there) = Glibc::of_this_host() {
            std::fs::write(file.path(), made_up::program_that_needs("GLIBC_99.1")).unwrap();
            let why = can_load(file.path()).unwrap_err().to_string();
            assert!(why.contains(&format!("needs glibc 99.1, this node has {there}")), "{why}");
        }
    }

    #[tokio::test]
    async fn a_binary_is_kept_once_and_only_if_it_is_what_its_name_says_and_can_run() {
        let shelf = shelf();
        let refused = async |name: &str, content: &[u8]| {
            let refused = shelf.put_binary(name, file_of(content)).await;
            refused.unwrap_err().to_string()
        };
        assert!(refused(&hash(b"other"), &program()).await.contains("was damaged"));
        assert!(refused(&hash(b"#!/bin/sh"), b"#!/bin/sh").await.contains("no Linux program"));
        let mut other = program().to_vec();
        other[18] = 8;
        assert!(refused(&hash(&other), &other).await.contains("another CPU (ELF machine 8)"));
        let name = hash(&program());
        assert!(!shelf.has_binary(&name).await.unwrap());
        for _ in 0..2 {
            shelf.put_binary(&name, file_of(&program())).await.unwrap();
        }
        assert!(shelf.has_binary(&name).await.unwrap());
    }

    #[tokio::test]
    async fn a_binary_that_is_damaged_in_the_cache_is_fetched_again_and_one_in_the_store_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let shelf = shelf_in(folder.path().join("cache"));
        let name = hash(&program());
        shelf.put_binary(&name, file_of(&program())).await.unwrap();
        let file = shelf.fetch(&name).await.unwrap();
        assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o755);
        std::fs::write(&file, b"damaged").unwrap();
        shelf.fetch(&name).await.unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), program());
        std::fs::remove_file(&file).unwrap();
        let damaged = shelf.binary(&name);
        shelf.store.delete(&damaged).await.unwrap();
        shelf.store.create(&damaged, Bytes::from_static(b"damaged")).await.unwrap();
        assert!(shelf.fetch(&name).await.unwrap_err().to_string().contains("is damaged"));
        assert!(!file.exists());
    }

    #[test]
    fn what_a_killed_node_has_left_in_a_cache_is_deleted_when_it_is_old() {
        let folder = tempfile::tempdir().unwrap();
        for (name, age_s) in [("new.1", 4000), ("new.2", 10), ("another's", 4000)] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            let then = SystemTime::now() - Duration::from_secs(age_s);
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
        forget_left(folder.path());
        let left = ["new.1", "new.2", "another's"].map(|name| folder.path().join(name).exists());
        assert_eq!(left, [false, true, true]);
    }

    #[test]
    fn a_cache_loses_what_was_used_longest_ago() {
        let folder = tempfile::tempdir().unwrap();
        let name = |name: &str| hash(name.as_bytes());
        for (file, age) in [(name("old"), 30), (name("older"), 40), (name("new"), 10), ("another's".to_owned(), 50)] {
            let path = folder.path().join(file);
            std::fs::write(&path, [0; 10]).unwrap();
            let then = SystemTime::now() - Duration::from_secs(age);
            std::fs::File::open(path).unwrap().set_modified(then).unwrap();
        }
        prune(folder.path(), 20);
        let mut left: Vec<_> =
            std::fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        let mut expected = [name("new"), name("old"), "another's".to_owned()];
        expected.sort();
        assert_eq!(left, expected.map(OsString::from));
    }

    #[tokio::test]
    async fn a_version_is_the_hash_of_what_is_run() {
        let shelf = shelf();
        let specification = |arguments: &[&str]| Specification {
            job: "orders".to_owned(),
            binary: hash(b"binary"),
            arguments: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
            ..Specification::default()
        };
        let version = shelf.put(&specification(&["--input", "a"])).await.unwrap();
        assert_eq!(shelf.get(&version).await.unwrap(), specification(&["--input", "a"]));
        assert_ne!(specification(&["--input", "b"]).version(), version);
        let limits = Limits { memory_bytes: Some(1 << 30), millicpus: None };
        let limited = shelf.put(&Specification { limits, ..specification(&["--input", "a"]) }).await.unwrap();
        assert_ne!(limited, version);
        assert_eq!(shelf.get(&limited).await.unwrap().limits, limits);
        // A version that was stored before there were limits is the same without them.
        let before = format!(r#"{{"job":"orders","binary":"{}","arguments":["--input","a"]}}"#, hash(b"binary"));
        assert_eq!(hash(before.as_bytes()), version);
        assert!(shelf.get("0").await.unwrap_err().to_string().contains("is missing"));
    }
}
