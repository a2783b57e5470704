//! An opened store.

use std::sync::Arc;
use std::time::Duration;

use fluvial_connector::{Error, ErrorKind};
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::local::LocalFileSystem;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};

use rustix::fs::{Access, access};

use crate::Trouble;
use crate::cost::Requests;
use crate::http::{Connector, Counts};
use crate::location::{Cloud, Location, LocationError};
use crate::trouble::said_by;

/// How often a journal is appended to on a folder at most: a record costs two fsyncs and a third of a millisecond of CPU,
/// whatever it holds.
const FOLDER_APPENDS_EVERY: Duration = Duration::from_millis(4);
/// How often a journal is appended to on the network at most, where each request costs money and takes some 30 ms.
const BUCKET_APPENDS_EVERY: Duration = Duration::from_millis(100);

/// A store. It is cheap to clone.
#[derive(Clone, Debug)]
pub struct Store {
    objects: Arc<dyn ObjectStore>,
    /// What the names of all objects begin with.
    root: Path,
    described: Arc<str>,
    remote: bool,
    counts: Arc<Counts>,
}

impl Store {
    /// Opens the store at a URL, and creates it if it is a folder that does not exist. Nothing is asked of a store on the
    /// network yet.
    ///
    /// # Errors
    /// As [`Store::open`], and if the folder cannot be created.
    pub fn open_or_create(url: &str) -> Result<Self, Error> {
        let location = location(url)?;
        if let Location::Folder { path, .. } = &location {
            std::fs::create_dir_all(path).map_err(|e| {
                let what = format!("cannot create the store's folder '{}'", path.display());
                Error::caused(ErrorKind::Configuration, what, e)
            })?;
        }
        Self::at(location)
    }

    /// Opens the store at a URL. Every write to a folder is fsynced.
    ///
    /// # Errors
    /// [`ErrorKind::Configuration`] for a URL that names no store, for a folder that does not exist, and for environment
    /// variables that make no sense.
    pub fn open(url: &str) -> Result<Self, Error> {
        let location = location(url)?;
        match &location {
            Location::Folder { path, .. } if !path.exists() => {
                Err(refused(url, "it does not exist, and only `run` creates one; is --store right?"))
            }
            _ => Self::at(location),
        }
    }

    /// Opens the store at a URL for the job whose objects are in `job`, and creates nothing: a folder that does not exist, and
    /// that [`Store::open_or_create`] can create, is an empty store.
    ///
    /// # Errors
    /// As [`Store::open_or_create`], as far as can be told.
    pub fn look(url: &str, job: &str) -> Result<Self, Error> {
        let location = location(url)?;
        let Location::Folder { path, .. } = &location else { return Self::at(location) };
        // In a cluster only the folder of the job may belong to its user.
        let of_job = path.join(job);
        let exists = of_job.ancestors().find(|folder| folder.exists());
        // The parent of a name without folders is empty.
        let exists = exists.filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
        let use_it = Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK;
        let refused = |error: std::io::Error| {
            let what = format!(
                "cannot use the store's folder '{}': let the user that runs the job read and write '{}'",
                path.display(),
                exists.display()
            );
            Error::caused(ErrorKind::Configuration, what, error)
        };
        if !exists.is_dir() {
            return Err(refused(std::io::Error::from(std::io::ErrorKind::NotADirectory)));
        }
        access(exists, use_it).map_err(|error| refused(error.into()))?;
        if exists == path.as_path() || exists == of_job {
            return Self::at(location);
        }
        Ok(Self::over(Arc::new(InMemory::new()), &location.to_string()))
    }

    /// A store on objects that are somewhere else; `described` names it in messages.
    pub fn over(objects: Arc<dyn ObjectStore>, described: &str) -> Self {
        Self { objects, root: Path::default(), described: described.into(), remote: false, counts: Arc::default() }
    }

