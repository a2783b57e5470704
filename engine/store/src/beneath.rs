//! A folder whose folders belong to others, for a process that has more rights than they have.
//!
//! In a cluster each job has a folder in the store, which belongs to the user of jobs, and a node that is root works there, too: it
//! takes savepoints and reads checkpoints. A job can put a link in the place of any file or folder of its own. [`Beneath`]
//! opens each part of a name by itself and follows no link, so that what it reads, writes and deletes lies below its own folder. It
//! reads regular files of bounded size alone, because a job could also leave a pipe, or a file that fills the memory.

use std::ffi::OsStr;
use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use rustix::fs::{
    AtFlags, CWD, Dir, FileType, Gid, Mode, OFlags, RawMode, Stat, Uid, fchmod, fchown, fstat, fsync, linkat, mkdirat,
    openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;
use tokio::task::spawn_blocking;

/// The largest object that is read.
const LARGEST: u64 = 64 << 20;
/// How many folders lie in each other at most.
const DEEPEST: usize = 16;
/// The name of the kind of store in errors.
const STORE: &str = "folder";

/// Who gets what is written: the ids of a user and a group.
pub type Owner = (u32, u32);

/// The objects of a folder. What is not needed for a job's journal, checkpoints and savepoints is not implemented.
#[derive(Clone)]
pub struct Beneath(Arc<Folder>);

struct Folder {
    root: OwnedFd,
    owner: Owner,
}

impl fmt::Debug for Beneath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

impl fmt::Display for Beneath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a folder without links")
    }
}

impl Beneath {
    /// The objects below a folder, which nobody else may replace. What is written belongs to `owner`.
    ///
    /// # Errors
    /// The folder cannot be opened.
    pub fn open(folder: &std::path::Path, owner: Owner) -> io::Result<Self> {
        let root = openat(CWD, folder, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        Ok(Self(Arc::new(Folder { root, owner })))
    }

    /// Makes a call that blocks.
    async fn call<T: Send + 'static>(
        &self,
        name: &Path,
        call: impl FnOnce(&Folder, &Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let (folder, path) = (Arc::clone(&self.0), name.clone());
        let done = spawn_blocking(move || call(&folder, &path)).await;
        let done = done.map_err(|source| Error::JoinError { source })?;
        done.map_err(|error| failed(name, error))
    }
}

fn failed(name: &Path, source: io::Error) -> Error {
    let (path, kind) = (name.to_string(), source.kind());
    match kind {
        io::ErrorKind::NotFound => Error::NotFound { path, source: source.into() },
        io::ErrorKind::AlreadyExists => Error::AlreadyExists { path, source: source.into() },
        _ => Error::Generic { store: STORE, source: source.into() },
    }
}

/// What is no file and no folder is not there for whoever reads, and in the way of whoever writes.
fn refused(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

impl Folder {
    /// The folder in which an object is, and its name there. With `create`, folders that are missing are created.
    fn parent(&self, name: &Path, create: bool) -> io::Result<(OwnedFd, String)> {
        let mut parts: Vec<_> = name.parts().map(|part| part.as_ref().to_owned()).collect();
        let last = parts.pop().ok_or_else(|| refused("an object has a name"))?;
        Ok((self.folder(&parts, create)?, last))
    }

    fn folder(&self, parts: &[String], create: bool) -> io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut folder = self.root.try_clone()?;
        for part in parts {
            folder = match openat(&folder, part, flags, Mode::empty()) {
                Err(Errno::NOENT) if create => {
                    match mkdirat(&folder, part, Mode::from_raw_mode(0o755)) {
                        // Somebody else was faster; what it is shows when it is opened.
                        Ok(()) | Err(Errno::EXIST) => {}
                        Err(error) => return Err(error.into()),
                    }
                    fsync(&folder)?;
                    let made = openat(&folder, part, flags, Mode::empty())?;
                    self.give_away(&made, 0o755)?;
                    made
                }
                Err(Errno::LOOP | Errno::NOTDIR) => return Err(refused("there is no folder where one should be")),
                opened => opened?,
            };
        }
        Ok(folder)
    }

    /// Lets the owner have what was written, whatever the umask of this process is.
    fn give_away(&self, what: impl std::os::fd::AsFd, mode: RawMode) -> io::Result<()> {
        if fstat(&what)?.st_uid != rustix::process::geteuid().as_raw() {
            // The owner itself was faster.
            return Ok(());
        }
        fchmod(&what, Mode::from_raw_mode(mode))?;
        let (uid, gid) = self.owner;
        Ok(fchown(&what, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
    }

    fn put(&self, name: &Path, content: &PutPayload, create: bool) -> io::Result<()> {
        let (folder, name) = self.parent(name, true)?;
        // `object_store` passes over such names when it lists a folder.
        let new = format!("{name}#{}", u64::from(std::process::id()) << 32 | u64::from(unique()));
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mut file = File::from(openat(&folder, &*new, flags, Mode::from_raw_mode(0o600))?);
        let written = (|| {
            for part in content.iter() {
                file.write_all(part)?;
            }
            self.give_away(&file, 0o644)?;
            file.sync_all()?;
            if create {
                // It fails if the name is taken, whatever by.
                linkat(&folder, &*new, &folder, &*name, AtFlags::empty())?;
                unlinkat(&folder, &*new, AtFlags::empty())?;
            } else {
                renameat(&folder, &*new, &folder, &*name)?;
            }
            Ok(fsync(&folder)?)
        })();
        if written.is_err() {
            let _ = unlinkat(&folder, &*new, AtFlags::empty());
        }
        written
    }

    fn get(&self, name: &Path) -> io::Result<(File, Stat)> {
        let (folder, name) = self.parent(name, false)?;
        // Nobody has to write to a pipe for it to be opened.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let opened = openat(&folder, &*name, flags, Mode::empty()).map_err(|error| match error {
            Errno::LOOP => refused("it is a link, which is not followed"),
            error => error.into(),
        })?;
        let stat = fstat(&opened)?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return Err(refused("it is no file"));
        }
        if stat.st_size as u64 > LARGEST {
            return Err(refused("it is too large"));
        }
        Ok((File::from(opened), stat))
    }

    fn delete(&self, name: &Path) -> io::Result<()> {
        let (folder, name) = self.parent(name, false)?;
        unlinkat(&folder, &*name, AtFlags::empty())?;
        Ok(fsync(&folder)?)
    }

    fn list(&self, below: &Path) -> io::Result<Vec<ObjectMeta>> {
        let parts: Vec<_> = below.parts().map(|part| part.as_ref().to_owned()).collect();
        let mut found = Vec::new();
        match self.folder(&parts, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            folder => list_in(&folder?, &parts.join("/"), 0, &mut found)?,
        }
        Ok(found)
    }
}

fn list_in(folder: &OwnedFd, below: &str, depth: usize, found: &mut Vec<ObjectMeta>) -> io::Result<()> {
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        // Names with this character are of files that are being written.
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.') && !name.contains('#')) else { continue };
        let stat = match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => continue,
            stat => stat?,
        };
        let path = if below.is_empty() { name.to_owned() } else { format!("{below}/{name}") };
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory if depth < DEEPEST => {
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                match openat(folder, name, flags, Mode::empty()) {
                    // It was replaced since.
                    Err(Errno::NOENT | Errno::LOOP | Errno::NOTDIR) => {}
                    inner => list_in(&inner?, &path, depth + 1, found)?,
                }
            }
            FileType::RegularFile => found.extend(Path::parse(path).ok().map(|path| meta(path, &stat))),
            _ => {}
        }
    }
    Ok(())
}

fn meta(location: Path, stat: &Stat) -> ObjectMeta {
    let since = Duration::new(stat.st_mtime.max(0) as u64, stat.st_mtime_nsec as u32);
    let last_modified = (SystemTime::UNIX_EPOCH + since).into();
    ObjectMeta { location, last_modified, size: stat.st_size as u64, e_tag: None, version: None }
}

/// A number that this process has not used before.
fn unique() -> u32 {
    static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
    NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed)
}

fn not_implemented(operation: &str) -> Error {
    Error::NotImplemented { operation: operation.to_owned(), implementer: STORE.to_owned() }
}