    fn at(location: Location) -> Result<Self, Error> {
        let described: Arc<str> = location.to_string().into();
        let counts = Arc::<Counts>::default();
        let failed = |e: object_store::Error| {
            let what = format!("cannot open the store '{described}'");
            Error::caused(ErrorKind::Configuration, what, said_by(&e))
        };
        let (objects, root, remote): (Arc<dyn ObjectStore>, _, _) = match location {
            Location::Folder { path, .. } => {
                let folder = LocalFileSystem::new_with_prefix(path).map_err(failed)?.with_fsync(true);
                (Arc::new(folder), Path::default(), false)
            }
            Location::Bucket { cloud, bucket, prefix } => {
                (open_bucket(cloud, bucket, Arc::clone(&counts)).map_err(failed)?, prefix, true)
            }
        };
        Ok(Self { objects, root, described, remote, counts })
    }

    /// The objects, with their full names.
    #[must_use]
    pub fn objects(&self) -> &Arc<dyn ObjectStore> {
        &self.objects
    }

    /// The full name of an object or folder of this store.
    #[must_use]
    pub fn path(&self, name: &str) -> Path {
        Path::from(format!("{}/{name}", self.root))
    }

    /// The store's location, for messages.
    #[must_use]
    pub fn describe(&self) -> &str {
        &self.described
    }

    /// The location of an object, by its full name, for messages.
    #[must_use]
    pub fn describe_object(&self, path: &Path) -> String {
        let within = path.as_ref().strip_prefix(self.root.as_ref()).unwrap_or(path.as_ref());
        format!("{}/{}", self.described, within.trim_start_matches('/'))
    }

    /// Whether the store is on the network, where each request costs money and may fail in more ways.
    #[must_use]
    pub fn is_remote(&self) -> bool {
        self.remote
    }

    /// The least time between two appends to a journal, unless the user says otherwise.
    #[must_use]
    pub fn appends_every(&self) -> Duration {
        if self.remote { BUCKET_APPENDS_EVERY } else { FOLDER_APPENDS_EVERY }
    }

    /// How many requests this process has made so far, if the store charges for them.
    #[must_use]
    pub fn charged_requests(&self) -> Option<u64> {
        self.is_remote().then(|| self.requests().sum() as u64)
    }

    /// The requests that this process has made so far. Those to a folder are not counted.
    #[must_use]
    pub fn requests(&self) -> Requests {
        self.counts.so_far()
    }

    /// Returns the error for an operation that failed on an object, given by its full name.
    #[must_use]
    pub fn failed(&self, operation: &str, path: &Path, source: object_store::Error) -> Error {
        let trouble = Trouble::of(&source);
        let what = format!("cannot {operation} '{}'{}", self.describe_object(path), trouble.cure());
        Error::caused(trouble.kind(), what, said_by(&source))
    }
}

/// Opens a bucket with the credentials that the environment gives.
fn open_bucket(cloud: Cloud, bucket: String, counts: Arc<Counts>) -> object_store::Result<Arc<dyn ObjectStore>> {
    // It fails where the program has chosen another provider, which serves as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let connector = Connector(counts);
    Ok(match cloud {
        Cloud::S3 => {
            let builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_http_connector(connector);
            let set =
                |builder: AmazonS3Builder, (key, value)| builder.with_config(AmazonS3ConfigKey::Client(key), value);
            let builder = TIMES.into_iter().fold(builder, set).with_retry(retry());
            // One object at a time is deleted, which every store that speaks S3's protocol can do.
            Arc::new(builder.with_disable_bulk_delete(true).build()?)
        }
        Cloud::Google => {
            let builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_http_connector(connector);
            let set = |builder: GoogleCloudStorageBuilder, (key, value)| {
                builder.with_config(GoogleConfigKey::Client(key), value)
            };
            Arc::new(TIMES.into_iter().fold(builder, set).with_retry(retry()).build()?)
        }
        Cloud::Azure => {
            let builder = MicrosoftAzureBuilder::from_env().with_container_name(bucket).with_http_connector(connector);
            let set =
                |builder: MicrosoftAzureBuilder, (key, value)| builder.with_config(AzureConfigKey::Client(key), value);
            Arc::new(TIMES.into_iter().fold(builder, set).with_retry(retry()).build()?)
        }
    })
}

/// The times of the HTTP client. [`Connector`] bounds how long an answer takes to begin, by the size of the request, so the
/// time of a whole request is left open; an answer that has begun may pause for so long.
const TIMES: [(ClientConfigKey, &str); 3] =
    [(ClientConfigKey::Timeout, "1h"), (ClientConfigKey::ReadTimeout, "60s"), (ClientConfigKey::ConnectTimeout, "3s")];

/// Few and soon: a job waits out an outage by `--patience`, and reads before it judges what a failed create has done.
fn retry() -> RetryConfig {
    let (first, longest) = (Duration::from_millis(100), Duration::from_secs(1));
    let backoff = BackoffConfig { init_backoff: first, max_backoff: longest, base: 2.0 };
    RetryConfig { backoff, max_retries: 3, retry_timeout: Duration::from_secs(3) }
}

fn location(url: &str) -> Result<Location, Error> {
    url.parse().map_err(|why: LocationError| refused(if why.may_repeat() { url } else { "…" }, &why.to_string()))
}

fn refused(url: &str, why: &str) -> Error {
    Error::new(ErrorKind::Configuration, format!("cannot open the store '{url}': {why}"))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_is_no_store_is_refused_without_repeating_a_secret() {
        for (url, part) in [
            ("gopher://x", "'gopher://x': a store is a folder, or a URL"),
            ("s3://KEY:SECRET@bucket/a", "credentials, regions and endpoints are set by environment variables"),
            ("/does/not/exist", "only `run` creates one"),
        ] {
            let error = Store::open(url).unwrap_err();
            assert_eq!(error.kind, ErrorKind::Configuration);
            assert!(error.to_string().contains(part) && !error.to_string().contains("SECRET"), "{error}");
        }
    }

    #[test]
    fn who_looks_creates_no_folder_and_is_told_of_one_that_cannot_be_created() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
        assert_eq!(Store::look(&path("a/b"), "job").unwrap().describe(), path("a/b"));
        assert!(!folder.path().join("a").exists());
        assert!(Store::look(folder.path().to_str().unwrap(), "job").is_ok());
        std::fs::write(path("file"), "").unwrap();
        for under in ["file", "file/store"] {
            let error = Store::look(&path(under), "job").unwrap_err();
            assert!(error.kind == ErrorKind::Configuration && error.to_string().contains("/file"), "{error}");
        }
    }

    #[test]
    fn who_looks_needs_the_folder_of_the_job_only() {
        let folder = tempfile::tempdir().unwrap();
        let look = || Store::look(folder.path().to_str().unwrap(), "job");
        std::fs::create_dir(folder.path().join("job")).unwrap();
        assert!(look().is_ok());
        std::fs::remove_dir(folder.path().join("job")).unwrap();
        std::fs::write(folder.path().join("job"), "").unwrap();
        assert!(look().unwrap_err().to_string().ends_with("job'"));
    }

    #[test]
    fn an_object_is_described_by_its_url() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("file://{}/store/", folder.path().display());
        let store = Store::open_or_create(&url).unwrap();
        let path = store.path("job/journal/0.json");
        assert_eq!(store.describe_object(&path), format!("{url}job/journal/0.json"));
        assert!(!store.is_remote());
        let bucket = Location::Bucket { cloud: Cloud::S3, bucket: "bucket".to_owned(), prefix: Path::from("a/b") };
        let bucket = Store::at(bucket).unwrap();
        let path = bucket.path("job/journal/0.json");
        assert_eq!(path.as_ref(), "a/b/job/journal/0.json");
        assert_eq!(bucket.describe_object(&path), "s3://bucket/a/b/job/journal/0.json");
        assert!(bucket.is_remote());
    }
}