#[async_trait]
impl ObjectStore for Beneath {
    async fn put_opts(&self, location: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let create = match opts.mode {
            PutMode::Create => true,
            PutMode::Overwrite => false,
            PutMode::Update(_) => return Err(not_implemented("conditional updates")),
        };
        self.call(location, move |folder, name| folder.put(name, &payload, create)).await?;
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(not_implemented("multipart uploads"))
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        if options.range.is_some() {
            return Err(not_implemented("ranges"));
        }
        let (file, stat) = self.call(location, |folder, name| folder.get(name)).await?;
        let meta = meta(location.clone(), &stat);
        options.check_preconditions(&meta)?;
        let (range, content) = if options.head {
            (0..0, Bytes::new())
        } else {
            let content = self.call(location, move |_, _| {
                let mut content = Vec::new();
                // It may grow meanwhile.
                file.take(LARGEST).read_to_end(&mut content)?;
                Ok(Bytes::from(content))
            });
            let content = content.await?;
            (0..content.len() as u64, content)
        };
        let payload = GetResultPayload::Stream(futures::stream::iter([Ok(content)]).boxed());
        Ok(GetResult { payload, meta, range, attributes: Default::default(), extensions: Default::default() })
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let deleted = locations.and_then(move |name| {
            let this = this.clone();
            async move { this.call(&name, |folder, name| folder.delete(name)).await.map(|()| name) }
        });
        deleted.boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (this, below) = (self.clone(), prefix.cloned().unwrap_or_default());
        let found = async move { this.call(&below, |folder, below| folder.list(below)).await };
        let found = futures::stream::once(found).map_ok(|found| futures::stream::iter(found.into_iter().map(Ok)));
        found.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(not_implemented("lists of one folder"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(not_implemented("copies"))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::{MetadataExt as _, symlink};

    use object_store::ObjectStoreExt as _;

    use super::*;
    use crate::{Created, Store};

    fn beneath(folder: &std::path::Path) -> Store {
        let owner = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Store::over(Arc::new(Beneath::open(folder, owner).unwrap()), "folder")
    }

    async fn read(store: &Store, name: &str) -> Result<Bytes> {
        store.objects().get(&Path::from(name)).await?.bytes().await
    }

    #[tokio::test]
    async fn it_is_a_store_that_another_one_on_the_same_folder_understands() {
        let folder = tempfile::tempdir().unwrap();
        let (store, other) = (beneath(folder.path()), Store::open(folder.path().to_str().unwrap()).unwrap());
        let name = Path::from("job/journal/00000000000000000001.json");
        let content = || Bytes::from_static(b"content");
        assert_eq!(store.create(&name, content()).await.unwrap(), Created::Created);
        assert_eq!(store.create(&name, Bytes::new()).await.unwrap(), Created::AlreadyExists);
        assert_eq!(read(&other, name.as_ref()).await.unwrap(), content());
        other.create(&Path::from("job/savepoints/b.json"), content()).await.unwrap();
        assert_eq!(read(&store, "job/savepoints/b.json").await.unwrap(), content());
        assert_eq!(store.objects().head(&name).await.unwrap().size, 7);
        let listed = |store: Store| async move {
            let mut names = store.list(&Path::from("job"), None).await.unwrap();
            names.sort();
            names
        };
        assert_eq!(listed(store.clone()).await, listed(other.clone()).await);
        assert_eq!(listed(store.clone()).await.len(), 2);
        store.objects().put(&name, PutPayload::from_static(b"new")).await.unwrap();
        assert_eq!(read(&other, name.as_ref()).await.unwrap(), "new");
        for _ in 0..2 {
            store.delete(&name).await.unwrap();
        }
        assert!(matches!(read(&store, name.as_ref()).await, Err(Error::NotFound { .. })));
        assert!(matches!(read(&store, "no/folder/x").await, Err(Error::NotFound { .. })));
        assert!(store.list(&Path::from("no/folder"), None).await.unwrap().is_empty());
        assert_eq!(listed(store.clone()).await.len(), 1);
    }

    #[tokio::test]
    async fn no_link_is_followed_whether_something_is_read_written_listed_or_deleted() {
        let (folder, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let secret = outside.path().join("x.json");
        std::fs::write(&secret, "secret").unwrap();
        let job = folder.path().join("job");
        std::fs::create_dir_all(job.join("real")).unwrap();
        symlink(outside.path(), job.join("linked")).unwrap();
        symlink(&secret, job.join("real/x.json")).unwrap();
        symlink(outside.path().join("made"), job.join("real/made.json")).unwrap();
        rustix::fs::mknodat(CWD, job.join("real/pipe"), FileType::Fifo, Mode::from_raw_mode(0o666), 0).unwrap();
        File::create(job.join("real/large")).unwrap().set_len(LARGEST + 1).unwrap();
        let store = beneath(folder.path());
        for name in ["job/linked/x.json", "job/real/x.json", "job/real/pipe", "job/real/large"] {
            let refused = read(&store, name).await.unwrap_err();
            assert!(matches!(refused, Error::Generic { .. }), "{name}: {refused}");
        }
        assert_eq!(store.list(&Path::from("job"), None).await.unwrap(), [Path::from("job/real/large")]);
        assert!(store.list(&Path::from("job/linked"), None).await.is_err());
        for name in ["job/linked/new.json", "job/linked/below/new.json"] {
            store.create(&Path::from(name), Bytes::new()).await.unwrap_err();
            store.objects().put(&Path::from(name), PutPayload::new()).await.unwrap_err();
        }
        assert_eq!(
            store.create(&Path::from("job/real/made.json"), Bytes::new()).await.unwrap(),
            Created::AlreadyExists
        );
        store.delete(&Path::from("job/linked/x.json")).await.unwrap_err();
        // The link goes, and not what it leads to.
        store.delete(&Path::from("job/real/x.json")).await.unwrap();
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret");
    }

    #[tokio::test]
    async fn what_is_written_belongs_to_the_owner_whatever_the_umask_is() {
        let folder = tempfile::tempdir().unwrap();
        let own = rustix::process::geteuid();
        // Only root can give files away.
        let owner = if own.is_root() { (65534, 65533) } else { (own.as_raw(), rustix::process::getegid().as_raw()) };
        let store = Store::over(Arc::new(Beneath::open(folder.path(), owner).unwrap()), "folder");
        let before = rustix::process::umask(Mode::from_raw_mode(0o077));
        let created = store.create(&Path::from("job/pins/1.json"), Bytes::new()).await;
        rustix::process::umask(before);
        created.unwrap();
        for (name, mode) in [("job", 0o755), ("job/pins", 0o755), ("job/pins/1.json", 0o644)] {
            let metadata = folder.path().join(name).metadata().unwrap();
            assert_eq!((metadata.uid(), metadata.gid(), metadata.mode() & 0o777), (owner.0, owner.1, mode), "{name}");
        }
    }
}
